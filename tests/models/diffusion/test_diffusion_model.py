"""Diffusion models as learners: trained in visits, restored bit for bit."""

import numpy as np
import pytest
import torch

from aims_pax.errors import Abandoned, RestartError
from aims_pax.frames import Label, LabelledFrame
from aims_pax.models.base import MemberData
from aims_pax.models.diffusion.diffusion_model import DiffusionModel
from aims_pax.models.diffusion.generation import Generating
from aims_pax.models.diffusion.model_files import read_checkpoint
from aims_pax.record.arrays import pack_arrays, unpack_arrays
from aims_pax.sampler import Sampler
from aims_pax.systems import System
from tests.models.diffusion.structures import settings, trimers

FRAMES = [LabelledFrame(f, Label(float(k), np.zeros((3, 3)))) for k, f in enumerate(trimers(40))]
DATA = {k: MemberData(FRAMES[:32], FRAMES[32:]) for k in (0, 1)}


def model(**keys) -> DiffusionModel:
    return DiffusionModel(("a", "b"), FRAMES, settings(**keys))


def test_visits_train_all_members_and_a_restored_one_continues_bit_for_bit():
    first = model()
    assert not first.trained
    results = first.train(DATA, 2)
    assert first.trained
    assert [(r.name, r.epochs) for r in results] == [("a", 2), ("b", 2)]
    assert all(np.isfinite(r.valid_loss) for r in results)
    again = model()
    again.restore(unpack_arrays(pack_arrays(first.arrays(), {}))[0])
    assert (again.version, again.visits) == (1, 1)
    for m in (first, again):
        m.train(DATA, 1)
    a, b = first.arrays(), again.arrays()
    assert a.keys() == b.keys()
    # seconds differ
    assert all(np.array_equal(a[k], b[k], equal_nan=True) for k in a if k != "names" and "numbers" not in k)
    assert any((a[f"0/{k}"] != a[f"1/{k}"]).any() for k in first.member_arrays(0) if k.startswith("weights"))


def test_a_stopped_visit_changes_nothing_and_another_architecture_is_refused():
    made = model()
    before = made.arrays()
    with pytest.raises(Abandoned):
        made.train(DATA, 1, stop=lambda: True)
    assert all((before[k] == v).all() for k, v in made.arrays().items())
    with pytest.raises(RestartError, match="another architecture"):
        model(feature_size=16).load_member(0, made.member_arrays(0))


def test_a_visit_that_is_stopped_after_some_steps_changes_nothing_either():
    made = model()
    made.train(DATA, 1)
    before, calls = made.arrays(), iter(range(9))
    with pytest.raises(Abandoned):
        made.train(DATA, 2, stop=lambda: next(calls) == 3)
    assert next(calls) == 4
    after = made.arrays()
    assert all(np.array_equal(before[k], v, equal_nan=v.dtype.kind == "f") for k, v in after.items())


def test_it_gives_a_sampler_and_saves_plain_values(tmp_path):
    made = model()
    made.train(DATA, 1)
    sampler = made.sampler(Generating(steps=4, guarded=False))
    assert isinstance(sampler, Sampler)
    assert len(list(sampler.sample([System("drop", FRAMES[0].frame)], 2, np.random.default_rng(0)))) == 2
    made.save(0, tmp_path / "a.ckpt")
    state = read_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(state["average"]["network.held"], made.trainers[0].average["network.held"])
    assert made.describe(0)["noisers"] == ["Positions"]
