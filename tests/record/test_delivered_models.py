"""Which model files a run has delivered."""

import hashlib
import json

import pytest

from aims_pax.record.delivered_models import (
    content,
    delivered_files,
    file_digest,
    is_ours,
    models_of_run,
    recorded_models,
    remove_replaced,
)


@pytest.fixture
def results(tmp_path):
    """Two recorded models, one of them of another suffix and one in a subfolder, and one that nobody recorded."""
    (tmp_path / "committee").mkdir()
    names = ("a.model", "b.linear.npz", "committee/c.model")
    for name in (*names, "stranger.model"):
        (tmp_path / name).write_text(name)
    entries = {name: {"sha256": hashlib.sha256(name.encode()).hexdigest(), "kind": "mace"} for name in names}
    (tmp_path / "models.json").write_text(content(entries))
    return tmp_path


def test_only_the_very_file_that_a_run_wrote_is_ours(results):
    assert is_ours(results / "a.model")
    assert is_ours(results / "b.linear.npz")
    assert not is_ours(results / "stranger.model")
    (results / "a.model").write_text("replaced")
    assert not is_ours(results / "a.model")
    (results / "b.linear.npz").rename(results / "renamed.linear.npz")
    assert not is_ours(results / "renamed.linear.npz")


def test_models_of_a_folder_are_those_recorded_and_every_model_file(results):
    assert [p.name for p in delivered_files(results)] == ["a.model", "b.linear.npz", "stranger.model"]
    (results / "b.linear.npz").unlink()
    assert [p.name for p in delivered_files(results)] == ["a.model", "stranger.model"]
    assert delivered_files(results / "nowhere") == []


def test_a_model_that_nobody_recorded_is_none_of_the_run(results):
    assert [p.name for p in models_of_run(results)] == ["a.model", "b.linear.npz"]
    (results / "models.json").unlink()
    assert [p.name for p in models_of_run(results)] == ["a.model", "stranger.model"]


def test_only_unchanged_models_of_the_run_are_removed_when_others_replace_them(results):
    (results / "a.md").write_text("card")
    (results / "committee" / "c.model").write_text("changed by the user")
    assert remove_replaced(results, ["b.linear.npz"]) == [results / "a.model"]
    assert sorted(p.name for p in results.rglob("*.*") if p.is_file()) == [
        "b.linear.npz", "c.model", "models.json", "stranger.model",
    ]  # fmt: skip


def test_the_record_is_read_back_as_it_was_written(results):
    recorded = recorded_models(results)
    assert set(recorded) == {"a.model", "b.linear.npz", "committee/c.model"}
    assert recorded["a.model"] == {"sha256": file_digest(results / "a.model"), "kind": "mace"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2, "models": {}}',
        '{"format": 1, "models": [1]}',
        '{"format": 1, "models": {"a": 7}}',
    ],
)
def test_a_record_that_cannot_be_read_makes_no_file_ours(results, text):
    (results / "models.json").write_text(text)
    assert recorded_models(results) == {}
    assert not is_ours(results / "a.model")
    assert json.loads(content({})) == {"format": 1, "models": {}}
