"""Spectra at fixed points: one block for each point, without the point itself."""

import numpy as np
import pytest
from ase import Atoms

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
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


def test_a_point_on_an_atom_or_its_image_is_refused_by_name():
    points = SoapPoints(SoapDescriptor((3,), 3.0, 3, 2, 0.4), ((0.0, 0.0, 1.0), (4.0, 0.0, 0.0)))
    crystal = Frame([3], [[0.0, 0.00005, 0.0]], np.eye(3) * 4, True)
    with pytest.raises(SettingsError, match=r"point 2 \[4.0, 0.0, 0.0\] is 5e-05 Å from atom 0 .* of Li \("):
        points.of([crystal])
    assert points.idle([crystal]) == []
    molecule = Frame([3], [[0.0, 0.001, 0.0]])
    points.check(["a"], [molecule])
    assert points.idle([molecule]) == [1]


@pytest.mark.parametrize(("apart", "dscribe"), [(0.001, 4.914), (1.0, 1.745), (2.0, 0.931)])
def test_lengths_are_those_of_dscribe(apart, dscribe):
    """DScribe 2.1, Li at this distance of the point, r_cut 5, n_max 6, l_max 4, sigma 0.5, gto."""
    points = SoapPoints(SoapDescriptor((3,), 5.0, 6, 4, 0.5), ((0.0, 0.0, 0.0),))
    spectra, _ = points.of([Frame.from_atoms(Atoms("Li", [[apart, 0, 0]]))])
    assert np.linalg.norm(spectra) == pytest.approx(dscribe, rel=0.3)
    if apart < 0.01:  # the norm of the whole density, if the radial functions were complete
        assert np.linalg.norm(spectra) == pytest.approx(np.pi * 8**0.5 * (np.pi * 0.25) ** 1.5, rel=0.02)
