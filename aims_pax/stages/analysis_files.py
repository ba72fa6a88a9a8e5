"""`analysis/` of a run: predictions of the committee at regular steps of the trajectories, beside the reference."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.core.work import RecordError
from aims_pax.frames import Label
from aims_pax.record.files import write_text
from aims_pax.record.folder import RunFolder


def write_analysis(
    folder: RunFolder, found: RecordError, prediction: Mapping[str, NDArray[Any]], label: Label
) -> None:
    """Write one file: prediction, reference label, uncertainty, threshold, set size, MD step."""
    error = prediction["predicted_forces"].mean(axis=0) - label.forces
    row = {
        **prediction,
        "true_energy": np.asarray(label.energy),
        "true_forces": label.forces,
        "force_mae": np.abs(error).mean(),
        "max_force_error": np.abs(error).max(),
        "max_atomic_sd": prediction["atomic_sd"].max(),
        "threshold": np.asarray(found.threshold),
        "n_train": np.asarray(found.n_train),
        "step": np.asarray(found.step),
        "trajectory": np.asarray(found.trajectory),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **row)
    name = f"trajectory_{found.trajectory:03d}/step_{found.step:09d}.npz"
    folder.write_bytes(folder.analysis / name, buffer.getvalue())


def collect_analysis(folder: Path) -> None:
    """Gather the numbers of all analysis files into one table, `analysis/analysis.csv`."""
    names = ("trajectory", "step", "n_train", "threshold", "max_atomic_sd", "force_mae", "max_force_error")
    rows = [",".join(names)]
    for path in sorted(folder.glob("trajectory_*/step_*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            rows.append(",".join(f"{stored[name].item():.8g}" for name in names))
    write_text(folder / "analysis.csv", "\n".join(rows) + "\n")
