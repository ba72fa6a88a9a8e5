"""PDB files: elements without doubt, formal charges, no placeholder of a cell."""

import pytest
from ase import Atoms

from aims_pax.errors import SettingsError
from aims_pax.structure_files.protein import element_of, read_pdb, split_pdb
from aims_pax.systems import read_frame, read_systems
from tests.structure_files.files import at, atom, pdb, refused


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


@pytest.mark.parametrize(("group", "whole"), [("P 1", True), ("P1", True), ("", True), ("P 21 21 21", False)])
def test_a_cell_of_which_a_pdb_file_holds_one_asymmetric_unit_is_refused(tmp_path, group, whole):
    cell = f"CRYST1   20.000   20.000   20.000  90.00  90.00  90.00 {group:<11}   4\n"
    path = at(tmp_path, "a.pdb", cell + pdb(atom("N"), atom("CA")))
    if whole:
        assert read_frame(path).pbc.all()
    else:
        assert "space group P 21 21 21 (CRYST1), so that the file holds only a part" in refused(path)


def test_formal_charges_of_pdb_files_are_summed_and_said(tmp_path):
    atoms = [atom("ZN", "ZN", "HETATM", end="ZN2+"), atom("CL", "CL", "HETATM", end="CL1-")]
    (system,) = read_systems(at(tmp_path, "a.pdb", pdb(*atoms)))
    assert system.frame.charge == 1
    assert "+1 is the sum of the formal charges" in system.notes[0]


def test_each_model_has_the_lines_before_the_first_and_lines_between_models_are_nobodys():
    one, other = (pdb(atom(name)).replace("END\n", "") for name in ("N", "O"))
    cell = "CRYST1   20.000   20.000   20.000  90.00  90.00  90.00 P 1           1\n"
    text = f"{cell}MODEL        1\n{one}ENDMDL\nREMARK\nMODEL        2\n{other}ENDMDL\n"
    assert split_pdb(text) == [cell + one, cell + other]
    assert [read_pdb(part).atoms.get_chemical_formula() for part in split_pdb(text)] == ["N", "O"]
    assert split_pdb(one) == [one]


@pytest.mark.parametrize(
    ("name", "residue", "element"),
    [
        ("CD", "GLU", "C"),
        ("CD", "CD", "Cd"),
        ("HG", "SER", "H"),
        ("HG", "HG", "Hg"),
        ("NA", "NA+", "Na"),
        ("NA", "NALA", "N"),
        ("SE", "SEC", "Se"),
        ("SE", "MSE", "Se"),
        ("OP1", "DA", "O"),
        ("P", "A", "P"),
        ("D1", "DOD", "D"),
        ("'H5", "DC", "H"),
        ("BR", "LIG", None),
        ("CU", "LIG", None),
        ("MG", "LIG", "Mg"),
        ("XX", "ALA", None),
    ],
)
def test_a_name_means_an_element_by_its_residue_or_none(name, residue, element):
    if element is not None:
        assert element_of(name, residue) == element
        return
    with pytest.raises(SettingsError, match=rf"atom {name} of residue {residue} (may be|has no element)"):
        element_of(name, residue)


@pytest.mark.parametrize(
    ("end", "charge"), [("CL1-", -1), ("ZN2+", 2), ("FE+3", 3), ("NA+", 1), ("CL-", -1), (" O  ", None)]
)
def test_formal_charges_are_read_with_the_sign_before_or_after(end, charge):
    image = read_pdb(pdb(atom("X1", "LIG", "HETATM", end=end)))
    assert image.atoms.info.get("charge") == charge
    assert len(image.notes) == (charge is not None)


def test_deuterium_is_hydrogen_of_twice_the_mass():
    atoms = read_pdb(pdb(atom("O", "DOD"), atom("D1", "DOD"), atom("H2", "DOD", end=" H"))).atoms
    assert atoms.get_chemical_symbols() == ["O", "H", "H"]
    assert atoms.get_masses().tolist() == pytest.approx([15.999, 2.01410178, 1.008])
