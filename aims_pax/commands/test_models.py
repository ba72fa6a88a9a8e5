"""`aims-PAX test`: errors of models on a labelled dataset, by system and element; several models form a committee."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax.dataset import only_known
from aims_pax.errors import SettingsError
from aims_pax.frames import LabelledFrame
from aims_pax.labelled_data import LabelKeys, read_labelled
from aims_pax.models.kinds import ModelKind, kind_of_file
from aims_pax.record.files import write_bytes
from aims_pax.report.accuracy import ErrorRow, by_element, by_system
from aims_pax.report.calibration import atomic_errors, calibrate
from aims_pax.report.formatting import MEAN, calibration_sentence
from aims_pax.report.predictions import pack_predictions, predictions
from aims_pax.suggestions import no_such

if TYPE_CHECKING:
    from rich.console import Console


def evaluate_models(
    models: Sequence[Path],
    data: Path,
    output: Path,
    keys: tuple[str, ...],
    device: str,
    dtype: str,
    console: Console,
) -> dict[str, Any]:
    """Evaluate models on a dataset, print the tables and write predictions and labels; returns the arrays.

    keys: names of energy, forces, stress and virials in the dataset. The npz has the columns of
    `report.predictions` and, for several models,
    `member_energy (M, F)` eV, `member_forces (M, A, 3)` eV/Å, `models (M,)`.
    Raises SettingsError for files that cannot be used.
    """
    frames = _labelled(data, keys)
    if dtype not in ("float32", "float64"):
        raise SettingsError(f"--dtype: expected float32 or float64, got {dtype!r}")
    if output.suffix != ".npz":
        raise SettingsError(f"-o: expected a file ending in .npz, got {output}")
    kind = _kind(models)
    members = [kind.load([path], device, dtype) for path in models]
    for member in members:
        frames = list(only_known(frames, member.elements, data))
    committee = kind.load(models, device, dtype) if len(models) > 1 else None
    single = [predictions(m, {"test": frames}, m if kind.has_spread else None) for m in members]
    arrays = single[0] if committee is None else predictions(committee, {"test": frames}, committee)
    if committee is not None:
        arrays["models"] = np.array([str(m) for m in models])
        arrays["member_energy"] = np.stack([a["energy"] for a in single])
        arrays["member_forces"] = np.stack([a["forces"] for a in single])
    before = " (replaces an earlier file)" if output.exists() else ""
    write_bytes(output, pack_predictions(arrays))
    note = kind.precision_note(models, dtype, max(abs(f.label.energy) for f in frames))
    for line in [
        *_tables(models, single, arrays),
        *([note, ""] if note else []),
        f"predictions and labels: {output}{before}",
    ]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return arrays


def _kind(models: Sequence[Path]) -> ModelKind:
    """The kind of all models. Raises SettingsError when a file is missing or the kinds differ."""
    for path in models:
        if not path.is_file():
            what = f"a folder; its models are {path}/*.model" if path.is_dir() else no_such(path)
            raise SettingsError(f"{path}: {what}; expected a model file")
    kinds = {kind.title: kind for kind in map(kind_of_file, models)}
    if len(kinds) > 1:
        raise SettingsError(
            f"the models are of several kinds and cannot form a committee: {', '.join(kinds)}"
        )
    return next(iter(kinds.values()))


def _tables(models: Sequence[Path], single: Sequence[dict[str, Any]], arrays: dict[str, Any]) -> list[str]:
    """A table of the members if there are several, then tables of systems and elements for the committee."""
    out: list[str] = []
    if len(models) > 1:
        rows = [(m.stem, by_system(a)[-1]) for m, a in zip(models, single, strict=True)]
        out += [*error_table([*rows, ("committee mean", by_system(arrays)[-1])]), ""]
    out += error_table([(row.group, row) for row in by_system(arrays)])
    out += ["", *error_table([(row.group, row) for row in by_element(arrays)])]
    spread = arrays["atomic_sd"]
    if np.isfinite(spread).all():
        mean, largest = 1000 * spread.mean(), 1000 * spread.max()
        line = f"spread of the forces on an atom: mean {mean:.1f}, largest {largest:.1f} meV/Å"
        out += ["", line, *_worth(models, single, arrays)]
    return [*out, ""]


def _worth(models: Sequence[Path], single: Sequence[dict[str, Any]], arrays: dict[str, Any]) -> list[str]:
    """Calibration of the spread for each member and for the committee mean, in the words of the report."""
    said = [(m.stem, {**a, "atomic_sd": arrays["atomic_sd"]}) for m, a in zip(models, single, strict=True)]
    said += [(MEAN, arrays)] if len(models) > 1 else []
    found = [(whose, calibrate(*atomic_errors(a))) for whose, a in said]
    return [calibration_sentence(h.rank, h.ratio, whose) for whose, h in found if math.isfinite(h.rank)]


def error_table(rows: Sequence[tuple[str, ErrorRow]]) -> list[str]:
    """MAE and RMSE as text, in thousandths of the units; empty columns are left out."""
    cells = [
        [name, str(r.frames), str(r.atoms)]
        + [
            _milli(v)
            for v in (r.energy_mae, r.energy_rmse, r.force_mae, r.force_rmse, r.stress_mae, r.stress_rmse)
        ]
        for name, r in rows
    ]
    head = ["", "frames", "atoms"]
    head += [f"{what} {kind}" for what in ("E", "F", "S") for kind in ("MAE", "RMSE")]
    columns = [k for k in range(len(head)) if k < 3 or any(row[k] for row in cells)]
    widths = [max(len(head[k]), *(len(row[k]) for row in cells)) for k in columns]
    lines = [[row[k] for k in columns] for row in (head, *cells)]
    text = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    units = {3: "E meV/atom", 5: "F meV/Å", 7: "S meV/Å³"}
    return [*text, "(" + ", ".join(u for k, u in units.items() if k in columns) + ")"]


def _milli(value: float) -> str:
    return f"{1000 * value:.3f}" if math.isfinite(value) else ""


def _labelled(path: Path, keys: tuple[str, ...]) -> list[LabelledFrame]:
    if not path.is_file():
        raise SettingsError(
            f"{path}: {no_such(path)}; the dataset is the last argument: aims-PAX test MODEL... DATA.xyz"
        )
    if path.suffix in (".model", ".pt"):
        raise SettingsError(
            f"{path}: a model; the dataset is the last argument: aims-PAX test MODEL... DATA.xyz"
        )
    frames = list(read_labelled(path, replace(LabelKeys(*keys), option="--{}-key")))
    if not frames:
        raise SettingsError(f"{path}: no structures in it")
    return frames
