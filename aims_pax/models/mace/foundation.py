"""Foundation models: a published model, which is downloaded once, a model file of the user, or a user's callable."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from aims_pax.errors import SettingsError, SetupError
from aims_pax.models.delta import is_difference
from aims_pax.models.kinds import FOUNDATIONAL_SIZE
from aims_pax.models.mace.build import DTYPES, check_model_class, read_model
from aims_pax.models.mace.cuequivariance import converted_back, is_converted
from aims_pax.models.mace.head_selection import chosen_head
from aims_pax.models.mace.inference import Committee
from aims_pax.models.mace.mace_import import MaceModel, foundation_models, quiet
from aims_pax.models.mace.native import Backend
from aims_pax.settings.callables import (
    CHARGED,
    CHARGED_MODELS,
    FOUNDATION_ONLY,
    ORGANIC_MODELS,
    PUBLISHED_MODELS,
)
from aims_pax.user_code import load_factory

if TYPE_CHECKING:
    from aims_pax.settings.foundation import FoundationSettings

log = logging.getLogger(__name__)

MODEL = "FOUNDATION.model"
# not for commercial use: github.com/gabor1/ASL
ACADEMIC = (
    *("off-small", "off-medium", "off-large", "small-omat-0", "medium-omat-0"),
    *("mace-matpes-pbe-0", "mace-matpes-r2scan-0", "mh-0", "mh-1", "omol"),
)
OMOL = "MACE-omol-0-extra-large-1024.model"  # the file that mace_omol stores


def load_foundation_model(
    size_or_path: str,
    device: str = "cpu",
    dtype: str = "float32",
    folder: Path | None = None,
    inference: str = "torch",
    key: str = FOUNDATIONAL_SIZE,
) -> Committee:
    """A foundation model as a potential of one member.

    size_or_path: `small`, `medium-mpa-0`, `off-medium` … (downloaded at first use into MACE's cache),
    or a path to a local .model file, relative to `folder` (`./small` for a file of that name).
    inference: as MISC.inference; a model that native inference does not support uses torch, also with `native`.
    key: the settings key that names the model.
    Raises SettingsError for an unknown size, a missing file or one that is not a MACE model, and SetupError
    when a download is needed and fails.
    """
    path = foundation_file(size_or_path, folder, key)
    model = read_model(path, device, DTYPES[dtype]).eval().requires_grad_(False)
    head = chosen_head(model, None, str(path), key)
    backend = Backend("torch" if inference == "torch" else "auto", device, model, what="foundation model")
    potential = Committee([model], device, head=head, evaluator=backend.evaluator)
    log.info(
        "foundation model %s: %d elements, r_max %.1f Å", path.name, len(potential.elements), potential.r_max
    )
    return potential


def foundation_module(
    foundation: FoundationSettings, device: str, folder: Path | None
) -> tuple[MaceModel, str, str | None]:
    """The model of the section FOUNDATION as it was stored: (module, its name for the user, head of a calculator).

    Raises SettingsError and SetupError as `load_foundation_model`.
    """
    if foundation.factory is None:
        path = foundation_file(foundation.name, folder, MODEL, FOUNDATION_ONLY)
        if is_difference(path):
            raise SettingsError(
                f"{MODEL}: {path}: holds only the difference to a baseline; expected a model of whole energies. To "
                "train this one further, name it in ACTIVE_LEARNING.initial_models, with the same REFERENCE.baseline"
            )
        return (
            _with_own_layers(read_model(path, device, None, embeddings=True), device),
            foundation.name,
            None,
        )
    factory, kwargs = foundation.factory
    make = load_factory(factory, folder)
    with quiet():
        try:
            made = make(**kwargs)
        except TypeError as error:
            raise SettingsError(f"{MODEL}: {factory} with kwargs {kwargs}: {error}") from error
    models = list(getattr(made, "models", None) or [made])  # a MACECalculator has a list of models
    if len(models) > 1:
        raise SettingsError(
            f"{MODEL}: {factory} returned {len(models)} models; all members begin from one: return one of them"
        )
    if not isinstance(models[0], torch.nn.Module):
        raise SettingsError(
            f"{MODEL}: {factory} returned {type(made).__name__}, expected a MACE model (a torch module) or an "
            "ASE calculator of the class MACECalculator (without dispersion)"
        )
    check_model_class(models[0], f"{MODEL}: {factory} returned", embeddings=True)
    return _with_own_layers(models[0].to(device), device), foundation.name, getattr(made, "head", None)


def foundation_file(
    size_or_path: str,
    folder: Path | None = None,
    key: str = FOUNDATIONAL_SIZE,
    others: Sequence[str] = (),
) -> Path:
    """The file of a published model, downloaded if necessary, or of the user. others: further published names.

    A published name has priority over a file of that name: opening a model executes code, so its path must be explicit.
    Raises SettingsError, SetupError.
    """
    if size_or_path in CHARGED_MODELS and size_or_path not in others:
        raise SettingsError(key, f"{size_or_path}: {CHARGED}")
    if size_or_path in (*PUBLISHED_MODELS, *others):
        return _download(size_or_path, key)
    path = Path(size_or_path).expanduser()
    path = path if path.is_absolute() or folder is None else folder / path
    if not path.is_file():
        raise SettingsError(
            key,
            f"{size_or_path!r} is neither a size ({', '.join(PUBLISHED_MODELS)}) nor a file "
            f"(looked for {path}); give one of the sizes or the path to a .model file",
        )
    return path


def _with_own_layers(model: MaceModel, device: str) -> MaceModel:
    """The model with e3nn's layers if it has those of cuEquivariance."""
    if not is_converted(model):
        return model
    try:
        return converted_back(model, device)
    except Exception as error:  # the converter raises many kinds of exception
        raise SettingsError(
            f"{MODEL}: the model has layers of cuEquivariance, and MACE cannot convert them ({type(error).__name__}: "
            f"{error}); convert it with mace_cueq_to_e3nn where it was made"
        ) from error


def stored_file(name: str) -> Path | None:
    """The file of a published model if it was downloaded before, else None."""
    path = _place(name)
    return path if path.is_file() else None


def _place(name: str) -> Path:
    """Where MACE's functions store the file of a published model."""
    published = foundation_models()
    cache = Path(published.get_cache_dir())
    if name == "anicc":
        return Path(str(published.module_dir)) / "foundations_models" / "ani500k_large_CC.model"
    if name == "omol":
        return cache / OMOL
    if name in ORGANIC_MODELS:
        url = published.mace_off_urls[name.removeprefix("off-")]
        return cache / str(os.path.basename(url)).split("?")[0]
    base = os.path.basename(published.mace_mp_urls[name])
    return cache / "".join(c for c in base if c.isalnum() or c in "_")


def _download(size: str, key: str = FOUNDATIONAL_SIZE) -> Path:
    """Download with MACE's own function, into its cache (~/.cache/mace)."""
    if size in ACADEMIC:
        log.info("%s: Academic Software License, not for commercial use (github.com/gabor1/ASL)", size)
    try:
        with quiet():
            return Path(_fetch(size))
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors
        raise SetupError(
            f"the foundation model {size!r} could not be downloaded ({type(error).__name__}: {error}). "
            "Without network: download it elsewhere (github.com/ACEsuit/mace-foundations), copy the file "
            f"here and set {key} to its path"
        ) from error


def _fetch(name: str) -> str | Path:
    """The path of the file; MACE's functions for organic molecules return the model that they have stored."""
    published = foundation_models()
    if name not in (*ORGANIC_MODELS, *FOUNDATION_ONLY):
        return str(published.download_mace_mp_checkpoint(name))
    path = _place(name)
    if not path.is_file():
        if name == "anicc":
            published.mace_anicc(device="cpu", return_raw_model=True)
        elif name == "omol":
            published.mace_omol(device="cpu", return_raw_model=True)
        else:
            published.mace_off(name.removeprefix("off-"), device="cpu", return_raw_model=True)
    return path
