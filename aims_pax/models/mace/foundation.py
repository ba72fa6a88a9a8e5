"""Published models for sampling structures: a MACE-MP size, downloaded once, or a file the user has."""

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
    """A foundation model as a potential of one member; it knows its `elements`.

    size_or_path: `small`, `medium`, `large` … as MACE names them (downloaded at first use into MACE's cache),
    or a path to a local .model file, relative to `folder` (`./small` for a file called so).
    inference: as MISC.inference; what cannot be native is left to torch, whatever the models of the run are asked
    for. key: where another model can be named.
    Raises SettingsError for an unknown size, a missing file or one that is no MACE model, and SetupError
    when a download is needed and fails.
    """
    known = _sizes()
    path = Path(size_or_path).expanduser()
    path = path if path.is_absolute() or folder is None else folder / path
    if (
        size_or_path in known
    ):  # also where a file of that name lies: opening a model runs code, so it must be meant
        path = _download(size_or_path, key)
    elif not path.is_file():
        raise SettingsError(
            key,
            f"{size_or_path!r} is neither a size ({', '.join(known)}) nor a file "
            f"(looked for {path}); give one of the sizes or the path to a .model file",
        )
    model = read_model(path, device, DTYPES[dtype]).eval().requires_grad_(False)
    head = _head(model, path)
    backend = Backend("torch" if inference == "torch" else "auto", device, model, what="foundation model")
    potential = Committee([model], device, head=head, evaluator=backend.evaluator)
    log.info(
        "foundation model %s: %d elements, r_max %.1f Å", path.name, len(potential.elements), potential.r_max
    )
    return potential


def _sizes() -> list[str]:
    return list(foundation_models().mace_mp_urls)


def _download(size: str, key: str = FOUNDATIONAL_SIZE) -> Path:
    """MACE's own download and cache (~/.cache/mace)."""
    try:
        with quiet():
            return Path(foundation_models().download_mace_mp_checkpoint(size))
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors
        raise SetupError(
            f"the foundation model {size!r} could not be downloaded ({type(error).__name__}: {error}). "
            "Without network: download it elsewhere (github.com/ACEsuit/mace-foundations), copy the file "
            f"here and set {key} to its path"
        ) from error


def _head(model: MaceModel, path: Path) -> int:
    """Which head speaks: the only one, or the one called default."""
    heads = list(getattr(model, "heads", None) or ["Default"])
    named = [k for k, head in enumerate(heads) if head.lower() == "default"]
    if len(heads) == 1 or named:
        return named[0] if named else 0
    raise SettingsError(
        f"{path}: has the heads {', '.join(heads)} and none called default; use a model with one"
    )
