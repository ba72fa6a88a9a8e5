"""Extended XYZ files of structures that a potential, not the reference, labelled: keys `energy` and `forces`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from aims_pax.frames import Frame, Label
from aims_pax.record.files import write_text


def write_labelled(
    path: Path, frames: Sequence[Frame], labels: Sequence[Label], info: Mapping[str, str | int | float]
) -> None:
    """Write a whole file atomically; `info` is put on every structure. Raises SetupError naming the file."""
    import ase.io

    text = io.StringIO()
    for frame, label in zip(frames, labels, strict=True):
        atoms = frame.to_atoms()
        atoms.info.update({**info, "energy": label.energy})
        atoms.arrays["forces"] = np.array(label.forces)
        if label.stress is not None:
            atoms.info["stress"] = np.ravel(label.stress)
        ase.io.write(text, atoms, format="extxyz", write_results=False)
    write_text(path, text.getvalue())
