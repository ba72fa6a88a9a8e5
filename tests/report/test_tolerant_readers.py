"""Files that another process may be writing are read as far as they go."""

import json

import numpy as np
import pytest

from aims_pax.report.tolerant_readers import stored_labels, structure_headers


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
