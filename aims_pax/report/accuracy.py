"""Errors of the delivered model, per system and per element."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aims_pax.frames import Array
from aims_pax.report.formatting import missing_test_frames
from aims_pax.report.predictions import select_predictions
from aims_pax.report.run_record import RunRecord

Arrays = Mapping[str, NDArray[Any]]
NAMES = {"train": "training", "valid": "validation", "test": "test", "test set": "given test set"}
UNSEEN = ("test", "test set")  # sets that influenced no decision of the run
MEASURES = ("energy MAE", "energy RMSE", "force MAE", "force RMSE", "stress MAE", "stress RMSE")


@dataclass(frozen=True)
class ErrorRow:
    """Errors of a group of frames. Energies eV/atom, forces eV/Å, stress eV/Å³; NaN where a quantity is missing."""

    split: str
    group: str
    frames: int
    atoms: int
    energy_mae: float
    energy_rmse: float
    force_mae: float
    force_rmse: float
    stress_mae: float
    stress_rmse: float


def by_system(arrays: Arrays) -> list[ErrorRow]:
    """One row per split and system, and one for all systems together when there are several."""
    rows = []
    for split in _splits(arrays):
        here = arrays["split"] == split
        systems = sorted(set(arrays["system"][here].tolist()))
        rows += [_row(split, s, select_predictions(arrays, here & (arrays["system"] == s))) for s in systems]
        if len(systems) > 1:
            rows.append(_row(split, "all", select_predictions(arrays, here)))
    return rows


def by_element(arrays: Arrays) -> list[ErrorRow]:
    """One row per split and element: forces only."""
    rows = []
    for split in _splits(arrays):
        part = select_predictions(arrays, arrays["split"] == split)
        wrong = part["forces"] - part["true_forces"]
        owner = np.repeat(np.arange(len(part["n_atoms"])), part["n_atoms"])
        for z in np.unique(part["numbers"]):
            mine = part["numbers"] == z
            e = wrong[mine]
            frames = len(np.unique(owner[mine]))
            nan = math.nan
            rows.append(
                ErrorRow(split, chemical_symbols[z], frames, len(e), nan, nan, _mae(e), _rmse(e), nan, nan)
            )
    return rows


def held_out(arrays: Arrays) -> tuple[str, dict[str, NDArray[Any]]]:
    """(name, rows) of the frames on which errors are most reliable: test frames, else validation frames."""
    unseen = np.isin(arrays["split"], UNSEEN)
    if unseen.any():
        return "test frames", select_predictions(arrays, unseen)
    valid = arrays["split"] == "valid"
    return ("validation frames", select_predictions(arrays, valid)) if valid.any() else ("", {})


def force_mae_with_error(arrays: Arrays) -> tuple[float, float, int]:
    """(MAE of the force components, its standard error, number of frames F), eV/Å. The error is NaN for one frame.

    The mean over all atoms is m = Σ_i w_i e_i, with e_i of frame i and w_i its share of the atoms. Frames are taken as
    independent: the error is √(F/(F − 1) · Σ_i w_i² (e_i − m)²) (ratio estimator; Cochran, Sampling Techniques, 1977).
    """
    wrong, atoms = np.abs(arrays["forces"] - arrays["true_forces"]).mean(1), arrays["n_atoms"]
    each = np.array([part.mean() for part in np.split(wrong, np.cumsum(atoms)[:-1])])
    return _mean_with_error(each, atoms / atoms.sum())


def energy_mae_with_error(arrays: Arrays) -> tuple[float, float, int]:
    """(MAE of the energy per atom, its standard error, number of frames), eV/atom. The error is NaN for one frame."""
    each = np.abs(arrays["energy"] - arrays["true_energy"]) / arrays["n_atoms"]
    return _mean_with_error(each, np.full(len(each), 1 / len(each)))


def _mean_with_error(each: Array, share: Array) -> tuple[float, float, int]:
    """(Σ_i w_i e_i, its standard error as in `force_mae_with_error`, F). each, share: e_i and w_i, (F,)."""
    n, mean = len(each), float((share * each).sum())
    error = math.sqrt(n / (n - 1) * float((share**2 * (each - mean) ** 2).sum())) if n > 1 else math.nan
    return mean, error, n


def untested(run: RunRecord) -> str:
    """A sentence if active learning ended with fewer test frames than n_test asks for; else ""."""
    wanted = run.setting("ACTIVE_LEARNING.n_test", "0")
    explored = any(s.name == "explore" and s.stopped for s in run.stages)
    return (
        missing_test_frames(len(run.splits.get("test", ())), int(wanted))
        if explored and wanted.isdigit()
        else ""
    )


def _splits(arrays: Arrays) -> list[str]:
    present = set(arrays["split"].tolist())
    order = [s for s in ("test set", "test", "valid", "train") if s in present]
    return order + sorted(present - set(order))


def _row(split: str, group: str, part: Arrays) -> ErrorRow:
    energy = (part["energy"] - part["true_energy"]) / part["n_atoms"]
    force = part["forces"] - part["true_forces"]
    stress = part["stress"] - part["true_stress"]
    stress = stress[np.isfinite(stress)]
    n, atoms = len(energy), int(part["n_atoms"].sum())
    return ErrorRow(
        split, group, n, atoms, _mae(energy), _rmse(energy), _mae(force), _rmse(force), _mae(stress), _rmse(stress)
    )  # fmt: skip


def _mae(errors: Array) -> float:
    return float(np.abs(errors).mean()) if errors.size else math.nan


def _rmse(errors: Array) -> float:
    return math.sqrt(float((errors**2).mean())) if errors.size else math.nan
