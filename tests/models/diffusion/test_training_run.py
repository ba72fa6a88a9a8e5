"""Training in a folder: what it leaves, and how it continues."""

import pytest
import torch

from aims_pax.errors import Abandoned, SettingsError
from aims_pax.models.diffusion import training_run
from aims_pax.models.diffusion.model_files import read_checkpoint
from aims_pax.models.diffusion.training_run import train_in_folder
from tests.models.diffusion.structures import settings, trimers

FRAMES = [(f, {}) for f in trimers(100)]
SOURCE = {"file": "a.xyz", "digest": "0"}


def test_a_stopped_training_continues_with_the_same_result(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="aims_pax")
    monkeypatch.setattr(training_run, "SAVE_EVERY", 0.0)
    asked = settings(epochs=4, log_interval=2, log_dir=str(tmp_path / "logs"))
    whole = train_in_folder(FRAMES, asked, SOURCE)
    calls = []

    def soon() -> bool:
        calls.append(1)
        return len(calls) > 8

    again = tmp_path / "again"
    with pytest.raises(Abandoned):
        train_in_folder(FRAMES, asked, SOURCE, again, soon)
    assert f"{again}: stopped; it continues from its last checkpoint" in caplog.text
    train_in_folder(FRAMES, asked, SOURCE, again)
    a, b = (read_checkpoint(f / "checkpoints" / "last_model.ckpt") for f in (whole, again))
    assert all(torch.equal(a["average"][k], b["average"][k]) for k in a["average"])
    assert (whole / "losses.csv").read_text() == (again / "losses.csv").read_text()
    assert len((whole / "losses.csv").read_text().splitlines()) == 5
    assert (whole / "checkpoints" / "best_model.ckpt").exists()
    assert whole.name == "version_0"
    assert "is reached already" not in caplog.text
    train_in_folder(FRAMES, asked, SOURCE, again)
    assert f"{again}: its limit of epochs or time is reached already" in caplog.text


def test_other_settings_or_structures_are_another_training(tmp_path):
    asked = settings(epochs=1, log_dir=str(tmp_path))
    folder = train_in_folder(FRAMES, asked, SOURCE)
    with pytest.raises(SettingsError, match=r"lr: 0\.1, but .* was begun with 0\.002"):
        train_in_folder(FRAMES, asked.model_copy(update={"lr": 0.1}), SOURCE, folder)
    with pytest.raises(SettingsError, match="begun with other structures"):
        train_in_folder(FRAMES, asked, {**SOURCE, "digest": "1"}, folder)
    train_in_folder(FRAMES, asked.model_copy(update={"epochs": 2}), SOURCE, folder)
    assert read_checkpoint(folder / "checkpoints" / "last_model.ckpt")["counts"][0] == 2
    with pytest.raises(SettingsError, match="no structure"):
        train_in_folder([], asked, SOURCE)
