"""Structures from MD with the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ase.calculators.emt import EMT

from aims_pax.potential import CalculatorPotential, LabelsBound
from aims_pax.samplers.ab_initio_md import AbInitioMDSampler
from aims_pax.samplers.foundation_md import MDSampler
from aims_pax.systems import System
from tests.md.potentials import LennardJones, cluster, crystal
from tests.md.settings import langevin


class Store:
    """A reference that keeps every label by frame id, as the labeller does."""

    def __init__(self) -> None:
        self.kept, self.calculated = {}, 0

    def labels(self, frames):
        for frame in frames:
            if frame.id not in self.kept:
                self.calculated += 1
                self.kept[frame.id] = LennardJones().labels([frame])[0]
        return [self.kept[f.id] for f in frames]

    def bind(self, frames):
        return LabelsBound(self.labels, frames)


SYSTEMS = [System("five", cluster(5)), System("crystal", crystal(1, 5.4))]


def test_every_structure_has_its_label_and_no_calculation_is_done_twice():
    store = Store()
    sampler = AbInitioMDSampler(store, lambda s: langevin(40), 3, "aimd")
    samples = list(sampler.sample(SYSTEMS, 4, np.random.default_rng(3)))
    # 3 steps each and the forces at the start; a round begins where the last one ended, which the store knows
    assert store.calculated == 2 * (1 + 4 * 3)
    for sample in samples:
        assert sample.label is store.kept[sample.frame.id]
        assert sample.labelled().origin["sampler"] == "aimd"


def test_it_moves_as_with_any_potential():
    rng = [np.random.default_rng(3) for _ in range(2)]
    one = list(AbInitioMDSampler(Store(), lambda s: langevin(40), 3).sample(SYSTEMS, 2, rng[0]))
    other = list(MDSampler(Store(), lambda s: langevin(40), 3).sample(SYSTEMS, 2, rng[1]))
    assert [s.frame for s in one] == [s.frame for s in other]


def test_labels_of_a_calculator_are_those_of_the_rounded_structure():
    copper = System("copper", replace(crystal(1, 3.6), numbers=[29] * 4))
    potential = CalculatorPotential(EMT)
    sampler = AbInitioMDSampler(potential, lambda s: langevin(300, 0.01), 3)
    [sample] = sampler.sample([copper], 1, np.random.default_rng(3))
    again = potential.labels([sample.frame])[0]
    assert np.allclose(sample.label.forces, again.forces, atol=1e-9)
    assert np.allclose(sample.label.stress, again.stress, atol=1e-9)
