"""FHI-aims' geometry.in: every line is kept or refused."""

import bz2
import gzip
import random

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.labelling.references.aims_input import geometry_text
from aims_pax.structure_files.geometry_in import parse_geometry_in
from aims_pax.systems import read_frame, read_systems

WATER = "atom 0 0 0 O\natom 0.96 0 0 H\natom -0.24 0.93 0 H\n"
CELL = "lattice_vector 4 0 0\nlattice_vector 0 5 0\nlattice_vector 0 0 6\n"


def frame(text):
    return parse_geometry_in(text).frame


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + WATER.encode(),
        WATER.replace("\n", "\r\n").encode(),
        WATER.replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + WATER.replace("\n", "\r\n").encode(),
        WATER.encode("utf-16"),
        b"# \xc5ngstr\xf6m, latin-1\n" + WATER.encode(),
        WATER.replace("0.93", "9.3d-1").replace("0.96", "+.96D0").encode(),
        WATER.replace(" 0 0 ", ", 0., 0.d0 ,").encode(),
        WATER.replace("\n", "  # oxygen or hydrogen\n\n").replace(" ", "\t").encode(),
        WATER.encode().rstrip(),
    ],
    ids=["BOM", "CRLF", "CR", "BOM and CRLF", "UTF-16", "latin-1", "Fortran", "commas", "comments", "no end"],
)
def test_every_editor_and_every_fortran_number_gives_the_same_water(tmp_path, content):
    (tmp_path / "geometry.in").write_bytes(content)
    read = read_frame(tmp_path / "geometry.in")
    assert read == frame(WATER)
    assert read.formula == "H2O"


@pytest.mark.parametrize(
    ("name", "pack"),
    [("geometry.in.gz", gzip.compress), ("geometry.in.next_step", bytes), ("w.in.bz2", bz2.compress)],
)
def test_compressed_and_next_step_files_are_read(tmp_path, name, pack):
    left_behind = "hessian_file\ntrust_radius 0.2\nhessian_block 1 1 1 0 0 0 1 0 0 0 1\n"
    (tmp_path / name).write_bytes(pack((WATER + left_behind).encode()))
    (system,) = read_systems(tmp_path / name)
    assert system.frame == frame(WATER)
    assert system.name == name.partition(".")[0]


def test_statements_about_the_whole_reach_every_calculation():
    moved = frame("homogeneous_field 0.1 0d0 -1d-2\n" + WATER)
    assert moved.id != frame(WATER).id
    moved = moved.moved(moved.positions + 0.1)
    assert geometry_text(moved).splitlines()[1] == "homogeneous_field 0.1 0.0 -0.01"
    slab = frame("set_vacuum_level 5.5\n" + CELL + WATER)
    assert "set_vacuum_level 5.5" in geometry_text(slab).splitlines()


def test_constraints_belong_to_the_atom_or_the_lattice_vector_before_them():
    geometry = parse_geometry_in(
        CELL.replace("\n", "\n  constrain_relaxation z\n", 1).replace(
            "6\n", "6\nconstrain_relaxation .true.\n"
        )
        + "atom 0 0 0 Na\natom 2 2 2 Cl\n  constrain_relaxation x\n  constrain_relaxation y\n"
        "atom 1 1 1 H\nconstrain_relaxation .true.\natom 1 1 3 H\nconstrain_relaxation .false.\n"
    )
    assert geometry.frame.fixed.astype(int).tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]]
    assert geometry.fixed_cell.astype(int).tolist() == [[0, 0, 1], [0, 0, 0], [1, 1, 1]]
    free = parse_geometry_in(CELL + "constrain_relaxation .true.\n" + WATER)
    assert free.frame.fixed is None
    assert free.frame.id == frame(CELL + WATER).id


def test_no_constraint_is_written_for_a_label():
    fixed = frame(WATER + "constrain_relaxation .true.\n")
    assert fixed.fixed.any()
    assert "constrain_relaxation" not in geometry_text(fixed)


def test_a_moment_of_zero_is_not_the_same_as_none():
    stated = frame("atom 0 0 0 Fe\ninitial_moment 4\natom 0 0 2 O\ninitial_moment 0.0\natom 0 0 4 O\n")
    assert stated.moments.tolist() == [4, 0, 0]
    text = geometry_text(stated).splitlines()
    assert text[2:] == ["    initial_moment 4.00000000", "atom 0.00000000 0.00000000 2.00000000 O",
                        "    initial_moment 0.00000000", "atom 0.00000000 0.00000000 4.00000000 O"]  # fmt: skip
    nothing = frame("atom 0 0 0 Fe\ninitial_moment 4\natom 0 0 2 O\natom 0 0 4 O\n")
    assert nothing.id != stated.id
    all_zero = frame("atom 0 0 0 O\ninitial_moment 0\n")
    assert all_zero.id != frame("atom 0 0 0 O\n").id
    assert geometry_text(all_zero).count("initial_moment 0.0") == 1


