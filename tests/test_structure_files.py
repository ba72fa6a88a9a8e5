"""Structure files: what ASE's readers lose is read or refused."""

import gzip

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from aims_pax.errors import SettingsError
from aims_pax.md.state import MDState
from aims_pax.systems import read_frame, read_systems


def at(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def refused(path):
    with pytest.raises(SettingsError) as error:
        read_frame(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- charge, multiplicity, masses


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


def xyz(entries, atoms="O 0 0 0\nH 0 0 0.97\n"):
    return f"{atoms.count(chr(10))}\nProperties=species:S:1:pos:R:3 {entries}\n{atoms}"


@pytest.mark.parametrize(
    ("entries", "charge", "spin"),
    [
        ("charge=-1 spin=1", -1, 1),
        ("total_charge=1 total_spin=3", 1, 3),
        ("charge=+1 multiplicity=1", 1, 1),
        ("charge=-1.0 total_charge=-1", -1, None),
        ("charge = 0 spin = 2", 0, 2),
        ("charge=0.5 spin=2", 0.5, 2),
        ("pbc=F", None, None),
    ],
)
def test_charge_and_multiplicity_of_an_xyz_file_are_read(tmp_path, entries, charge, spin):
    frame = read_frame(at(tmp_path, "oh.xyz", xyz(entries)))
    assert (frame.charge, frame.spin) == (charge, spin)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("charge=0 spin=0", "spin=0: expected the multiplicity 2S+1"),
        ("charge=0 spin=0.5", "spin=0.5"),
        ("charge=0 spin=1", "9 electrons, an odd number, which cannot have multiplicity 1"),
        ("charge=-1 spin=2", "10 electrons, an even number, which cannot have multiplicity 2"),
        ("charge=0 spin=12", "needs 11 unpaired electrons, but there are only 9"),
        ("charge=12", "larger than the number of electrons"),
        ("charge=1 total_charge=-1", "contradict"),
        ('charge="0 1"', 'charge="0 1": expected one number'),
        ("charge=nan", "expected one number"),
        ("charge=inf", "expected one number"),
        ("charge=1+0j", "expected one number"),
        ("charge=T", "expected one number"),
        ("charge", "expected one number"),
        ("spin=doublet", "expected one number"),
        ("Charge=1", "write it as charge"),
        ("charge: 1 spin: 2", "write it as charge"),
        ("mult=2", "write it as spin"),
        ("uhf=1", "write it as spin"),
        ("charge=1 charge=-1", "charge appears twice: 1 and -1"),
        ('pbc="T T F" pbc=F Lattice="5 0 0 0 5 0 0 0 5"', "pbc appears twice"),
    ],
)
def test_a_charge_or_multiplicity_that_no_molecule_has_is_refused_in_one_line(tmp_path, entries, said):
    assert said in refused(at(tmp_path, "oh.xyz", xyz(entries)))


def test_crystals_may_have_any_multiplicity(tmp_path):
    text = xyz('charge=0 spin=1 Lattice="3 0 0 0 3 0 0 0 3"', "Na 0 0 0\n")
    assert read_frame(at(tmp_path, "na.xyz", text)).spin == 1


def test_heavy_water_is_heavy_in_the_frame_and_in_its_motion(tmp_path):
    atoms = molecule("H2O")
    atoms.set_masses([15.999, 2.014, 2.014])
    write(tmp_path / "d2o.xyz", atoms)
    frame = read_frame(tmp_path / "d2o.xyz")
    assert frame.masses.tolist() == [15.999, 2.014, 2.014]
    state = MDState.start(frame, 300.0, stream=1)
    assert state.masses.tolist() == [15.999, 2.014, 2.014]
    assert MDState.from_arrays(state.arrays()).frame() == frame
    light = MDState.start(
        read_frame(at(tmp_path, "h2o.xyz", "3\n\nO 0 0 0\nH 1 0 0\nH 0 1 0\n")), 300.0, stream=1
    )
    ratio = state.momenta[1:] / light.momenta[1:]
    assert np.allclose(ratio, np.sqrt(2.014 / 1.008))  # ⟨p²⟩ = m k T from the same deviates
    assert np.array_equal(state.momenta[0], light.momenta[0])


# ---------------------------------------------------------------- molfiles


def mol(counts="  2  1", charge_code=0, tail=""):
    return (
        f"x\n  y\n\n{counts}  0  0  0  0  0  0  0  0999 V2000\n"
        f"    0.0000    0.0000    0.0000 O   0{charge_code:3d}  0  0  0  0\n"
        "    0.9700    0.0000    0.0000 H   0  0  0  0  0  0\n"
        f"  1  2  1  0\n{tail}M  END\n"
    )


