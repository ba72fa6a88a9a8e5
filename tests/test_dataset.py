"""The append-only dataset."""

import re

import numpy as np
import pytest

from aims_pax.dataset import (
    Dataset,
    only_known,
    read_extxyz,
    to_extxyz,
    write_extxyz,
)
from aims_pax.errors import RestartError, SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame


def made(k, n=2):
    return LabelledFrame(
        Frame([1] * n, np.arange(3.0 * n).reshape(n, 3) + k), Label(-k, np.full((n, 3), k / 7))
    )


def test_adding_twice_is_harmless(tmp_path):
    data = Dataset(tmp_path)
    assert data.add(made(1), "train")
    assert not data.add(made(1), "train")
    assert [f.id for f in data.train(0)] == [made(1).id]
    assert len(Dataset(tmp_path).entries) == 1


def test_members_see_their_own_frames_and_those_of_all(tmp_path):
    data = Dataset(tmp_path)
    data.add(made(1), "train", 0)
    data.add(made(2), "train", 1)
    data.add(made(3), "train")
    data.add(made(4), "valid", 1)
    data.add(made(5), "test")
    for again in (data, Dataset(tmp_path)):
        assert [f.label.energy for f in again.train(0)] == [-1, -3]
        assert [f.label.energy for f in again.train(1)] == [-2, -3]
        assert [f.label.energy for f in again.valid(1)] == [-4]
        assert [f.label.energy for f in again.union("train")] == [-1, -2, -3]
        assert [f.label.energy for f in again.test] == [-5]


def test_what_is_read_back_is_what_was_added_bit_for_bit(tmp_path):
    data = Dataset(tmp_path)
    data.add(made(1), "train")
    again = Dataset(tmp_path).train(0)[0]
    assert np.array_equal(again.label.forces, data.train(0)[0].label.forces)
    assert np.array_equal(again.frame.positions, data.train(0)[0].frame.positions)


@pytest.mark.parametrize("cut", [1, 17, 60])
def test_a_torn_tail_is_dropped_and_the_rest_kept(tmp_path, cut):
    data = Dataset(tmp_path)
    data.add(made(1), "train")
    data.add(made(2), "train")
    pool, splits = tmp_path / "labelled.xyz", tmp_path / "splits.jsonl"
    splits.write_text(splits.read_text().splitlines(keepends=True)[0] + '["torn')
    pool.write_bytes(pool.read_bytes()[:-cut])
    again = Dataset(tmp_path)
    assert [f.label.energy for f in again.train(0)] == [-1]
    again.add(made(2), "train")
    assert [f.label.energy for f in Dataset(tmp_path).train(0)] == [-1, -2]


def test_a_restart_keeps_only_the_entries_its_snapshot_knew(tmp_path):
    data = Dataset(tmp_path)
    for k in range(5):
        data.add(made(k), "train")
    data.keep_first(3)
    assert len(data.entries) == 3
    data.add(made(4), "valid")
    again = Dataset(tmp_path)
    assert [e.split for e in again.entries] == ["train"] * 3 + ["valid"]
    with pytest.raises(RestartError, match="expects 9"):
        again.keep_first(9)


def test_removed_frames_are_noticed(tmp_path):
    data = Dataset(tmp_path)
    data.add(made(1), "train")
    (tmp_path / "labelled.xyz").unlink()
    with pytest.raises(RestartError, match=r"splits\.jsonl:1"):
        Dataset(tmp_path)


def test_unreadable_structures_are_named_by_file_and_number(tmp_path):
    path = tmp_path / "x.xyz"
    write_extxyz(path, [made(1), made(2)])
    path.write_text(path.read_text() + "2\nProperties=species:S:1:pos:R:3\nH 0 0 zero\nH 0 0 0\n")
    with pytest.raises(SettingsError, match=r"x\.xyz, structure 3"):
        list(read_extxyz(path))
    with pytest.raises(SettingsError, match="gone"):
        list(read_extxyz(tmp_path / "gone.xyz"))


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split"):
        Dataset().add(made(1), "training")


def test_a_frame_whose_id_looks_like_a_number_is_read_back(tmp_path):
    """One in some five thousand: 516429114334e3585263 is a hash, and infinity for a reader of numbers."""
    for k in range(200_000):
        frame = Frame([1], [[k * 1e-4, 0.0, 0.0]])
        if re.fullmatch(r"\d+e?\d*", frame.id):
            break
    dataset = Dataset(tmp_path)
    dataset.add(LabelledFrame(frame, Label(-1.0, np.zeros((1, 3)))), "train")
    assert Dataset(tmp_path).ids("train", 0) == [frame.id]


def test_a_symbol_that_is_no_element_is_said_so(tmp_path):
    path = tmp_path / "x.xyz"
    path.write_text("1\nProperties=species:S:1:pos:R:3\nQ 0 0 0\n")
    with pytest.raises(SettingsError, match=r"structure 1 \(counted from 1\): 'Q' is not an element"):
        list(read_extxyz(path))


