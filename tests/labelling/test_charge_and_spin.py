"""The charge and the spin of a structure reach the calculator that labels it, or it is refused."""

from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT
from tblite.ase import TBLite

from aims_pax.dataset import read_extxyz
from aims_pax.errors import LabelError
from aims_pax.frames import Frame
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.potential import calculate
from tests import worlds
from tests.projects import command, write_project

XTB = {"method": "GFN1-xTB", "accuracy": 0.01, "verbosity": 0}
WATER = Frame([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
CATION, NEUTRAL = -136.346982, -156.972735  # eV, GFN1-xTB of this geometry, from tblite itself
OXYGEN = Frame([8, 8], [[0, 0, 0], [0, 0, 1.21]])


def tblite(frame, **electrons):
    return calculate(replace(frame, charge=None, spin=None), TBLite(**XTB, **electrons)).energy


def energy(frame, factory="tblite.ase:TBLite", kwargs=XTB, folder=None, **keys):
    return CalculatorReference(factory, kwargs, folder, **keys).label(frame).energy


def test_a_cation_gets_the_cations_energy():
    assert energy(replace(WATER, charge=1, spin=2)) == pytest.approx(CATION, abs=1e-5)
    assert energy(WATER) == pytest.approx(NEUTRAL, abs=1e-5)


def test_a_triplet_gets_the_triplets_energy():
    triplet = energy(replace(OXYGEN, charge=0, spin=3))
    assert triplet == pytest.approx(-248.105361, abs=1e-5)
    assert triplet == pytest.approx(tblite(OXYGEN, multiplicity=3), abs=1e-6)
    assert abs(energy(OXYGEN) - triplet) > 0.05  # the singlet has another one


@pytest.mark.parametrize(
    ("numbers", "charge", "spin"),
    [([8, 1], -1, 1), ([11], 1, 1), ([7, 1, 1, 1, 1], 1, 1), ([6, 1, 1, 1], 0, 2)],
)
def test_ions_and_radicals_of_every_kind_get_their_own_energy(numbers, charge, spin):
    """OH-, Na+, ammonium, the methyl radical."""
    shell = np.array([[0, 0, 0], [0.6, 0.6, 0.6], [-0.6, -0.6, 0.6], [-0.6, 0.6, -0.6], [0.6, -0.6, -0.6]])
    frame = Frame(numbers, shell[: len(numbers)], charge=charge, spin=spin)
    assert energy(frame) == pytest.approx(tblite(frame, charge=charge, multiplicity=spin), abs=1e-6)


def test_one_worker_labels_several_charges_in_any_order():
    """Whatever is remembered between labels, it is no calculator of another charge."""
    reference = CalculatorReference("tblite.ase:TBLite", XTB)
    frames = [
        WATER,
        replace(WATER, charge=1, spin=2),
        replace(WATER, charge=0, spin=1),
        replace(WATER, charge=1),
    ]
    there = [reference.label(f).energy for f in frames]
    back = [reference.label(f).energy for f in reversed(frames)]
    assert there == pytest.approx(back[::-1], abs=1e-8)
    assert there == pytest.approx([NEUTRAL, CATION, NEUTRAL, CATION], abs=1e-5)


@pytest.mark.parametrize("factory", ["ase.calculators.emt:EMT", "ase.calculators.lj:LennardJones"])
@pytest.mark.parametrize("electrons", [{"charge": 1}, {"charge": -0.5}, {"spin": 3}])
def test_what_cannot_be_given_a_charge_or_spin_refuses_the_structure(factory, electrons):
    with pytest.raises(LabelError, match=r"H2O has (charge|multiplicity) .* REFERENCE.(charge|spin)_key"):
        energy(replace(WATER, **electrons), factory, {})


def test_a_neutral_closed_shell_needs_no_argument():
    assert (
        energy(replace(WATER, charge=0, spin=1), "ase.calculators.emt:EMT", {})
        == calculate(WATER, EMT()).energy
    )


@pytest.mark.parametrize(("charge", "spin"), [(1, 1), (0, 2), (None, 4), (-1, 3)])
def test_a_multiplicity_that_the_electrons_cannot_have_is_not_computed(charge, spin):
    """tblite would take another one."""
    with pytest.raises(LabelError, match=r"electrons, an (odd|even) number"):
        energy(replace(WATER, charge=charge, spin=spin))


FACTORIES = """
from ase.calculators.emt import EMT

class Electrons(EMT):
    def __init__(self, charge, unpaired):
        super().__init__()
        self.more = 10 * charge + 100 * unpaired

    def calculate(self, *arguments):
        super().calculate(*arguments)
        for name in ("energy", "free_energy"):
            self.results[name] += self.more

def pyscf_like(charge=0, spin=0):
    return Electrons(charge, spin)

def uhf(total_charge=0, uhf=0):
    return Electrons(total_charge, uhf)

def nested(molecule=None, **anything):
    molecule = molecule or {}
    return Electrons(molecule.get("q", 0), molecule.get("m", 1) - 1)

class OnAtoms(EMT):
    def calculate(self, atoms, *arguments):
        super().calculate(atoms, *arguments)
        more = 10 * atoms.get_initial_charges().sum() + 100 * atoms.get_initial_magnetic_moments().sum()
        for name in ("energy", "free_energy"):
            self.results[name] += more

class OnInfo(EMT):
    def calculate(self, atoms, *arguments):
        super().calculate(atoms, *arguments)
        for name in ("energy", "free_energy"):
            self.results[name] += 10 * atoms.info.get("charge", 0) + 100 * (atoms.info.get("spin", 1) - 1)
"""


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("pyscf_like", {"spin_convention": "unpaired_electrons"}),
        ("pyscf_like", {"spin_key": "spin", "spin_convention": "unpaired_electrons"}),
        ("uhf", {}),
        ("nested", {"charge_key": "molecule.q", "spin_key": "molecule.m", "spin_convention": "multiplicity"}),
        ("OnAtoms", {"charge_key": "atoms.initial_charges", "spin_key": "atoms.initial_magnetic_moments"}),
        ("OnInfo", {"charge_key": "atoms.info", "spin_key": "atoms.info"}),
    ],
)
def test_a_factory_of_the_users_is_told_in_its_own_convention(tmp_path, name, keys):
    (tmp_path / f"electrons_{name.lower()}.py").write_text(FACTORIES)
    ion = replace(WATER, charge=-1, spin=4)
    plain = calculate(WATER, EMT()).energy
    assert energy(ion, f"electrons_{name.lower()}:{name}", {}, tmp_path, **keys) == pytest.approx(
        plain - 10 + 300
    )


