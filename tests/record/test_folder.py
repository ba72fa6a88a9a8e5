"""Atomic writes."""

import os

import pytest

from aims_pax.errors import SetupError


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(folder, monkeypatch):
    path = folder.root / "x" / "file"
    folder.write_text(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match="No space left"):
        folder.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written_is_named(folder):
    (folder.root / "file").write_text("in the way")
    for write in (folder.write_text, folder.append_text):
        with pytest.raises(SetupError, match="cannot write"):
            write(folder.root / "file" / "below", "x")
