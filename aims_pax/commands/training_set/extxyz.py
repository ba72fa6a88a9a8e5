"""Extended XYZ files of structures that a potential, not the reference, labelled: keys `energy` and `forces`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from aims_pax.frames import Frame, Label
from aims_pax.labelled_data import structure_text
from aims_pax.record.files import write_text


def write_labelled(
    path: Path, frames: Sequence[Frame], labels: Sequence[Label], info: Mapping[str, str | int | float]
) -> None:
    """Write a whole file atomically; `info` is put on every structure. Raises SetupError naming the file."""
    texts = []
    for frame, label in zip(frames, labels, strict=True):
        atoms = frame.to_atoms()
        atoms.info.update({**info, "energy": label.energy})
        atoms.arrays["forces"] = np.array(label.forces)
        if label.stress is not None:
            atoms.info["stress"] = np.ravel(label.stress)
        texts.append(structure_text(atoms))
    write_text(path, "".join(texts))
