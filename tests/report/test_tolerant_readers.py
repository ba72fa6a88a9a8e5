"""Files that another process may be writing are read as far as they go."""

import json
from pathlib import Path

import numpy as np
import pytest

from aims_pax.report.tolerant_readers import (
    StructureHeader,
    csv_numbers,
    csv_rows,
    json_file,
    json_lines,
    json_list,
    stored_labels,
    structure_headers,
    whole_lines,
)


def test_every_structure_is_read_with_its_forces(folder):
    import ase.io

    found = list(structure_headers(folder / "data/labelled.xyz"))
    truth = ase.io.read(folder / "data/labelled.xyz", ":", format="extxyz")
    assert len(found) == len(truth)
    for one, atoms in zip(found, truth, strict=True):
        geometry = one.geometry()
        assert one.id == atoms.info["frame_id"]
        assert one.energy == atoms.info["REF_energy"]
        np.testing.assert_array_equal(geometry.positions, atoms.positions)
        np.testing.assert_array_equal(geometry.forces, atoms.arrays["REF_forces"])
        np.testing.assert_array_equal(geometry.cell, atoms.cell.array)
        assert geometry.pbc == tuple(atoms.pbc)
        assert (one.stress is None) == (one.system == "water")


@pytest.mark.parametrize("missing", [1, 40, 300])
def test_a_structure_that_is_half_written_is_left_out(folder, missing):
    path = folder / "data/labelled.xyz"
    whole = list(structure_headers(path))
    path.write_bytes(path.read_bytes()[:-missing])
    found = list(structure_headers(path))
    assert [s.id for s in found] == [s.id for s in whole[:-1]]
    assert all(s.geometry() is not None for s in found)


def test_seconds_of_a_label_come_from_the_end_of_its_file(folder):
    labels = list(stored_labels(folder / "data/labels"))
    one = labels[0]
    stored = json.loads(next(folder.glob(f"data/labels/*/{one.frame}.json")).read_text())
    assert (one.seconds, one.ended, one.host) == (stored["seconds"], stored["when"], stored["host"])
    assert one.began == one.ended - one.seconds


def test_a_count_of_atoms_that_the_file_does_not_hold_is_no_structure(tmp_path):
    from aims_pax.report.tolerant_readers import structure_headers

    path = tmp_path / "torn.xyz"
    path.write_text("1\nenergy=1\nH 0 0 0\n99999999999999\nenergy=1\nH 0 0 0\n")
    assert [s.n_atoms for s in structure_headers(path)] == [1]


def test_numbers_of_a_csv_file_that_is_being_written(tmp_path):
    """A word that is no number and a column that is missing are NaN; a row of another length or a half one is none."""
    path = tmp_path / "losses.csv"
    path.write_text("step,T,V\n1,300.5,\n2,hot,8.0\n3,1\n4,310,9\n5,320,1")
    step, temperature, volume, pressure = csv_numbers(path, ("step", "T", "V", "p"))
    assert step.tolist() == [1, 2, 4]
    np.testing.assert_array_equal(temperature, [300.5, np.nan, 310])
    np.testing.assert_array_equal(volume, [np.nan, 8, 9])
    assert np.isnan(pressure).all()
    assert [len(column) for column in csv_numbers(tmp_path / "none.csv", ("a", "b"))] == [0, 0]
    assert [tuple(row.values()) for row in csv_rows(path)] == [
        ("1", "300.5", ""), ("2", "hot", "8.0"), ("4", "310", "9"),
    ]  # fmt: skip


def test_the_newest_row_of_a_long_file_is_found_from_its_end(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("step,T\n" + "".join(f"{k},{k / 2}\n" for k in range(1000)) + "1000,5")
    (step,), (temperature,) = csv_numbers(path, ("step", "T"), newest=True)
    assert (step, temperature) == (999, 499.5)
    path.write_text("step,T\n7,1.5\n")
    assert [column.tolist() for column in csv_numbers(path, ("T",), newest=True)] == [[1.5]]
    path.write_text("step,T\n")
    assert [column.tolist() for column in csv_numbers(path, ("T",), newest=True)] == [[]]


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_lines_are_given_once_with_the_offset_behind_them(tmp_path, chunk):
    """Reading on from any offset gives the rest; what follows the last line break waits for its end."""
    path = tmp_path / "journal.jsonl"
    path.write_text("één\ntwo\n\nfour")
    lines, offsets = [], []
    for some, offset in whole_lines(path, 0, chunk):
        lines += some
        offsets.append(offset)
    assert lines == ["één", "two", ""]
    assert offsets[-1] == len("één\ntwo\n\n".encode())
    (rest,) = whole_lines(path, len("één\n".encode()), 1000)
    assert rest[0] == ["two", ""]
    assert list(whole_lines(tmp_path / "none", 0, chunk)) == []


def test_json_that_is_missing_torn_or_of_another_shape_is_nothing(tmp_path):
    path = tmp_path / "some.json"
    assert (json_list(path), json_file(path), list(json_lines(path))) == ([], {}, [])
    for text in ("[1, 2", "7", "[" * 100_000):
        path.write_text(text)
        assert (json_list(path), json_file(path)) == ([], {})
    path.write_text('[1]\n{half\n\n{"a": 2}')
    assert list(json_lines(path)) == [[1], {"a": 2}]


def test_where_a_label_comes_from():
    def source(**info):
        return StructureHeader(Path("x"), 1, info, 0, 0).source

    assert source(source="given:old/data#1.xyz#17") == "old/data#1.xyz"
    assert source(stage="given") == "given", "of a version that did not write the file"
    assert source(source="reference", stage="initial dataset") == source() == "reference"


def test_values_are_read_without_their_quotes_and_escapes(tmp_path):
    path = tmp_path / "quoted.xyz"
    path.write_text(
        '1\nsystem="say \\"hi\\"" name="_JSON \\"7\\"" REF_stress="1 2 3" REF_energy=soon\nH 0 0 0\n'
    )
    (found,) = structure_headers(path)
    assert (found.system, found.info["name"]) == ('say "hi"', "7")
    assert found.stress is None
    assert np.isnan(found.energy)
