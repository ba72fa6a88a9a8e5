"""Errors of a potential on labelled frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aims_pax.core.uncertainty import atomic_spread
from aims_pax.frames import Array, LabelledFrame
from aims_pax.potential import Potential, evaluations


@dataclass(frozen=True)
class ErrorTable:
    """Errors over all frames: energies in eV and eV/atom, components of forces in eV/Å and stress in eV/Å³.

    zero_force_mae is the MAE of predicting zero forces, for comparison. Stress errors are None
    when no label or no prediction has a stress.
    """

    frames: int
    energy_mae: float
    energy_rmse: float
    energy_per_atom_mae: float
    energy_per_atom_rmse: float
    force_mae: float
    force_rmse: float
    zero_force_mae: float
    stress_mae: float | None = None
    stress_rmse: float | None = None

    def line(self, kind: str = "PerAtomMAE") -> str:
        """One line for the log. kind: as MISC.error_table, PerAtomMAE, PerAtomRMSE, TotalMAE or TotalRMSE
        (or their …stressvirials forms; stress is shown whenever there is one).
        """
        rmse, total = "RMSE" in kind, kind.startswith("Total")
        word = "RMSE" if rmse else "MAE"
        if total:
            energy = f"energy {word} {1000 * (self.energy_rmse if rmse else self.energy_mae):.1f} meV"
        else:
            value = self.energy_per_atom_rmse if rmse else self.energy_per_atom_mae
            energy = f"energy {word} {1000 * value:.2f} meV/atom"
        force = f"force {word} {1000 * (self.force_rmse if rmse else self.force_mae):.1f} meV/Å"
        stress = self.stress_rmse if rmse else self.stress_mae
        tail = "" if stress is None else f" · stress {word} {1000 * stress:.3f} meV/Å³"
        return f"{energy} · {force}{tail}"


def spreads_and_errors(potential: Potential, labelled: Sequence[LabelledFrame]) -> list[tuple[Array, Array]]:
    """For each structure the spread of the members (N,) and the error of their mean force (N, 3), absolute, eV/Å.

    Raises ValueError for one member that does not predict its own uncertainty.
    """
    found: list[tuple[Array, Array]] = []
    for part, said in evaluations(potential, [one.frame for one in labelled]):
        ends = np.cumsum([len(frame) for frame in part])[:-1]
        spreads = np.split(atomic_spread(said.forces, said.spread), ends)
        means = np.split(said.forces.mean(axis=0), ends)
        true = [one.label.forces for one in labelled[len(found) : len(found) + len(part)]]
        found += [(s, np.abs(m - t)) for s, m, t in zip(spreads, means, true, strict=True)]
    return found


def evaluate_potential(potential: Potential, labelled: Sequence[LabelledFrame]) -> ErrorTable:
    """Compare predictions with labels. Raises ValueError without frames."""
    if not labelled:
        raise ValueError("no frames to evaluate on")
    predicted = potential.labels([frame.frame for frame in labelled])
    atoms = np.array([len(frame.frame) for frame in labelled])
    energy = np.array([p.energy - t.label.energy for p, t in zip(predicted, labelled, strict=True)])
    force = np.concatenate(
        [(p.forces - t.label.forces).ravel() for p, t in zip(predicted, labelled, strict=True)]
    )
    zero = np.concatenate([t.label.forces.ravel() for t in labelled])
    stress = [
        (p.stress - t.label.stress).ravel()
        for p, t in zip(predicted, labelled, strict=True)
        if p.stress is not None and t.label.stress is not None
    ]
    tensors = np.concatenate(stress) if stress else None
    return ErrorTable(
        frames=len(labelled),
        energy_mae=_mae(energy),
        energy_rmse=_rmse(energy),
        energy_per_atom_mae=_mae(energy / atoms),
        energy_per_atom_rmse=_rmse(energy / atoms),
        force_mae=_mae(force),
        force_rmse=_rmse(force),
        zero_force_mae=_mae(zero),
        stress_mae=None if tensors is None else _mae(tensors),
        stress_rmse=None if tensors is None else _rmse(tensors),
    )


def _mae(errors: Array) -> float:
    return float(np.abs(errors).mean())


def _rmse(errors: Array) -> float:
    return math.sqrt(float(np.square(errors).mean()))
