"""Exploded trajectories are seen at once, and nothing else is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ase import units

from aims_pax.frames import Frame
from aims_pax.md import MDState, advance
from aims_pax.md.batch import Forces, MDBatch
from aims_pax.md.guard import Guard
from tests.md.potentials import LennardJones, Springs, cluster, crystal
from tests.md.settings import langevin, npt


def look(states: list[MDState], temperature: float = 300, energy: float = 0.0) -> dict[int, str]:
    batch = MDBatch.of(states, "cpu")
    motion = batch.motion()
    energies = torch.full((2, len(states)), energy, dtype=torch.float64)
    return Guard(batch, [temperature] * len(states)).faults(
        motion, energies, Forces(torch.zeros_like(motion.momenta)), 0
    )


def hydrogen(distance: float, step: int = 0, **system) -> MDState:
    return MDState.start(Frame([1, 1], [[0, 0, 0], [0, 0, distance]], **system), 300, 1, step)


def test_a_pair_too_close_is_named():
    assert look([hydrogen(0.74), hydrogen(0.3049, 1234)]) == {1: "pair H–H 0.30 Å at step 1 234"}
    assert look([hydrogen(0.32)]) == {}


def test_an_image_too_close_is_named_also_an_atoms_own():
    box = {"cell": np.diag([4.0, 4, 1.0]), "pbc": True}
    assert look([hydrogen(0.75, **box)]) == {0: "pair H–H 0.25 Å at step 0"}
    alone = Frame([55], [[0, 0, 0]], cell=np.diag([2.0, 5, 5]), pbc=True)
    assert look([MDState.start(alone, 300, 1)]) == {0: "pair Cs–Cs 2.00 Å at step 0"}


@pytest.mark.parametrize(("target", "limit"), [(100, 3000), (300, 3000), (500, 5000)])
def test_ten_times_the_target_and_at_least_3000_kelvin_is_too_hot(target, limit):
    state = MDState.start(cluster(7), 300, 1)

    def at(temperature: float) -> MDState:
        momenta = state.momenta * np.sqrt(temperature / state.temperature)
        return MDState(**{**vars(state), "momenta": momenta})

    assert look([at(limit * 0.999)], target) == {}
    [reason] = look([at(limit * 1.001)], target).values()
    assert reason == f"temperature {limit * 1.001:,.0f} K at step 0".replace(",", " ")


def test_a_state_with_nothing_free_is_never_hot():
    assert look([MDState.start(Frame([1], [[0, 0, 0]], fixed=[True]), 300, 1)]) == {}


@pytest.mark.parametrize("energy", [np.nan, np.inf])
def test_an_energy_that_is_not_finite_is_a_fault(energy):
    [reason] = look([hydrogen(0.74)], energy=energy).values()
    assert reason == "energy or forces are not finite at step 0"


@pytest.mark.parametrize("box", [{}, {"cell": np.eye(3) * 40, "pbc": True}], ids=["free", "periodic"])
@pytest.mark.parametrize("crowd", [0, 60])
def test_atoms_that_come_from_afar_are_caught_when_they_meet(box, crowd):
    """The list is made when they are 12 Å apart; they fly towards each other without a force."""
    far = np.array([[3.0 * (k % 12), 3.0 * (k // 12), 20] for k in range(crowd)]).reshape(-1, 3)
    positions = np.concatenate([[[1.0, 0, 0], [13.0, 0, 0]], far])
    frame = Frame([1, 1] + [2] * crowd, positions, **box)
    momenta = np.zeros((len(frame), 3))
    momenta[:2, 0] = [0.08, -0.08]
    still = MDState.start(frame, 0.0, 1)
    state = MDState(**{**vars(still), "momenta": momenta})
    [became] = advance([state], Springs(0.0), 4000, [langevin(300, 0.0, 1.0)])
    assert became.fault is not None
    assert became.fault.startswith("pair H–H 0.")
    gap = became.state.positions[1, 0] - became.state.positions[0, 0]
    speed = 2 * 0.08 / 1.008 * units.fs
    assert 0.31 - speed <= gap < 0.31
    assert became.state.step == pytest.approx((12 - 0.31) / speed, abs=1)


def test_a_trajectory_that_explodes_stops_and_the_others_do_not_notice():
    good = [MDState.start(cluster(7, seed=k), 60, k) for k in range(3)]
    good.append(MDState.start(crystal(1, 5.4), 60, 3))
    hot = MDState.start(cluster(7), 100_000, 8)
    near = MDState.start(Frame([18, 18], [[0, 0, 0], [0.9, 0, 0]]), 60, 8)
    md = [langevin()] * 4
    alone = advance(good, LennardJones(), 30, md)
    mixed = advance([hot, *good[:2], near, *good[2:]], LennardJones(), 30, [langevin()] * 6)
    assert [bool(a.fault) for a in mixed] == [True, False, False, True, False, False]
    for a, b in zip(alone, [mixed[k] for k in (1, 2, 4, 5)], strict=True):
        assert np.array_equal(a.state.positions, b.state.positions)
        assert np.array_equal(a.state.momenta, b.state.momenta)
    assert mixed[0].state.step == mixed[3].state.step == 0


class Breaking(Springs):
    """Forces of one structure become NaN from some evaluation on."""

    def __init__(self, atoms: int, after: int) -> None:
        super().__init__(0.001)
        self.atoms, self.after = atoms, after

    def bind(self, frames):
        bound = super().bind(frames)
        start = np.cumsum([0] + [len(f) for f in frames])
        rows = [slice(a, b) for a, b in itertools.pairwise(start.tolist()) if b - a == self.atoms]

        def call(positions, cells, *, stress=False):
            said = bound(positions, cells)
            if self.evaluations > self.after:
                for r in rows:
                    said.forces[:, r.start] = float("nan")
            return said

        call.members, call.device = bound.members, bound.device
        return call


def test_forces_that_are_not_finite_end_a_trajectory_at_its_last_finite_step():
    states = [MDState.start(cluster(n), 60, n) for n in (5, 6)]
    md = [langevin()] * 2
    broken, whole = advance(states, Breaking(6, after=10), 20, md)[::-1]
    assert whole.fault is None
    assert whole.state.step == 20
    assert broken.fault == "energy or forces are not finite at step 10"
    assert broken.state.step == 9
    assert np.isfinite(broken.state.positions).all()
    assert np.isfinite(broken.state.momenta).all()
    assert np.isfinite(broken.evaluation.forces).all()
    assert len(broken.state.frame().id) == 20


def test_a_state_that_is_not_finite_at_the_start_is_a_fault_and_nothing_is_evaluated_for_it():
    state = MDState.start(cluster(3), 60, 1)
    lost = MDState(**{**vars(state), "positions": state.positions * np.nan})
    a, b = advance([lost, state], LennardJones(), 5, [langevin()] * 2)
    assert a.fault == "positions or momenta are not finite at step 0"
    assert np.isnan(a.evaluation.forces).all()
    assert b.state.step == 5


def test_the_guard_can_be_left_at_home():
    near = MDState.start(Frame([18, 18], [[0, 0, 0], [0.9, 0, 0]]), 60, 8)
    [became] = advance([near], Springs(0.0), 3, [langevin()], guard=False)
    assert became.fault is None


def test_a_pair_pressed_together_by_the_cell_is_caught():
    """Two hydrogen atoms at rest in a cell that only the barostat moves."""
    frame = Frame([1, 1], [[0, 0, 0], [0.45, 0, 0]], np.diag([1.7, 3, 3]), True)
    md = npt("npt", 300.0, 1.0, pressure=0.1, pfactor=20.0)
    still = MDState.start(frame, 0.0, 1)
    [became] = advance([still], Springs(0.0), 2000, [md])
    assert became.fault is not None
    assert became.fault.startswith("pair H–H 0.")
    assert np.linalg.norm(became.state.positions[1] - became.state.positions[0]) == pytest.approx(
        0.31, abs=0.1
    )