def broken(tmp_path, change):
    """What the reader says of four molecules whose text was changed."""
    path = tmp_path / "x.xyz"
    frames = [
        LabelledFrame(Frame([1, 9], [[0.0, 0.0, 0.1 * k], [0.92, 0.0, 0.0]]), Label(-1.5, np.full((2, 3), k)))
        for k in (1, 2, 3, 4)
    ]
    path.write_text(change(to_extxyz(frames)))
    with pytest.raises(SettingsError) as caught:
        list(read_extxyz(path))
    return str(caught.value).removeprefix(f"{path}, ")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "0.30000000",
            "nan",
            "3 (counted from 1): the position of atom 1 is NaN; correct or remove this structure",
        ),
        (
            "0.92000000       0.00000000",
            "0.92000000 -inf",
            "1 (counted from 1): the position of atom 2 is infinite",
        ),
        ("0.30000000", "1e11", "3 (counted from 1): the position of atom 1 is absurdly large"),
        ("REF_energy=-1.5", "REF_energy=nan", "1 (counted from 1): the energy is NaN"),
        ("4.00000000", "nan", "4 (counted from 1): a force of atom 1 is NaN"),
        (
            "REF_energy",
            'Lattice="9 0 0 0 nan 0 0 0 9" REF_energy',
            "1 (counted from 1): lattice vector 2 is NaN",
        ),
        ("REF_energy", 'REF_stress="1 1 1 0 nan 0" REF_energy', "1 (counted from 1): the stress is NaN"),
        ("REF_energy", "charge=nan REF_energy", "1 (counted from 1): charge is NaN"),
        ("REF_energy", "spin=nan REF_energy", "1 (counted from 1): spin is NaN"),
    ],
)
def test_what_is_no_number_is_named_with_its_place(tmp_path, old, new, said):
    assert broken(tmp_path, lambda text: text.replace(old, new, 1)).startswith(f"structure {said}")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (15, "4 (counted from 1): the file is incomplete: it ends after 1 of 2 atoms"),
        (14, "4 (counted from 1): the file is incomplete: it ends after 0 of 2 atoms"),
        (13, "4 (counted from 1): the file is incomplete: it ends before the first of 2 atoms"),
    ],
)
def test_a_file_that_ends_early_is_said_to(tmp_path, lines, said):
    assert broken(tmp_path, lambda text: "".join(text.splitlines(True)[:lines])) == f"structure {said}"


def test_a_line_that_ends_early_is_said_to(tmp_path):
    said = "the line of atom 2 of 2 has 6 columns, expected 7"
    assert (
        broken(tmp_path, lambda text: text[:-20])
        == f"structure 4 (counted from 1): {said}; the file is incomplete"
    )
    cut = broken(tmp_path, lambda text: text.replace("       1.00000000\n2\n", "\n2\n", 1))
    assert cut == f"structure 1 (counted from 1): {said}"


