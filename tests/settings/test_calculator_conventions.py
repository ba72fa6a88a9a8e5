"""Charge and spin of a structure become the arguments of a calculator, each code in its own words."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from ase.calculators.emt import EMT

from aims_pax.errors import Unsupported
from aims_pax.frames import Frame
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.settings.calculator_conventions import (
    INFO,
    INITIAL_CHARGES,
    INITIAL_MOMENTS,
    KNOWN,
    Conventions,
    accepts,
    arguments,
    charge_refusal,
    check_keys,
    conventions_of,
    dressed,
    without_key,
    written_charge_and_spin,
)
from aims_pax.user_code import calculator_factory

WATER = Frame([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


OXYGEN = Frame([8, 8], [[0, 0, 0], [0, 0, 1.21]])


PROGRAMS = {
    "orca:ORCA": ({}, ["*xyz 1 2"]),
    "nwchem:NWChem": ({"theory": "dft"}, ["charge 1", "mult 2"]),
    "gaussian:Gaussian": ({}, [" 1 2 "]),
    "qchem:QChem": ({}, ["$molecule 1 2 "]),
    "gamess_us:GAMESSUS": ({}, ["icharg=1", "mult=2", "scftyp=uhf"]),
    "mopac:MOPAC": ({}, ["charge=1", "doublet"]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_input_of_a_known_program_holds_charge_and_multiplicity(tmp_path, name):
    """As ASE writes it; the program is not needed."""
    (kwargs, lines), factory = PROGRAMS[name], f"ase.calculators.{name}"
    how = CalculatorReference(factory, kwargs).conventions
    ion = replace(WATER, charge=1, spin=2)
    made = calculator_factory(factory, {**arguments(kwargs, ion, how, factory), **_program(name)})()
    atoms = dressed(ion, how).to_atoms()
    if "orca" in name:
        made.template.write_input(made.profile, tmp_path, atoms, made.parameters, ["energy"])
    else:
        made.directory = str(tmp_path)
        made.write_input(atoms, ["energy"])
    texts = [f.read_text().lower() for f in sorted(tmp_path.iterdir()) if f.is_file()]
    written = " ".join(" ".join(texts).split())
    assert [line for line in lines if line not in written] == []


def _program(name):
    if "orca" in name:
        from ase.calculators.orca import OrcaProfile

        return {"profile": OrcaProfile("orca")}
    return {"command": "program PREFIX"}


def test_dftb_plus_takes_no_spin_and_says_so():
    reference = CalculatorReference("ase.calculators.dftb:Dftb")
    given = arguments({}, replace(WATER, charge=-1), reference.conventions, reference.factory)
    assert given == {"Hamiltonian_Charge": -1}
    assert "has multiplicity 3" in reference.refusal(replace(OXYGEN, spin=3))


@pytest.mark.parametrize(
    ("factory", "kwargs", "expected"),
    [
        ("ase.calculators.cp2k:CP2K", {}, {"charge": 1, "multiplicity": 2, "uks": True}),
        ("ase.calculators.psi4:Psi4", {}, {"charge": 1, "multiplicity": 2, "reference": "uhf"}),
        ("ase.calculators.vasp:Vasp", {"xc": "pbe"}, {"xc": "pbe", "charge": 1, "nupdown": 1, "ispin": 2}),
        (
            "ase.calculators.espresso:Espresso",
            {"input_data": {"system": {"ecutwfc": 40}}},
            {"input_data": {"system": {"ecutwfc": 40, "tot_charge": 1, "tot_magnetization": 1, "nspin": 2}}},
        ),
        (
            "ase.calculators.espresso:Espresso",
            {"input_data": {"ecutwfc": 40}},
            {"input_data": {"ecutwfc": 40, "tot_charge": 1, "tot_magnetization": 1, "nspin": 2}},
        ),
        ("ase.calculators.turbomole:Turbomole", {}, {"total charge": 1, "multiplicity": 2, "uhf": True}),
    ],
)
def test_every_code_is_given_its_own_words(factory, kwargs, expected):
    how = CalculatorReference(factory, kwargs).conventions
    assert arguments(kwargs, replace(WATER, charge=1, spin=2), how, factory) == expected


def test_tables_of_a_program_are_found_in_any_spelling():
    """ASE writes one of `SYSTEM` and `system`: the other, with the user's cutoff and smearing, would be lost."""
    how, cation = KNOWN["ase.calculators.espresso:Espresso"], replace(WATER, charge=1, spin=2)
    written = {"input_data": {"CONTROL": {}, "SYSTEM": {"ecutwfc": 40, "NSPIN": 4}}}
    made = arguments(written, cation, how, "espresso")
    system = {"ecutwfc": 40, "NSPIN": 4, "tot_charge": 1, "tot_magnetization": 1}
    assert made == {"input_data": {"CONTROL": {}, "SYSTEM": system}}
    assert "tot_charge" not in written["input_data"]["SYSTEM"]
    for contradicting in ({"System": {"TOT_CHARGE": 0}}, {"TOT_CHARGE": 0}):
        with pytest.raises(Unsupported, match=r"tot_charge: 0, which contradicts the charge 1"):
            arguments({"input_data": contradicting}, cation, how, "espresso")
    assert written_charge_and_spin({"input_data": {"SYSTEM": {"Tot_Charge": -1}}}, how)[0] == -1
    assert without_key({"input_data": {"SYSTEM": {"TOT_CHARGE": 1}}}, how.charge) == {
        "input_data": {"SYSTEM": {}}
    }


