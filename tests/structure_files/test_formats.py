"""Formats that ASE reads: what its readers lose is read or refused."""

import numpy as np
import pytest
from ase.build import molecule
from ase.db import connect
from ase.io import write

from aims_pax.errors import SettingsError
from aims_pax.structure_files import read_images
from aims_pax.systems import read_frame, read_systems
from tests.structure_files.files import at, refused


def test_a_charge_or_spin_in_a_turbomole_file_is_refused(tmp_path):
    coord = "$coord\n 0 0 0 o\n 0 0 1.8 h\n$eht {}\n$end\n"
    assert "charge -1" in refused(at(tmp_path, "coord", coord.format("charge=-1 unpaired=0")))
    assert "unpaired=1" in refused(at(tmp_path, "coord", coord.format("charge=0 unpaired=1")))
    assert read_frame(at(tmp_path, "coord", coord.format("charge=0 unpaired=0"))).formula == "HO"


def test_a_turbomole_file_in_angstrom_or_with_a_cell_is_refused_because_ase_reads_bohr_and_no_cell(tmp_path):
    coord = "$coord{}\n 0 0 0 o\n 0 0 0.9 h\n{}$end\n"
    for unit, cell, said in (
        (" angs", "", "$coord angs"),
        (" frac", "", "$coord frac"),
        ("", "$periodic 3\n", "$periodic"),
    ):
        assert said in refused(at(tmp_path, "coord", coord.format(unit, cell)))


def test_elements_of_gromacs_files_are_not_guessed(tmp_path):
    def gro(*atoms):
        lines = [
            f"{1:5d}{r:<5}{n:>5}{k + 1:5d}{0.2 * k:8.3f}{0:8.3f}{0:8.3f}" for k, (n, r) in enumerate(atoms)
        ]
        return f"x\n{len(atoms)}\n" + "\n".join(lines) + "\n   3.0 3.0 3.0\n"

    frame = read_frame(at(tmp_path, "a.gro", gro(("CA", "GLY"), ("NA", "NA"), ("CL", "CL"), ("OW", "SOL"))))
    assert frame.numbers.tolist() == [6, 11, 17, 8]
    assert "C or Cl" in refused(at(tmp_path, "b.gro", gro(("CL1", "LIG"), ("O", "LIG"))))


CIF = """data_x
_cell_length_a 4.0
_cell_length_b 4.0
_cell_length_c 4.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""


@pytest.mark.parametrize(
    "sites",
    ["Ni1 Ni 0 0 0 0.4\nFe1 Fe 0 0 0 0.6\n", "Fe1 Fe 0 0 0 0.9\n", "H1 H 0 0 0 1\nO1 O .5 .5 .5 0.5\n"],
)
def test_partial_occupancy_is_refused(tmp_path, sites):
    assert "partial occupancy" in refused(at(tmp_path, "a.cif", CIF + sites))


def test_whole_sites_and_deuterium_of_cif_files_are_read(tmp_path):
    frame = read_frame(at(tmp_path, "a.cif", CIF + "O1 O 0 0 0 1.0\nD1 D 0.2 0 0 1.0\n"))
    assert frame.formula == "HO"
    assert frame.masses[1] == pytest.approx(2.014, abs=1e-3)


POSCAR = "x\n1.0\n4 0 0\n0 4 0\n0 0 4\nO H\n1 1\nSelective dynamics\nDirect\n0 0 0 T T F\n.2 0 0 F F F\n"


def test_selective_dynamics_are_components_where_the_lattice_is_along_the_axes(tmp_path):
    frame = read_frame(at(tmp_path, "POSCAR", POSCAR))
    assert frame.fixed.astype(int).tolist() == [[0, 0, 1], [1, 1, 1]]
    skew = POSCAR.replace("0 0 4\n", "1 1 4\n", 1).replace("T T F", "F F T")
    assert "selective dynamics F F T" in refused(at(tmp_path, "CONTCAR", skew))
    layered = read_frame(at(tmp_path, "CONTCAR", POSCAR.replace("0 4 0\n", "2 4 0\n", 1)))
    assert layered.fixed.astype(int).tolist() == [[0, 0, 1], [1, 1, 1]]


def test_charge_and_multiplicity_of_a_gaussian_input_are_read(tmp_path):
    text = "#p b3lyp\n\nt\n\n-1 3\nO 0.0 0.0 0.0\nH 0.0 0.0 0.97\n\n"
    frame = read_frame(at(tmp_path, "a.gjf", text))
    assert (frame.charge, frame.spin) == (-1, 3)


GAUSSIAN_OUTPUT = """ Entering Gaussian System, Link 0=g16
 Gaussian 16:  ES64L-G16RevB.01 20-Dec-2017
 Charge = {} Multiplicity = {}
                         Standard orientation:
 ---------------------------------------------------------------------
 Center     Atomic      Atomic             Coordinates (Angstroms)
 Number     Number       Type             X           Y           Z
 ---------------------------------------------------------------------
      1          8           0        0.000000    0.000000    0.110000
      2          1           0        0.000000    0.760000   -0.470000
 ---------------------------------------------------------------------