def test_a_spin_that_may_be_2S_or_2S_plus_1_has_to_be_declared(tmp_path):
    (tmp_path / "electrons_ambiguous.py").write_text(FACTORIES)
    with pytest.raises(
        LabelError, match=r"spin of electrons_ambiguous:pyscf_like can mean 2S[+]1 or 2S; set REFERENCE"
    ):
        energy(replace(WATER, spin=3), "electrons_ambiguous:pyscf_like", {}, tmp_path)


def test_a_charge_in_kwargs_that_contradicts_the_structure_is_refused():
    with pytest.raises(
        LabelError, match=r"REFERENCE\.kwargs has charge: 1, which contradicts the charge 0 of H2O"
    ):
        energy(replace(WATER, charge=0), kwargs={**XTB, "charge": 1})
    assert energy(replace(WATER, charge=1), kwargs={**XTB, "charge": 1}) == pytest.approx(CATION, abs=1e-5)
    assert energy(WATER, kwargs={**XTB, "charge": 1}) == pytest.approx(CATION, abs=1e-5)


def test_isolated_atoms_have_their_own_spin_whatever_kwargs_say_of_a_molecule():
    oxygen = Frame([8], [[0, 0, 0]], spin=3, moments=[2.0])
    atoms = CalculatorReference("tblite.ase:TBLite", {**XTB, "charge": -1, "multiplicity": 2}).for_atoms()
    assert atoms.label(oxygen).energy == pytest.approx(tblite(oxygen, multiplicity=3), abs=1e-6)
    emt = CalculatorReference("ase.calculators.emt:EMT").for_atoms()
    assert emt.label(oxygen).energy == calculate(oxygen, EMT()).energy


def test_recalc_writes_the_cations_energy_beside_its_charge(tmp_path):
    """The case of the first user who met it."""
    folder = write_project(tmp_path, {"REFERENCE": worlds.XTB})
    frames = [WATER, replace(WATER, charge=1, spin=2)]
    ase.io.write(folder / "in.xyz", [f.to_atoms() for f in frames], format="extxyz")
    assert command("in.xyz", "-o", "out.xyz", folder=folder, name="aims-PAX-recalc").returncode == 0
    neutral, cation = read_extxyz(folder / "out.xyz")
    assert (cation.frame.charge, cation.frame.spin) == (1.0, 2)
    assert neutral.label.energy == pytest.approx(NEUTRAL, abs=1e-5)
    assert cation.label.energy == pytest.approx(CATION, abs=1e-5)
