"""Volumes fluctuate as the compressibility says: ⟨δV²⟩ = V kT κ, for barostats that sample an ensemble."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units

from aims_pax.frames import Frame
from aims_pax.md import MDState, advance
from tests.md.potentials import Springs
from tests.md.settings import npt
from tests.sweeps import thinned

N, T, P = 8, 300.0, 1e-3  # atoms, K, eV/Å³
KT = units.kB * T
COPIES, WARM, STEPS = 64, 300, 1000


def volumes(barostat: str) -> np.ndarray:
    """(copies, samples) P V/kT of an ideal gas, for which κ = 1/P and V = N kT/P (its centre of mass at rest).

    The atoms begin in the distribution of that pressure, the cell at its mean.
    """
    box = np.eye(3) * (N * KT / P) ** (1 / 3)
    rng = np.random.default_rng(1)
    frames = [Frame([18] * N, rng.uniform(0, 1, (N, 3)) @ box, box, True) for _ in range(COPIES)]
    md = [npt(barostat, T, 4.0, pressure=P, taut=100.0, taup=100.0)] * COPIES
    states = [MDState.start(frame, T, k) for k, frame in enumerate(frames)]
    warm = [a.state for a in advance(states, Springs(0.0), WARM, md, guard=False)]
    seen = advance(warm, Springs(0.0), STEPS, md, guard=False, observe_every=20)
    return np.array([[abs(np.linalg.det(s.cell)) * P / KT for s in a.observed] for a in seen])


@pytest.mark.parametrize("barostat", thinned(["MTK", "isotropic-MTK"], 2))
def test_the_volume_of_an_ideal_gas_fluctuates_as_its_compressibility_says(barostat):
    x = volumes(barostat)
    own = ((x - x.mean()) ** 2).mean(1)  # of each trajectory
    error = x.mean(1).std(ddof=1) / np.sqrt(COPIES)
    spread = own.std(ddof=1) / np.sqrt(COPIES)
    print(f"PV/kT {x.mean():.3f} ± {error:.3f} ({N}), variance {own.mean():.2f} ± {spread:.2f} ({N})")
    assert error < 0.2  # N + 1, of another measure, would be seen
    assert spread < 0.1 * N
    assert x.mean() == pytest.approx(N, abs=4 * error)
    assert own.mean() == pytest.approx(N, abs=4 * spread)
