"""The folder of a diffusion model: `hparams.yaml` and `checkpoints/`, atomically written plain values.

Nothing in these files is executed: YAML is read as plain values, checkpoints with `weights_only`. A key that does not
exist is an error.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from pydantic import TypeAdapter, ValidationError

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
    values = {
        "format": FORMAT,
        "settings": content.settings.plain(),
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
    for name in SECTIONS - {"format"}:
        if not isinstance(values[name], dict):
            raise SettingsError(f"{path}: {name}: expected keys with values, got {values[name]!r}")
    try:
        settings = read_diffusion(None, values["settings"], place=f"{path}: settings.")
        architecture = plain_values(Architecture, values["architecture"], f"{path}: architecture")
        data = plain_values(DataSummary, values["data"], f"{path}: data")
        architecture.check()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{path}: {error}; not written by aims-PAX diffusion train") from error
    return ModelFolder(settings, architecture, data, dict(values["source"]))


Plain = TypeVar("Plain", Architecture, DataSummary)


def plain_values(kind: type[Plain], values: Mapping[str, Any], where: str) -> Plain:
    """A dataclass from plain values of the right types. Raises SettingsError naming the value."""
    known = {f.name for f in fields(kind)}
    if unknown := {str(k) for k in values} - known:
        raise SettingsError(f"{where}: unknown key {', '.join(sorted(unknown))}")
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{where}.{place}: {first['msg']}, got {first['input']!r}") from error


def write_checkpoint(folder: Path, state: Mapping[str, Any], name: str = LAST) -> None:
    """Write the state of a `DiffusionTrainer`."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_bytes(folder / CHECKPOINTS / name, buffer.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint: tensors and plain values only. Raises SettingsError."""
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.ckpt"))
        raise SettingsError(
            f"{path}: not found; " + (f"there are {', '.join(there)}" if there else "train the model first")
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a pickle of another protocol was not written by torch.save
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (UserWarning, pickle.UnpicklingError, RuntimeError, LookupError, EOFError, ValueError) as error:
        raise SettingsError(
            f"{path}: damaged, or it holds more than numbers; use another checkpoint, or train again"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or not _tensors(state.get("average")):
        raise SettingsError(f"{path}: not a checkpoint of aims-PAX diffusion train")
    return state


def _tensors(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(v, torch.Tensor) for v in values.values())


def load_denoiser(folder: Path, checkpoint: str = "") -> tuple[Denoiser, ModelFolder]:
    """The model in a folder with its averaged weights: the last checkpoint, or the one named. Raises SettingsError."""
    content = read_hparams(folder)
    path = folder / CHECKPOINTS / (checkpoint or LAST)
    state = read_checkpoint(path)
    try:
        model = Denoiser(content.architecture)
        model.load_state_dict(state["average"])
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        raise SettingsError(
            f"{path}: its weights are not those of the architecture in {folder / HPARAMS}"
        ) from error
    if not all(bool(torch.isfinite(v).all()) for v in state["average"].values()):
        raise SettingsError(
            f"{path}: its weights are not finite numbers; use another checkpoint, or train again"
        )
    return model.eval(), content