@pytest.mark.parametrize("name", ["orca:ORCA", "psi4:Psi4", "qchem:QChem", "gamess_us:GAMESSUS"])
def test_codes_that_ignore_the_cell_refuse_periodic_structures(name):
    """Their input would hold one cell of the crystal as a molecule."""
    how, crystal = KNOWN[f"ase.calculators.{name}"], replace(WATER, cell=9 * np.eye(3), pbc=[True] * 3)
    said = charge_refusal(crystal, {}, how, name)
    assert f"H2O is periodic, and {name} would compute one cell of it as a molecule" in said
    assert charge_refusal(WATER, {}, how, name) is None


@pytest.mark.parametrize("name", ["orca:ORCA", "psi4:Psi4", "cp2k:CP2K"])
def test_moments_that_a_code_does_not_read_are_never_lost(name):
    """Psi4 of ASE forgets the multiplicity if atoms have moments: oxygen became a singlet."""
    how, oxygen = KNOWN[f"ase.calculators.{name}"], replace(OXYGEN, moments=np.array([1.0, 1.0]))
    assert f"O2 has initial magnetic moments, but {name} does not read them" in charge_refusal(
        oxygen, {}, how, name
    )
    triplet = replace(oxygen, spin=3)
    assert arguments({}, triplet, how, name)[how.spin] == 3
    assert dressed(triplet, how).moments is None
    assert charge_refusal(oxygen, {how.spin: 3}, how, name) is None  # the user's argument says it
    assert dressed(triplet, KNOWN["ase.calculators.vasp:Vasp"]).moments is not None


@pytest.mark.parametrize("name", ["dftb:Dftb", "elk:ELK"])
def test_moments_are_refused_where_a_code_takes_no_multiplicity_either(name):
    how, oxygen = KNOWN[f"ase.calculators.{name}"], replace(OXYGEN, spin=None, moments=np.array([1.0, 1.0]))
    said = charge_refusal(oxygen, {}, how, name)
    assert said == (
        f"O2 has initial magnetic moments, but {name} does not read them; remove the moments, or choose a reference "
        "that reads them"
    )
    assert charge_refusal(replace(oxygen, moments=None), {}, how, name) is None


def test_mopac_of_ase_has_no_words_above_a_quintet():
    """It ended with an IndexError for every structure."""
    how = KNOWN["ase.calculators.mopac:MOPAC"]
    assert charge_refusal(replace(OXYGEN, spin=5), {}, how, "MOPAC") is None
    said = charge_refusal(replace(OXYGEN, spin=7), {}, how, "MOPAC")
    assert said == "O2 has multiplicity 7, and MOPAC takes at most 5; choose another reference"
    moments = replace(OXYGEN, spin=None, moments=np.array([3.0, 3.0]))
    assert charge_refusal(moments, {}, how, "MOPAC") == said


def test_gpaw_is_given_moments_that_it_keeps():
    """GPAW need not be installed to know how it is told."""
    how = KNOWN["gpaw:GPAW"]
    cation = replace(WATER, charge=1, spin=2)
    given = arguments({}, cation, how, "gpaw:GPAW")
    occupations = {"fixmagmom": True, "name": "fermi-dirac", "width": 0.0}
    assert given == {"charge": 1, "occupations": occupations}
    assert dressed(cation, how).moments.tolist() == [1.0, 0.0, 0.0]