@pytest.mark.parametrize(("behind", "number"), [("", 1), ("1\nhallo\nH 0 0 0\n", 2)])
def test_what_is_no_extended_xyz_is_said_to_be_none(tmp_path, behind, number):
    path = tmp_path / "x.xyz"
    path.write_text(behind + "dear all\n")
    with pytest.raises(SettingsError) as caught:
        list(read_extxyz(path))
    said = "'dear all' instead of the number of atoms; expected extended XYZ"
    assert str(caught.value) == f"{path}, structure {number} (counted from 1): {said}"
    path.write_bytes(b"2\n\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"structure 1 \(counted from 1\): not a text file"):
        list(read_extxyz(path))
    trajectory = tmp_path / "x.traj"
    trajectory.write_bytes(path.read_bytes())
    with pytest.raises(SettingsError, match=r"expected extended XYZ; convert it: ase convert x\.traj x\.xyz"):
        list(read_extxyz(trajectory))
    path.write_bytes('2\nunit="Å"\n'.encode("latin1"))
    with pytest.raises(
        SettingsError, match=r"line 2 of the file holds the byte 0xc5, which is not UTF-8; save"
    ):
        list(read_extxyz(path))


def test_an_element_the_model_does_not_know_is_named_with_file_and_structure(tmp_path):
    def atom(z):
        return LabelledFrame(Frame([z], np.zeros((1, 3))), Label(-1.0, np.zeros((1, 3))))

    assert len(list(only_known([atom(1), atom(8)], [1, 8], tmp_path))) == 2
    said = r"x\.xyz, structure 2 \(counted from 1\): the model does not know Cl \(in Cl\), only H, O; remove"
    with pytest.raises(SettingsError, match=said):
        list(only_known([atom(1), atom(17)], [8, 1], tmp_path / "x.xyz"))


def with_method(k, method, energy):
    return LabelledFrame(made(k).frame, Label(energy, made(k).label.forces), {"method": method})


def test_labels_of_two_methods_of_one_frame_are_two_entries_of_the_pool(tmp_path):
    data = Dataset(tmp_path)
    data.add(with_method(1, "old", -1.0), "train")
    data.begin_again(0)
    assert data.train(0) == []
    assert data.labelled(made(1).id, "new") is None
    data.add(with_method(1, "new", -5.0), "train")
    for again in (data, Dataset(tmp_path)):
        assert [f.label.energy for f in again.train(0)] == [-5.0]
        assert [f.label.energy for f in again.union("train")] == [-5.0]
        assert again.labelled(made(1).id, "old").label.energy == -1.0
        assert again.frames[made(1).id].label.energy == -5.0
    assert (tmp_path / "splits.earlier.jsonl").read_text().count("\n") == 1


def test_a_given_label_is_told_apart_by_its_file(tmp_path):
    data = Dataset(tmp_path)
    given = LabelledFrame(
        made(1).frame, Label(-9.0, made(1).label.forces), {"source": "given:a.xyz#1", "method": "m"}
    )
    data.add(given, "valid", 0)
    data.add(with_method(1, "m", -1.0), "train", 1)
    again = Dataset(tmp_path)
    assert [f.label.energy for f in again.valid(0)] == [-9.0]
    assert [f.label.energy for f in again.train(1)] == [-1.0]


def test_the_bookkeeping_of_an_older_version_is_still_read(tmp_path):
    (tmp_path / "labelled.xyz").write_text(to_extxyz([made(1), made(2)]))
    (tmp_path / "splits.jsonl").write_text(f'["{made(1).id}", "train", null]\n["{made(2).id}", "valid", 0]\n')
    data = Dataset(tmp_path)
    assert [f.label.energy for f in data.train(0)] == [-1]
    assert [f.label.energy for f in data.valid(0)] == [-2]
    data.add(with_method(3, "m", -3.0), "train")
    assert [f.label.energy for f in Dataset(tmp_path).train(0)] == [-1, -3]


@pytest.mark.parametrize(
    ("at", "line", "said"),
    [
        (4, "what is this?", ":5: 'what is this?' instead of the number of atoms"),
        (0, "# my data", ":1: '# my data' instead of the number of atoms"),
        (12, "the end", ":13: 'the end' instead of the number of atoms"),
    ],
)
def test_a_stray_line_is_refused_with_its_place_and_nothing_is_cut(tmp_path, at, line, said):
    data = Dataset(tmp_path)
    for k in (1, 2, 3):
        data.add(made(k), "train")
    pool = tmp_path / "labelled.xyz"
    lines = pool.read_text().splitlines()
    lines.insert(at, line)
    pool.write_text("\n".join(lines) + "\n")
    before = pool.read_bytes()
    with pytest.raises(RestartError) as caught:
        Dataset(tmp_path)
    assert said in str(caught.value)
    assert pool.read_bytes() == before
    assert not pool.with_name("labelled.xyz.torn").exists()


@pytest.mark.parametrize("line", ["4\n", "0\n", "1\n", "2000000\n", "-2\n"])
def test_a_wrong_count_of_atoms_in_the_middle_never_cuts_what_follows(tmp_path, line):
    data = Dataset(tmp_path)
    for k in range(1, 6):
        data.add(made(k), "train")
    pool = tmp_path / "labelled.xyz"
    lines = pool.read_text().splitlines(keepends=True)
    lines[4] = line
    pool.write_text("".join(lines))
    before = pool.read_bytes()
    with pytest.raises((RestartError, SettingsError)):
        Dataset(tmp_path)
    assert pool.read_bytes() == before


def test_a_torn_last_structure_is_kept_beside(tmp_path):
    data = Dataset(tmp_path)
    data.add(made(1), "train")
    whole = (tmp_path / "labelled.xyz").read_bytes()
    (tmp_path / "splits.jsonl").write_text((tmp_path / "splits.jsonl").read_text() + '["torn')
    torn = to_extxyz([made(2)]).encode()[:-9]
    (tmp_path / "labelled.xyz").write_bytes(whole + torn)
    Dataset(tmp_path)
    assert (tmp_path / "labelled.xyz").read_bytes() == whole
    assert (tmp_path / "labelled.xyz.torn").read_bytes() == torn + b"\n"
    assert (tmp_path / "splits.jsonl.torn").read_text() == '["torn\n'


def test_a_structure_that_cannot_be_made_a_frame_of_is_named_by_its_own_number(tmp_path):
    """ASE's reader stands behind it by then."""
    path = tmp_path / "given.xyz"
    head = "1\nProperties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-1.0"
    path.write_text(f"{head} spin=two\nH 0 0 0 0 0 0\n{head}\nH 0 0 0 0 0 0\n")
    with pytest.raises(SettingsError, match=r"structure 1 \(counted from 1\)"):
        list(read_extxyz(path))
