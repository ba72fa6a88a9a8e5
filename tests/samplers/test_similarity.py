"""Minimum images, pools of structures and atoms that touch, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from aims_pax.frames import Frame
from aims_pax.samplers.similarity import MinimumImage, StructurePool, closer_than, mapping
from tests.md.potentials import cluster, crystal

SKEWED = np.array([[5.0, 0, 0], [4.2, 3.1, 0], [-3.9, 2.2, 4.4]])
CELLS = {
    "molecule": (np.zeros((3, 3)), [False] * 3),
    "cubic": (np.eye(3) * 4, [True] * 3),
    "skewed": (SKEWED, [True] * 3),
    "slab without a third vector": (np.array([[4.0, 0, 0], [3.5, 1.5, 0], [0, 0, 0]]), [True, True, False]),
    "wire": (np.array([[0.0, 0, 0], [0, 0, 0], [0.3, 0.2, 2.5]]), [False, False, True]),
}


def images(cell, pbc, reach=8):
    steps = [range(-reach, reach + 1) if p else (0,) for p in pbc]
    return np.array(list(itertools.product(*steps)), float) @ cell


@pytest.fixture(params=CELLS)
def box(request):
    cell, pbc = CELLS[request.param]
    return cell, np.array(pbc)


def test_minimum_images_are_the_shortest_of_all(box):
    d = np.random.default_rng(0).normal(0, 2, (300, 3))
    brute = np.linalg.norm(d[:, None] + images(*box), axis=-1).min(1)
    np.testing.assert_allclose(MinimumImage(*box).lengths(d), brute, atol=1e-12)


def test_a_pool_answers_as_the_definition_says(box):
    rng = np.random.default_rng(1)
    start = Frame([18] * 30, rng.uniform(-3, 3, (30, 3)), *box)
    shapes = [start.moved(start.positions + rng.normal(0, s, (30, 3))) for s in rng.uniform(0.02, 0.1, 60)]
    shapes += [
        s.moved(s.positions + images(*box)[rng.integers(0, len(images(*box)), 30)]) for s in shapes[:10]
    ]
    pool, metric, kept, answers = StructurePool(start, 0.1), MinimumImage(*box), [], set()
    for shape in shapes:
        expected = any(metric.lengths(shape.positions - k.positions).mean() < 0.1 for k in kept)
        assert pool.holds_like(shape) == expected
        answers.add(expected)
        if not expected:
            pool.add(shape)
            kept.append(shape)
    assert answers == {True, False}
    assert len(pool) == len(kept) > 16, "the arrays had to grow"


def test_the_threshold_is_the_mean_displacement():
    start = cluster(4)
    pool = StructurePool(start, 0.1)
    pool.add(start)
    one = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert pool.holds_like(start.moved(start.positions + 0.399 * one))
    assert not pool.holds_like(start.moved(start.positions + 0.401 * one))


def test_a_permutation_is_another_structure():
    start = cluster(4)
    pool = StructurePool(start, 0.1)
    pool.add(start)
    assert not pool.holds_like(start.moved(start.positions[::-1]))


def test_atoms_are_compared_at_equal_fractional_coordinates():
    start = crystal(1, 5.4)
    pool = StructurePool(start, 0.1)
    pool.add(start)
    stretched = 1.01 * start.cell  # vectors 0.05 Å longer; the far atoms move by 0.04 Å only because of it
    assert pool.holds_like(start.moved(start.positions * 1.01, stretched))
    shifted = start.positions * 1.01 + np.array([[0.5, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert not pool.holds_like(start.moved(shifted, stretched))


def test_another_cell_is_another_structure():
    start = crystal(1, 5.4)
    pool = StructurePool(start, 0.1)
    pool.add(start)
    assert not pool.holds_like(start.moved(start.positions * 1.03, 1.03 * start.cell))


def test_the_mapping_keeps_fractional_coordinates(box):
    cell, pbc = box
    R = np.random.default_rng(2).normal(size=(5, 3))
    back = R @ mapping(cell, 1.3 * cell, pbc) @ mapping(1.3 * cell, cell, pbc)
    np.testing.assert_allclose(back, R, atol=1e-12)
    if pbc.all():
        np.testing.assert_allclose(R @ mapping(cell, 1.3 * cell, pbc), 1.3 * R, atol=1e-12)


def test_close_atoms_are_found_as_by_brute_force(box):
    rng = np.random.default_rng(3)
    found = set()
    for distance in (0.3, 0.7, 1.5, 2.9):
        for _ in range(15):
            frame = Frame([18] * 4, rng.uniform(-2, 6, (4, 3)), *box)
            shifts = images(*box, reach=5)
            d = frame.positions[:, None, None] - frame.positions[None, :, None] + shifts
            lengths = np.linalg.norm(d, axis=-1)
            lengths[lengths < 1e-9] = np.inf  # an atom and itself
            assert closer_than(frame, distance) == (lengths.min() < distance)
            found.add(closer_than(frame, distance))
    assert found == {True, False}


def test_an_atom_can_be_too_close_to_its_own_image():
    assert closer_than(Frame([18], [[0, 0, 0]], np.eye(3) * 2.0, [True] * 3), 2.1)
    assert not closer_than(Frame([18], [[0, 0, 0]], np.eye(3) * 2.0, [True] * 3), 1.9)


def test_no_distance_means_no_test():
    assert not closer_than(Frame([18, 18], [[0, 0, 0], [0, 0, 0.1]]), 0.0)
