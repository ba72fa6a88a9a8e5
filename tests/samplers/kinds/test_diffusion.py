"""`{kind: diffusion}`: a model from a folder, or one trained from a file; what is refused before a run begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from aims_pax.errors import SettingsError
from aims_pax.labelled_data import structure_text
from aims_pax.models.diffusion.model_files import read_hparams
from aims_pax.sampler import SamplingError
from aims_pax.samplers import sampler
from aims_pax.settings.samplers import KINDS
from aims_pax.systems import System
from tests.md.potentials import LennardJones
from tests.models.diffusion.structures import adsorbates, trimers
from tests.samplers.contract import MD

SYSTEM = System("drop", trimers(1, 9)[0])
TINY = {"steps": 12, "retries": 1000, "train_steps": 60, "data": "a.xyz"}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    frames = [*trimers(100), *adsorbates(3)]
    (tmp_path / "a.xyz").write_text("".join(structure_text(f.to_atoms()) for f in frames))
    return tmp_path


def made(**keys):
    return sampler("diffusion", LennardJones(), md=MD, **{**TINY, **keys})


def drawn(one, n=2, seed=1):
    return list(one.sample([SYSTEM], n, np.random.default_rng(seed)))


def test_a_model_is_trained_once_from_the_structures_of_the_system(here, caplog):
    first = drawn(made())
    (folder,) = (here / "logs" / "diffusion").iterdir()
    assert folder.name.startswith("drop-")
    written = (folder / "checkpoints" / "last_model.ckpt").stat().st_mtime_ns
    assert [s.frame.id for s in drawn(made())] == [s.frame.id for s in first], (
        "a restart: the same structures"
    )
    assert (folder / "checkpoints" / "last_model.ckpt").stat().st_mtime_ns == written
    assert first[0].origin["sampler"] == "diffusion"
    by_folder = sampler(
        "diffusion", LennardJones(), md=MD, model=str(folder.relative_to(here)), steps=12, retries=1000
    )
    assert [s.frame.id for s in drawn(by_folder)] == [s.frame.id for s in first]
    with pytest.raises(SettingsError, match="property: energy: not a property of this model"):
        sampler("diffusion", LennardJones(), md=MD, model=str(folder), property={"energy": 1.0})


def test_systems_without_enough_structures_are_refused(here):
    pair = trimers(1)[0].chosen([0, 1], np.eye(3)[:2] * 4)
    for frame, said in (
        (pair, "no structure with its 2 atoms"),
        (adsorbates(1)[0], "confinement: mandatory"),
    ):
        with pytest.raises(SamplingError, match=said):
            list(made().sample([System("other", frame)], 1, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"data": None}, "give model, .* or data"),
        ({"model": "logs/version_0"}, "one of them"),
        ({"data": "b.xyz"}, "b.xyz: no such file"),
        (
            {"data": None, "model": "logs/version_0", "train_steps": 100},
            "not a folder that aims-PAX diffusion",
        ),
        ({"property": {"energy": 1.0}}, "needs model"),
    ],
)
def test_a_run_and_its_check_refuse_the_same(here, keys, said):
    with pytest.raises(SettingsError, match=said):
        made(**keys)
    from aims_pax.settings.sample import read_sample

    asked = {k: v for k, v in {"kind": "diffusion", **TINY, **keys}.items() if v is not None}
    config = {"path_to_geometry": "a.xyz@0", "output": "o.xyz", "n_per_geometry": 1, "SAMPLERS": [asked]}
    (here / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SettingsError, match=rf"SAMPLERS\.0.*{said}"):
        read_sample(here / "config.yaml")


def test_its_cost_is_that_of_relaxation():
    from aims_pax.settings.samplers import SamplingDemand

    kind = KINDS["diffusion"]
    demand = SamplingDemand(10, 5, (SYSTEM,), 3)
    assert kind(kind="diffusion", data="a.xyz").cost(demand).evaluations == {}
    assert kind(kind="diffusion", data="a.xyz", relax=4).cost(demand).evaluations == {
        "diffusion_relaxation": 40
    }


def test_it_trains_as_many_steps_as_asked_and_can_be_inspected(here):
    from aims_pax.commands.diffusion_inspect import inspect_diffusion
    from aims_pax.models.diffusion.model_files import read_checkpoint

    drawn(made(train_steps=23))
    (folder,) = (here / "logs" / "diffusion").iterdir()
    assert read_checkpoint(folder / "checkpoints" / "last_model.ckpt")["counts"][1] == 23
    assert read_hparams(folder).source["structures"] == 100, "those of the other system are left out"
    found = inspect_diffusion(folder, 4, 1, 4)
    assert found.samples[0].x.tolist() == [18] * 3


def test_fixed_atoms_that_only_the_data_have_are_refused_before_the_training(here):
    frames = adsorbates(100)
    (here / "a.xyz").write_text("".join(structure_text(f.to_atoms()) for f in frames))
    free = replace(frames[0], fixed=None)
    one = made(confinement=[-1, 5])
    with pytest.raises(SamplingError, match=r"slab: a.xyz has fixed atoms and the system has none"):
        list(one.sample([System("slab", free)], 1, np.random.default_rng(0)))
    assert not (here / "logs").exists()