def test_xtb_python_sums_what_is_on_the_atoms():
    how, cation = KNOWN["xtb.ase:XTB"], replace(WATER, charge=1, spin=2)
    assert arguments({}, cation, how, "xtb.ase.calculator:XTB") == {}
    assert (dressed(cation, how).charges.sum(), dressed(cation, how).moments.sum()) == (1.0, 1.0)


def test_an_open_shell_molecule_of_ases_aims_starts_with_a_moment_that_fhi_aims_accepts():
    """Hund's rules are accepted for a single atom only."""
    how = KNOWN["ase.calculators.aims:Aims"]
    oxygen = Frame([8, 8], [[0, 0, 0], [0, 0, 1.2]], spin=3)
    assert arguments({}, oxygen, how, "Aims")["default_initial_moment"] == "1.000000"
    atom = Frame([8], [[0, 0, 0]], spin=3)
    assert arguments({}, atom, how, "Aims")["default_initial_moment"] == "hund"


# ---------------------------------------------------------------- a factory


def plain(atoms=None, label="x"):
    return EMT()


def by_name(total_charge=0, nopen=0):
    return EMT()


def pyscf_like(charge=0, spin=0):
    return EMT()


class Own(EMT):
    """An ASE calculator that takes anything and names its own parameters."""

    default_parameters: ClassVar = {"charge": 0, "mult": 1}


@pytest.mark.parametrize(
    ("make", "charge", "spin", "unpaired", "ambiguous"),
    [
        (plain, None, None, False, None),
        (by_name, "total_charge", "nopen", True, None),
        (pyscf_like, "charge", "spin", False, "spin"),
        (Own, "charge", "mult", False, None),
    ],
)
def test_an_unknown_factory_is_known_by_the_names_of_its_arguments(make, charge, spin, unpaired, ambiguous):
    how = conventions_of("mine:make", make)
    assert (how.charge, how.spin, how.unpaired, how.ambiguous) == (charge, spin, unpaired, ambiguous)


def test_keys_of_the_user_go_before_everything():
    how = conventions_of("mine:make", pyscf_like, "q", "m", "unpaired_electrons")
    assert (how.charge, how.spin, how.unpaired, how.ambiguous) == ("q", "m", True, None)
    assert conventions_of("mine:make", plain, spin_key="uhf").unpaired
    assert conventions_of("mine:make", plain, spin_key="odd").ambiguous == "odd"
    assert conventions_of("mine:make", plain, spin_key=INFO).ambiguous is None
    assert not conventions_of("mine:make", pyscf_like, spin_convention="multiplicity").ambiguous


def test_a_class_derived_from_a_known_one_keeps_what_it_still_accepts():
    from ase.calculators.vasp import Vasp

    class Mine(Vasp):
        def __init__(self, multiplicity=1, **more):
            super().__init__(**more)

    class Closed(Vasp):
        def __init__(self, xc):
            super().__init__(xc=xc)

    assert conventions_of("mine:Vasp2", type("Vasp2", (Vasp,), {})).spin == "nupdown"
    own = conventions_of("mine:Mine", Mine)
    assert (own.charge, own.spin, own.unpaired) == ("charge", "multiplicity", False)
    closed = conventions_of("mine:Closed", Closed)
    assert (closed.charge, closed.spin) == (None, None)


def test_arguments_are_accepted_by_name_or_by_taking_anything():
    assert [accepts(plain, key) for key in ("label", "label.x", "charge", None)] == [True, True, False, False]
    assert accepts(EMT, "charge")


# ---------------------------------------------------------------- a frame

QE = Conventions("input_data.system.tot_charge", "multiplicity", fractions=True)


def test_a_frame_without_charge_and_spin_changes_nothing_and_given_tables_are_never_changed():
    kwargs = {"input_data": {"system": {"ecutwfc": 40}}}
    assert arguments(kwargs, WATER, QE, "x") == kwargs
    made = arguments(kwargs, replace(WATER, charge=-1, spin=2), QE, "x")
    assert made == {"input_data": {"system": {"ecutwfc": 40, "tot_charge": -1}}, "multiplicity": 2}
    assert kwargs == {"input_data": {"system": {"ecutwfc": 40}}}


