"""The dense process: covariances are derivatives, permutations, and the published Cartesian numbers."""

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.models.gp import dense_process
from aims_pax.models.gp.dense_process import (
    CARTESIAN,
    DenseShape,
    coordinates,
    covariance,
    fit_dense,
    permutations,
)
from tests.models.gp import systems


@pytest.mark.parametrize("power", [CARTESIAN, 1, 2])
def test_covariances_of_forces_are_derivatives(power):
    one, other = (x.frame for x in systems.trimer(2))
    one = one.chosen(np.argsort(one.numbers), one.positions[np.argsort(one.numbers)])
    other = other.chosen(np.argsort(other.numbers), other.positions[np.argsort(other.numbers)])
    turns, h = permutations(one.numbers, power), 1e-3

    def block(a, b):
        return covariance(*coordinates([a], power), *coordinates([b], power), 0.7, turns)

    full = block(one, other)
    for k in range(9):
        step = np.zeros(9)
        step[k] = h
        up, down = (one.moved(one.positions + s * step.reshape(3, 3)) for s in (1, -1))
        slope = (block(up, other) - block(down, other)) / (2 * h)
        assert full[1 + k, 0] == pytest.approx(-slope[0, 0], rel=1e-4, abs=1e-6)
        assert full[1 + k, 1:] == pytest.approx(-slope[0, 1:], rel=1e-3, abs=1e-5)


def test_permutations_of_identical_atoms_permute_the_distances():
    assert [list(t) for t in permutations(np.array([1, 1, 8]), 1)] == [[0, 1, 2], [0, 2, 1]]
    assert len(permutations(np.array([1, 1, 1, 1]), 1)) == 24
    assert len(permutations(np.array([1, 1, 8]), CARTESIAN)) == 1


def test_other_atoms_are_refused():
    data = systems.h2([1.0, 1.2, 1.5])
    process = fit_dense([x.frame for x in data], [x.label for x in data], DenseShape(1, 0.3, 1e-3, 1e-3))
    with pytest.raises(SettingsError, match="not the atoms"):
        process.predict([systems.trimer(1)[0].frame])


def test_too_many_observations_are_refused(monkeypatch):
    monkeypatch.setattr(dense_process, "LARGEST", 5)
    data = systems.cu13(2)
    with pytest.raises(SettingsError, match="at most 5"):
        fit_dense([x.frame for x in data], [x.label for x in data], DenseShape(CARTESIAN, 1.0, 1e-3, 1e-3))


def test_noise_is_raised_until_the_covariance_can_be_factorised():
    data = systems.h2(np.linspace(1.0, 1.001, 30))
    frames, labels = [x.frame for x in data], [x.label for x in data]
    shape = DenseShape(1, 50.0, 1e-12, 1e-12)
    observations = dense_process._Observations(frames, labels, shape)
    with pytest.raises(np.linalg.LinAlgError):
        observations.fitted(shape, -1.0)
    process = dense_process._with_enough_noise(observations, shape)
    assert 1e-12 < process.shape.noise == process.shape.energy_noise < 1e-4
