"""Folders of models: plain values, nothing is executed."""

import os
import pickle
from dataclasses import replace

import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.models.diffusion.model_files import (
    ModelFolder,
    load_denoiser,
    new_version,
    read_checkpoint,
    read_hparams,
    write_checkpoint,
    write_hparams,
)
from aims_pax.models.diffusion.training import DiffusionTrainer
from aims_pax.models.diffusion.training_data import architecture_for, summarise
from tests.models.diffusion.structures import CONFINED, adsorbates, graphs, settings


def written(folder):
    own, asked = graphs(adsorbates(5), **CONFINED), settings(**CONFINED)
    content = ModelFolder(
        asked, architecture_for(own, asked), summarise(own), {"file": "a.xyz", "digest": "0"}
    )
    trainer = DiffusionTrainer(content.architecture, asked)
    write_hparams(folder, content)
    write_checkpoint(folder, trainer.state())
    return content, trainer


def test_versions_count_up(tmp_path):
    assert [new_version(tmp_path / "logs").name for _ in range(3)] == ["version_0", "version_1", "version_2"]


def test_a_model_comes_back_from_its_folder(tmp_path):
    content, trainer = written(tmp_path)
    model, found = load_denoiser(tmp_path)
    assert replace(found, settings=content.settings) == content
    assert found.settings.plain() == content.settings.plain()
    for name, value in model.state_dict().items():
        assert torch.equal(value, trainer.average[name])


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    "line",
    ["x: !!python/object/apply:os.mkdir [evil]\n", "_target_: os.mkdir\n", "model: {_target_: os.mkdir}\n"],
)
def test_a_malicious_hparams_does_nothing(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    path = tmp_path / "hparams.yaml"
    path.write_text(path.read_text() + line)
    with pytest.raises(SettingsError):
        load_denoiser(tmp_path)
    assert not (tmp_path / "evil").exists()


def test_a_malicious_checkpoint_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    torch.save({"format": 1, "average": Evil()}, tmp_path / "checkpoints" / "last_model.ckpt")
    with pytest.raises(SettingsError, match="more than numbers"):
        load_denoiser(tmp_path)
    (tmp_path / "checkpoints" / "last_model.ckpt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(SettingsError):
        load_denoiser(tmp_path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format: 1", "format: 9", "format 9"),
        ("feature_size: 8", "feature_size: 16", "not those of the architecture"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, old, new, said):
    written(tmp_path)
    path = tmp_path / "hparams.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SettingsError, match=said):
        load_denoiser(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"hparams\.yaml: not found"):
        read_hparams(tmp_path)
    with pytest.raises(SettingsError, match="train the model first"):
        read_checkpoint(tmp_path / "last_model.ckpt")
