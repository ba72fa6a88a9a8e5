"""Molfiles and SDF: formal charges, radicals and isotopes are read, and whatever leaves a doubt is refused."""

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.structure_files.mol import read_mol, split_mol
from aims_pax.systems import read_frame
from tests.structure_files.files import at, mol, refused


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


@pytest.mark.parametrize(
    "item", ["charge>\n1", "PUBCHEM_TOTAL_CHARGE>\n-1", "Multiplicity>\n3", "Formal Charge>\n1"]
)
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


def test_records_end_with_four_dollars_and_an_empty_one_is_none():
    assert split_mol(mol() + "$$$$\n" + mol() + "$$$$\n\n\n") == [mol(), mol()]
    assert split_mol(mol()) == [mol()]


def test_charges_and_isotopes_of_several_lines_are_joined():
    tail = "M  CHG  1   1   2\nM  CHG  1   2  -1\nM  ISO  1   1  18\nM  ISO  1   2   2\n"
    atoms = read_mol(mol(tail=tail)).atoms
    assert atoms.info["charge"] == 1
    np.testing.assert_allclose(atoms.get_masses(), [17.99915961, 2.01410178])


def test_a_line_that_holds_no_pairs_and_a_mass_difference_are_refused():
    with pytest.raises(SettingsError, match=r"'M  CHG  1   1   x': expected pairs of whole numbers"):
        read_mol(mol(tail="M  CHG  1   1   x\n"))
    with pytest.raises(
        SettingsError, match="mass differences in the atom lines: write isotopes as M  ISO lines"
    ):
        read_mol(mol().replace(" O   0", " O   2"))


@pytest.mark.parametrize("line", ["M  CHG  2   1   2   2", "M  ISO  1   2", "M  RAD  1   1"])
def test_a_line_that_was_cut_loses_no_charge_radical_or_isotope(line):
    with pytest.raises(SettingsError, match="expected pairs of whole numbers"):
        read_mol(mol(tail=f"{line}\n"))
