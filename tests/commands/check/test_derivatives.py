"""Whether forces and stress of a reference are the derivatives of its energy."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from aims_pax.commands.check import trial_labels
from aims_pax.commands.check.derivatives import check_derivatives
from aims_pax.commands.check.project import checked_settings
from aims_pax.errors import Crashed, SettingsError
from aims_pax.frames import Frame, Label
from aims_pax.potential import calculate
from tests import worlds
from tests.projects import write_project

COPPER = Frame.from_atoms(bulk("Cu", cubic=True))
PLACES = {
    "molecule": worlds.ethanol(),
    "crystal": COPPER,
    "slab": worlds.slab(),
    "one atom": worlds.dimer("Cu", 20.0),
}


def reference(energy=1.0, forces=1.0, stress=1.0):
    """EMT with its results multiplied by these factors."""

    def label(frame):
        found = calculate(frame, EMT())
        tensor = None if found.stress is None else stress * found.stress
        return Label(energy * found.energy, forces * found.forces, tensor)

    return label


@pytest.mark.parametrize("place", PLACES)
def test_a_real_calculator_passes(place):
    assert check_derivatives(reference(), PLACES[place], "REFERENCE") == []


@pytest.mark.parametrize("frame", [worlds.ethanol(), COPPER])
@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ({"forces": -1}, "opposite signs"),
        ({"forces": 0}, "the forces would give 0 eV"),
        ({"energy": 1 / 27.2114}, "the energies are in hartree"),
        ({"forces": 1 / 51.4221}, "the forces are in hartree/bohr"),
        ({"energy": 1 / 27.2114, "forces": 1 / 51.4221}, "the forces are per bohr"),
        ({"forces": 23.0605}, "the forces are in kcal/mol/Å"),
    ],
)
def test_forces_that_are_no_derivative_are_refused_with_the_probable_reason(frame, factors, said):
    with pytest.raises(SettingsError, match=f"REFERENCE: its forces are not the derivative.*{said}"):
        check_derivatives(reference(**factors), frame, "REFERENCE")


@pytest.mark.parametrize("factor", [-1, 160.2, 0.1])
def test_a_stress_that_is_no_derivative_is_refused(factor):
    with pytest.raises(SettingsError, match=r"REFERENCE: its stress is not.*σ = \(1/V\) dE/dε"):
        check_derivatives(reference(stress=factor), COPPER, "REFERENCE")


def test_small_differences_are_a_warning():
    (said,) = check_derivatives(reference(forces=1.2), worlds.ethanol(), "REFERENCE")
    assert "are its energies converged" in said


def test_a_structure_that_cannot_be_labelled_is_a_warning():
    def label(frame):
        raise Crashed("no luck")

    assert check_derivatives(label, COPPER, "REFERENCE")[0].endswith("is unknown: no luck")


def test_no_constraint_hides_a_force():
    fixed = replace(worlds.ethanol(), fixed=np.ones((9, 3), bool))
    assert check_derivatives(reference(), fixed, "REFERENCE") == []


OWN = """from ase.calculators.emt import EMT
class Gradients(EMT):
    def calculate(self, *args):
        super().calculate(*args)
        self.results["forces"] = -self.results["forces"]
class Flat(EMT):
    def calculate(self, *args):
        super().calculate(*args)
        self.results["forces"] = self.results["forces"].ravel()
"""


@pytest.mark.parametrize(("name", "said"), [("Gradients", "opposite signs"), ("Flat", r"shape \(9,\)")])
def test_check_try_refuses_what_a_run_would_learn_or_refuse(tmp_path, monkeypatch, name, said):
    (tmp_path / "own_odd.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    own = {"REFERENCE": {"type": "calculator", "factory": f"own_odd:{name}"}}
    with pytest.raises(SettingsError, match=f"^REFERENCE: .*{said}"):
        trial_labels.check_verdict(checked_settings(write_project(tmp_path, own)), wanted=True)
