"""The equilibrium volume at a temperature, against phonopy's own quasi-harmonic approximation."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from phonopy import run_qha

from aims_pax.frames import Frame
from aims_pax.potential import CalculatorPotential
from aims_pax.sampler import SamplingError
from aims_pax.samplers import quasi_harmonic
from aims_pax.samplers.force_constants import force_constants
from aims_pax.samplers.quasi_harmonic import SCALES, equilibrium
from tests.md.potentials import LennardJones, crystal

CUBE = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])


@functools.cache
def copper() -> Frame:
    return Frame.from_atoms(bulk("Cu", a=3.58982479))


@functools.cache
def at(temperature: float, pressure: float = 0.0, scales=SCALES):
    return equilibrium(copper(), CalculatorPotential(EMT), CUBE, temperature, pressure, scales)


def test_phonopys_own_quasi_harmonic_approximation_agrees():
    ours = at(300)
    frame, phonons = copper(), []
    for volume in ours.volumes:
        stretch = (volume / np.linalg.det(frame.cell)) ** (1 / 3)
        there = frame.moved(frame.positions * stretch, frame.cell * stretch)
        phonons.append(force_constants(there, CalculatorPotential(EMT), CUBE).phonopy)
    theirs = run_qha(
        phonons, np.arange(280, 340, 10), ours.energies, mesh=quasi_harmonic.GRID, exclude_gamma_acoustic=True
    )
    found = np.interp(300, theirs.temperatures, theirs.equilibrium_volumes)
    assert ours.volume == pytest.approx(found, rel=2e-4)
    assert ours.volume == pytest.approx(np.linalg.det(ours.frame.cell), rel=1e-6)


def test_crystals_grow_with_temperature_and_shrink_under_pressure():
    assert at(0).volume < at(300).volume
    assert at(300).volume > np.linalg.det(copper().cell) * 1.01
    squeezed = at(300, 2.0).volume / at(300).volume - 1
    assert squeezed == pytest.approx(-2.0 / 140, rel=0.3)  # bulk modulus of copper, GPa


def test_the_scan_goes_on_where_the_minimum_is():
    low = at(300, scales=(0.93, 0.94, 0.95, 0.96, 0.97))
    assert len(low.volumes) > 5
    assert low.volume == pytest.approx(at(300).volume, rel=2e-3)


def test_a_free_energy_that_falls_to_the_end_of_the_scan_has_its_minimum_beyond():
    """Of solid carbon dioxide at 50 K: Vinet's equation does not converge on it, and the scan ended with that."""
    V = np.array([187.745, 195.408, 199.240, 203.072, 206.903])  # Å³
    G = np.array([0.424676, 0.400989, 0.392136, 0.384754, 0.378457])  # eV
    assert quasi_harmonic._minimum(copper(), V, G) > V[-1]
    assert quasi_harmonic._minimum(copper(), V, G[::-1].copy()) < V[0]
    with pytest.raises(SamplingError, match="no equation of state fits"):
        quasi_harmonic._minimum(copper(), V, np.array([0.0, 1.0, -1.0, 1.0, 0.0]))


def test_too_few_stable_volumes_are_told(caplog):
    with pytest.raises(SamplingError, match=r"only \d of 5 volumes are stable"):
        equilibrium(
            crystal(1, 5.9), LennardJones(smooth=True), np.eye(3), 10, scales=(1.0, 1.1, 1.2, 1.3, 1.4)
        )
    assert "imaginary modes" in caplog.text