"""


@pytest.mark.parametrize(
    ("charge", "spin", "expected"), [(" 1", 3, (1.0, 3)), ("-1", 1, (-1.0, None)), (" 0", 1, (None, None))]
)
def test_charge_and_multiplicity_of_an_output_are_read(tmp_path, charge, spin, expected):
    frame = read_frame(at(tmp_path, "a.log", GAUSSIAN_OUTPUT.format(charge, spin)))
    assert (frame.formula, frame.charge, frame.spin) == ("HO", *expected)


ESPRESSO = """&system
 ibrav=0, nat=1, ntyp=1, ecutwfc=30, {}
/
ATOMIC_SPECIES
H 1.0 H.upf
CELL_PARAMETERS angstrom
5 0 0
0 5 0
0 0 5
ATOMIC_POSITIONS crystal
H 0 0 0
K_POINTS gamma
"""


@pytest.mark.parametrize("entry", ["tot_charge=1", "nspin=2, tot_magnetization = 1.0"])
def test_charge_and_spin_of_an_input_that_ase_does_not_read_are_refused(tmp_path, entry):
    assert read_frame(at(tmp_path, "a.pwi", ESPRESSO.format("nspin=2, tot_magnetization=0"))).formula == "H"
    said = refused(at(tmp_path, "b.pwi", ESPRESSO.format(entry)))
    assert "which is not read from this format; give an extended XYZ file with" in said


def test_velocities_and_moments_that_are_results_are_said_to_have_no_effect(tmp_path):
    atoms = molecule("H2O")
    atoms.set_velocities(np.ones((3, 3)))
    write(tmp_path / "a.xyz", atoms)
    (system,) = read_systems(tmp_path / "a.xyz")
    assert "velocities are not used" in system.notes[0]
    text = "1\nProperties=species:S:1:pos:R:3:magmoms:R:1 energy=1.0\nFe 0 0 0 4.0\n"
    (system,) = read_systems(at(tmp_path, "b.xyz", text))
    assert "initial_magmoms" in system.notes[0]
    text = text.replace("magmoms", "initial_magmoms")
    assert read_frame(at(tmp_path, "c.xyz", text)).moments.tolist() == [4.0]


@pytest.mark.parametrize("unknown", [".", "?"])
def test_an_occupancy_that_a_cif_does_not_state_is_1(tmp_path, unknown):
    assert read_frame(at(tmp_path, "a.cif", CIF + f"O1 O 0 0 0 {unknown}\n")).formula == "O"


def test_cif_moments_and_labels_in_capitals_and_shelx_occupancies_are_refused(tmp_path):
    site = "O1 O 0 0 0 1\n"
    moments = "loop_\n_atom_site_moment_label\n_atom_site_moment_crystalaxis_x\nO1 2.0\n"
    assert "initial_magmoms" in refused(at(tmp_path, "a.cif", CIF + site + moments))
    labels = CIF.replace("_atom_site_type_symbol\n", "") + "CA1 0 0 0 1\n"
    assert "C or Ca" in refused(at(tmp_path, "b.cif", labels))
    res = "TITL a\nCELL 1.0 4 4 4 90 90 90\nLATT -1\nSFAC Fe\nFe 1 0 0 0 {}\nEND\n"
    assert "partial occupancy" in refused(at(tmp_path, "a.res", res.format(0.5)))
    assert read_frame(at(tmp_path, "b.res", res.format("1.0"))).formula == "Fe"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.xyz", "2\n\nH 0 0 0\n", "is incomplete"),
        ("a.xyz", "1\n\nH 0 0 0\nH 0 0 1\n", "instead of the number of atoms"),
        ("a.xyz", "1\n\nH 0 0 nan\n", "not finite"),
        ("a.xyz", "1\n\nH 0 0 x\n", "could not convert"),
        ("a.xyz", "1\n\nX 0 0 0\n", "not an element"),
        ("a.xyz", '1\npbc="T T T"\nH 0 0 0\n', "no volume"),
        ("a.xyz", '1\nLattice="0 3 0 3 0 0 0 0 3"\nH 0 0 0\n', "left-handed"),
        ("a.xyz", '1\nLattice="nan 0 0 0 3 0 0 0 3"\nH 0 0 0\n', "cell is not finite"),
        (
            "a.xyz",
            "1\nProperties=species:S:1:pos:R:3:initial_magmoms:R:1\nH 0 0 0 nan\n",
            "moment is not a finite",
        ),
        ("a.xyz", "1\nProperties=species:S:1:pos:R:3:masses:R:1\nH 0 0 0 -1\n", "mass of atom 1"),
        ("a.mol2", "@<TRIPOS>MOLECULE\nx\n", "extended XYZ"),
        ("a.data", "x\n\n1 atoms\n1 atom types\n", ""),
        (
            "a.nwi",
            "geometry\n O 0 0 0\nend\n",
            "unreadable (IndexError: list index out of range); is it complete",
        ),
    ],
)
def test_what_is_no_structure_is_refused_in_one_line(tmp_path, name, text, said):
    assert said in refused(at(tmp_path, name, text))


def test_an_unknown_format_is_refused_with_the_one_to_convert_to(tmp_path):
    assert "convert it to extended XYZ" in refused(at(tmp_path, "a.nothing", "not a structure\n"))


def test_lammps_files_without_elements_are_refused(tmp_path):
    head = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n0 5\n0 5\n0 5\n"
    dump = head + "ITEM: ATOMS id {}x y z\n"
    bare = at(tmp_path, "a.lammpstrj", dump.format("type ") + "1 1 1.0 2.0 3.0\n")
    assert "add the column element to the dump" in refused(bare)
    named = at(tmp_path, "b.lammpstrj", dump.format("type element ") + "1 1 O 1.0 2.0 3.0\n")
    assert read_frame(named).formula == "O"


def test_a_data_file_of_lammps_is_read_if_it_names_elements_and_columns(tmp_path):
    """ASE takes every .data for one of the program RuNNer, and finds no structures in it."""
    box = "x\n\n2 atoms\n2 atom types\n0 9 xlo xhi\n0 9 ylo yhi\n0 9 zlo zhi\n\n"
    masses, atoms = "Masses\n\n1 15.999\n2 1.008\n\n", "Atoms{}\n\n1 1 1 -0.5 1 2 3\n2 1 2 0.5 1 2 3.97\n"
    frame = read_frame(at(tmp_path, "a.data", box + masses + atoms.format(" # full")))
    assert (frame.formula, frame.positions[1].tolist(), frame.cell[0, 0]) == ("HO", [1, 2, 3.97], 9)
    assert "write it after the word Atoms" in refused(at(tmp_path, "b.data", box + masses + atoms.format("")))
    assert "no Masses section" in refused(at(tmp_path, "c.data", box + atoms.format(" # full")))


@pytest.mark.parametrize("name", ["a.db", "a.json"])
def test_charge_and_multiplicity_in_the_key_value_pairs_of_a_database_are_read(tmp_path, name):
    with connect(tmp_path / name) as database:
        database.write(molecule("H2O"), charge=1, multiplicity=2, remark="cation")
        database.write(molecule("OH"), net_charge=-1)
    assert (read_frame(tmp_path / f"{name}@0").charge, read_frame(tmp_path / f"{name}@0").spin) == (1, 2)
    with pytest.raises(SettingsError, match=r"net_charge=-1: write it as charge="):
        read_frame(tmp_path / f"{name}@1")


def test_isotopes_of_a_gaussian_input_are_masses(tmp_path):
    text = "#p b3lyp\n\nt\n\n0 1\nO 0.0 0.0 0.0\nH(iso=2) 0.0 0.0 0.97\nH 0.0 0.97 0.0\n\n"
    frame = read_frame(at(tmp_path, "a.gjf", text))
    assert frame.masses.tolist() == pytest.approx([15.999, 2.01410178, 1.008])


def test_of_a_trajectory_only_the_chosen_images_are_given_with_their_numbers(tmp_path):
    write(tmp_path / "t.traj", [molecule(m) for m in ("H2O", "CH4", "NH3")])
    found = read_images(tmp_path / "t.traj", "1:")
    assert [(k, image.atoms.get_chemical_formula()) for k, image in found] == [(1, "CH4"), (2, "H3N")]
    with pytest.raises(SettingsError, match=r"holds more than one structure: choose one with t\.traj@0"):
        read_images(tmp_path / "t.traj")
