import io

import pytest

from aims_pax.xyz_blocks import (
    BlockFault,
    StructureLines,
    check_columns,
    find_damage,
    structure_blocks,
    torn_tail,
    whole_structures,
)

ONE = "1\ncomment\nH 0 0 0\n"


def test_whole_structures_are_counted_to_the_last_complete_line():
    assert whole_structures(ONE + ONE) == 2 * len(ONE)
    assert whole_structures(ONE + ONE[:-1]) == len(ONE)
    assert whole_structures(ONE + "2\n") == len(ONE)
    assert whole_structures("") == 0


@pytest.mark.parametrize(
    ("tail", "fault"),
    [
        ("", None),
        ("\n\n", None),
        ("12", None),  # a number of atoms that was being written
        ("2\nc\nH 0 0 0\nH 0", None),
        ("dear all\n", "4: 'dear all' instead of the number of atoms"),
        ("dear", "4: 'dear' is not part of a structure"),
        ("9\nProperties=a\nH\nProperties=b\n", "4: fewer lines than 9 atoms, and other structures follow"),
    ],
)
def test_a_torn_tail_is_told_from_other_damage(tail, fault):
    length, found = torn_tail(ONE + tail)
    assert found == fault
    assert (ONE + tail)[:length] == ONE + ("\n\n" if tail == "\n\n" else "")


def test_files_in_order_show_no_damage(tmp_path):
    path = tmp_path / "x.xyz"
    path.write_text(ONE + "\n" + "1\n\nH 0 0 0\nVEC1 1 0 0\nVEC2 0 1 0\nVEC3 0 0 1\n1\n\nH 0 0 0")
    assert find_damage(path) is None
    first, second, third = structure_blocks(io.StringIO(path.read_text()))
    assert [len(b.cell_vectors) for b in (first, second, third)] == [0, 3, 0]
    assert [b.last for b in (first, second, third)] == [False, False, True]
    assert "".join(b.text for b in (first, second, third)) == path.read_text().replace("\n\n1\n", "\n1\n")


def test_the_first_damaged_structure_is_named(tmp_path):
    path = tmp_path / "x.xyz"
    path.write_text(ONE + "2\ncomment\nH 0 0 0\nH 0 0\n" + ONE)
    assert find_damage(path) == (
        "structure 2 (counted from 1): the line of atom 2 of 2 has 3 columns, expected 4"
    )
    path.write_text(ONE + "2\ncomment\nH 0 0 0\nH 0 0\n")
    assert find_damage(path).endswith("has 3 columns, expected 4; the file is incomplete")
    path.write_text(ONE + "3\ncomment\nH 0 0 0\nH 0 0 0\n")
    assert find_damage(path).endswith("the file is incomplete: it ends after 2 of 3 atoms")


def test_columns_are_counted_against_the_header():
    (block,) = structure_blocks(io.StringIO("1\nProperties=species:S:1:pos:R:3\nH 0 0 0 1\n"))
    with pytest.raises(BlockFault, match="atom 1 of 1 has 5 columns, expected 4"):
        check_columns(block)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("T", "F", None),
        ("True", "False", None),
        ("1", "0", "atom 1 is '1'"),
        ("F", "true", "atom 2 is 'true'"),
    ],
)
def test_truth_values_are_written_t_and_f(first, second, said):
    """ASE reads any other word as F: 1, which means that the atom moves, would fix it."""
    comment = 'Properties="species:S:1:pos:R:3:move_mask:L:1:x:R:1" a=1\n'
    block = StructureLines("2\n", comment, [f"H 0 0 0 {first} 0.5\n", f"H 0 0 1 {second} 0.5\n"])
    if said is None:
        check_columns(block)
    else:
        with pytest.raises(BlockFault, match=f"move_mask of {said}; expected T or F"):
            check_columns(block)


@pytest.mark.parametrize(
    ("properties", "line", "said"),
    [
        ("species:S:1:pos:R:3:Z:I:1", "O 0 0 0 8", None),
        ("Z:I:1:pos:R:3:species:S:1", "8 0 0 0 OW", None),
        ("species:S:1:pos:R:3:Z:I:1", "O 0 0 0 7", "atom 1 is O in the column species and 7 in the column Z"),
        ("numbers:I:1:symbols:S:1:pos:R:3", "1 c 0 0 0", "atom 1 is c in the column symbols and 1"),
    ],
)
def test_symbols_and_atomic_numbers_agree(properties, line, said):
    """ASE's reader takes the numbers: an O with Z=7 was a nitrogen."""
    block = StructureLines("1\n", f"Properties={properties}\n", [line])
    if said is None:
        check_columns(block)
    else:
        with pytest.raises(BlockFault, match=said):
            check_columns(block)
