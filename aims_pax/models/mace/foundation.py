"""Foundation models: a MACE-MP size, which is downloaded once, or a model file of the user."""

from __future__ import annotations

import logging
from pathlib import Path

from aims_pax.errors import SettingsError, SetupError
from aims_pax.models.kinds import FOUNDATIONAL_SIZE
from aims_pax.models.mace.build import DTYPES, read_model
from aims_pax.models.mace.inference import Committee
from aims_pax.models.mace.mace_import import MaceModel, foundation_models, quiet
from aims_pax.models.mace.native import Backend

log = logging.getLogger(__name__)


def load_foundation_model(
    size_or_path: str,
    device: str = "cpu",
    dtype: str = "float32",
    folder: Path | None = None,
    inference: str = "torch",
    key: str = FOUNDATIONAL_SIZE,
) -> Committee:
    """A foundation model as a potential of one member.

    size_or_path: `small`, `medium`, `large` … as MACE names them (downloaded at first use into MACE's cache),
    or a path to a local .model file, relative to `folder` (`./small` for a file of that name).
    inference: as MISC.inference; a model that native inference does not support uses torch, also with `native`.
    key: the settings key that names the model.
    Raises SettingsError for an unknown size, a missing file or one that is not a MACE model, and SetupError
    when a download is needed and fails.
    """
    path = model_path(size_or_path, folder, key)
    model = read_model(path, device, DTYPES[dtype]).eval().requires_grad_(False)
    head = head_of(model, path)
    backend = Backend("torch" if inference == "torch" else "auto", device, model, what="foundation model")
    potential = Committee([model], device, head=head, evaluator=backend.evaluator)
    log.info(
        "foundation model %s: %d elements, r_max %.1f Å", path.name, len(potential.elements), potential.r_max
    )
    return potential


def model_path(size_or_path: str, folder: Path | None = None, key: str = FOUNDATIONAL_SIZE) -> Path:
    """The file of a published model, downloaded if needed, or of the user; arguments and errors as above.

    A size is never a file of that name in `folder`: opening a model executes code, so its path must be explicit.
    """
    known = _sizes()
    if size_or_path in known:
        return _download(size_or_path, key)
    path = Path(size_or_path).expanduser()
    path = path if path.is_absolute() or folder is None else folder / path
    if not path.is_file():
        raise SettingsError(
            key,
            f"{size_or_path!r} is neither a size ({', '.join(known)}) nor a file "
            f"(looked for {path}); give one of the sizes or the path to a .model file",
        )
    return path


def _sizes() -> list[str]:
    return list(foundation_models().mace_mp_urls)


def _download(size: str, key: str = FOUNDATIONAL_SIZE) -> Path:
    """Download with MACE's own function, into its cache (~/.cache/mace)."""
    try:
        with quiet():
            return Path(foundation_models().download_mace_mp_checkpoint(size))
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors
        raise SetupError(
            f"the foundation model {size!r} could not be downloaded ({type(error).__name__}: {error}). "
            "Without network: download it elsewhere (github.com/ACEsuit/mace-foundations), copy the file "
            f"here and set {key} to its path"
        ) from error


def head_of(model: MaceModel, path: Path) -> int:
    """The index of the head to use: the only one, or the one named default."""
    heads = list(getattr(model, "heads", None) or ["Default"])
    named = [k for k, head in enumerate(heads) if head.lower() == "default"]
    if len(heads) == 1 or named:
        return named[0] if named else 0
    raise SettingsError(
        f"{path}: has the heads {', '.join(heads)} and none named default; use a model with one head"
    )
