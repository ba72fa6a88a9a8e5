"""aims.out: genuine outputs are read rightly or refused, and an answer to another question is refused."""

import importlib.resources
import io
import re

import numpy as np
import pytest
from ase.io.aims import get_header_chunk

from aims_pax.errors import Mismatch, NotConverged, NotFinite, SetupError, Truncated, WrongShape
from aims_pax.frames import Frame
from aims_pax.labelling.references import aims_output
from aims_pax.labelling.references.fhi_aims import read_label
from aims_pax.settings.control_in import parse_control

GENUINE = importlib.resources.files("ase") / "test" / "testdata" / "aims"
PLAIN = parse_control("xc pbe")
TITLE = "Total atomic forces (unitary forces cleaned) [eV/Ang]:"
ENERGY = -2063.02072675943


def output(name="singlepoint"):
    return (GENUINE / f"{name}.out").read_text()


def structure(text):
    """The frame that an output is about, by ASE's reader."""
    atoms = get_header_chunk(iter(io.StringIO(text))).initial_atoms
    atoms.set_constraint()
    return Frame.from_atoms(atoms)


WATER = structure(output())


def test_a_genuine_single_point_gives_its_free_energy_and_its_raw_forces():
    label = read_label(output(), WATER, False, PLAIN)
    assert label.energy == pytest.approx(ENERGY, abs=1e-9)
    assert label.forces[1, 0] == 6.92109878170016
    assert label.forces[0, 2] == 0.162259424656531e-27


@pytest.mark.parametrize(
    ("name", "error", "reason"),
    [
        ("relax", Mismatch, "several structures"),
        ("md", Mismatch, "several structures"),
        ("socket", Mismatch, "several structures"),
        ("DFPT_dielectric", WrongShape, "no forces"),
        ("issue_3345_spin_md_light", WrongShape, "no forces"),
        ("numerical_stress", NotConverged, "does not say"),
        ("polarization", NotConverged, "does not say"),
    ],
)
def test_other_genuine_outputs_are_refused_with_words(name, error, reason):
    with pytest.raises(error, match=reason):
        read_label(output(name), structure(output(name)), False)


def test_forces_after_relaxation_constraints_are_refused():
    constrained = output().replace(
        TITLE,
        "Total atomic forces (unitary forces were cleaned, then relaxation constraints were applied) [eV/Ang]:",
    )
    with pytest.raises(Mismatch, match="relaxation constraints, zero on fixed atoms"):
        read_label(constrained, WATER, False)


def test_forces_that_were_not_cleaned_are_forces():
    uncleaned = output().replace(TITLE, "Total atomic forces (derivative of free energy) [eV/Ang]:")
    assert read_label(uncleaned, WATER, False).forces[1, 0] == 6.92109878170016


def test_a_force_with_an_exponent_of_three_digits_is_read():
    tiny = output().replace("0.162259424656531E-27", "0.162259424656531-101")
    assert read_label(tiny, WATER, False).forces[0, 2] == pytest.approx(1.62259424656531e-102)


@pytest.mark.parametrize(
    ("old", "new", "error", "reason"),
    [
        ("0.692109878170016E+01", "*********************", NotFinite, "too large to be printed"),
        (
            "  |    2          0.69",
            "  |    7          0.69",
            Truncated,
            "where the force on atom 2 should be",
        ),
        (
            "  |    2          0.69",
            "[node7:17] warning: x\n  |    2          0.69",
            Truncated,
            "force on atom 2",
        ),
        ("01         -0.419925410034428E", "01-0.419925410034428E", Truncated, "force on atom 2"),
        ("3: Species H ", "3: Species C ", Mismatch, "atom 3 is C, not H"),
        ("1: Species O             0.0000", "1: Species O             0.5000", Mismatch, "atom 1 is 0.5 Å"),
        (
            "of atoms                   :        3",
            "of atoms                   :        4",
            WrongShape,
            "4 atoms",
        ),
        ("Self-consistency cycle converged.", "Self-consistency cycle", NotConverged, "does not say"),
        ("[eV/Ang]", "[Ha/bohr]", Mismatch, "unit"),
    ],
)
def test_a_changed_line_is_noticed(old, new, error, reason):
    text = output()
    assert old in text
    with pytest.raises(error, match=reason):
        read_label(text.replace(old, new), WATER, False, PLAIN)


def test_the_free_energy_per_atom_is_never_taken_for_the_total_one():
    """It is printed under nearly the same name, and last where the compact form is missing."""
    compact = re.compile(
        r"^  \| (Total energy (un)?corrected|Electronic free energy) .*\+04 eV.*\n", re.MULTILINE
    )
    text, lines = compact.subn("", output())
    assert lines == 6
    assert text.rindex("Electronic free energy per atom") > text.rindex("Electronic free energy  ")
    with pytest.raises(WrongShape, match="no 'Electronic free energy'"):
        read_label(text, WATER, False)


