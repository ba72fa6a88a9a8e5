"""`aims-PAX export`: models for other programs, each file loaded again and compared with its model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aims_pax.errors import AimsPaxError, SettingsError, SetupError
from aims_pax.frames import Frame, Label
from aims_pax.models.kinds import ModelKind, export_forms, kind_of_file
from aims_pax.record.delivered_models import FILE, delivered_files, is_ours
from aims_pax.suggestions import nearest, no_such

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

TOLERANCE = 1e-5  # eV/Å; eV/atom; eV/Å³
FRAMES = 5  # compared at most
DATA = ("results/test.xyz", "results/validation.xyz", "results/training.xyz", "data/labelled.xyz")


def export(
    folder: Path, models: Sequence[Path], form: str, output: Path | None, console: Console
) -> list[Path]:
    """Export models of a working folder (by default those in results/); returns the files written.

    models: model files, or one run folder that replaces `folder`; files are written to its `export/` by default.
    Raises SettingsError for wrong arguments, SetupError when a converter fails or an exported file gives other values
    than its model; such a file is removed.
    """
    if form not in (forms := export_forms()):
        near = nearest(form, forms)
        hint = f"; nearest: {near}" if near else ""
        raise SettingsError(f"--format: expected {' | '.join(forms)}, got {form!r}{hint}")
    if inside := [path for path in models if path.is_dir()]:
        if len(models) > 1:
            raise SettingsError(f"{inside[0]}: a folder; give one folder only, or model files")
        folder, models = inside[0], ()
    found = list(models) or _own(folder / "results")
    if not found:
        raise SettingsError(
            f"no models in {folder / 'results'}: the run has not written any yet; name model files: "
            "aims-PAX export MODEL.model"
        )
    for path in found:
        if not path.is_file():
            raise SettingsError(f"{path}: {no_such(path)}; expected a model file, or the folder of a run")
    kinds = [_exportable(path, form) for path in found]
    suffixes = [kind.form_suffix(form) for kind in kinds]
    targets = _targets(found, suffixes, output, folder)
    for kind, source, target in zip(kinds, found, targets, strict=True):
        frames, where = frames_for(folder, source, kind.elements_of(source))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            exported = kind.export(source, form, target, frames)
        except OSError as error:
            raise SetupError(f"cannot write {target}: {error.strerror}") from error
        try:
            worst = largest_differences(*exported.compare())
            _believe(target, worst)
        except AimsPaxError:
            target.unlink(missing_ok=True)
            raise
        errors = " · ".join(f"{what} {value:.1e} {unit}" for what, (value, unit) in worst.items())
        agreement = f"{target}: loaded again, {len(frames)} frames of {where}: {errors}"
        for line in filter(None, (agreement, exported.note, exported.use)):
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    return targets


def _own(results: Path) -> list[Path]:
    """The models that a run wrote there. Raises SettingsError for any other model: opening it may run code."""
    found = delivered_files(results)
    foreign = [path for path in found if not is_ours(path)]
    if foreign:
        raise SettingsError(
            f"{', '.join(map(str, foreign))}: not the file that this run wrote (not listed in {results / FILE}, or "
            "changed), and opening a .model file runs the code in it; if you trust the file, name it: aims-PAX export "
            f"{foreign[0]}"
        )
    return found


def _exportable(path: Path, form: str) -> ModelKind:
    """The kind of a model file. Raises SettingsError when it cannot be exported in this form."""
    kind = kind_of_file(path)
    if form not in kind.forms:
        raise SettingsError(kind.no_export(path, form))
    return kind


def largest_differences(true: Sequence[Label], said: Sequence[Label]) -> dict[str, tuple[float, str]]:
    """The largest differences: energy per atom, force component, and stress component if both have stress."""
    pairs = list(zip(true, said, strict=True))
    found = {
        "energy": (max(abs(a.energy - b.energy) / len(a.forces) for a, b in pairs), "eV/atom"),
        "forces": (max(float(np.abs(a.forces - b.forces).max()) for a, b in pairs), "eV/Å"),
    }
    tensors = [(a.stress, b.stress) for a, b in pairs if a.stress is not None and b.stress is not None]
    if tensors:
        found["stress"] = (max(float(np.abs(a - b).max()) for a, b in tensors), "eV/Å³")
    return found


def _believe(path: Path, worst: dict[str, tuple[float, str]]) -> None:
    for what, (value, unit) in worst.items():
        if not value <= TOLERANCE:  # also true for NaN
            raise SetupError(
                f"{path}: the exported file differs from the model: {what} by {value:.2g} {unit} "
                f"(allowed: {TOLERANCE:g}); it was removed. Please report this"
            )


def _targets(
    models: Sequence[Path], suffixes: Sequence[str], output: Path | None, folder: Path
) -> list[Path]:
    """The path of each export: in `export/` of the folder by default, else the file or folder of the user."""
    if output is not None and len(models) == 1 and not output.is_dir() and output.suffix:
        targets = [output]
    else:
        if output is not None and output.is_file():
            raise SettingsError(
                f"{output}: a file, but there are {len(models)} models; name a folder with -o"
            )
        place = output or folder / "export"
        targets = [place / f"{path.stem}{suffix}" for path, suffix in zip(models, suffixes, strict=True)]
    if len(set(targets)) < len(targets):
        raise SettingsError("two models have the same name; export them one by one, with -o")
    for source, target in zip(models, targets, strict=True):
        if target.exists() and target.samefile(source):
            raise SettingsError(f"{target} is the model itself; name another file with -o")
    return targets


def frames_for(folder: Path, model: Path, elements: Sequence[int]) -> tuple[list[Frame], str]:
    """Structures for the comparison: labelled ones of the run, else its geometries with random displacements, else a
    chain of the model's elements."""
    from aims_pax.dataset import read_extxyz

    beside = [model.parent / name for name in ("test.xyz", "validation.xyz", "training.xyz")]
    for path in [*beside, *(folder / name for name in DATA)]:
        if not path.is_file():
            continue
        try:
            known = [f.frame for f in read_extxyz(path) if set(f.frame.numbers.tolist()) <= set(elements)]
        except SettingsError:
            continue
        if known:
            return _varied(known), str(path)
    return _shaken(_geometries(folder, elements)), "its geometries with random displacements"


def _geometries(folder: Path, elements: Sequence[int]) -> list[Frame]:
    from aims_pax.settings import read_settings
    from aims_pax.settings.geometries import read_geometries

    try:
        systems = read_geometries(read_settings(folder))
        known = [s.frame for s in systems if set(s.frame.numbers.tolist()) <= set(elements)]
    except SettingsError:
        known = []
    chain = np.arange(len(elements) + 1)[:, None] * np.array([1.5, 0.3, 0.1])
    return known or [Frame(np.array([*elements, elements[0]]), chain)]


def _varied(frames: Sequence[Frame]) -> list[Frame]:
    """A few structures of each composition, spread over the file."""
    kinds: dict[tuple[str, bool], list[Frame]] = {}
    for frame in frames:
        kinds.setdefault((frame.formula, frame.periodic), []).append(frame)
    each = max(1, FRAMES // len(kinds))
    return [f for group in kinds.values() for f in group[:: max(1, len(group) // each)][:each]][: 2 * FRAMES]


def _shaken(frames: Sequence[Frame]) -> list[Frame]:
    rng = np.random.default_rng(0)
    some = [frames[k % len(frames)] for k in range(max(FRAMES, len(frames)))]
    return [f.moved(f.positions + rng.normal(scale=0.05, size=f.positions.shape)) for f in some]
