"""A look that reads only what was added says what a first look says, whatever happened to the files."""

import json
import os
import shutil

import numpy as np
import pytest

from aims_pax.labelling.store import LabelStore
from aims_pax.report import seen_files
from aims_pax.report.load_run import load_run
from aims_pax.report.seen_files import DATA_CACHE, SeenFiles
from tests.report.folders import recorded

GROWING = ("restart/journal.jsonl", "data/labelled.xyz", "data/splits.jsonl")


def plain(value):
    """A record as values that can be compared; paths without their folder."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return [(k, plain(v)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        return [
            (k, plain(getattr(value, k))) for k in value.__dataclass_fields__ if k not in ("folder", "path")
        ]
    return repr(value)


def agree(folder, seen) -> None:
    """The next look and a first look, by which no cache was left, say the same."""
    assert plain(load_run(folder, seen=seen)) == plain(load_run(folder))


@pytest.fixture
def whole(tmp_path):
    return recorded(tmp_path / "whole")


@pytest.fixture
def seen(folder):
    return SeenFiles(folder / "restart")


def test_a_run_that_grows_is_read_as_far_as_it_goes(folder, whole, seen):
    for share in (0.0, 0.1, 0.11, 0.4, 0.4, 0.77, 0.9, 1.0):
        for name in GROWING:
            content = (whole / name).read_bytes()
            (folder / name).write_bytes(content[: int(share * len(content))])  # cut anywhere
        agree(folder, seen)
    assert len(load_run(folder, seen=seen).structures) > 10


def test_only_what_was_added_is_read(folder, whole, seen, monkeypatch):
    begun: list[tuple[str, int]] = []

    def spy(reader):
        def read(path, offset=0):
            begun.append((path.name, offset))
            return reader(path, offset)

        return read

    for name in ("whole_lines", "structure_headers"):
        monkeypatch.setattr(seen_files, name, spy(getattr(seen_files, name)))
    load_run(folder, seen=seen)
    labels: list[str] = []
    monkeypatch.setattr(seen_files, "stored_label", lambda path: labels.append(path.name))
    begun.clear()
    load_run(folder, seen=seen)
    assert sorted(begun) == sorted((os.path.basename(n), (folder / n).stat().st_size) for n in GROWING)
    assert labels == []


@pytest.mark.parametrize("name", GROWING)
def test_a_file_that_became_shorter_is_read_again(folder, seen, name):
    load_run(folder, seen=seen)
    content = (folder / name).read_bytes()
    lines = content.splitlines(keepends=True)
    with open(folder / name, "rb+") as file:
        file.truncate(len(b"".join(lines[: len(lines) // 2])))
    agree(folder, seen)
    with open(folder / name, "ab") as file:  # and grows again, beyond what it was, by other content
        file.write(b"".join(lines[: len(lines) // 2]) + content)
    agree(folder, seen)


@pytest.mark.parametrize("name", GROWING)
def test_a_file_that_was_replaced_is_read_again(folder, seen, name):
    """With the same end, so that only the file itself is another one."""
    load_run(folder, seen=seen)
    lines = (folder / name).read_bytes().splitlines(keepends=True)
    other = folder / "other"
    if name.endswith(".xyz"):
        lines[1] = lines[1].replace(b"system=", b"sisdem=", 1)
    else:
        lines[0] = b" " * (len(lines[0]) - 1) + b"\n"
    other.write_bytes(b"".join(lines))
    other.replace(folder / name)
    agree(folder, seen)


def test_labels_come_go_and_are_replaced(folder, seen):
    before = load_run(folder, seen=seen)
    paths = sorted(p for p in folder.glob("data/labels/*/*.json") if p.name != "method.json")
    first, second, third = paths[:3]
    first.unlink()
    content = json.loads(second.read_text())
    store = LabelStore(folder / "data", second.parent.name)
    from aims_pax.frames import Label

    store.put(second.stem, Label(content["energy"], np.array(content["forces"])), seconds=4321.0)
    third.rename(third.with_suffix(".unreadable"))
    other = folder / "data/labels/othermethod"
    other.mkdir()
    shutil.copy(second, other / "ffff.json")
    agree(folder, seen)
    after = load_run(folder, seen=seen)
    assert after.calculations == before.calculations - 1
    assert after.reference_seconds > 8000
    shutil.rmtree(other)
    agree(folder, seen)


def test_files_that_are_only_compared_are_read_once(folder, seen):
    read: list[str] = []

    def count(path):
        read.append(path.name)
        return len(read)

    loss = next((folder / "losses").glob("*.csv"))
    assert [seen.unchanged(loss, count) for _ in range(3)] == [1, 1, 1]
    with open(loss, "a") as file:
        file.write("\n")
    assert seen.unchanged(loss, count) == 2
    missing = folder / "nowhere"
    assert [seen.unchanged(missing, count) for _ in range(2)] == [3, 4]


# ---------------------------------------------------------------- a new process


@pytest.fixture
def cached(folder, monkeypatch):
    monkeypatch.setattr(seen_files, "WORTH", 1)
    load_run(folder)
    assert (folder / "restart" / DATA_CACHE).exists()
    return folder


def fresh(folder):
    """The record without any cache."""
    for name in (DATA_CACHE, seen_files.JOURNAL_CACHE):
        (folder / "restart" / name).unlink(missing_ok=True)
    return plain(load_run(folder))


def test_a_new_process_begins_with_what_the_last_one_left(cached, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(seen_files, "stored_label", lambda path: pytest.fail("read again"))
        found = plain(load_run(cached))
    assert found == fresh(cached)


def test_the_cache_fits_from_another_working_folder(cached, monkeypatch, tmp_path):
    monkeypatch.chdir(cached)
    monkeypatch.setattr(seen_files, "stored_label", lambda path: pytest.fail("read again"))
    load_run(type(cached)("."))


def test_a_copied_folder_is_read_anew(cached, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(cached, copy)
    path = next(p for p in copy.glob("data/labels/*/*.json") if p.name != "method.json")
    path.write_text(path.read_text().replace('"seconds": ', '"seconds": 7'))
    assert plain(load_run(copy)) == fresh(copy)


@pytest.mark.parametrize("damage", ["half", "other format", "empty", "nonsense"])
def test_a_damaged_cache_is_ignored(cached, damage):
    path = cached / "restart" / DATA_CACHE
    content = path.read_bytes()
    if damage == "other format":
        content = seen_files.pack_arrays({}, {"read": 99})
    path.write_bytes(
        {"half": content[: len(content) // 2], "empty": b"", "nonsense": b"x" * 99}.get(damage, content)
    )
    found = plain(load_run(cached))
    assert found == fresh(cached)


def test_a_small_run_leaves_no_cache(folder):
    load_run(folder)
    assert not (folder / "restart" / DATA_CACHE).exists()


def test_a_folder_that_cannot_be_written_is_read(folder, monkeypatch):
    monkeypatch.setattr(seen_files, "WORTH", 1)
    (folder / "restart" / DATA_CACHE).mkdir()  # nobody, not even root, can replace it by a file
    load_run(folder)


def test_a_label_that_is_written_again_under_the_same_inode_is_read_again(folder, seen):
    """File systems give the inode of a removed file to the next one."""
    labels = folder / "data" / "labels"
    before = seen.labels(labels)
    path = next(p for p in labels.glob("*/*.json") if p.name != "method.json")
    content, inode = json.loads(path.read_text()), path.stat().st_ino
    path.write_text(json.dumps(content | {"seconds": 77.5}))
    assert path.stat().st_ino == inode
    assert before[path.stem].seconds != 77.5
    assert seen.labels(labels)[path.stem].seconds == 77.5
    agree(folder, seen)
