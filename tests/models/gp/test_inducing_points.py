"""Inducing environments are far from each other, and no copies."""

import numpy as np
import pytest

from aims_pax.frames import Frame
from aims_pax.models.gp.inducing_points import FEW, choose_inducing, farthest_environments
from aims_pax.models.gp.process import descriptor_for


def unit(*angles):
    return np.array([[np.cos(a), np.sin(a)] for a in angles])


def test_each_point_is_the_farthest_from_those_before():
    assert farthest_environments(unit(0, 0.1, 3.0, 1.4), 3) == [0, 2, 3]


def test_copies_are_not_chosen():
    assert farthest_environments(unit(0, 0, 0, 1), 4) == [0, 3]


def test_the_first_ones_can_be_given():
    assert farthest_environments(unit(0, 0.1, 3.0, 1.4), 3, (0, 1)) == [0, 1, 2]


def test_a_symmetric_molecule_has_environments_of_displaced_copies_after_its_own():
    pytest.importorskip("featomic")
    frames = [Frame([29, 29], [[0, 0, 0], [0, 0, 2.4]])]
    descriptor = descriptor_for(frames)
    ((spectra, source),) = choose_inducing(frames, descriptor, 600).values()
    assert len(spectra) == FEW
    assert (source == 0).all()
    np.testing.assert_allclose(spectra[0], descriptor.of(frames, slopes=False)[29].values[0])
    assert len(choose_inducing(frames, descriptor, 1)[29][0]) == 1
