"""Every pair that could come too close is listed, in cells of any kind, while atoms and cells move."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ase.data import covalent_radii

from aims_pax.frames import Frame
from aims_pax.md import MDState
from aims_pax.md.batch import MDBatch
from aims_pax.md.contacts import ALL_PAIRS, SKIN, Contacts

TRICLINIC = np.array([[4.0, 0, 0], [1.5, 3.5, 0], [-0.7, 0.9, 3.0]])


CELLS = {
    "molecule": (np.zeros((3, 3)), False),
    "molecule in a box": (np.diag([3.0, 3, 3]), False),
    "crystal": (np.diag([4.0, 5, 6]), True),
    "triclinic": (TRICLINIC, True),
    "smaller than the reach": (np.diag([1.4, 1.5, 1.6]), True),
    "slab": (np.diag([4.0, 4, 0.5]), [True, True, False]),
    "slab without a third vector": (np.diag([4.0, 4, 0]), [True, True, False]),
    "wire": (np.diag([0, 0, 4.0]), [False, False, True]),
}


def brute_force(frame: Frame, reach: np.ndarray) -> list[tuple[int, int, float]]:
    """Every pair and image nearer than reach (N, N), once, by trying all images there could be."""
    cell = np.where(frame.pbc[:, None], frame.cell, np.eye(3) * 99)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    longest = np.linalg.norm(np.ptp(frame.positions, axis=0)) + reach.max()
    most = [int(longest / h) + 1 if p else 0 for h, p in zip(heights, frame.pbc, strict=True)]
    spans = [range(-m, m + 1) for m in most]
    found = []
    for S in itertools.product(*spans):
        d = frame.positions[None] - frame.positions[:, None] + np.array(S, float) @ frame.cell
        for i, j in np.argwhere(np.linalg.norm(d, axis=2) < reach):
            if i < j or (i == j and S > (0, 0, 0)):
                found.append((int(i), int(j), round(float(np.linalg.norm(d[i, j])), 6)))
    return sorted(found)


@pytest.mark.parametrize(
    ("name", "n"), [(c, n) for c in CELLS for n in (9, 60) if (c, n) != ("smaller than the reach", 60)]
)
def test_the_pairs_within_the_skin_are_those_of_brute_force(name, n):
    cell, pbc = CELLS[name]
    rng = np.random.default_rng(n)
    numbers = rng.choice([1, 6, 8, 55], n)
    positions = rng.uniform(-4, 4, (n, 3))  # unwrapped: outside the cell on purpose
    frame = Frame(numbers=numbers, positions=positions, cell=cell, pbc=pbc)
    state = MDState.start(frame, 300, 1)
    contacts = Contacts(MDBatch.of([state], "cpu"))
    half = covalent_radii[numbers] / 2
    reach = half[:, None] + half[None]
    distance = contacts._squared(torch.from_numpy(frame.positions.copy())).sqrt().numpy()
    listed = zip(contacts.first.tolist(), contacts.second.tolist(), distance.round(6).tolist(), strict=True)
    near = sorted(p for p in listed if p[2] < reach[p[0], p[1]] + SKIN)
    assert near == brute_force(frame, reach + SKIN)
    assert np.allclose(contacts.reach2.sqrt().numpy(), reach[contacts.first, contacts.second])


def test_the_pairs_of_a_cell_that_shrinks_and_shears_are_found_before_they_meet():
    """Every pair near enough is listed at each step of a cell that is squeezed, whatever the atoms do."""
    rng = np.random.default_rng(1)
    start = np.diag([6.0, 7, 8])
    frame = Frame([1] * 12, rng.uniform(0, 1, (12, 3)) @ start, start, True)
    contacts = Contacts(MDBatch.of([MDState.start(frame, 300, 1)], "cpu"), flexible=True)
    fractional, rebuilt, found = frame.positions @ np.linalg.inv(start), 0, 0
    for k in range(60):
        cell = start @ (np.eye(3) - k * np.array([[0.008, 0.004, 0], [0.004, 0.006, 0], [0, 0, -0.002]]))
        positions = torch.from_numpy(fractional @ cell + 0.002 * k * np.sin(np.arange(36.0)).reshape(12, 3))
        contacts.follow(torch.from_numpy(cell)[None])
        if bool(contacts.moved(positions)):
            contacts.rebuild(positions)
            rebuilt += 1
        contacts.close(positions)
        distance = contacts._squared(positions).sqrt()
        reach = np.full((12, 12), 2 * covalent_radii[1])
        moved = Frame([1] * 12, positions.numpy(), cell, True)
        listed = zip(contacts.first.tolist(), contacts.second.tolist(), distance.tolist(), strict=True)
        near = sorted((i, j, d) for i, j, d in listed if d < reach[0, 0])
        expected = brute_force(moved, reach)
        assert [pair[:2] for pair in near] == [pair[:2] for pair in expected]
        assert np.allclose([d for *_, d in near], [d for *_, d in expected], atol=1e-5)
        found += len(near)
    assert 1 <= rebuilt <= 12
    assert found > 20


def line(n: int, spacing: float = 2.0) -> Frame:
    return Frame([1] * n, [[spacing * k, 0, 0] for k in range(n)])


def test_a_small_molecule_lists_all_its_pairs_once_and_never_again():
    contacts = Contacts(MDBatch.of([MDState.start(line(ALL_PAIRS), 300, 1)], "cpu"))
    assert len(contacts.first) == ALL_PAIRS * (ALL_PAIRS - 1) // 2
    far = torch.from_numpy(line(ALL_PAIRS, 0.3).positions.copy())
    assert not contacts.moved(far)
    assert int(contacts.close(far).sum()) == ALL_PAIRS - 1  # neighbours: hydrogen may come as near as 0.31 Å


def test_fragments_that_fly_apart_need_no_more_memory_than_before():
    near = line(ALL_PAIRS + 1)
    far = np.concatenate([near.positions, [[3e4, -2e4, 5e4], [3e4, -2e4, 5e4 + 0.5]]])
    whole = Frame([*near.numbers, 1, 1], far)
    contacts = Contacts(MDBatch.of([MDState.start(whole, 300, 1)], "cpu"))
    alone = Contacts(MDBatch.of([MDState.start(near, 300, 1)], "cpu"))
    assert len(contacts.first) == len(alone.first) + 1


def test_lists_are_made_anew_only_where_atoms_have_moved():
    still, moving = (MDState.start(line(ALL_PAIRS + 1), 300, k) for k in (1, 2))
    contacts = Contacts(MDBatch.of([still, moving], "cpu"))
    start = torch.from_numpy(np.concatenate([still.positions, moving.positions]))
    step = torch.zeros_like(start)
    step[ALL_PAIRS + 1, 0] = 0.49 * SKIN
    assert not contacts.moved(start + step)
    step[ALL_PAIRS + 1, 0] = 0.51 * SKIN
    assert contacts.moved(start + step)
    before = list(contacts.lists)
    contacts.rebuild(start + step)
    assert contacts.lists[0] is before[0]
    assert contacts.lists[1] is not before[1]
    assert not contacts.moved(start + step)


def test_of_several_pairs_that_are_too_close_the_closest_of_each_trajectory_is_named():
    frames = [Frame([1, 8, 6], [[0, 0, 0], [0, 0, 0.45], [0, 0, 0.85]]), line(2)]
    frames.append(Frame([18, 1], [[0, 0, 0], [0, 0.5, 0]]))
    batch = MDBatch.of([MDState.start(f, 300, k) for k, f in enumerate(frames)], "cpu")
    contacts, positions = Contacts(batch), batch.motion().positions
    assert contacts.named(positions, contacts.close(positions)) == {
        0: "pair O–C 0.40 Å",
        2: "pair Ar–H 0.50 Å",
    }
