"""Relaxation ends at a minimum of what may move, and says so when it cannot."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from aims_pax.errors import Abandoned
from aims_pax.frames import Frame, Label
from aims_pax.potential import CalculatorPotential
from aims_pax.sampler import SamplingError
from aims_pax.samplers import relax as module
from aims_pax.samplers.relax import relax
from tests.md.potentials import LennardJones, cluster, crystal


def disturbed() -> Frame:
    atoms = bulk("Cu", a=3.7, cubic=True)
    atoms.rattle(0.05, seed=1)
    strain = np.array([[1, 0.03, 0], [0, 1, 0], [0, 0, 1.04]])
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    return Frame.from_atoms(atoms)


def emt() -> CalculatorPotential:
    return CalculatorPotential(EMT)


def test_only_atoms_leaves_the_cell():
    frame = disturbed()
    found = relax(frame, emt(), "only_atoms", fmax=1e-3)
    assert (found.cell == frame.cell).all()
    assert abs(emt().labels([found])[0].forces).max() < 1e-3


def test_constant_volume_leaves_the_volume_and_no_deviatoric_stress():
    frame = disturbed()
    found = relax(frame, emt(), "constant_volume", fmax=1e-3)
    assert np.linalg.det(found.cell) == pytest.approx(np.linalg.det(frame.cell), rel=1e-6)
    assert not np.allclose(found.cell, frame.cell, atol=1e-2)
    label = emt().labels([found])[0]
    assert abs(label.forces).max() < 1e-3
    pressure = np.trace(label.stress) / 3
    assert abs(label.stress - pressure * np.eye(3)).max() < 1e-4 < abs(pressure)


def test_full_leaves_no_stress():
    label = emt().labels([relax(disturbed(), emt(), "full", fmax=1e-3)])[0]
    assert abs(label.stress).max() < 1e-4
    assert abs(label.forces).max() < 1e-3


def test_fixed_components_stay():
    frame = crystal(1, 5.4, fixed=[[True] * 3, [True, False, False], [False] * 3, [False] * 3])
    frame = frame.moved(frame.positions + np.random.default_rng(0).normal(scale=0.1, size=(4, 3)))
    found = relax(frame, LennardJones(smooth=True), fmax=1e-4)
    moved = found.positions != frame.positions
    assert (moved == ~frame.fixed).all()
    forces = LennardJones(smooth=True).labels([found])[0].forces
    assert abs(forces[~frame.fixed]).max() < 1e-4


@pytest.mark.parametrize("what", ["full", "constant_volume"])
def test_cells_that_cannot_move_are_told(what):
    with pytest.raises(SamplingError, match="has none"):
        relax(cluster(3), LennardJones(), what)
    with pytest.raises(SamplingError, match="fixed atoms"):
        relax(crystal(1, fixed=[True, False, False, False]), LennardJones(), what)

    class Stressless(LennardJones):
        def labels(self, frames):
            return [Label(x.energy, x.forces) for x in super().labels(frames)]

    with pytest.raises(SamplingError, match="no stress"):
        relax(crystal(1), Stressless(), what)


def test_what_does_not_converge_is_told():
    with pytest.raises(SamplingError, match=r"left forces of .* after 2 steps"):
        relax(disturbed(), emt(), fmax=1e-6, max_steps=2)
    with pytest.raises(ValueError, match="expected one of"):
        relax(disturbed(), emt(), "cell")


def test_it_stops_when_asked():
    def stop() -> None:
        raise Abandoned

    with pytest.raises(Abandoned):
        relax(disturbed(), emt(), check=stop)


def test_the_example_runs():
    result = doctest.testmod(module)
    assert result.attempted > 3
    assert result.failed == 0
