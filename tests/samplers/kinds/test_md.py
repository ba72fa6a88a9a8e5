"""Structures from MD with any potential."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed

from aims_pax.errors import Abandoned, NotConverged
from aims_pax.frames import Frame
from aims_pax.md import MDState, advance
from aims_pax.potential import Evaluation
from aims_pax.sampler import SamplingError
from aims_pax.samplers.kinds.md import MDSampler
from aims_pax.systems import System
from tests.md.potentials import LennardJones, cluster, crystal
from tests.md.settings import langevin, npt


class Sometimes(LennardJones):
    """Explodes or fails for structures of three atoms at the given evaluations of theirs."""

    def __init__(self, failing, how: str = "explode") -> None:
        super().__init__()
        self.failing, self.how, self.calls = set(failing), how, itertools.count()

    def bind(self, frames):
        bound = super().bind(frames)
        small = any(len(f) == 3 for f in frames)
        start = sum(len(f) for f in frames[: [len(f) for f in frames].index(3)]) if small else 0

        def call(positions, cells, *, stress=False):
            said = bound(positions, cells)
            if small and next(self.calls) in self.failing:
                if self.how == "fail":
                    raise NotConverged("no convergence after 100 cycles")
                if self.how == "calculator":
                    raise CalculationFailed("no convergence after 100 cycles")
                said.forces[:, start : start + 3] = float("nan")
            return Evaluation(said.energies, said.forces)

        call.members, call.device = bound.members, bound.device
        return call


SYSTEMS = [System("five", cluster(5)), System("three", cluster(3))]


def sampled(potential, n=2, skip=4, systems=SYSTEMS, md_of=lambda s: langevin(40)):
    return list(MDSampler(potential, md_of, skip, "lj").sample(systems, n, np.random.default_rng(7)))


def test_structures_lie_on_one_trajectory_skip_steps_apart():
    rng = np.random.default_rng(7)
    states = [MDState.start(s.frame, 40, int(rng.integers(2**63))) for s in SYSTEMS]
    ten = advance(states, LennardJones(), 12, [langevin(40)] * 2, observe_every=4)
    expected = [a.observed[k].frame() for k in range(3) for a in ten]
    samples = sampled(LennardJones(), n=3)
    assert [s.frame for s in samples] == expected
    assert [s.origin["step"] for s in samples] == [4, 4, 8, 8, 12, 12]
    assert all(s.label is None for s in samples)


def test_all_systems_share_one_evaluation_a_step():
    potential = LennardJones()
    sampled(potential, n=3, skip=4)
    assert potential.evaluations == 3 * 5


def test_each_system_has_md_settings_of_its_own():
    md = {"five": langevin(10), "three": langevin(60)}
    samples = sampled(LennardJones(), md_of=lambda s: md[s.name])
    assert [s.origin["temperature"] for s in samples[:2]] == [10, 60]


@pytest.mark.parametrize("how", ["explode", "fail", "calculator"])
def test_a_trajectory_that_explodes_begins_again_and_the_others_go_on(how, caplog):
    with caplog.at_level(logging.WARNING):
        samples = sampled(Sometimes({2}, how), n=3)
    assert [s.origin["system"] for s in samples] == ["five", "three"] * 3
    assert [s.origin["step"] for s in samples] == [4, 4, 8, 8, 12, 12]
    undisturbed = sampled(LennardJones(), n=3)
    assert [s.frame for s in samples[::2]] == [s.frame for s in undisturbed[::2]]
    if how == "explode":
        assert "three · energy or forces are not finite at step 2 · starting again" in caplog.text
        assert not {s.frame for s in samples[1::2]} & {s.frame for s in undisturbed[1::2]}


def test_a_reference_that_fails_costs_only_the_system_it_fails_for(caplog):
    with caplog.at_level(logging.WARNING):
        samples = sampled(Sometimes({2, 4}, "fail"), n=1)
    assert len(samples) == 2
    assert "three · NotConverged: no convergence after 100 cycles · starting again" in caplog.text


@pytest.mark.parametrize("how", ["explode", "fail", "calculator"])
def test_after_five_explosions_in_a_row_it_says_what_to_do(how):
    with pytest.raises(SamplingError, match=r"three: .*lj failed 5 times in a row.*MD.timestep \(2.0 fs\)"):
        sampled(Sometimes(range(1000), how))


def test_explosions_are_counted_in_a_row_only():
    # rounds of 5 evaluations: three explosions, a structure, three explosions, a structure
    failing = {0, 1, 2, 8, 9, 10}
    assert len(sampled(Sometimes(failing), n=2)) == 4


def test_a_hopeless_starting_geometry_is_named():
    systems = [System("overlap", Frame([6, 6], [[0, 0, 0], [0.3, 0, 0]]))]
    with pytest.raises(SamplingError, match=r"overlap: .*pair C–C 0.30 Å"):
        sampled(LennardJones(), systems=systems)


def test_a_caller_continues_from_the_last_frames():
    first = sampled(LennardJones(), n=1)
    again = [System(s.name, sample.frame) for s, sample in zip(SYSTEMS, first, strict=True)]
    second = sampled(LennardJones(), n=1, systems=again)
    for before, after, system in zip(first, second, SYSTEMS, strict=True):
        assert after.frame != before.frame
        assert 0 < abs(after.frame.positions - before.frame.positions).max() < 1
        assert after.origin["system"] == system.name


def test_structures_come_as_they_are_made():
    potential = LennardJones()
    stream = MDSampler(potential, lambda s: langevin(40), 4).sample(SYSTEMS, 10, np.random.default_rng(1))
    next(stream)
    assert potential.evaluations == 5


def test_it_can_be_interrupted():
    potential = LennardJones()
    sampler = MDSampler(potential, lambda s: langevin(40), 4, stop=lambda: potential.evaluations > 6)
    with pytest.raises(Abandoned):
        list(sampler.sample(SYSTEMS, 10, np.random.default_rng(1)))


def test_molecules_and_cells_share_a_batch():
    systems = [*SYSTEMS, System("crystal", crystal(1, 5.4))]
    assert len(sampled(LennardJones(), systems=systems)) == 6


def test_no_steps_between_structures_are_refused():
    with pytest.raises(ValueError, match="skip_steps"):
        MDSampler(LennardJones(), lambda s: langevin(), 0)


def test_a_ramp_goes_over_the_steps_of_one_call():
    samples = sampled(LennardJones(), n=4, skip=5, md_of=lambda s: langevin((20.0, 60.0)))
    assert [s.origin["temperature"] for s in samples[::2]] == [30, 40, 50, 60]


def test_a_crystal_is_sampled_at_constant_pressure():
    solid = System("solid", crystal(1, 5.2))
    samples = sampled(LennardJones(), systems=[*SYSTEMS, solid], md_of=lambda s: npt("MTK", 40, taup=50.0))
    assert [np.array_equal(s.frame.cell, solid.frame.cell) for s in samples[2::3]] == [False, False]


def test_a_system_without_an_atom_that_can_move_is_refused():
    frozen = System("frozen", replace(cluster(3), fixed=np.ones((3, 3), bool)))
    with pytest.raises(SamplingError, match="frozen: all atoms are fixed"):
        next(MDSampler(LennardJones(), lambda _: langevin(), 1).sample([frozen], 1, np.random.default_rng(0)))


def several(n_trajectories, skip=4, potential=None):
    return MDSampler(
        potential or LennardJones(), lambda s: langevin(40), skip, "lj",
        continues=True, num_trajectories=n_trajectories,
    )  # fmt: skip


def test_several_trajectories_of_a_system_give_its_structures_in_turn():
    potential = LennardJones()
    samples = list(several(3, potential=potential).sample(SYSTEMS, 6, np.random.default_rng(7)))
    assert [s.origin["system"] for s in samples] == ["five", "three"] * 6
    assert [s.origin["trajectory"] for s in samples[::2]] == [0, 1, 2, 0, 1, 2]
    assert [s.origin["step"] for s in samples[::2]] == [4, 4, 4, 8, 8, 8]
    assert len({s.frame for s in samples}) == 12
    assert potential.evaluations == 2 * 5  # two rounds, all six trajectories in one batch


def test_structures_of_several_trajectories_do_not_depend_on_the_batches():
    def steps_and_trajectories(batches):
        sampler, rng = several(3), np.random.default_rng(7)
        samples = [s for n in batches for s in sampler.sample(SYSTEMS[:1], n, rng)]
        return [(s.origin["step"], s.origin["trajectory"]) for s in samples]

    assert steps_and_trajectories([7]) == steps_and_trajectories([2, 1, 4]) == steps_and_trajectories([1] * 7)


def test_several_trajectories_continue_from_their_state_arrays():
    first = several(3)
    list(first.sample(SYSTEMS, 4, np.random.default_rng(7)))
    second = several(3)
    second.load_state_arrays(first.state_arrays())
    ten = [list(each.sample(SYSTEMS, 5, np.random.default_rng(8))) for each in (first, second)]
    assert [(s.frame, s.origin) for s in ten[0]] == [(s.frame, s.origin) for s in ten[1]]
    assert {s.origin["step"] for s in ten[0]} == {8, 12}


def test_one_trajectory_reads_the_state_of_several_and_several_that_of_one():
    for before, after in ((1, 3), (3, 1)):
        first, second = several(before), several(after)
        (last, *_) = [s for s in first.sample(SYSTEMS[:1], before, np.random.default_rng(7))]
        second.load_state_arrays(first.state_arrays())
        steps = [s.origin["step"] for s in second.sample(SYSTEMS[:1], after, np.random.default_rng(8))]
        assert last.origin["step"] == 4
        assert sorted(steps) == ([4, 4, 8] if after == 3 else [8])


def test_of_several_trajectories_only_the_one_that_fails_begins_again(caplog):
    sampler = several(2, potential=Sometimes({7}))
    with caplog.at_level(logging.WARNING):
        samples = list(sampler.sample([SYSTEMS[1]], 4, np.random.default_rng(7)))
    assert caplog.text.count("starting again") == 1
    assert [s.origin["trajectory"] for s in samples] == [0, 1, 0, 1]
    assert [s.origin["step"] for s in samples] == [4, 4, 4, 8]


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_trajectory_is_refused(count):
    with pytest.raises(ValueError, match="num_trajectories"):
        several(count)


def test_a_ramp_extends_over_the_steps_of_each_of_several_trajectories():
    ramp = langevin((20.0, 60.0))
    sampler = MDSampler(LennardJones(), lambda s: ramp, 4, num_trajectories=2)
    samples = list(sampler.sample(SYSTEMS[:1], 6, np.random.default_rng(7)))
    assert [s.origin["step"] for s in samples] == [4, 4, 8, 8, 12, 12]
    assert [s.origin["temperature"] for s in samples][-2:] == [60.0, 60.0]
