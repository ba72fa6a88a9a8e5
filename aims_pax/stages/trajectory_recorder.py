"""Records each trajectory at every uncertainty check: observables, and the error of the models after labelling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.geometry import complete_cell
from scipy.spatial import cKDTree

from aims_pax.frames import Array, Frame, Label
from aims_pax.md.propagate import MDOutcome

if TYPE_CHECKING:
    from aims_pax.record.folder import RunFolder

HEAD = "step,temperature_K,energy_eV,shortest_A,volume_A3\n"
REACH = 3.0  # Å: search radius for the shortest distance in a crystal


class TrajectoryRecorder:
    """Appends to `trajectories/observables_<i>.csv` and `analysis/predicted.jsonl`."""

    def __init__(self, folder: RunFolder, trajectories: int) -> None:
        self.folder = folder
        self.paths = [folder.trajectories / f"observables_{i}.csv" for i in range(trajectories)]
        self.written = [_last_step(p) for p in self.paths]

    def record(self, i: int, moved: MDOutcome, frame: Frame) -> None:
        """One line: step, temperature (K), mean energy (eV), shortest distance (Å), volume (Å³)."""
        state = moved.state
        if state.step <= self.written[i]:
            return  # a restart repeats these steps
        volume = abs(np.linalg.det(state.cell)) if frame.periodic else np.nan
        values = (
            state.temperature,
            float(np.mean(moved.evaluation.energies)),
            shortest_distance(frame),
            volume,
        )
        line = f"{state.step}," + ",".join("" if np.isnan(v) else f"{v:.8g}" for v in values) + "\n"
        self.folder.append_text(self.paths[i], ("" if self.paths[i].exists() else HEAD) + line)
        self.written[i] = state.step

    def record_error(
        self,
        frame: str,
        trajectory: int,
        step: int,
        n_train: int,
        uncertainty: float,
        forces: Array,
        label: Label,
    ) -> None:
        """Write one line for each labelled frame: prediction of the committee against the label.

        forces: (N, 3) eV/Å, the committee's mean. uncertainty: eV/Å.
        """
        error = np.abs(forces - label.forces)
        row = {
            "frame": frame, "trajectory": trajectory, "step": step, "n_train": n_train,
            "uncertainty": uncertainty, "threshold": float("nan"),
            "force_mae": float(error.mean()), "max_force_error": float(error.max()),
        }  # fmt: skip
        self.folder.append_text(self.folder.analysis / "predicted.jsonl", json.dumps(row) + "\n")


def shortest_distance(frame: Frame) -> float:
    """The shortest distance between two atoms in Å; NaN for a single atom, or, with periodic images, above REACH."""
    if frame.pbc.any():
        from matscipy.neighbours import neighbour_list

        cell = complete_cell(frame.cell)  # a slab or wire may have no vector along an open direction
        found = neighbour_list("d", positions=frame.positions, cell=cell, pbc=frame.pbc, cutoff=REACH)
        return float(found.min()) if len(found) else float("nan")
    if len(frame) < 2:
        return float("nan")
    return float(cKDTree(frame.positions).query(frame.positions, k=2)[0][:, 1].min())


def _last_step(path: Path) -> int:
    """The step of the last complete line; 0 when there is none."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines[1:] if line.endswith("\n") and line.count(",") == HEAD.count(",")]
    return int(whole[-1].partition(",")[0]) if whole else 0
