"""The ASE calculator: results, units, and deviations only when they are asked for."""

import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError

from aims_pax.errors import NotFinite
from aims_pax.models.gp.gp_calculator import GPRCalculator
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.models.gp.process_file import save_process
from aims_pax.models.gp.sparse_process import ProcessPrediction
from tests.models.gp import systems

pytest.importorskip("featomic")


@pytest.fixture(scope="module")
def process():
    return GaussianProcess.fit(systems.copper(6))


def test_it_gives_energy_forces_and_stress_and_deviations_when_asked(process, tmp_path):
    save_process(process, tmp_path / "copper.gp")
    atoms = systems.copper(1, seed=4)[0].frame.to_atoms()
    atoms.calc = GPRCalculator(tmp_path / "copper.gp")
    said = process.predict([systems.copper(1, seed=4)[0].frame], spread=True, stress=True)
    assert atoms.get_potential_energy() == said.energies[0]
    assert atoms.get_forces() == pytest.approx(said.forces)
    assert "unc_forces" not in atoms.calc.results
    assert atoms.get_stress(voigt=False) == pytest.approx(said.stress[0])
    energy, forces = atoms.calc.uncertainty(atoms)
    assert energy == pytest.approx(said.energy_sd[0])
    assert forces == pytest.approx(said.force_sd)


def test_it_follows_moved_atoms(process):
    atoms = systems.copper(1, seed=4)[0].frame.to_atoms()
    atoms.calc = GPRCalculator(process, spread=True)
    first = atoms.get_potential_energy()
    atoms.positions[0] += 0.1
    assert atoms.get_potential_energy() != first
    assert np.shape(atoms.calc.results["unc_forces"]) == (4, 3)


def test_a_changed_charge_is_evaluated_anew(process, monkeypatch):
    """The baseline may depend on it, and ASE compares positions, cell and elements alone."""
    charges, predict = [], GaussianProcess.predict

    def counted(self, frames, **how):
        charges.append(frames[0].charge)
        return predict(self, frames, **how)

    monkeypatch.setattr(GaussianProcess, "predict", counted)
    atoms = systems.copper(1, seed=4)[0].frame.to_atoms()
    atoms.calc = GPRCalculator(process)
    for charge in (None, 1, 1, 0):
        if charge is not None:
            atoms.info["charge"] = charge
        atoms.get_potential_energy()
    assert charges == [None, 1, 0]


def test_a_molecule_has_no_stress():
    process = GaussianProcess.fit(systems.cu13(3))
    atoms = systems.cu13(1, seed=3)[0].frame.to_atoms()
    atoms.calc = GPRCalculator(process)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_energy_and_forces_that_are_not_finite_are_an_error(process, monkeypatch):
    atoms = systems.copper(1, seed=4)[0].frame.to_atoms()
    broken = ProcessPrediction(np.array([np.nan]), np.zeros((4, 3)))
    monkeypatch.setattr(GaussianProcess, "predict", lambda *anything, **options: broken)
    atoms.calc = GPRCalculator(process)
    with pytest.raises(NotFinite, match="no finite energy or forces for Cu4"):
        atoms.get_potential_energy()
