"""Predictions of the delivered model for labelled frames: the table `results/predictions.npz`.

One row per frame (F) or atom (A), in the same order; `true_…` are the labels.

    format ()                 1
    frame_id, system, split   (F,) text; split: train | valid | test | test set
    n_atoms (F,)              numbers (A,)
    energy, true_energy (F,)  eV
    forces, true_forces (A,3) eV/Å
    stress, true_stress (F,3,3) eV/Å³, NaN where there is none
    energy_sd (F,) eV, atomic_sd (A,) eV/Å: spread of the committee (Eq. 1, core.uncertainty), or the uncertainty of
                              the forces that the model itself predicts; NaN if there is neither
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.core.uncertainty import atomic_spread
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.potential import Potential, evaluations

FILE = "predictions.npz"
FORMAT = 1
CHUNK = 32  # frames labelled at once
OF_FRAMES = (
    "frame_id",
    "system",
    "split",
    "n_atoms",
    "energy",
    "true_energy",
    "stress",
    "true_stress",
    "energy_sd",
)
OF_ATOMS = ("numbers", "forces", "true_forces", "atomic_sd")
NOWHERE = np.full((3, 3), np.nan)


def predictions(
    potential: Potential, sets: Mapping[str, Sequence[LabelledFrame]], committee: Potential | None = None
) -> dict[str, NDArray[Any]]:
    """Evaluate a model on labelled frames: {split: frames} → the arrays above.

    potential: the delivered model. committee: all members; the uncertainty is their spread, or the one they predict
    themselves (None: NaN).
    Raises ValueError without frames.
    """
    rows = [(split, labelled) for split, frames in sets.items() for labelled in frames]
    if not rows:
        raise ValueError("no frames to evaluate on")
    frames = [labelled.frame for _, labelled in rows]
    truth = [labelled.label for _, labelled in rows]
    said: list[Label] = []
    for k in range(0, len(frames), CHUNK):
        said += potential.labels(frames[k : k + CHUNK])
    energy_sd, sd = _spread(committee, frames)
    return {
        "format": np.asarray(FORMAT),
        "frame_id": np.array([f.id for f in frames]),
        "system": np.array([str(r.origin.get("system", r.frame.formula)) for _, r in rows]),
        "split": np.array([split for split, _ in rows]),
        "n_atoms": np.array([len(f) for f in frames]),
        "numbers": np.concatenate([f.numbers for f in frames]),
        "energy": np.array([p.energy for p in said]),
        "true_energy": np.array([t.energy for t in truth]),
        "forces": np.concatenate([p.forces for p in said]),
        "true_forces": np.concatenate([t.forces for t in truth]),
        "stress": np.stack([NOWHERE if p.stress is None else p.stress for p in said]),
        "true_stress": np.stack([NOWHERE if t.stress is None else t.stress for t in truth]),
        "energy_sd": energy_sd,
        "atomic_sd": sd,
    }


def _spread(committee: Potential | None, frames: Sequence[Frame]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(F,) eV and (A,) eV/Å: spread of the members, or the one they predict themselves; NaN if there is neither."""
    if committee is None:
        return np.full(len(frames), np.nan), np.full(sum(map(len, frames)), np.nan)
    energies, atoms = [], []
    for part, said in evaluations(committee, frames):
        alone = len(said.forces) < 2
        unknown = np.full(said.forces.shape[1], np.nan)
        atoms.append(unknown if alone and said.spread is None else atomic_spread(said.forces, said.spread))
        energies.append(np.full(len(part), np.nan) if alone else said.energies.std(axis=0))
    return np.concatenate(energies), np.concatenate(atoms)


def pack_predictions(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of `results/predictions.npz`, for `RunFolder.write_bytes`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def load_predictions(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a predictions file; {} when there is none, or it is incomplete or of a newer format."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}
    n_atoms = arrays.get("n_atoms", np.zeros(0, int))
    F, A = len(n_atoms), int(n_atoms.sum())
    known = int(arrays.get("format", FORMAT + 1)) <= FORMAT
    whole = all(len(arrays.get(n, ())) == F for n in OF_FRAMES) and all(
        len(arrays.get(n, ())) == A for n in OF_ATOMS
    )
    return arrays if known and F and whole else {}


def select_predictions(
    arrays: Mapping[str, NDArray[Any]], keep: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    """The rows of some frames (F,) bool, with their atoms."""
    of_atoms = np.repeat(keep, arrays["n_atoms"])
    return {n: arrays[n][keep] for n in OF_FRAMES} | {n: arrays[n][of_atoms] for n in OF_ATOMS}