@pytest.mark.parametrize(
    ("text", "charge", "spin"),
    [
        (mol(), None, None),
        (mol(tail="M  CHG  1   1  -1\n"), -1, None),
        (mol(tail="M  CHG  2   1   2   2  -1\n"), 1, None),
        (mol(charge_code=5), -1, None),
        (mol(charge_code=3), 1, None),
        (mol(charge_code=4), None, 2),
        (mol(charge_code=3, tail="M  CHG  1   1  -1\n"), -1, None),  # the line goes before the column
        (mol(tail="M  RAD  1   1   2\n"), None, 2),
    ],
)
@pytest.mark.parametrize("name", ["a.sdf", "a.mol"])
def test_formal_charges_and_radicals_of_molfiles_are_read(tmp_path, name, text, charge, spin):
    frame = read_frame(at(tmp_path, name, text + "$$$$\n" * (name == "a.sdf")))
    assert (frame.formula, frame.charge, frame.spin) == ("HO", charge, spin)


@pytest.mark.parametrize("item", ["charge>\n1", "PUBCHEM_TOTAL_CHARGE>\n-1", "Multiplicity>\n3"])
def test_data_items_of_an_sdf_that_say_more_than_the_molecule_are_refused(tmp_path, item):
    head = "w\n\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n"
    one = f"{head}    0.0000    0.0000    0.0000 Ne  0  0  0  0  0  0\nM  END\n> <{{}}\n\n$$$$\n"
    assert "data items are not read" in refused(at(tmp_path, "a.sdf", one.format(item)))
    same = one.format("charge>\n0\n\n> <multiplicity>\n1\n\n> <name>\nneon")
    assert read_frame(at(tmp_path, "b.sdf", same)).charge is None


def test_isotopes_of_molfiles_are_masses(tmp_path):
    frame = read_frame(at(tmp_path, "a.mol", mol(tail="M  ISO  1   2   2\n")))
    assert frame.masses.tolist() == [15.999, 2.01410178]


def test_molfiles_that_leave_a_doubt_are_refused(tmp_path):
    assert "radical centres" in refused(at(tmp_path, "a.mol", mol(tail="M  RAD  2   1   2   2   2\n")))
    assert "9H" in refused(at(tmp_path, "b.mol", mol(tail="M  ISO  1   2   9\n")))
    assert "V3000" in refused(at(tmp_path, "c.mol", mol().replace("V2000", "V3000")))
    assert "impossible" not in refused(
        at(tmp_path, "d.mol", mol(charge_code=5, tail="M  RAD  1   1   2\nM  CHG  1   1  -1\n"))
    )


# ---------------------------------------------------------------- PDB, GROMACS


def pdb(*atoms, cell=""):
    """atoms: (record, name in columns 13-16, altloc, residue, occupancy, columns 77-80)."""
    lines = [cell] if cell else []
    for k, (record, name, altloc, residue, occupancy, end) in enumerate(atoms):
        lines.append(
            f"{record:<6}{k + 1:5d} {name:<4}{altloc:1}{residue:>3} A   1    "
            f"{1.5 * k:8.3f}{0:8.3f}{0:8.3f}{occupancy:6.2f}{0:6.2f}          {end}"
        )
    return "\n".join(lines) + "\nEND\n"


def atom(name, residue="GLY", record="ATOM", altloc="", occupancy=1.0, end=""):
    return record, name, altloc, residue, occupancy, end


@pytest.mark.parametrize(
    ("atoms", "symbols"),
    [
        ([atom(" N  "), atom(" CA "), atom(" C  "), atom(" O  ")], "NCCO"),
        (
            [atom("CA  "), atom("CB", "ALA"), atom("CD1", "LEU"), atom("NE", "ARG"), atom("SG", "CYS")],
            "CCCNS",
        ),
        ([atom("HG11", "VAL"), atom("1HB2", "ALA"), atom("HO5'", "DA"), atom("HE1", "HIE")], "HHHH"),
        ([atom("CA", "CA", "HETATM"), atom("ZN", "ZN", "HETATM"), atom("CL", "CL", "HETATM")], "Ca Zn Cl"),
        ([atom("NA", "NA+", "HETATM"), atom("OW", "SOL"), atom("HW1", "SOL")], "Na O H"),
        ([atom("CA", "GLY", end=" C"), atom("X1", "LIG", "HETATM", end="CL")], "C Cl"),
        ([atom("FE", "HEM", "HETATM", end="FE"), atom("SE", "MSE", "HETATM")], "Fe Se"),
        ([atom("O1", "LIG", "HETATM"), atom("H12", "LIG", "HETATM")], "O H"),
    ],
)
def test_elements_of_pdb_files_come_from_the_column_or_from_names_without_doubt(tmp_path, atoms, symbols):
    frame = read_frame(at(tmp_path, "a.pdb", pdb(*atoms)))
    assert frame.to_atoms().get_chemical_symbols() == Atoms(symbols.replace(" ", "")).get_chemical_symbols()


