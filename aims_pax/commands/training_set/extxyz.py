"""Extended XYZ files of structures labelled by a potential, not by the reference: keys `energy` and `forces`."""

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
    """Write the file atomically; `info` is added to every structure. Raises SetupError with the file name."""
    texts = []
    for frame, label in zip(frames, labels, strict=True):
        atoms = frame.to_atoms()
        atoms.info.update({**info, "energy": label.energy})
        atoms.arrays["forces"] = np.array(label.forces)
        if label.stress is not None:
            atoms.info["stress"] = np.ravel(label.stress)
        texts.append(structure_text(atoms))
    write_text(path, "".join(texts))
