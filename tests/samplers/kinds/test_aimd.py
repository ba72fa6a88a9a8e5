"""Structures from MD with the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ase.calculators.emt import EMT

from aims_pax.errors import NotConverged
from aims_pax.potential import CalculatorPotential, LabelsBound
from aims_pax.samplers.kinds.aimd import AbInitioMDSampler
from aims_pax.samplers.kinds.md import MDSampler
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


class OfSeveralMethods(Store):
    """A reference with a method for each system; notes who was asked for whom, and how many at a time."""

    def __init__(self, methods, told=None, system_of=None) -> None:
        super().__init__()
        self.methods, self.system_of = methods, system_of
        self.told = [] if told is None else told

    def method_of(self, system):
        return self.methods[system]

    def of(self, system_of):
        return OfSeveralMethods(self.methods, self.told, system_of)

    def labels(self, frames):
        self.told.append([(self.system_of(f), f) for f in frames])
        return super().labels(frames)


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


def descent(sampler, systems, n=2):
    """Samples with everything the potential was asked for."""
    return list(sampler.sample(systems, n, np.random.default_rng(3))), sampler.potential.told


def test_the_reference_is_told_the_system_of_every_frame_and_asked_for_all_at_once():
    reference = OfSeveralMethods({"five": "a", "crystal": "b"})
    samples, told = descent(AbInitioMDSampler(reference, lambda s: langevin(40), 3), SYSTEMS)
    assert [len(step) for step in told] == ([2] * 4 + [1, 1]) * 2  # 3 steps and the start, then each label
    size = {s.name: len(s.frame) for s in SYSTEMS}
    assert all(size[name] == len(frame) for step in told for name, frame in step)
    plain = list(
        AbInitioMDSampler(Store(), lambda s: langevin(40), 3).sample(SYSTEMS, 2, np.random.default_rng(3))
    )
    assert [s.frame for s in samples] == [s.frame for s in plain]


def test_systems_that_differ_in_their_method_only_are_never_confused():
    frame = cluster(5)
    twins = [System("one", frame), System("two", frame.moved(frame.positions * 1.01))]
    different = OfSeveralMethods({"one": "a", "two": "b"})
    samples, told = descent(AbInitioMDSampler(different, lambda s: langevin(40), 3), twins)
    assert max(len(step) for step in told) == 1
    asked: dict[str, set[str]] = {}
    for step in told:
        for name, frame in step:
            asked.setdefault(frame.id, set()).add(name)
    assert [asked[s.frame.id] for s in samples] == [{"one"}, {"two"}] * 2  # in MD and for the label itself


def test_conformers_of_one_method_move_in_one_batch():
    frame = cluster(5)
    twins = [System("one", frame), System("two", frame.moved(frame.positions * 1.01))]
    _, told = descent(
        AbInitioMDSampler(OfSeveralMethods({"one": "a", "two": "a"}), lambda s: langevin(40), 3), twins
    )
    assert [len(step) for step in told[:4]] == [2] * 4


def test_one_of_several_that_fails_begins_again_under_its_own_name():
    class Fails(OfSeveralMethods):
        def of(self, system_of):
            return Fails(self.methods, self.told, system_of)

        def labels(self, frames):
            fives = [f for f in frames if len(f) == 5]
            if fives and len([s for s in self.told if any(n == "five" for n, _ in s)]) == 2:
                self.told.append([("five", fives[0])])
                raise NotConverged("the SCF cycle did not converge")
            return super().labels(frames)

    samples, told = descent(
        AbInitioMDSampler(Fails({"five": "a", "crystal": "b"}), lambda s: langevin(40), 3), SYSTEMS
    )
    size = {s.name: len(s.frame) for s in SYSTEMS}
    assert all(size[name] == len(frame) for step in told for name, frame in step)
    assert [s.origin["system"] for s in samples] == ["five", "crystal"] * 2
