import itertools

import numpy as np
import pytest
import torch

from aims_pax.frames import Frame
from aims_pax.models.neighbour_list import SkinNeighbours, completed, neighbour_list
from tests.models.mace.tiny import ethanol, slab, triclinic

CUTOFF = 3.5
WIRE = Frame([6, 6], [[0, 0, 0], [1.1, 0.7, 9.3]], [[0, 0, 0], [0, 0, 2.3], [0, 0, 0]], [False, True, False])


def by_hand(frame: Frame, cutoff: float) -> set[tuple[int, ...]]:
    """Every pair and image within the cutoff, by trying them all."""
    ranges = [range(-9, 10) if p else range(1) for p in frame.pbc]
    found = set()
    for S in itertools.product(*ranges):
        shift = np.array(S) @ frame.cell
        for i, j in itertools.product(range(len(frame)), repeat=2):
            if i == j and not any(S):
                continue
            if np.linalg.norm(frame.positions[j] - frame.positions[i] + shift) < cutoff:
                found.add((i, j, *S))
    return found


FRAMES = {
    "molecule": ethanol(1)[0].frame,
    "small triclinic cell": triclinic(),
    "slab without a third vector": slab(),
    "wire": WIRE,
    "atoms outside their cell": triclinic().moved(
        np.add(triclinic().positions, [[0, 0, 0], [11.0, -7.0, 5.0]])
    ),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_every_pair_and_image_is_found_once_in_canonical_order(frame):
    i, j, S = neighbour_list(frame.positions, frame.cell, frame.pbc, CUTOFF)
    found = [(int(a), int(b), *map(int, s)) for a, b, s in zip(i, j, S, strict=True)]
    assert len(set(found)) == len(found)
    assert set(found) == by_hand(frame, CUTOFF)
    assert found == sorted(found)


def test_missing_cell_vectors_are_completed_at_right_angles():
    full = completed(slab().cell, slab().pbc)
    np.testing.assert_allclose(full[:2], slab().cell[:2])
    np.testing.assert_allclose(full[2] @ full[:2].T, 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(full[2]), 1)


def moving(steps: int, strain: float):
    """Three structures on a random walk, the cells deforming too."""
    frames = [ethanol(1)[0].frame, triclinic(), slab()]
    rng = np.random.default_rng(3)
    x = np.concatenate([f.positions for f in frames])
    h = np.stack([f.cell for f in frames])
    for _ in range(steps):
        x = x + rng.normal(0, 0.03, x.shape)
        F = np.eye(3) + strain * rng.normal(0, 1, (3, 3))
        h = h @ F
        x = x @ F
        yield frames, torch.from_numpy(x), torch.from_numpy(h)


@pytest.mark.parametrize("strain", [0.0, 0.004])
def test_a_list_with_skin_loses_no_pair_while_atoms_and_cells_move(strain):
    skinned = None
    for frames, x, h in moving(40, strain):
        skinned = skinned or SkinNeighbours(frames, CUTOFF, 0.5, torch.device("cpu"))
        edges = skinned(x, h)
        fresh = SkinNeighbours(frames, CUTOFF, 0.0, torch.device("cpu"))(x, h)
        assert torch.equal(edges.sender, fresh.sender)
        assert torch.equal(edges.receiver, fresh.receiver)
        assert torch.equal(edges.vectors, fresh.vectors)
    assert skinned.builds < 3 * 40 / 2


def test_a_lost_structure_has_no_edges_and_comes_back():
    frames = [ethanol(1)[0].frame, triclinic()]
    lists = SkinNeighbours(frames, CUTOFF, 0.5, torch.device("cpu"))
    x = torch.from_numpy(np.concatenate([f.positions for f in frames]))
    h = torch.from_numpy(np.stack([f.cell for f in frames]))
    whole = lists(x, h)
    broken = x.clone()
    broken[2] = torch.nan
    left = lists(broken, h)
    assert lists.lost.tolist() == [True, False]
    assert (left.sender >= 9).all()
    assert torch.equal(lists(x, h).vectors, whole.vectors)
    assert lists.lost.tolist() == [False, False]


@pytest.mark.parametrize("fault", ["an atom far away", "a collapsed cell", "a cell that is not finite"])
def test_structures_beyond_sense_are_lost_instead_of_filling_the_memory(fault):
    frame = triclinic()
    x, h = torch.from_numpy(frame.positions.copy()), torch.from_numpy(frame.cell[None].copy())
    if fault == "an atom far away":
        x[0] += 1e9
    else:
        h *= 1e-3 if fault == "a collapsed cell" else torch.nan
    lists = SkinNeighbours([frame], CUTOFF, 0.5, torch.device("cpu"))
    assert len(lists(x, h).sender) == 0
    assert lists.lost.all()


@pytest.mark.parametrize("far", [False, True])
def test_a_pair_that_approaches_from_both_sides_is_not_missed(far):
    """Each atom moves 0.6 of the skin, from just outside the list; another structure may move much further."""
    skin, apart = 1.0, CUTOFF + 1.01
    frames = [Frame([6, 6], [[0, 0, 0], [apart, 0, 0]]), Frame([6, 6], [[0, 0, 0], [9, 0, 0]])]
    lists = SkinNeighbours(frames, CUTOFF, skin, torch.device("cpu"))
    x = torch.from_numpy(np.concatenate([f.positions for f in frames]))
    h = torch.zeros((2, 3, 3), dtype=torch.float64)
    assert len(lists(x, h).sender) == 0
    x = x.clone()
    x[0, 0], x[1, 0] = 0.6 * skin, apart - 0.6 * skin
    x[3, 0] += 20.0 * far
    assert len(lists(x, h).sender) == 2
