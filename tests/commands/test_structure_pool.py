"""Pools are read in pieces and copied byte for byte, or refused with the place of the error."""

import gzip

import pytest

from aims_pax.commands.structure_pool import (
    copied_structures,
    in_batches,
    look_through,
    read_pool,
    structure_bytes,
)
from aims_pax.errors import SettingsError
from aims_pax.labelled_data import LabelKeys

WATER = b'3\nProperties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-1.50  note="a  b"\n' + b"".join(
    b"%s  %d.000  0.5 0.25   0.1 0 -0.10\n" % (s, k) for k, s in enumerate((b"O", b"H", b"H"))
)
OXYGEN = b'1\r\nProperties=pos:R:3:species:S:1 pbc="F F F"\r\n 0 0 0 O\r\n'
PLAIN = b"2\n\nC 0 0 0\nO 0 0 1.1\n"


def pool(folder, content, name="pool.xyz"):
    path = folder / name
    path.write_bytes(content)
    return path


def test_structures_are_found_with_their_bytes_and_elements(tmp_path):
    path = pool(tmp_path, WATER + b"\n\n" + OXYGEN + PLAIN[:-1])
    assert list(structure_bytes(path)) == [WATER, OXYGEN, PLAIN[:-1]]
    found = look_through([path])
    assert (found.counts, found.numbers, len(found)) == ((3,), (1, 6, 8), 3)
    assert copied_structures(found, [2, 0]) == [PLAIN, WATER]


def test_several_files_are_numbered_one_after_the_other_and_may_be_compressed(tmp_path):
    one, two = pool(tmp_path, WATER + PLAIN), tmp_path / "b.xyz.gz"
    two.write_bytes(gzip.compress(OXYGEN))
    found = look_through([one, two])
    assert [(found.place(k).path, found.place(k).index) for k in range(3)] == [(one, 0), (one, 1), (two, 0)]
    assert copied_structures(found, [2, 1]) == [OXYGEN, PLAIN]
    with pytest.raises(IndexError):
        found.place(3)
    read = list(read_pool([one, two]))
    assert [len(s.frame) for s in read] == [3, 2, 1]
    assert [s.place.index for s in read] == [0, 1, 0]


def test_cell_vectors_of_another_dialect_belong_to_their_structure(tmp_path):
    block = b"1\ncell\nCu 0 0 0\nVEC1 4 0 0\nVEC2 0 4 0\nVEC3 0 0 4\n"
    path = pool(tmp_path, block + PLAIN)
    assert list(structure_bytes(path)) == [block, PLAIN]


def test_labels_are_read_if_they_are_asked_for(tmp_path):
    path = pool(tmp_path, WATER)
    (read,) = read_pool([path], LabelKeys())
    assert read.label.energy == -1.5
    assert next(read_pool([path])).label is None
    with pytest.raises(
        SettingsError, match=r"pool.xyz, structure 1 .*: no energy on a structure.*name the label keys"
    ):
        list(read_pool([path], LabelKeys("energy", "forces", option="--{}-key")))


def test_batches_have_about_so_many_atoms(tmp_path):
    path = pool(tmp_path, WATER * 5)
    assert [len(batch) for batch in in_batches(read_pool([path]), 6)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "no structures in it"),
        (WATER + b"x\n", r"structure 2 .*: 'x' instead of the number of atoms"),
        (WATER + b"0\n\n", r"structure 2 .*: 0 atoms; expected at least one"),
        (WATER[:-40], r"structure 1 .*: the file is incomplete"),
    ],
)
def test_what_is_not_extended_xyz_is_refused_with_its_place(tmp_path, content, what):
    with pytest.raises(SettingsError, match=what):
        look_through([pool(tmp_path, content)])


def test_a_model_is_no_pool(tmp_path):
    (tmp_path / "m.model").write_bytes(b"PK")
    with pytest.raises(SettingsError, match=r"a model is named with --model .*m\.model"):
        look_through([tmp_path / "m.model"])


def test_other_formats_and_missing_files_are_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"expected extended XYZ .*ase convert"):
        look_through([pool(tmp_path, b"", "pool.traj")])
    pool(tmp_path, WATER)
    with pytest.raises(SettingsError, match=r"no such file; nearest: .*pool.xyz"):
        look_through([tmp_path / "pol.xyz"])
