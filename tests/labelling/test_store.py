"""Labels survive everything but the deletion of their files."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from aims_pax.errors import SetupError
from aims_pax.frames import Label
from aims_pax.labelling.store import LabelStore, method_hash


@pytest.fixture
def store(tmp_path):
    return LabelStore(tmp_path, "a1b2c3")


def random_label(seed=0, stress=True):
    rng = np.random.default_rng(seed)
    return Label(rng.normal() * 1e3, rng.normal(size=(5, 3)), rng.normal(size=(3, 3)) if stress else None)


def same(a, b):
    stress = a.stress is b.stress is None or np.array_equal(a.stress, b.stress)
    return a.energy == b.energy and np.array_equal(a.forces, b.forces) and stress


@pytest.mark.parametrize("stress", [True, False])
def test_a_label_comes_back_to_the_last_bit(store, stress):
    label = random_label(stress=stress)
    store.put("f1", label, seconds=1.5)
    record = store.read("f1")
    assert same(record.label, label)
    assert record.seconds == 1.5
    assert record.host
    assert record.version
    assert "f1" in store
    assert store.get("f2") is None
    assert list(store.ids()) == ["f1"]


@pytest.mark.parametrize(("seconds", "flushes"), [(0.001, 0), (0.0, 2), (1.0, 2)])
def test_only_a_label_that_took_less_time_than_a_disk_is_not_flushed(store, monkeypatch, seconds, flushes):
    calls, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(fd), fsync(fd)))
    label = random_label()
    store.put("f1", label, seconds)
    assert len(calls) == flushes
    assert same(store.get("f1"), label)


def test_two_methods_do_not_mix(tmp_path):
    LabelStore(tmp_path, "one").put("f", random_label())
    assert LabelStore(tmp_path, "two").get("f") is None


def test_a_label_under_another_name_is_not_believed(store, caplog):
    store.put("f1", random_label())
    store.path("f1").rename(store.path("f2"))
    assert store.get("f2") is None
    assert "holds frame f1" in caplog.text


@pytest.mark.parametrize("cut", [0, 1, 40, -2])
def test_a_torn_file_counts_as_absent_and_is_moved_aside(store, caplog, cut):
    store.put("f", random_label())
    path = store.path("f")
    path.write_bytes(path.read_bytes()[:cut])
    assert store.get("f") is None
    assert "unreadable" in caplog.text
    assert not path.exists()
    assert path.with_name("f.unreadable").exists()
    store.put("f", random_label(1))
    assert same(store.get("f"), random_label(1))


def test_a_changed_digit_is_noticed(store):
    store.put("f", Label(-1.25, np.zeros((1, 3))))
    path = store.path("f")
    path.write_text(path.read_text().replace("-1.25", "-1.26"))
    assert store.get("f") is None


def test_no_mutation_of_a_label_file_gives_another_label(store):
    label = random_label()
    store.put("f", label)
    good = store.path("f").read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(400):
        bad = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            bad[rng.integers(len(bad))] = rng.integers(256)
        store.path("f").write_bytes(bytes(bad[: rng.integers(len(bad) // 2, len(bad) + 1)]))
        found = store.get("f")
        assert found is None or same(found, label)
        for aside in store.folder.glob("*.unreadable*"):
            aside.unlink()


def test_nan_never_reaches_the_store(store):
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.put("f", Label(float("nan"), np.zeros((1, 3))))
    assert "f" not in store


def test_a_writer_killed_between_write_and_rename_leaves_no_label_and_no_harm(tmp_path, store):
    """kill -9 with the temporary file complete but not renamed; then the same label is written again."""
    code = f"""
import os, time, numpy as np
from pathlib import Path
from aims_pax.frames import Label
from aims_pax.labelling import store
def stuck(*paths):
    print("writing", flush=True)
    time.sleep(60)
os.replace = stuck
store.LabelStore(Path({str(tmp_path)!r}), "a1b2c3").put("f", Label(1.0, np.ones((2, 3))))
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"writing\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert store.get("f") is None
    assert list(store.ids()) == []
    store.put("f", random_label())
    assert same(store.get("f"), random_label())


def test_many_writers_of_one_label_leave_one_readable_label(tmp_path, store):
    code = f"""
import numpy as np
from pathlib import Path
from aims_pax.frames import Label
from aims_pax.labelling.store import LabelStore
for _ in range(50):
    LabelStore(Path({str(tmp_path)!r}), "a1b2c3").put("f", Label(1.0, np.ones((200, 3))))
"""
    writers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    seen = 0
    while any(w.poll() is None for w in writers):
        seen += store.get("f") is not None
        time.sleep(0.01)
    assert [w.wait() for w in writers] == [0, 0]
    assert seen
    assert [p.name for p in store.folder.iterdir()] == ["f.json"]


def test_a_folder_that_cannot_be_written_is_a_setup_error(tmp_path):
    (tmp_path / "labels").write_text("a file where the folder should be")
    with pytest.raises(SetupError, match="cannot write"):
        LabelStore(tmp_path, "m").put("f", random_label())


def test_the_method_is_written_down_once(store):
    store.describe({"type": "calculator", "factory": "a:b"})
    store.describe({"type": "another"})
    told = json.loads((store.folder / "method.json").read_text())
    assert told == {"method": "a1b2c3", "type": "calculator", "factory": "a:b"}


def test_the_method_hash_ignores_the_order_of_keys_and_nothing_else():
    assert method_hash({"a": 1, "b": 2}) == method_hash({"b": 2, "a": 1})
    assert method_hash({"a": 1}) != method_hash({"a": 2})
    assert len(method_hash({})) == 12
