"""The folder of a diffusion model: `hparams.yaml` and `checkpoints/`, atomically written plain values.

Nothing in these files is executed: YAML is read as plain values, checkpoints with `weights_only`. A key that does not
exist is an error.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from aims_pax.errors import SettingsError
from aims_pax.models.diffusion.denoiser import Architecture, Denoiser
from aims_pax.models.diffusion.training_data import DataSummary
from aims_pax.record.files import write_bytes, write_text
from aims_pax.settings.diffusion import DiffusionSettings, read_diffusion
from aims_pax.settings.yaml_reader import read_document

HPARAMS, CHECKPOINTS = "hparams.yaml", "checkpoints"
LAST, BEST = "last_model.ckpt", "best_model.ckpt"
FORMAT = 1
SECTIONS = {"format", "settings", "architecture", "data", "source"}


@dataclass(frozen=True)
class ModelFolder:
    """What hparams.yaml holds. source: {file, digest, structures} of the training data."""

    settings: DiffusionSettings
    architecture: Architecture
    data: DataSummary
    source: Mapping[str, Any]


def new_version(log_dir: Path) -> Path:
    """The first folder version_0, version_1, … that does not exist; it is made."""
    k = 0
    while True:
        folder = log_dir / f"version_{k}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            k += 1


def write_hparams(folder: Path, content: ModelFolder) -> None:
    """Write hparams.yaml."""
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in content.settings.model_dump().items()}
    values = {
        "format": FORMAT,
        "settings": settings,
        "architecture": content.architecture.plain(),
        "data": content.data.plain(),
        "source": dict(content.source),
    }
    write_text(folder / HPARAMS, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def read_hparams(folder: Path) -> ModelFolder:
    """hparams.yaml of a folder. Raises SettingsError for anything that is not plain values of known names."""
    path = folder / HPARAMS
    if not path.is_file():
        raise SettingsError(f"{path}: not found; expected a folder that aims-PAX diffusion train has written")
    values = dict(read_document(path, str(path)).data)
    unknown = {str(k) for k in values} - SECTIONS
    missing = SECTIONS - {str(k) for k in values}
    if unknown or missing:
        text = f"unknown key {', '.join(sorted(unknown))}" if unknown else f"no {', '.join(sorted(missing))}"
        raise SettingsError(f"{path}: {text}; not written by aims-PAX diffusion train")
    if values["format"] != FORMAT:
        raise SettingsError(
            f"{path}: format {values['format']}, expected {FORMAT}; written by another version"
        )
    try:
        settings = read_diffusion(None, values["settings"])
        architecture = Architecture.from_plain(values["architecture"])
        data = DataSummary.from_plain(values["data"])
    except (TypeError, ValueError, AttributeError) as error:
        raise SettingsError(f"{path}: {error}; not written by aims-PAX diffusion train") from error
    return ModelFolder(settings, architecture, data, dict(values["source"]))


def write_checkpoint(folder: Path, state: Mapping[str, Any], name: str = LAST) -> None:
    """Write the state of a `DiffusionTrainer`."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_bytes(folder / CHECKPOINTS / name, buffer.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint: tensors and plain values only. Raises SettingsError."""
    if not path.is_file():
        raise SettingsError(f"{path}: not found; train the model first")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a pickle of another protocol was not written by torch.save
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (UserWarning, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise SettingsError(f"{path}: cannot be read, or holds more than numbers: {first}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or "average" not in state:
        raise SettingsError(f"{path}: not a checkpoint of aims-PAX diffusion train")
    return state


def load_denoiser(folder: Path, checkpoint: str = "") -> tuple[Denoiser, ModelFolder]:
    """The model in a folder with its averaged weights: the last checkpoint, or the one named. Raises SettingsError."""
    content = read_hparams(folder)
    path = folder / CHECKPOINTS / (checkpoint or LAST)
    state = read_checkpoint(path)
    model = Denoiser(content.architecture)
    try:
        model.load_state_dict(state["average"])
    except RuntimeError as error:
        raise SettingsError(f"{path}: does not fit hparams.yaml: {str(error).splitlines()[0]}") from error
    return model.eval(), content
