"""A few steps downhill, for many structures."""

import numpy as np

from aims_pax.frames import Frame
from aims_pax.models.diffusion.short_relaxation import STEP, relax_a_little
from tests.md.potentials import LennardJones


def test_energies_fall_fixed_atoms_stay_and_no_step_is_long():
    rng = np.random.default_rng(0)
    at = np.array([[0, 0, 0], [3.8, 0, 0], [1.9, 3.3, 0], [1.9, 1.1, 3.1]])
    frames = [
        Frame([18] * 4, at + 0.5 * rng.normal(size=(4, 3)), fixed=[True, False, False, False])
        for _ in range(5)
    ]
    frames.append(Frame([18, 18], [[0, 0, 0], [0.4, 0, 0]]))  # enormous forces
    potential = LennardJones()
    before = [label.energy for label in potential.labels(frames)]
    after = relax_a_little(frames, potential, 30)
    assert all(b < a for a, b in zip(before, (x.energy for x in potential.labels(after)), strict=True))
    for old, new in zip(frames[:5], after, strict=False):
        assert (new.positions[0] == old.positions[0]).all()
    assert abs(after[-1].positions - frames[-1].positions).max() <= 30 * STEP + 1e-9
    assert relax_a_little(frames, potential, 0) == frames