def test_fractional_positions_and_charges_are_read():
    read = frame("atom_frac .5 .5 0 Na\n  initial_charge 1d0\natom 1 1 1 Cl\n" + CELL)
    assert read.positions.tolist() == [[2, 2.5, 0], [1, 1, 1]]
    assert read.charges.tolist() == [1, 0]
    assert read.periodic


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (WATER + "multipole 0 0 5 0 1.0\n", 4, "multipole has a fixed position"),
        (WATER + "empty 0 0 5 H\n", 4, "empty has a fixed position"),
        (WATER + "pseudocore 0 0 5 Mg\n", 4, "pseudocore has a fixed position"),
        (WATER + "magnetic_moment 1.0\n", 4, "magnetic response"),
        (WATER + "isotope 17\n", 4, "isotope"),
        ("symmetry_n_params 3 1 2\n" + WATER, 1, "symmetry"),
        ("atm 0 0 0 O\n" + WATER, 1, "nearest: atom"),
        ("Atom 0 0 0 O\n" + WATER, 1, "nearest: atom"),
        ("homogenous_field 0 0 1\n" + WATER, 1, "nearest: homogeneous_field"),
        (WATER + "constrain_relaxaton .true.\n", 4, "nearest: constrain_relaxation"),
        ("constrain_relaxation .true.\n" + WATER, 1, "none before it"),
        ("initial_moment 1\n" + WATER, 1, "none before it"),
        (CELL + "initial_moment 1\n" + WATER, 4, "none before it"),
        (WATER + "constrain_relaxation xy\n", 4, "expected one of"),
        (WATER + "initial_moment 1 2\n", 4, "one number"),
        (WATER + "initial_moment up\n", 4, "one number"),
        (WATER + "initial_moment 1\ninitial_moment 2\n", 5, "twice"),
        (WATER + "atom 0 0 nan H\n", 4, "'nan' is not a number"),
        (WATER + "atom 0 0 1e999 H\n", 4, "not a number"),
        (WATER + "atom 0 0 1_000 H\n", 4, "not a number"),
        (WATER + "atom 0 0 1\n", 4, "an element"),
        (WATER + "atom 0 0 1 H 0.5\n", 4, "found also '0.5'"),
        (WATER + "atom 0 0 1 h\n", 4, "expected H?"),
        (WATER + "atom 0 0 1 X\n", 4, "'X' is not an element"),
        (WATER + "atom 0 0 1 D\n", 4, "isotopes"),
        (CELL + "lattice_vector 1 1 1\n" + WATER, 4, "fourth"),
        ("homogeneous_field 0 0\n" + WATER, 1, "x y z"),
        ("homogeneous_field 0 0 1\nhomogeneous_field 0 0 2\n" + WATER, 2, "twice"),
    ],
)
def test_a_line_that_cannot_be_kept_is_refused_with_its_number(tmp_path, text, line, said):
    path = tmp_path / "geometry.in"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        read_frame(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no atoms"),
        ("# nothing\n", "no atoms"),
        ("atom_frac 0 0 0 H\n", "atom_frac needs three lattice_vector"),
        ("lattice_vector 1 0 0\nlattice_vector 0 1 0\n" + WATER, "expects three or none"),
        ("lattice_vector 1 0 0\nlattice_vector 0 1 0\nlattice_vector 1 1 0\n" + WATER, "no volume"),
        ("lattice_vector 0 1 0\nlattice_vector 1 0 0\nlattice_vector 0 0 1\n" + WATER, "left-handed"),
        ("\0\0", "not a text file"),
    ],
)
def test_a_file_without_a_structure_is_refused(tmp_path, text, said):
    (tmp_path / "geometry.in").write_text(text)
    with pytest.raises(SettingsError, match=said):
        read_frame(tmp_path / "geometry.in")


def test_velocities_are_read_and_said_to_have_no_effect(tmp_path):
    (tmp_path / "geometry.in").write_text(WATER + "velocity 0.1 0 0\n")
    (system,) = read_systems(tmp_path / "geometry.in")
    assert system.frame == frame(WATER)
    assert "velocities are not used" in system.notes[0]
    assert not parse_geometry_in(WATER + "velocity 0 0 0\n").velocities


def test_what_is_written_for_fhi_aims_is_read_back_as_the_same_frame():
    dice = np.random.default_rng(0)
    for _ in range(50):
        n = int(dice.integers(1, 9))
        cell = CELL if dice.random() < 0.5 else ""
        atoms = "".join(
            "atom {:.8f} {:.8f} {:.8f} {}\n".format(
                *dice.normal(size=3) * 9, random.choice(["H", "Fe", "Cl"])
            )
            + f"initial_moment {dice.integers(-1, 2)}\n" * int(dice.random() < 0.5)
            + f"initial_charge {dice.integers(-1, 2)}\n" * int(dice.random() < 0.5)
            for _ in range(n)
        )
        before = frame("homogeneous_field 0 0 0.123456789\n" + cell + atoms)
        assert frame(geometry_text(before)).id == before.id
