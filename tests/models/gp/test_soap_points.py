"""Spectra at fixed points: one block for each point, without the point itself."""

import numpy as np
import pytest

from aims_pax.models.gp.soap import SoapDescriptor
from aims_pax.models.gp.soap_points import SoapPoints
from tests.models.gp import systems

pytest.importorskip("featomic")


def test_a_point_far_from_all_atoms_sees_nothing_and_another_does():
    frame = systems.h2([1.0])[0].frame
    points = SoapPoints(SoapDescriptor((1,), 3.0, 3, 2, 0.4), ((0.0, 0.0, 0.5), (50.0, 0.0, 0.0)))
    x, slopes = points.of([frame, frame])
    assert x.shape == (2, 2 * points.descriptor.size)
    near, far = np.split(x[0], 2)
    assert np.abs(near).max() > 0
    assert np.abs(far).max() == 0
    assert np.abs(slopes[:, :, points.descriptor.size :]).max() == 0