def test_atoms_in_a_neighbouring_cell_are_at_their_place():
    cell = 8 * np.eye(3)
    frame = Frame(WATER.numbers, WATER.positions + np.array([8, 0, -16]), cell, True)
    assert read_label(output(), frame, False).energy == pytest.approx(ENERGY)


# charge and spin ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("charge 1", "10 electrons; with charge 1 there are 9"),
        ("charge -1d0", "with charge -1 there are 11"),
        ("spin collinear\ndefault_initial_moment 1", "1 spin channels; spin collinear has 2"),
    ],
)
def test_an_output_of_another_charge_or_spin_is_refused(text, reason):
    with pytest.raises(Mismatch, match=reason):
        read_label(output(), WATER, False, parse_control(f"xc pbe\n{text}"))


def test_a_moment_that_was_not_asked_for_is_refused():
    text = output("issue_3345_spin_md_light")
    frame = structure(text)
    for moment, error, reason in (
        (3, Mismatch, r"ends with a moment of 1\.00"),
        (-1, WrongShape, "no forces"),
    ):
        control = parse_control(f"xc pw-lda\nspin collinear\nfixed_spin_moment {moment}")
        with pytest.raises(error, match=reason):
            read_label(text, frame, False, control)


def test_a_negative_moment_is_printed_as_such():
    text = output("issue_3345_spin_md_light").replace("N_down :    1.00", "N_down :   -1.00")
    control = parse_control("xc pw-lda\nspin collinear\nfixed_spin_moment -1")
    with pytest.raises(WrongShape, match="no forces"):  # behind the check of the moment
        read_label(text, structure(text), False, control)


def test_atoms_of_a_slab_may_be_printed_in_a_neighbouring_cell_in_all_directions():
    cell = np.diag([5.0, 5.0, 20.0])
    slab = Frame([29], [[0.0, 0.0, -1.0]], cell, [True, True, False])
    assert aims_output._distances(np.array([[5.0, 0.0, 20.0]]), slab).tolist() == [0.0]


def test_a_polarised_output_is_refused_where_none_was_asked_for():
    text = output("issue_3345_spin_md_light")
    with pytest.raises(Mismatch, match="2 spin channels; spin none has 1"):
        read_label(text, structure(text), False, PLAIN)


def test_pseudo_hydrogen_has_the_electrons_of_its_own_nucleus():
    text = output().replace("a total of         10.000 electrons", "a total of         10.500 electrons")
    with pytest.raises(Mismatch, match=r"10\.5 electrons"):
        read_label(text, WATER, False, PLAIN)
    assert read_label(text, WATER, False, PLAIN, {"H": 1.25, "O": 8.0}).energy == pytest.approx(ENERGY)


# stress ---------------------------------------------------------------------------------------------------


def test_stress_has_the_sign_of_tension_and_fits_the_pressure_below_it():
    lines = output("relax").splitlines()
    compressed = lines[: next(i for i, x in enumerate(lines) if "-0.07748922" in x) + 3]
    np.testing.assert_allclose(np.diag(aims_output._read_stress(compressed)), 0.07748923, atol=2e-8)
    wrong = [line.replace("Pressure:      -0.07748922", "Pressure:       0.07748922") for line in compressed]
    with pytest.raises(Mismatch, match=r"the pressure 0\.0774892 .* is not that of its stress, -0\.0774892"):
        aims_output._read_stress(wrong)


def test_a_numerical_stress_is_read():
    tensor = aims_output._read_stress(output("numerical_stress").splitlines())
    np.testing.assert_allclose(np.diag(tensor), [0.00244726, 0.00267442, 0.00258710])
    assert tensor[0, 2] == tensor[2, 0] == -0.00000026


def test_stress_in_another_unit_is_refused():
    lines = output("numerical_stress").replace("[eV/A**3]", "[GPa]").splitlines()
    with pytest.raises(Mismatch, match="unit"):
        aims_output._read_stress(lines)


# several calculations in one file -------------------------------------------------------------------------


def test_a_program_started_again_after_a_failure_counts():
    whole = "          Invoking FHI-aims ...\n" + output()
    failed = whole[: whole.index("SCF    5")] + "\n"
    assert aims_output.last_calculation(failed + whole) == whole


def test_two_finished_calculations_in_one_file_stop_the_run():
    whole = "          Invoking FHI-aims ...\n" + output()
    with pytest.raises(SetupError, match=r"2 finished calculations.*without MPI"):
        aims_output.last_calculation(whole + whole)


def test_complaints_of_the_cycle_are_found_anywhere():
    assert aims_output.converged(output())
    assert not aims_output.converged(output() + "\n  ** scf_solver: SCF cycle not converged.\n")
    assert re.search("not yet converged", output())  # FHI-aims restarts its mixer: no complaint
