"""The published process: groups, choices of the scale, standardisation, spectra at fixed points."""

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.models.gp.coordinate_process import CoordinateOptions, CoordinateProcess
from aims_pax.models.gp.soap import SoapDescriptor
from aims_pax.models.gp.soap_points import SoapPoints
from tests.models.gp import systems

CUBE = tuple((x, y, z) for x in (0.9, 2.7) for y in (0.9, 2.7) for z in (0.9, 2.7))


def force_error(process, data):
    said = process.predict([x.frame for x in data], spread=True)
    return np.abs(said.forces - np.concatenate([x.label.forces for x in data])).mean()


def test_groups_of_other_atoms_have_processes_of_their_own():
    data = [*systems.copper(8), *systems.h2(np.linspace(1, 2, 6))]
    process = CoordinateProcess.fit(data, CoordinateOptions())
    assert len(process.groups) == 2
    assert len(process.hyperparameters()) == 2
    said = process.predict([data[8].frame, data[0].frame])
    assert said.energies == pytest.approx([data[8].label.energy, data[0].label.energy], abs=1e-3)
    with pytest.raises(SettingsError, match="Descriptor auto does not"):
        process.predict([systems.alloy(1)[0].frame])


def test_the_scale_is_the_best_of_three_or_the_one_given():
    data = systems.copper(8)
    fitted = CoordinateProcess.fit(data, CoordinateOptions(scale=0.8))
    assert next(iter(fitted.groups.values())).shape.scale in (0.4, 0.8, 1.6)
    given = CoordinateProcess.fit(
        data, CoordinateOptions(scale=0.8, fit_scale=False, fit_weight=False, weight=2.0)
    )
    only = next(iter(given.groups.values()))
    assert (only.shape.scale, only.amplitude) == (0.8, 2.0)


def test_standardised_labels_give_the_same_units():
    data, test = systems.copper(10), systems.copper(5, seed=4)
    plain = CoordinateProcess.fit(data, CoordinateOptions(prior_update=False))
    scaled = CoordinateProcess.fit(data, CoordinateOptions(prior_update=False, standardization=True))
    assert force_error(scaled, test) == pytest.approx(force_error(plain, test), rel=0.2)
    assert scaled.errors.force_mae == pytest.approx(plain.errors.force_mae, rel=0.2)


def test_a_singular_covariance_is_refused_with_what_to_do():
    with pytest.raises(SettingsError, match="singular covariance"):
        CoordinateProcess.fit(systems.copper(4), CoordinateOptions(scale=1e6, noise=1e-12))


def test_spectra_at_fixed_points_learn_and_their_slopes_are_derivatives():
    pytest.importorskip("featomic")
    points = SoapPoints(SoapDescriptor((29,), 4.0, 4, 3, 0.5), CUBE)
    frame, h = systems.copper(1)[0].frame, 1e-3
    x, slopes = points.of([frame])
    assert x.shape == (1, 8 * points.descriptor.size)
    step = np.zeros((4, 3))
    step[1, 2] = h
    up, down = (points.of([frame.moved(frame.positions + s * step)])[0][0] for s in (1, -1))
    assert (up - down) / (2 * h) == pytest.approx(slopes[0, 5], abs=1e-4 * np.abs(slopes).max())
    data, test = systems.copper(10), systems.copper(5, seed=4)
    process = CoordinateProcess.fit(data, CoordinateOptions(scale=2.0, noise=1e-4, points=points))
    assert force_error(process, test) < 0.5 * np.abs(np.concatenate([t.label.forces for t in test])).mean()
