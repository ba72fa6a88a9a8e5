"""Solid carbon dioxide (Pa3̄) and an analytic potential for it, from which a small MACE model is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal

from aims_pax.frames import Frame, LabelledFrame
from aims_pax.models.mace import Ensemble, MemberData
from aims_pax.potential import calculate

A = 5.62  # Å
CO = 1.16  # Å


def solid() -> Frame:
    """Four molecules in a cubic cell, molecule after molecule: C, O, O."""
    x = CO / np.sqrt(3) / A
    atoms = crystal(["C", "O"], [(0, 0, 0), (x, x, x)], spacegroup=205, cellpar=[A, A, A, 90, 90, 90])
    carbons = atoms.positions[atoms.numbers == 6]
    oxygens = atoms.positions[atoms.numbers == 8]
    R = []
    for c in carbons:
        d = oxygens - c
        d -= A * np.round(d / A)
        near = d[np.linalg.norm(d, axis=1) < 1.3]
        R += [c, *(c + near)]
    return Frame.from_atoms(Atoms(4 * "COO", R, cell=3 * [A], pbc=True))


class CarbonDioxide(Calculator):
    """Springs in O=C=O and a smooth Lennard-Jones between molecules; molecules are found by their bonds."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012
    springs = {(6, 8): (40.0, CO, 1.6), (8, 8): (4.0, 2 * CO, 2.7)}  # noqa: RUF012  # eV/Å², Å, up to
    epsilon, sigma, cutoff = 0.008, 3.05, 5.5

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, j, d, D = neighbor_list("ijdD", atoms, self.cutoff)
        z = np.sort(np.array([atoms.numbers[i], atoms.numbers[j]]), axis=0).T
        energy, slope, bonded = np.zeros(len(d)), np.zeros(len(d)), np.zeros(len(d), bool)
        for pair, (k, r0, far) in self.springs.items():
            here = (z == pair).all(1) & (d < far)
            energy[here] += 0.5 * k * (d[here] - r0) ** 2
            slope[here] += k * (d[here] - r0)
            bonded |= here
        out = ~bonded
        s6 = (self.sigma / d[out]) ** 6
        fade = (1 - (d[out] / self.cutoff) ** 2) ** 2
        dfade = -4 * d[out] / self.cutoff**2 * (1 - (d[out] / self.cutoff) ** 2)
        lj, dlj = 4 * self.epsilon * (s6**2 - s6), 4 * self.epsilon * (-12 * s6**2 + 6 * s6) / d[out]
        energy[out] = lj * fade
        slope[out] = dlj * fade + lj * dfade
        pull = (slope / d)[:, None] * D
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, pull)
        self.results = {"energy": 0.5 * energy.sum(), "forces": forces}
        if atoms.cell.rank == 3:
            s = 0.5 * np.einsum("bx,by->xy", pull, D) / atoms.get_volume()
            self.results["stress"] = s.ravel()[[0, 4, 8, 5, 2, 1]]


def trained(path: Path, epochs: int, frames: int = 40) -> None:
    """Train a small MACE model on shaken and strained cells, pairs and single molecules, and save it."""
    from tests.models.mace.tiny import settings

    rng = np.random.default_rng(0)
    start = solid()
    data = []
    for _ in range(frames):
        strain = np.eye(3) + rng.normal(scale=0.02, size=(3, 3)) + rng.uniform(-0.02, 0.05) * np.eye(3)
        R = start.positions @ strain
        shift = np.repeat(rng.normal(scale=0.08, size=(4, 3)), 3, axis=0)
        R = R + shift + rng.normal(scale=0.04, size=R.shape)
        data.append(start.moved(R, start.cell @ strain))
        molecules = rng.choice(4, rng.integers(1, 3), replace=False)
        atoms = np.concatenate([3 * m + np.arange(3) for m in molecules])
        data.append(Frame(start.numbers[atoms], R[atoms]))
    labelled = [LabelledFrame(f, calculate(f, CarbonDioxide())) for f in data]
    for atom in (6, 8):
        alone = Frame([atom], [[0, 0, 0]])
        labelled.append(
            LabelledFrame(alone, calculate(alone, CarbonDioxide()), {"config_type": "IsolatedAtom"})
        )
    ensemble = Ensemble.build(
        settings(
            r_max=4.5, num_channels=16, correlation=2, max_L=1, lr=0.02, batch_size=8, valid_batch_size=8
        ),
        [1],
        (6, 8),
    )
    ensemble.train([MemberData(labelled[4:], labelled[:4])], epochs)
    ensemble.save(0, path)
