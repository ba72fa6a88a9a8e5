"""Each rule against its definition, written out."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from aims_pax.core.selection import (
    RIDGE,
    at_random,
    element_moments,
    farthest_first,
    largest_first,
    max_determinant,
    random_projection,
    squared_distances,
)

RULES = {
    "farthest": farthest_first,
    "determinant": max_determinant,
    "largest": lambda x, n, known=None, weights=None, least=0.0: largest_first(
        x, n, np.ones(len(x)) if weights is None else weights, known, least
    ),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def cloud(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_each_point_is_the_farthest_by_weight_from_known_and_taken_ones():
    x, known, w = cloud(40, 3), cloud(4, 3, 1), np.random.default_rng(2).uniform(0.5, 2, 40)
    taken, there = [], list(known)
    for _ in range(6):
        values = [
            w[i] * min(np.linalg.norm(p - y) for y in there) if i not in taken else -1
            for i, p in enumerate(x)
        ]
        taken.append(int(np.argmax(values)))
        there.append(x[taken[-1]])
    assert farthest_first(x, 6, known, w) == taken


def test_nothing_is_farther_from_the_taken_points_than_twice_what_is_possible():
    """Gonzalez: the radius is at most twice that of the best n centres."""
    x = cloud(12, 2)

    def radius(centres):
        return np.sqrt(squared_distances(x, x[list(centres)]).max())

    best = min(radius(c) for c in itertools.combinations(range(12), 3))
    assert radius(farthest_first(x, 3)) <= 2 * best


def test_without_known_points_the_first_is_the_most_typical_or_the_given_one():
    x = cloud(30, 2)
    assert farthest_first(x, 1) == [int(np.argmin(np.linalg.norm(x - x.mean(0), axis=1)))]
    assert farthest_first(x, 1, first=7) == [7]


def test_the_determinant_grows_as_much_as_possible_with_every_point():
    x, known, w = cloud(25, 4), cloud(3, 4, 1), np.random.default_rng(2).uniform(0.5, 2, 25)
    z, y = w[:, None] / w.mean() * (x - x.mean(0)), known - x.mean(0)
    A = RIDGE * (z**2).mean() * np.eye(4) + y.T @ y
    taken = []
    for _ in range(8):  # also more points than features
        dets = [-np.inf if i in taken else np.linalg.slogdet(A + np.outer(v, v))[1] for i, v in enumerate(z)]
        taken.append(int(np.argmax(dets)))
        A = A + np.outer(z[taken[-1]], z[taken[-1]])
    assert max_determinant(x, 8, known, w) == taken


def test_the_largest_are_taken_but_not_two_that_are_alike():
    x, w = np.array([[0.0], [0.1], [5.0], [9.0]]), np.array([3.0, 4, 1, 2])
    assert largest_first(x, 2, w) == [1, 0]
    assert largest_first(x, 3, w, least=0.5) == [1, 3, 2]
    assert largest_first(x, 3, w, known=[[9.2]], least=0.5) == [1, 2]


@every_rule
def test_points_near_known_or_taken_ones_are_never_taken(rule):
    x = cloud(50, 2)
    found = rule(x, 50, x[:1], least=0.7)
    assert 0 < len(found) < 50
    points = np.vstack([x[:1], x[found]])
    apart = np.linalg.norm(points[:, None] - points, axis=-1) + 9 * np.eye(len(points))
    assert apart.min() >= 0.7


@every_rule
def test_a_longer_selection_begins_with_the_shorter_one_and_takes_nothing_twice(rule):
    x, w = cloud(30, 3), np.random.default_rng(1).uniform(1, 2, 30)
    all_of_them = rule(x, 99, None, w)
    assert sorted(all_of_them) == list(range(30))
    assert rule(x, 7, None, w) == all_of_them[:7]
    assert rule(x, 0) == []
    assert rule(np.empty((0, 3)), 4, None, np.empty(0)) == []


@every_rule
def test_equal_points_and_single_precision_change_nothing(rule):
    assert sorted(rule(np.ones((5, 2)), 5)) == [0, 1, 2, 3, 4]
    x = cloud(40, 3).astype(np.float32)
    assert rule(x, 10, x[:2]) == rule(x.astype(float), 10, x[:2].astype(float))


@every_rule
def test_arrays_that_do_not_fit_are_refused(rule):
    x = cloud(5, 2)
    for bad in (
        lambda: rule(x[0], 1),
        lambda: rule(x, 1, cloud(3, 4)),
        lambda: rule(x, 1, None, np.ones(4)),
        lambda: rule(x, 1, None, -np.ones(5)),
        lambda: rule(np.where(x > 0, np.nan, x), 1),
    ):
        with pytest.raises(ValueError, match=r"have shape|must"):
            bad()


def test_distances_in_blocks_are_those_at_once_and_exactly_zero_for_equal_points(monkeypatch):
    x, y = 1e3 + cloud(50, 4), 1e3 + cloud(9, 4, 1)
    expected = (np.linalg.norm(x[:, None] - y, axis=-1) ** 2).min(1)
    monkeypatch.setattr("aims_pax.core.selection.CHUNK", 40)
    np.testing.assert_allclose(squared_distances(x, y), expected, rtol=1e-9)
    assert (squared_distances(x, x) == 0).all()
    assert np.isinf(squared_distances(x, None)).all()


def test_a_large_pool_needs_no_table_of_all_distances():
    """20 000 points against 4 000 known ones: the table would have 640 MB; the limit is 400 MB above the start."""
    code = (
        "import resource, numpy as np\n"
        "from aims_pax.core.selection import farthest_first\n"
        "x = np.random.default_rng(0).normal(size=(20000, 64)).astype(np.float32)\n"
        "farthest_first(x[:100], 2, x[:9])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "farthest_first(x, 5, x[:4000])\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400


def test_random_indices_are_different_and_depend_on_the_generator_alone():
    one, again, other = (at_random(100, 10, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one == again != other
    assert len(set(one)) == 10
    assert one == sorted(one)
    assert at_random(3, 10, np.random.default_rng(0)) == [0, 1, 2]


def test_moments_do_not_depend_on_the_order_of_the_atoms_or_on_the_size_of_the_cell():
    f, z = cloud(6, 3), np.array([1, 1, 1, 6, 6, 8])
    order = np.random.default_rng(3).permutation(6)
    mine = element_moments(f, z, [1, 6, 8])
    np.testing.assert_allclose(element_moments(f[order], z[order], [1, 6, 8]), mine, rtol=1e-12)
    np.testing.assert_allclose(element_moments(np.vstack([f, f]), [*z, *z], [1, 6, 8]), mine, rtol=1e-12)
    assert len(element_moments(f, z, [1, 6, 8, 29])) == 2 * 4 * 3
    with pytest.raises(ValueError, match="element 8 is not among"):
        element_moments(f, z, [1, 6])


def test_moments_are_never_farther_apart_than_the_atoms():
    z = np.array([1, 1, 1, 6, 6, 8])
    for seed in range(20):
        a, b = cloud(6, 3, seed), cloud(6, 3, seed + 100)
        moments = np.linalg.norm(element_moments(a, z, [1, 6, 8]) - element_moments(b, z, [1, 6, 8]))
        assert moments**2 <= ((a - b) ** 2).sum(1).mean() + 1e-12


def test_projections_preserve_distances_and_are_the_same_for_every_part():
    x = cloud(30, 2000)
    low = random_projection(x, 400)
    assert low.shape == (30, 400)
    # BLAS rounds by size
    np.testing.assert_allclose(low[:7], random_projection(x[:7], 400), rtol=0, atol=1e-12)
    ratio = np.linalg.norm(low[1:] - low[0], axis=1) / np.linalg.norm(x[1:] - x[0], axis=1)
    assert abs(ratio - 1).max() < 0.15
    assert random_projection(x, 2000) is x
