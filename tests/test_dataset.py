"""The append-only dataset."""

import re

import numpy as np
import pytest

from aims_pax.dataset import Dataset, read_extxyz, whole_structures, write_extxyz
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


def test_whole_structures_are_counted_to_the_last_complete_line():
    one = "1\ncomment\nH 0 0 0\n"
    assert whole_structures(one + one) == 2 * len(one)
    assert whole_structures(one + one[:-1]) == len(one)
    assert whole_structures(one + "2\n") == len(one)
    assert whole_structures("") == 0


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
    with pytest.raises(SettingsError, match=r"structure 1: 'Q' is no element"):
        list(read_extxyz(path))