@pytest.mark.parametrize(
    ("atoms", "said"),
    [
        ([atom("CA", "LIG", "HETATM")], "C or Ca"),
        ([atom("CL1", "UNK", "HETATM")], "C or Cl"),
        ([atom("MW", "SOL")], "no element"),
        ([atom("N"), atom("CA", altloc="A"), atom("CA", altloc="B")], "alternate location"),
        ([atom("N"), atom("O", "HOH", "HETATM", occupancy=0.5)], "occupancy 0.5"),
    ],
)
def test_pdb_files_that_leave_a_doubt_are_refused(tmp_path, atoms, said):
    assert said in refused(at(tmp_path, "a.pdb", pdb(*atoms)))


@pytest.mark.parametrize(
    ("cell", "periodic"),
    [
        ("CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1", False),
        ("CRYST1    0.000    0.000    0.000  90.00  90.00  90.00 P 1           1", False),
        ("CRYST1   20.000   20.000   20.000  90.00  90.00  90.00 P 1           1", True),
    ],
)
def test_a_placeholder_cell_of_a_pdb_file_is_none(tmp_path, cell, periodic):
    frame = read_frame(at(tmp_path, "a.pdb", pdb(atom("N"), atom("CA", occupancy=0.0), cell=cell)))
    assert frame.periodic is periodic
    assert frame.cell.any() == periodic


def test_formal_charges_of_pdb_files_are_summed_and_said(tmp_path):
    atoms = [atom("ZN", "ZN", "HETATM", end="ZN2+"), atom("CL", "CL", "HETATM", end="CL1-")]
    (system,) = read_systems(at(tmp_path, "a.pdb", pdb(*atoms)))
    assert system.frame.charge == 1
    assert "+1 is the sum of the formal charges" in system.notes[0]


def test_elements_of_gromacs_files_are_not_guessed(tmp_path):
    def gro(*atoms):
        lines = [
            f"{1:5d}{r:<5}{n:>5}{k + 1:5d}{0.2 * k:8.3f}{0:8.3f}{0:8.3f}" for k, (n, r) in enumerate(atoms)
        ]
        return f"x\n{len(atoms)}\n" + "\n".join(lines) + "\n   3.0 3.0 3.0\n"

    frame = read_frame(at(tmp_path, "a.gro", gro(("CA", "GLY"), ("NA", "NA"), ("CL", "CL"), ("OW", "SOL"))))
    assert frame.numbers.tolist() == [6, 11, 17, 8]
    assert "C or Cl" in refused(at(tmp_path, "b.gro", gro(("CL1", "LIG"), ("O", "LIG"))))


# ---------------------------------------------------------------- CIF, POSCAR, others

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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\n\nH 0 0 0 0.5\n", "columns after x y z"),
        ("1\n0 2\nH 0 0 0\n", "charge=0 spin=2"),
        ("1\nProperties=species:S:1:pos:R:3:charge:R:1\nH 0 0 0 1\n", "named initial_charges"),
        ("1\nProperties=species:S:1:pos:R:3:magmom:R:1\nH 0 0 0 1\n", "named initial_magmoms"),
        (
            "1\nProperties=species:S:1:pos:R:3:fixed:L:1\nH 0 0 0 T\n",
            "column of constraints must be named move_mask",
        ),
    ],
)
def test_columns_and_comments_without_a_known_name_are_said_to_have_no_effect(tmp_path, text, said):
    (system,) = read_systems(at(tmp_path, "a.xyz", text))
    assert any(said in note for note in system.notes)


