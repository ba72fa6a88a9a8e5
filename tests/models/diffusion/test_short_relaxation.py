"""A few steps downhill, for many structures."""

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed

from aims_pax.errors import LabelError
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


class Picky(LennardJones):
    """Fails, for a whole batch, on structures whose first two atoms are near."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def labels(self, frames):
        if any(np.linalg.norm(f.positions[1] - f.positions[0]) < 3.0 for f in frames):
            raise self.error("SCF not converged")
        return super().labels(frames)


@pytest.mark.parametrize("error", [LabelError, CalculationFailed])
def test_a_structure_that_the_potential_fails_on_stops_no_other(error):
    apart, near = (Frame([18, 18], [[0, 0, 0], [d, 0, 0]]) for d in (3.7, 2.0))
    found = relax_a_little([near, apart, near], Picky(error), 3)
    assert found == [None, relax_a_little([apart], LennardJones(), 3)[0], None]
