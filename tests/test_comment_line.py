"""Names in the comment line of extended XYZ stay text."""

import pytest

from aims_pax.comment_line import entries_beside_vectors, parse_comment_line, refuse_other_units
from aims_pax.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("system=001", "001"), ('system="F"', "F"), ("system=1e3", "1e3"), ("system = 12", "12"),
        ("system='T'", "T"), ('system="1 2"', "1 2"), ("system=1,2", "1,2"), ("system=water", "water"),
        ('note="system=7" system=008', "008"),
    ],
)  # fmt: skip
def test_a_name_is_text_whatever_it_looks_like(text, expected):
    assert parse_comment_line(text)["system"] == expected
    assert isinstance(parse_comment_line(text)["system"], str)


def test_numbers_and_truth_values_stay_what_they_are():
    found = parse_comment_line(
        'step=-7 T=300.00 x=1e-05 y=2.5e3 b=F energy=1E3 charge=+1 v="1 2 3" nothing=nan'
    )
    assert (found["step"], found["T"], found["x"], found["y"], found["charge"]) == (
        -7,
        300.0,
        1e-05,
        2500.0,
        1,
    )
    assert found["b"] is False
    assert found["energy"] == 1000.0
    assert found["v"].tolist() == [1, 2, 3]
    assert found["nothing"] != found["nothing"]


@pytest.mark.parametrize(
    "properties",
    [
        "species:S:1:pos:R:3000000000",
        "species:S:1:pos:R:1" + "9" * 5000,
        "species:S:1:pos:R",
        "species:S:1:pos:R:-3",
        "a:X:1",
    ],
)
def test_columns_that_no_file_has_are_refused_before_room_is_made_for_them(properties):
    with pytest.raises(SettingsError, match=r"Properties=.*expected name:type:columns"):
        parse_comment_line(f"Properties={properties} charge=0")


def test_six_numbers_of_a_stress_are_read_in_voigts_order():
    """ASE reads `stress` and `virial` as 9 numbers only; under other names six were read before."""
    full = [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
    for written in ('stress="1 2 3 4 5 6"', "virial='1, 2, 3, 4, 5, 6'", 'a=b stress = " 1 2 3  4 5 6 " c=d'):
        found = parse_comment_line(written)
        assert found.get("stress", found.get("virial")).tolist() == full
    assert parse_comment_line('my_stress="1 2 3 4 5 6"')["my_stress"].tolist() == [1, 2, 3, 4, 5, 6]
    assert parse_comment_line('stress="1 0 0 0 2 0 0 0 3"')["stress"].tolist() == [
        [1, 0, 0],
        [0, 2, 0],
        [0, 0, 3],
    ]


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ("species:S:1:frac:R:3", "no column pos (positions in Å)"),
        ("species:S:1:Pos:R:3:REF_forces:R:3", "no column pos (positions in Å)"),
        ("element:S:1:pos:R:3", "no column species (symbols of the elements)"),
        ("species:S:1:pos:R:3:move_mask:S:1", "the column move_mask has the type S"),
    ],
)
def test_columns_without_which_ase_makes_another_structure_are_missed(properties, said):
    """ASE puts all atoms at the origin where no column is called pos, and drops constraints that are text."""
    with pytest.raises(SettingsError) as caught:
        parse_comment_line(f"Properties={properties}")
    assert said in str(caught.value)
    assert parse_comment_line("Properties=Z:I:1:positions:R:3")


@pytest.mark.parametrize(
    "written",
    [
        "units=bohr", "unit=Bohr", "Units = au", "length_unit=a.u.", "units='atomic units'", "coordinates in bohr",
        "unit_of_length=nm", 'pos_unit="nm"', "units=Hartree/Bohr", "lattice-units=pm",
        "coordinates=fractional", "positions=direct",
    ],
)  # fmt: skip
def test_positions_in_another_unit_than_angstrom_are_refused(written):
    """They were taken as Å: structures of half, or a tenth, of their size."""
    with pytest.raises(SettingsError, match=r"read in Å; convert them .*and remove"):
        parse_comment_line(f"{written} charge=0")


@pytest.mark.parametrize(
    "written", ["units=Angstrom", "unit=Å", "units=metal", "energy_unit=Hartree", "E in a.u.", "name=bohr", "au=1"]
)  # fmt: skip
def test_other_units_say_nothing_about_positions(written):
    parse_comment_line(f"{written} charge=0")


@pytest.mark.parametrize("key", ["units", "energy_unit", "unit_of_forces", "forces-units", "stressUnit"])
@pytest.mark.parametrize("unit", ["Hartree", "Ha/Bohr", "kcal/mol", "a.u.", "GPa", "Ry", "meV"])
def test_labels_in_other_units_are_refused(key, unit):
    with pytest.raises(
        SettingsError, match=f"{key}={unit}: labels are read in eV, eV/Å and eV/Å³; convert them"
    ):
        refuse_other_units({key: unit})
    refuse_other_units({key: "eV/Angstrom", "time_unit": unit, "energy": 1.0})


def test_entries_beside_lines_of_cell_vectors_are_read():
    assert entries_beside_vectors("a crystal charge=1 spin=2") == {"charge": 1, "spin": 2}
    for written in ('pbc="T T F"', "Properties=species:S:1:pos:R:3"):
        with pytest.raises(SettingsError, match="beside lines VEC1, VEC2, VEC3"):
            entries_beside_vectors(written)


@pytest.mark.parametrize("written", ['"f f f"', "None", '"no no no"', "TTF", '"T T"', '"2 0 0"', "none"])
def test_words_that_ase_takes_for_periodic_are_refused(written):
    with pytest.raises(SettingsError, match=r'^pbc=.*: expected three of T and F, pbc="T T F"$'):
        parse_comment_line(f"Properties=species:S:1:pos:R:3 pbc={written}")


@pytest.mark.parametrize("written", ['"T T F"', "[T,T,F]", "{T T F}", '"1 1 0"', '"True True False"', "F"])
def test_truth_values_of_periodicity_are_read(written):
    assert "pbc" in parse_comment_line(f"Properties=species:S:1:pos:R:3 pbc={written}")
