"""Descriptors: what they do not depend on, what they do, and the farthest points among them."""

from __future__ import annotations

import doctest
import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from aims_pax.frames import Frame
from aims_pax.samplers import descriptors
from aims_pax.samplers.descriptors import distances, farthest_points, histograms, pooled, radial
from tests.samplers.crystals import shuffled, skewed
from tests.worlds import ethanol, rattled


def test_turned_mirrored_moved_and_renumbered_structures_are_the_same():
    frame, rng = ethanol(), np.random.default_rng(0)
    (before,) = radial([frame])
    turn = Rotation.random(random_state=rng).as_matrix()
    for R in (frame.positions @ turn.T + [3, -2, 7], frame.positions * [1, 1, -1]):
        np.testing.assert_allclose(radial([frame.moved(R)])[0], before, atol=1e-6)
    order = rng.permutation(len(frame))
    renumbered = Frame(frame.numbers[order], frame.positions[order])
    np.testing.assert_allclose(radial([renumbered])[0], before, atol=1e-6)


def test_the_choice_of_images_and_of_the_origin_makes_no_difference():
    crystal = skewed()
    (before,) = radial([crystal])
    np.testing.assert_allclose(radial([shuffled(crystal, 3)])[0], before, atol=1e-6)
    np.testing.assert_allclose(radial([crystal.moved(crystal.positions + 0.37)])[0], before, atol=1e-6)


def test_histograms_are_the_sums_of_the_formula():
    frame = ethanol()
    centres = np.linspace(0.5, 5.0, 16)
    width, kinds = centres[1] - centres[0], [1, 6, 8]
    g = np.zeros((len(frame), 3, 16))
    for a, b in itertools.permutations(range(len(frame)), 2):
        r = np.linalg.norm(frame.positions[a] - frame.positions[b])
        f = 0.5 * (1 + np.cos(np.pi * r / 5.0)) if r < 5.0 else 0.0
        g[a, kinds.index(frame.numbers[b])] += f * np.exp(-((r - centres) ** 2) / (2 * width**2))
    np.testing.assert_allclose(histograms(frame), g.reshape(len(frame), -1), atol=1e-12)


def test_neighbours_in_a_periodic_cell_include_the_images():
    cell = 3.0 * np.eye(3)
    alone = Frame([18], [[0, 0, 0]], cell, True)
    eight = Frame([18] * 8, 3.0 * np.array(list(itertools.product((0, 1), repeat=3))), 2 * cell, True)
    np.testing.assert_allclose(histograms(eight), np.repeat(histograms(alone), 8, axis=0), atol=1e-10)


def test_it_changes_smoothly_and_no_more_than_the_best_assignment():
    frame = ethanol()
    far, near = (rattled(frame, 1, amplitude, seed=1)[0] for amplitude in (0.05, 0.0005))
    d = distances(radial([far, near]), radial([frame])[0])
    assert 0.005 < d[1] / d[0] < 0.02
    a, b = (histograms(f) for f in (frame, far))
    assert d[0] <= np.linalg.norm(a - b) / np.sqrt(len(frame)) + 1e-12


def test_atoms_of_different_elements_are_not_exchanged():
    positions = [[0, 0, 0], [1.1, 0, 0], [2.6, 0, 0]]
    a, b = Frame([1, 1, 8], positions), Frame([8, 1, 1], positions)
    assert distances(radial([a]), radial([b])[0])[0] > 0.1


def test_pooled_features_are_sorted_within_an_element():
    features = np.array([[[3.0], [9.0], [1.0]]])
    np.testing.assert_allclose(pooled(features, np.array([1, 8, 1])) * np.sqrt(3), [[1.0, 3.0, 9.0]])


def greedy(X, n, chosen):
    """Farthest points by brute force over all pairs."""
    taken = []
    for _ in range(n):
        rest = [k for k in range(len(X)) if k not in taken]
        known = [*chosen, *X[taken]]
        score = {
            k: min((np.linalg.norm(X[k] - p) for p in known), default=np.linalg.norm(X[k] - X.mean(0)))
            for k in rest
        }
        best = max(np.round(list(score.values()), 9))
        taken.append(next(k for k in rest if np.round(score[k], 9) == best))
    return taken


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n_chosen", [0, 1, 5])
def test_farthest_points_are_those_of_brute_force(seed, n_chosen):
    rng = np.random.default_rng(seed)
    X, chosen = rng.normal(size=(40, 3)), rng.normal(size=(n_chosen, 3))
    if seed % 2:
        X = np.round(X)  # many are equally far, and many are the same
    assert farthest_points(X, 12, chosen if n_chosen else None) == greedy(X, 12, chosen)


def test_they_cover_a_cloud_within_twice_the_optimum():
    X = np.random.default_rng(4).normal(size=(12, 2))
    D = cdist(X, X)
    for n in (1, 2, 3, 4):
        optimum = min(D[list(some)].min(0).max() for some in itertools.combinations(range(12), n))
        assert D[farthest_points(X, n)].min(0).max() <= 2 * optimum + 1e-12


def test_more_than_there_are_is_all_of_them_and_none_is_none():
    X = np.zeros((3, 2))
    assert farthest_points(X, 7) == [0, 1, 2]
    assert farthest_points(X, 0) == []
    assert farthest_points(np.empty((0, 2)), 3) == []
    assert radial([]).shape == (0, 0)


def test_its_examples_are_true():
    result = doctest.testmod(descriptors)
    assert result.attempted > 3
    assert result.failed == 0
