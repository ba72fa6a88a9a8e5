"""Many trajectories in one set of tensors, and each of them out of it again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from aims_pax.frames import Frame
from aims_pax.md import MDState
from aims_pax.md.batch import MDBatch
from tests.md.potentials import cluster, crystal

MIXED_FIXED = [[True, False, False], [False] * 3, [True] * 3]


@pytest.fixture
def states() -> list[MDState]:
    water = Frame([8, 1, 1], [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]], fixed=MIXED_FIXED)
    frames = [cluster(2), water, crystal(1)]
    return [MDState.start(f, 50.0, 10 + k, step=5 * k) for k, f in enumerate(frames)]


def test_trajectories_lie_one_after_another(states):
    batch = MDBatch.of(states, "cpu")
    assert batch.slices == (slice(0, 2), slice(2, 5), slice(5, 9))
    assert batch.system.tolist() == [0] * 2 + [1] * 3 + [2] * 4
    assert batch.atom.tolist() == [0, 1, 0, 1, 2, 0, 1, 2, 3]
    assert batch.stream.tolist() == [10] * 2 + [11] * 3 + [12] * 4
    assert batch.step.tolist() == [0] * 2 + [5] * 3 + [10] * 4
    assert batch.masses[:, 0].tolist() == pytest.approx([39.948] * 2 + [15.999, 1.008, 1.008] + [39.948] * 4)
    np.testing.assert_array_equal(batch.free[2:5], 1 - np.array(MIXED_FIXED, float))
    assert batch.free.sum() == 27 - 4


def test_values_are_spread_to_atoms_and_summed_up_again(states):
    batch = MDBatch.of(states, "cpu")
    assert batch.per_system([1, 2, 3]).dtype == torch.float64
    assert batch.per_atom([1, 2, 3])[:, 0].tolist() == [1] * 2 + [2] * 3 + [3] * 4
    assert batch.spread(torch.eye(3)).shape == (9, 3)
    values = torch.arange(18.0).reshape(9, 2)
    expected = [values[rows].sum(0).tolist() for rows in batch.slices]
    assert batch.total(values).tolist() == expected


def test_a_trajectory_comes_out_as_it_went_in(states):
    batch = MDBatch.of(states, "cpu")
    motion = batch.motion()
    for f, state in enumerate(states):
        back = batch.state(f, motion, 0)
        mine, theirs = state.arrays(), back.arrays()
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[k], theirs[k]) for k in mine)


def test_a_moved_trajectory_has_its_own_rows_its_steps_and_only_the_variables_asked_for(states):
    batch = MDBatch.of(states, "cpu")
    motion = batch.motion({"work": torch.tensor([1.0, 2.0, 3.0]), "other": torch.zeros(3, 2)})
    motion = replace(motion, positions=motion.positions + 1.0, cells=motion.cells * 2)
    moved = batch.state(2, motion, 7, ["work"])
    assert moved.step == 10 + 7
    np.testing.assert_allclose(moved.positions, states[2].positions + 1.0)
    np.testing.assert_allclose(moved.cell, 2 * states[2].cell)
    assert {name: float(v) for name, v in moved.extras.items()} == {"work": 3.0}


def test_what_a_state_remembers_is_taken_where_its_shape_fits(states):
    states[0] = replace(states[0], extras={"eta": np.full((3, 3), 2.0)})
    states[1] = replace(states[1], extras={"eta": np.full(2, 7.0)})  # of another integrator
    found = MDBatch.of(states, "cpu").remembered("eta", torch.zeros(3, 3, 3, dtype=torch.float64))
    assert found[:, 0, 0].tolist() == [2.0, 0.0, 0.0]
    assert found.dtype == torch.float64
