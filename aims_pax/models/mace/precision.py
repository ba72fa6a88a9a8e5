"""Checks whether the precision of a delivered file resolves its energies, by loading the file as users do.

All-electron energies are large: −5.4·10⁵ eV/atom for gold. Single precision has 24 bits, so the energy of 32 gold atoms
is resolved only to 2 eV, and all geometries have the same energy. In this package energies above those of the atoms are
summed in double precision; MACE's own calculator sums everything in the chosen precision.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.frames import Frame, Label
from aims_pax.models.base import Precision
from aims_pax.models.mace.mace_import import MaceModel, quiet
from aims_pax.potential import calculate

log = logging.getLogger(__name__)

FINE = 1e-3  # eV: largest acceptable step between neighbouring energies


def resolution(energy: float) -> float:
    """eV between an energy and the next number in single precision.

    >>> resolution(-17140762.0)
    2.0
    """
    return float(np.spacing(np.float32(abs(energy)))) if math.isfinite(energy) else math.nan


def is_too_coarse(energies: Sequence[float]) -> bool:
    """Whether single precision is too coarse for energies in eV."""
    return any(resolution(energy) > FINE for energy in energies)


def as_used(path: Path, dtype: str, frames: Sequence[Frame]) -> list[Label]:
    """Predictions of `MACECalculator(model_paths=path, default_dtype=dtype)`, which is the call shown to users."""
    with quiet():
        from mace.calculators import MACECalculator

        calculator = MACECalculator(model_paths=str(path), device="cpu", default_dtype=dtype)
        return [calculate(frame, calculator, stress=False) for frame in frames]


def check_precision(path: Path, frames: Sequence[Frame], ours: Sequence[Label]) -> Precision:
    """Load a delivered file as users do and compare with our own predictions for the same structures."""
    from aims_pax.models.mace.build import load_model

    model, _ = load_model(path)
    dtype = dtype_of(model)
    theirs = as_used(path, dtype, frames)
    largest = max((abs(label.energy) for label in ours), default=0.0)
    loader = f'MACECalculator(…, default_dtype="{dtype}")'
    return Precision(dtype, resolution(largest), relative_difference(frames, ours, theirs), loader)


def check_files(ensemble: Any, files: Mapping[int, Path], frames: Sequence[Frame]) -> Precision | None:
    """Check the delivered file of each member, loaded by MACECalculator in its own precision; returns the worst result.

    A file in single precision with energies that differ from ours is written again in double precision.
    """
    worst: Precision | None = None
    for member, path in files.items():
        ours = ensemble.potential(members=[member]).labels(frames)
        found = check_precision(path, frames, ours)
        if found.dtype == "float32" and not found.difference <= FINE:
            ensemble.save(member, path, double=True)
            found = check_precision(path, frames, ours)
        if worst is None or found.difference > worst.difference:
            worst = found
        if not found.difference <= FINE:
            log.warning(
                "%s: MACECalculator (default_dtype %s) gives energies that differ from ours by up to %.3g eV on %d "
                "structures; please report this", path.name, found.dtype, found.difference, len(frames),
            )  # fmt: skip
    if worst is not None and worst.dtype == "float64" and worst.resolution > FINE:
        log.info(
            "energies are so large that single precision resolves them only to %.2g eV: the models are in double "
            'precision; load them with default_dtype="float64"',
            worst.resolution,
        )
    return worst


def relative_difference(frames: Sequence[Frame], ours: Sequence[Label], theirs: Sequence[Label]) -> float:
    """eV: largest difference between energies of one composition, relative to the first of them.

    If a composition has only one structure, its energy itself is compared.
    """
    first: dict[str, int] = {}
    alone = [f.formula for f in frames]
    worst = 0.0
    for k, frame in enumerate(frames):
        error = theirs[k].energy - ours[k].energy
        if alone.count(frame.formula) > 1:
            start = first.setdefault(frame.formula, k)
            error -= theirs[start].energy - ours[start].energy
        worst = max(worst, abs(error)) if math.isfinite(error) else math.inf
    return worst


def dtype_of(model: MaceModel) -> str:
    """float32 or float64."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")