def test_a_column_of_masses_by_another_name_is_refused(tmp_path):
    text = "1\nProperties=species:S:1:pos:R:3:mass:R:1\nH 0 0 0 2.014\n"
    assert "rename it to masses" in refused(at(tmp_path, "a.xyz", text))
    assert "column masses" in refused(at(tmp_path, "b.xyz", "1\n\nD 0 0 0\n"))
    text = "1\nProperties=species:S:1:pos:R:3:isotope:I:1\nH 0 0 0 2\n"
    assert "rename it to masses" in refused(at(tmp_path, "c.xyz", text))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("tot_charge=1", "write it as charge="),
        ("charge=1 total_multiplicity=1", "write it as spin="),
        ('lattice="5 0 0 0 5 0 0 0 5"', "write the cell as Lattice="),
        ('cell="5 5 5"', "write the cell as Lattice="),
        ('Lattice="5 0 0 0 5 0 0 0 5" PBC="F F F"', "write it as pbc="),
    ],
)
def test_a_charge_multiplicity_or_cell_by_another_name_is_refused(tmp_path, entries, said):
    assert said in refused(at(tmp_path, "a.xyz", xyz(entries)))


def test_cif_moments_and_labels_in_capitals_and_shelx_occupancies_are_refused(tmp_path):
    site = "O1 O 0 0 0 1\n"
    moments = "loop_\n_atom_site_moment_label\n_atom_site_moment_crystalaxis_x\nO1 2.0\n"
    assert "initial_magmoms" in refused(at(tmp_path, "a.cif", CIF + site + moments))
    labels = CIF.replace("_atom_site_type_symbol\n", "") + "CA1 0 0 0 1\n"
    assert "C or Ca" in refused(at(tmp_path, "b.cif", labels))
    res = "TITL a\nCELL 1.0 4 4 4 90 90 90\nLATT -1\nSFAC Fe\nFe 1 0 0 0 {}\nEND\n"
    assert "partial occupancy" in refused(at(tmp_path, "a.res", res.format(0.5)))
    assert read_frame(at(tmp_path, "b.res", res.format("1.0"))).formula == "Fe"


# ---------------------------------------------------------------- several structures, damaged files


@pytest.fixture
def trajectory(tmp_path):
    for name in ("t.xyz", "t.traj"):
        write(tmp_path / name, [molecule(m) for m in ("H2O", "CH4", "NH3")])
    return tmp_path


@pytest.mark.parametrize("name", ["t.xyz", "t.traj"])
def test_one_of_several_structures_is_chosen_by_its_index(trajectory, name):
    assert f"{name}@0" in refused(trajectory / name)
    assert read_frame(trajectory / f"{name}@1").formula == "CH4"
    (last,) = read_systems(trajectory / f"{name}@-1")
    assert (last.name, last.frame.formula) == ("t", "H3N")
    every = read_systems(trajectory / f"{name}@:")
    assert [(s.name, s.frame.formula) for s in every] == [("t_0", "H2O"), ("t_1", "CH4"), ("t_2", "H3N")]
    assert [s.name for s in read_systems(trajectory / f"{name}@1:")] == ["t_1", "t_2"]
    assert "no such structure; the file holds 3" in refused(trajectory / f"{name}@3")


def test_several_models_and_records_are_several_structures(tmp_path):
    model = pdb(atom("N")).replace("END\n", "")
    path = at(tmp_path, "a.pdb", f"MODEL        1\n{model}ENDMDL\nMODEL        2\n{model}ENDMDL\nEND\n")
    assert "holds 2 structures" in refused(path)
    assert len(read_systems(tmp_path / "a.pdb@:")) == 2
    assert "holds 2 structures" in refused(at(tmp_path, "a.sdf", (mol() + "$$$$\n") * 2))


def test_empty_lines_between_structures_do_not_hide_them(tmp_path):
    one = "1\n\nH 0 0 0\n"
    assert "holds 2 structures" in refused(at(tmp_path, "a.xyz", one + "\n\n" + one))
    assert read_frame(at(tmp_path, "b.xyz", "\n" + one + "\n\n")).formula == "H"


def test_xyz_files_of_any_editor_are_read(tmp_path):
    text = "2\ncharge=0\nH 0 0 0\nH 0 0 0.74\n"
    path = tmp_path / "a.xyz"
    for content in (
        b"\xef\xbb\xbf" + text.encode(),
        text.replace("\n", "\r\n").encode(),
        text.encode().rstrip(),
    ):
        path.write_bytes(content)
        assert read_frame(path).formula == "H2"
    (tmp_path / "b.xyz.gz").write_bytes(gzip.compress(text.encode()))
    (system,) = read_systems(tmp_path / "b.xyz.gz")
    assert (system.name, system.frame.formula) == ("b.xyz", "H2")


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
    ],
)
def test_what_is_no_structure_is_refused_in_one_line(tmp_path, name, text, said):
    assert said in refused(at(tmp_path, name, text))
