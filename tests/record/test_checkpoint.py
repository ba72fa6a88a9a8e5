"""Snapshots: heavy first, the small one commits, two generations."""

import numpy as np
import pytest

from aims_pax.core import active_learning
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.errors import RestartError
from aims_pax.record.checkpoint import Checkpoint, exists, from_plain

RULES = ActiveLearningRules(10, 0.0, 0.1, 2, 1)
STATE = active_learning.begin(("a", "b"), RULES, 7, {"a": 1})


def write(checkpoint, k, version=None):
    version = k if version is None else version
    checkpoint.write(
        STATE, {"md/0/x": np.arange(k)}, version, lambda: {"w": np.full(3, version)}, {"entries": k}
    )


def test_a_snapshot_comes_back(folder):
    checkpoint = Checkpoint(folder, "explore")
    assert checkpoint.read() is None
    assert not exists(checkpoint.path)
    write(checkpoint, 3)
    found = Checkpoint(folder, "explore").read()
    assert from_plain(active_learning.State, found.state) == STATE
    assert found.arrays["md/0/x"].tolist() == [0, 1, 2]
    assert found.weights["w"].tolist() == [3, 3, 3]
    assert found.remarks == {"entries": 3}
    assert exists(checkpoint.path)


def test_two_generations_and_their_weights_are_kept(folder):
    checkpoint = Checkpoint(folder, "explore")
    for k in range(6):
        write(checkpoint, k)
    assert sorted(p.name for p in checkpoint.path.iterdir()) == [
        "state-000005.npy", "state-000006.npy", "weights-000004.npy", "weights-000005.npy",
    ]  # fmt: skip


def test_weights_are_written_only_when_their_version_changed(folder):
    checkpoint = Checkpoint(folder, "explore")
    write(checkpoint, 1, version=1)
    checkpoint.write(STATE, {}, 1, lambda: pytest.fail("written again"), {})
    again = Checkpoint(folder, "explore")
    again.read()
    again.write(STATE, {}, 1, lambda: pytest.fail("written again"), {})


def test_weights_that_no_snapshot_came_to_name_are_not_taken_for_those_of_the_next_attempt(folder):
    write(Checkpoint(folder, "explore"), 1)
    with pytest.raises(TypeError):  # the end of the process between the heavy file and the small one
        Checkpoint(folder, "explore").write(STATE, {}, 2, lambda: {"w": np.zeros(3)}, {"entries": object()})
    again = Checkpoint(folder, "explore")
    assert again.read().version == 1
    write(again, 2)
    assert Checkpoint(folder, "explore").read().weights["w"].tolist() == [2, 2, 2]


@pytest.mark.parametrize("damage", ["truncate", "flip", "weights", "empty"])
def test_a_damaged_newest_snapshot_falls_back_to_the_one_before(folder, damage, caplog):
    checkpoint = Checkpoint(folder, "explore")
    write(checkpoint, 1)
    write(checkpoint, 2)
    newest = checkpoint.path / ("weights-000002.npy" if damage == "weights" else "state-000002.npy")
    content = newest.read_bytes()
    damaged = {
        "truncate": content[:-20],
        "flip": content[:-9] + bytes([content[-9] ^ 255]) + content[-8:],
        "weights": b"",
        "empty": b"",
    }
    newest.write_bytes(damaged[damage])
    again = Checkpoint(folder, "explore")
    assert again.read().remarks == {"entries": 1}
    write(again, 2)
    assert Checkpoint(folder, "explore").read().weights["w"].tolist() == [2, 2, 2]
    assert "trying the snapshot before it" in caplog.text


def test_when_nothing_can_be_read_the_way_out_is_named(folder):
    checkpoint = Checkpoint(folder, "explore")
    write(checkpoint, 1)
    (checkpoint.path / "state-000001.npy").write_bytes(b"junk")
    with pytest.raises(RestartError, match="move that folder away"):
        checkpoint.read()


def test_generations_go_on_counting_after_a_restart(folder):
    write(Checkpoint(folder, "explore"), 1)
    write(Checkpoint(folder, "explore"), 2)
    assert (folder.restart / "explore" / "state-000002.npy").exists()