def test_whole_charges_are_integers_and_fractions_need_a_code_that_takes_them():
    half = replace(WATER, charge=0.5)
    assert arguments({}, half, QE, "x") == {"input_data": {"system": {"tot_charge": 0.5}}}
    assert type(arguments({}, replace(WATER, charge=1.0), Conventions("charge"), "x")["charge"]) is int
    with pytest.raises(Unsupported, match=r"H2O has charge 0\.5, and ORCA takes only whole charges"):
        arguments({}, half, Conventions("charge"), "ORCA")


@pytest.mark.parametrize("spin", [1, 3])
def test_what_only_unpaired_electrons_need_is_left_out_without_them(spin):
    how = KNOWN["ase.calculators.vasp:Vasp"]
    made = arguments({"ispin": 1} if spin == 1 else {}, replace(OXYGEN, spin=spin), how, "vasp")
    assert made == ({"ispin": 1} if spin == 1 else {"nupdown": 2, "ispin": 2})
    # the user's goes first
    assert arguments({"ispin": 3}, replace(OXYGEN, spin=3), how, "vasp")["ispin"] == 3


def test_charges_and_moments_on_atoms_sum_exactly_and_fitting_ones_are_kept():
    how = Conventions(INITIAL_CHARGES, INITIAL_MOMENTS)
    ion = dressed(replace(WATER, charge=0.3, spin=3), how)
    assert (ion.charges.tolist(), ion.moments.tolist()) == ([0.3, 0, 0], [2.0, 0, 0])
    antiferro = replace(OXYGEN, spin=1, moments=np.array([2.0, -2.0]))
    assert dressed(antiferro, how) is antiferro
    assert dressed(replace(OXYGEN, spin=3, moments=np.array([-1.0, -1.0])), how).moments.tolist() == [-1, -1]
    assert dressed(replace(OXYGEN, spin=5, moments=np.array([1.0, 1.0])), how).moments.tolist() == [4, 0]


def test_a_refusal_is_a_text_or_nothing():
    assert charge_refusal(replace(WATER, charge=0, spin=1), {}, Conventions(), "emt") is None
    assert "emt has no known argument for the spin" in charge_refusal(
        replace(WATER, spin=3), {}, Conventions(), "emt"
    )
    said = charge_refusal(replace(WATER, charge=1), {"charge": 2}, Conventions("charge"), "x")
    assert "REFERENCE.kwargs has charge: 2, which contradicts the charge 1 of H2O" in said


@pytest.mark.parametrize(
    ("kwargs", "how", "found"),
    [
        ({"charge": -1, "nupdown": 2}, Conventions("charge", "nupdown", unpaired=True), (-1, 3)),
        ({"charge": 0.5, "mult": 2.0}, Conventions("charge", "mult"), (0.5, 2)),
        ({"charge": "1", "mult": 1.5}, Conventions("charge", "mult"), (None, None)),
        ({"spin": 2}, Conventions("charge", "spin", ambiguous="spin"), (None, None)),
        ({}, Conventions(INFO, INFO), (None, None)),
    ],
)
def test_what_the_settings_say_is_read_back(kwargs, how, found):
    assert written_charge_and_spin(kwargs, how) == found


def test_an_entry_is_taken_out_of_its_table_without_touching_the_table():
    kwargs = {"input_data": {"system": {"ecutwfc": 40, "tot_charge": 1}}, "xc": "pbe"}
    assert without_key(kwargs, QE.charge) == {"input_data": {"system": {"ecutwfc": 40}}, "xc": "pbe"}
    assert kwargs["input_data"]["system"]["tot_charge"] == 1
    flat = {"input_data": {"ecutwfc": 40, "tot_charge": 1}}
    assert without_key(flat, QE.charge) == {"input_data": {"ecutwfc": 40}}
    for key in (None, INFO, "absent", "input_data.system.absent"):
        assert without_key(kwargs, key) == kwargs


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ((INITIAL_MOMENTS, None, None), f"charge_key: {INITIAL_MOMENTS}: expected .* {INITIAL_CHARGES}"),
        ((None, INITIAL_CHARGES, None), f"spin_key: {INITIAL_CHARGES}: expected .* {INITIAL_MOMENTS}"),
        (("atoms.q", None, None), "charge_key: atoms.q"),
        (
            (None, INITIAL_MOMENTS, "multiplicity"),
            "spin_convention: multiplicity: magnetic moments count unpaired",
        ),
    ],
)
def test_keys_that_mean_nothing_are_refused(keys, said):
    with pytest.raises(ValueError, match=said):
        check_keys(*keys)
    check_keys(INFO, INFO, "multiplicity")
    check_keys("charge", INITIAL_MOMENTS, None)
