"""Inducing environments are far from each other, and no copies."""

import numpy as np

from aims_pax.models.gp.inducing_points import farthest_environments


def unit(*angles):
    return np.array([[np.cos(a), np.sin(a)] for a in angles])


def test_each_point_is_the_farthest_from_those_before():
    assert farthest_environments(unit(0, 0.1, 3.0, 1.4), 3) == [0, 2, 3]


def test_copies_are_not_chosen():
    assert farthest_environments(unit(0, 0, 0, 1), 4) == [0, 3]
