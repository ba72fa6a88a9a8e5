"""The one atomic write: whole or as it was, on the disk, and a tail that is cut off is kept."""

import os
import stat

import pytest

from aims_pax.errors import SetupError
from aims_pax.record import files


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a" / "b.html"
    files.write_bytes(path, b"old")
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["b.html"]
    with pytest.raises(SetupError, match=r"cannot write .*b\.html/c"):
        files.write_bytes(path / "c", b"x")


def test_file_and_folder_are_flushed_to_the_disk_before_and_after_the_rename(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def flushed(fd):
        done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("rename"), replace(*names)))
    files.write_text(tmp_path / "x", "1")
    assert done == ["file", "rename", "folder"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x"
    files.write_text(path, "old")

    def full(*_):
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match="x: Disk quota exceeded; free space"):
        files.write_text(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert path.read_text() == "old"


def test_a_link_keeps_pointing_where_the_user_put_the_file(tmp_path):
    (tmp_path / "scratch").mkdir()
    target, link = tmp_path / "scratch" / "x", tmp_path / "x"
    target.write_text("old")
    link.symlink_to(target)
    files.write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_line_is_never_appended_to_one_that_a_crash_left_unfinished(tmp_path):
    path = tmp_path / "journal.jsonl"
    files.append_text(path, "1\n")
    path.write_text(path.read_text() + '{"torn')
    files.append_text(path, "2\n")
    assert path.read_text().splitlines() == ["1", '{"torn', "2"]


def test_what_is_cut_off_is_kept_every_time(tmp_path):
    path = tmp_path / "x"
    for tail in ("first", "second"):
        path.write_text(f"whole\n{tail}")
        assert files.cut_torn_tail(path, 6) == tmp_path / "x.torn"
        assert path.read_text() == "whole\n"
    assert (tmp_path / "x.torn").read_text() == "first\nsecond\n"
    assert files.cut_torn_tail(path, 6) is None


def test_many_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "x"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: files.write_text(path, str(k) * 1000), range(10, 50)))
    content = path.read_text()
    assert content == content[:2] * 1000
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
