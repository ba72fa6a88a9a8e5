"""Directions that change no energy: 3 of a cell, 5 of a linear molecule, 6 of others."""

import numpy as np
import pytest

from aims_pax.frames import Frame
from aims_pax.models.gp.external_directions import external_directions, internal_directions, internal_forces
from tests.models.gp import systems


def test_external_directions_of_molecules_wires_and_cells():
    molecule, line = systems.cu13(1)[0].frame, systems.h2([1.0])[0].frame
    assert external_directions(molecule).shape[1] == 6
    assert external_directions(line).shape[1] == 5
    assert external_directions(systems.copper(1)[0].frame).shape[1] == 3
    outer = external_directions(molecule)
    assert outer.T @ outer == pytest.approx(np.eye(6), abs=1e-12)
    torque = np.cross(
        molecule.positions, internal_forces(molecule, np.random.default_rng(0).normal(size=(13, 3)))
    )
    assert np.abs(torque.sum(0)).max() < 1e-10
    inner = internal_directions(molecule)
    assert inner.shape == (39, 33)
    assert np.abs(inner.T @ outer).max() < 1e-12
    assert external_directions(Frame([1], np.zeros((1, 3)))).shape[1] == 3
