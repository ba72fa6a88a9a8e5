"""Whether the numbers of a delivered file can hold its energies, looked at by the path a user takes.

All-electron energies are large: of gold, −5.4·10⁵ eV an atom. Single precision keeps 24 bits, so that the energy of 32
atoms is known to 2 eV, and every geometry has the same. Here energies are summed in double precision above those of the
atoms; MACE's own calculator adds everything up in the precision it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aims_pax.frames import Frame, Label
from aims_pax.models.mace.mace_import import MaceModel, quiet
from aims_pax.potential import calculate

FINE = 1e-3  # eV: steps between neighbouring energies that may be seen


@dataclass(frozen=True)
class Precision:
    """What MACECalculator says of a delivered file, in the precision the file is meant to be used in.

    dtype: of the file. resolution: eV between neighbouring numbers of single precision at the largest energy.
    difference: eV by which energies of one composition, relative to each other, are other than ours, at most.
    """

    dtype: str
    resolution: float
    difference: float


def resolution(energy: float) -> float:
    """eV between an energy and the next number of single precision.

    >>> resolution(-17140762.0)
    2.0
    """
    return float(np.spacing(np.float32(abs(energy)))) if math.isfinite(energy) else math.nan


def is_too_coarse(energies: Sequence[float]) -> bool:
    """Whether single precision is too coarse for energies in eV."""
    return any(resolution(energy) > FINE for energy in energies)


def as_used(path: Path, dtype: str, frames: Sequence[Frame]) -> list[Label]:
    """What `MACECalculator(model_paths=path, default_dtype=dtype)` says, as the hint is printed."""
    with quiet():
        from mace.calculators import MACECalculator

        calculator = MACECalculator(model_paths=str(path), device="cpu", default_dtype=dtype)
        return [calculate(frame, calculator, stress=False) for frame in frames]


def check_precision(path: Path, frames: Sequence[Frame], ours: Sequence[Label]) -> Precision:
    """Load a delivered file as a user does and compare with what we say of the same structures."""
    from aims_pax.models.mace.build import load_model

    model, _ = load_model(path)
    dtype = dtype_of(model)
    theirs = as_used(path, dtype, frames)
    largest = max((abs(label.energy) for label in ours), default=0.0)
    return Precision(dtype, resolution(largest), relative_difference(frames, ours, theirs))


def relative_difference(frames: Sequence[Frame], ours: Sequence[Label], theirs: Sequence[Label]) -> float:
    """eV: how far energies of one composition, relative to the first of them, differ at most.

    Where there is one structure of a composition only, its energy itself is compared.
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
