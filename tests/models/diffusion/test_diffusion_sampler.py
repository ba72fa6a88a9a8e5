"""Systems get structures of their own: composition, order, fixed atoms."""

from dataclasses import replace

import numpy as np
import pytest

from aims_pax.frames import Frame, Label
from aims_pax.models.diffusion.diffusion_sampler import DiffusionSampler
from aims_pax.models.diffusion.generation import Generating
from aims_pax.sampler import SamplingError
from aims_pax.systems import System
from tests.models.diffusion.structures import adsorbates, trained, trimers

HOW = Generating(steps=4, guarded=False)


def sampler(kind: str) -> DiffusionSampler:
    return DiffusionSampler(lambda system: trained(kind)[:2], HOW)


@pytest.mark.parametrize("kind", ["types", "slab"])
def test_atoms_keep_their_order_and_fixed_ones_their_place(kind):
    frame = adsorbates(1, 7)[0].chosen([2, 0, 1], adsorbates(1, 7)[0].positions[[2, 0, 1]])
    for sample in sampler(kind).sample([System("slab", frame)], 3, np.random.default_rng(0)):
        assert sample.frame.numbers.tolist() == [46, 29, 79]
        assert (sample.frame.positions[1] == frame.positions[1]).all()
        assert sample.frame.moved(frame.positions) == frame


def test_a_system_that_the_model_does_not_know_is_refused_with_its_name():
    for kind, frame, said in (
        ("trimers", adsorbates(1)[0], "slab: the model was trained on structures that are without a cell"),
        ("slab", trimers(1)[0], "slab: the model was trained on structures that are periodic"),
        ("trimers", Frame([36] * 3, np.eye(3) * 3), "slab: Kr: the model was trained on Ar only"),
        (
            "slab",
            Frame([29, 79], [[0, 0, 0], [1, 1, 2]], np.diag([5, 5, 14]), [True, True, False]),
            "the system has no fixed atoms and the training structures have some",
        ),
    ):
        with pytest.raises(SamplingError, match=said):
            list(sampler(kind).sample([System("slab", frame)], 1, np.random.default_rng(0)))


def test_too_many_refusals_are_an_error_of_sampling():
    strict = DiffusionSampler(lambda system: trained()[:2], Generating(steps=4, covalent=10.0, retries=0))
    with pytest.raises(SamplingError, match="drop: 0 of 2 structures passed; refused: too close 2"):
        list(strict.sample([System("drop", trimers(1)[0])], 2, np.random.default_rng(0)))


class Charges:
    """Notes the charge and spin of what it evaluates."""

    def __init__(self):
        self.seen = set()

    def labels(self, frames):
        self.seen |= {(f.charge, f.spin) for f in frames}
        return [Label(0.0, np.zeros((len(f), 3))) for f in frames]


def test_the_potential_gets_the_charge_and_spin_of_the_system():
    potential = Charges()
    how = replace(HOW, relax=1, max_force=1.0, potential=potential)
    frame = replace(trimers(1)[0], charge=1.0, spin=2)
    made = DiffusionSampler(lambda system: trained("trimers")[:2], how)
    samples = list(made.sample([System("cation", frame)], 2, np.random.default_rng(0)))
    assert potential.seen == {(1.0, 2)}
    assert {(s.frame.charge, s.frame.spin) for s in samples} == {(1.0, 2)}


def test_a_model_of_another_charge_is_refused_and_one_of_no_charge_warned_of(caplog):
    model, data, _ = trained("trimers")
    cation = System("cation", replace(trimers(1)[0], charge=1.0))

    def sample(extra, system):
        made = DiffusionSampler(lambda system: (model, replace(data, extra=extra)), HOW)
        return list(made.sample([system], 1, np.random.default_rng(0)))

    for extra, system, said in (
        (
            {"charge": 1.0},
            System("atoms", trimers(1)[0]),
            "trained on structures with 1, the system has none",
        ),
        ({"charge": -1.0}, cation, "trained on structures with -1, the system has 1.0"),
    ):
        with pytest.raises(SamplingError, match=said):
            sample(extra, system)
    assert sample({"charge": 1.0}, cation)
    assert "charge" not in caplog.text
    assert sample({}, cation)
    assert "charge: 1, but the training structures of the diffusion model have none" in caplog.text


def test_another_periodicity_than_that_of_the_training_is_refused():
    frame = adsorbates(1)[0]
    with pytest.raises(SamplingError, match="trained on structures with pbc"):
        list(
            sampler("slab").sample(
                [System("slab", replace(frame, pbc=[True, False, False]))], 1, np.random.default_rng(0)
            )
        )


def test_atoms_of_one_element_with_different_moments_are_warned_of(caplog):
    """An antiferromagnet got its moments on other atoms in each structure, without a word."""
    made, frame = sampler("trimers"), trimers(1)[0]
    list(made.sample([System("equal", replace(frame, moments=[1, 1, 1]))], 1, np.random.default_rng(0)))
    assert "moments" not in caplog.text
    unlike = System("unlike", replace(frame, moments=[1, -1, 0]))
    for n in (1, 2):
        list(made.sample([unlike], n, np.random.default_rng(n)))
    assert caplog.text.count("unlike: initial moments of Ar differ") == 1
