"""What one trajectory remembers."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from ase import units

from aims_pax.frames import Frame
from aims_pax.md import MDState
from tests.md.potentials import cluster

SLAB = Frame(
    numbers=[8, 1, 6],
    positions=[[0, 0, 0], [1.2, 0, 0.1], [0, 2.1, 0]],
    cell=np.diag([5.0, 6.0, 20.0]),
    pbc=[True, True, False],
    charge=-1,
    spin=2,
    fixed=[[True] * 3, [False] * 3, [False, False, True]],
    moments=[0.5, 0, 0],
    charges=[-1, 0.25, 0],
)


def test_the_frame_of_a_fresh_state_is_the_frame_it_began_with():
    assert MDState.start(SLAB, 300, 1).frame() == SLAB


def test_momenta_are_maxwell_boltzmann():
    atoms = Frame(numbers=[1, 8, 79] * 8000, positions=np.zeros((24000, 3)))
    state = MDState.start(atoms, 450, stream=3)
    for z in (1, 8, 79):
        p = state.momenta[atoms.numbers == z]
        mass = state.masses[atoms.numbers == z][0]
        assert (p**2).mean() == pytest.approx(mass * units.kB * 450, rel=0.03)
    assert state.temperature == pytest.approx(450, rel=0.02)


def test_fixed_components_have_no_momentum_and_no_share_of_the_temperature():
    state = MDState.start(SLAB, 300, 1)
    assert not state.momenta[SLAB.fixed].any()
    assert state.momenta[~SLAB.fixed].all()
    assert state.degrees == 5
    kinetic = (state.momenta**2 / (2 * state.masses[:, None])).sum()
    assert state.temperature == pytest.approx(2 * kinetic / (5 * units.kB))
    frozen = MDState.start(Frame([1], [[0, 0, 0]], fixed=[True]), 300, 1)
    assert (frozen.degrees, frozen.temperature) == (0, 0)


def test_momenta_are_those_ase_reads():
    state = MDState.start(cluster(), 300, 1)
    atoms = state.frame().to_atoms()
    atoms.set_momenta(state.momenta)
    assert atoms.get_temperature() == pytest.approx(state.temperature)


def test_momenta_depend_on_the_stream_and_redrawing_changes_nothing_else():
    state = MDState.start(SLAB, 300, 1)
    assert np.array_equal(MDState.start(SLAB, 300, 1).momenta, state.momenta)
    other = state.redraw(300, 2)
    assert not np.array_equal(other.momenta, state.momenta)
    assert (other.stream, other.step) == (2, state.step)
    assert np.array_equal(other.positions, state.positions)
    assert not other.momenta[SLAB.fixed].any()


@pytest.mark.parametrize("frame", [SLAB, cluster(3)], ids=["everything", "the least"])
def test_a_snapshot_without_pickle_is_the_same_to_the_last_bit(tmp_path, frame):
    start = MDState.start(frame, 300, 2**63 - 1, step=2**40)
    extras = {"thermostat": np.array([0.1, 1 / 3]), "chain": np.array(2, np.int32)}
    state = MDState(**{**vars(start), "positions": start.positions + np.pi / 7, "extras": extras})
    np.savez(tmp_path / "state.npz", **state.arrays())
    with np.load(tmp_path / "state.npz", allow_pickle=False) as stored:
        back = MDState.from_arrays(stored)
    assert type(back.step) is int
    assert (back.step, back.stream, back.charge, back.spin) == (2**40, 2**63 - 1, frame.charge, frame.spin)
    mine, theirs = state.arrays(), back.arrays()
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name].dtype == theirs[name].dtype
        assert mine[name].tobytes() == theirs[name].tobytes()
    assert back.frame() == state.frame()


def test_a_snapshot_that_lacks_something_says_what():
    arrays = MDState.start(SLAB, 300, 1).arrays()
    del arrays["momenta"]
    with pytest.raises(KeyError, match="momenta"):
        MDState.from_arrays(arrays)


def test_nobody_can_write_to_a_state():
    state = MDState.start(SLAB, 300, 1)
    with pytest.raises(ValueError, match="read-only"):
        state.positions[0] = 1
    with pytest.raises(FrozenInstanceError):
        state.step = 3


def test_wrong_shapes_and_streams_are_refused():
    state = MDState.start(SLAB, 300, 1)
    with pytest.raises(ValueError, match=r"momenta has shape \(2, 3\), expected \(3, 3\)"):
        MDState(**{**vars(state), "momenta": np.zeros((2, 3))})
    with pytest.raises(ValueError, match="stream"):
        MDState(**{**vars(state), "stream": -1})
