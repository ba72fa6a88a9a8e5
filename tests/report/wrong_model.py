"""A model that is wrong by known amounts, and labelled frames to compare it with."""

import numpy as np

from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.potential import Evaluation

H2 = Frame([1, 1], [[0, 0, 0], [0.8, 0, 0]])

HO = Frame([1, 8], [[0, 0, 0], [1.0, 0, 0]])

CRYSTAL = Frame([1], [[0, 0, 0]], np.eye(3) * 3, True)


def labelled(frame, energy, force, system, stress=None):
    return LabelledFrame(frame, Label(energy, np.full((len(frame), 3), force), stress), {"system": system})


class Wrong:
    """Says one energy, no force and, in crystals, no stress; as a committee two members one eV/Å apart."""

    members, device = 2, "cpu"

    def labels(self, frames):
        return [Label(1.0, np.zeros((len(f), 3)), np.zeros((3, 3)) if f.periodic else None) for f in frames]

    def bind(self, frames):
        atoms = sum(map(len, frames))

        def said(positions, cells, *, stress=False):
            import torch

            assert positions.shape == (atoms, 3)
            assert cells.shape == (len(frames), 3, 3)
            forces = torch.zeros((2, atoms, 3), dtype=torch.float64)
            forces[1, :, 0] = 1.0
            return Evaluation(torch.tensor([[1.0] * len(frames), [3.0] * len(frames)]), forces)

        said.device = "cpu"
        return said


SETS = {
    "train": [labelled(H2, 1.0, 0.5, "h2")],
    "valid": [labelled(H2.moved(H2.positions * 1.1), 1.2, 0.1, "h2"), labelled(HO, 2.0, -0.3, "oh")],
    "test": [labelled(CRYSTAL, 1.0, 0.2, "solid", np.full((3, 3), 0.01))],
}
