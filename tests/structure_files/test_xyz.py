"""XYZ and extended XYZ: what has no known name is refused, or said to have no effect."""

import gzip

import pytest

from aims_pax.errors import SettingsError
from aims_pax.structure_files.xyz import read_xyz, split_xyz
from aims_pax.systems import read_frame, read_systems
from tests.structure_files.files import at, refused, xyz


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


def test_a_file_is_cut_where_its_counts_say_and_other_cell_vectors_stay_with_their_structure():
    one, other = "1\nfirst\nH 0 0 0\n", "2\n\nH 0 0 0\nO 0 0 1\nVEC1 1 0 0\nVEC2 0 1 0\n"
    assert split_xyz(one + "\n" + other + one) == [one, other, one]
    assert split_xyz("") == split_xyz("\n \n") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\n\nH 0 0 0\nH 0 0 1\n", r"line 4: 'H 0 0 1' instead of the number of atoms; expected XYZ"),
        ("\n3\n\nH 0 0 0\nH 0 0 1\n", "the structure that begins in line 2 is incomplete: expected 3 atoms"),
        ("2\n\nH 0 0 0\n\n", "begins in line 1 is incomplete: expected 2 atoms"),
        ("²\n\nH 0 0 0\n", "line 1: '²' instead of the number of atoms"),
    ],
)
def test_the_line_where_it_stops_being_xyz_is_named(text, said):
    with pytest.raises(SettingsError, match=said):
        split_xyz(text)


def test_columns_that_ase_takes_for_results_are_said_to_have_no_effect_too():
    properties = "Properties=species:S:1:pos:R:3:magmoms:R:1:charges:R:1:fix:L:1"
    image = read_xyz(f"1\n{properties} energy=-1\nFe 0 0 0 4.0 0.5 F\n")
    assert [note for note in image.notes if "charges" in note] == [
        "its column charges is not used; a column of initial values must be named initial_charges"
    ]
    assert any("column fix is not used; a column of constraints" in note for note in image.notes)


def test_constraints_that_ase_would_turn_round_are_refused():
    rows = "H 0 0 0 {}\nH 0 0 1 {}\n"
    text = "2\nProperties=species:S:1:pos:R:3:move_mask:L:1\n" + rows
    assert read_xyz(text.format("F", "T")).atoms.constraints[0].index.tolist() == [0]
    with pytest.raises(SettingsError, match="move_mask of atom 1 is '0'; expected T or F"):
        read_xyz(text.format(0, 1))


def test_symbols_that_contradict_atomic_numbers_are_refused():
    with pytest.raises(SettingsError, match="atom 1 is O in the column species and 7 in the column Z"):
        read_xyz("1\nProperties=species:S:1:pos:R:3:Z:I:1\nO 0 0 0 7\n")


def test_charge_and_multiplicity_beside_lines_of_cell_vectors_are_read():
    """ASE's reader leaves the comment of such a structure unread."""
    lines = "2\n{}\nH 0 0 0\nH 0 0 0.7\nVEC1 5 0 0\nVEC2 0 5 0\nVEC3 0 0 5\n"
    atoms = read_xyz(lines.format("charge=1 spin=2")).atoms
    assert (atoms.info["charge"], atoms.info["spin"], atoms.pbc.all()) == (1, 2, True)
    with pytest.raises(SettingsError, match="read in Å"):
        read_xyz(lines.format("units=bohr"))
