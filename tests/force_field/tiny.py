"""Tiny models and tiny data: an architecture of 8 channels, Lennard-Jones molecules and EMT crystals."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from aims_pax.force_field.ensemble import Ensemble
from aims_pax.force_field.statistics import Statistics
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.potential import calculate

ELEMENTS = (1, 6, 8, 29)

DEFAULTS: dict[str, dict[str, Any]] = {
    "general": {"name_exp": "tiny", "compute_stress": False, "default_dtype": "float32", "seed": 42},
    "architecture": {
        "atomic_energies": None,
        "compute_avg_num_neighbors": True,
        "correlation": 2,
        "gate": "silu",
        "interaction": "RealAgnosticResidualInteractionBlock",
        "interaction_first": "RealAgnosticResidualInteractionBlock",
        "max_ell": 2,
        "max_L": 1,
        "MLP_irreps": "16x0e",
        "model": "ScaleShiftMACE",
        "num_channels": 8,
        "num_cutoff_basis": 5,
        "num_interactions": 2,
        "num_radial_basis": 6,
        "pair_repulsion": False,
        "r_max": 3.5,
        "radial_MLP": [16],
        "radial_type": "bessel",
        "scaling": "rms_forces_scaling",
    },
    "training": {
        "amsgrad": True,
        "batch_size": 5,
        "clip_grad": 10.0,
        "config_type_weights": {"Default": 1.0},
        "ema": True,
        "ema_decay": 0.99,
        "energy_weight": 1.0,
        "forces_weight": 1000.0,
        "loss": "weighted",
        "lr": 0.01,
        "lr_factor": 0.8,
        "lr_scheduler_gamma": 0.9993,
        "optimizer": "adam",
        "scheduler": "ReduceLROnPlateau",
        "scheduler_patience": 5,
        "stress_weight": 1.0,
        "swa": False,
        "valid_batch_size": 5,
        "virials_weight": 1.0,
        "weight_decay": 5e-7,
    },
    "misc": {"device": "cpu", "error_table": "PerAtomMAE", "log_level": "INFO"},
}


def settings(**changes: Any) -> Any:
    """The seed's defaults with a tiny architecture; keywords change keys wherever they live."""
    known = {key for section in DEFAULTS.values() for key in section}
    assert set(changes) <= known, set(changes) - known
    return SimpleNamespace(
        **{
            name: SimpleNamespace(**{k: changes.get(k, v) for k, v in section.items()})
            for name, section in DEFAULTS.items()
        }
    )


def ethanol(n: int, seed: int = 0, noise: float = 0.06) -> list[LabelledFrame]:
    """n shaken ethanol molecules with Lennard-Jones labels, 5 eV an atom above a large offset."""
    return [_lj(a) for a in _shaken(molecule("CH3CH2OH"), n, seed, noise)]


def water(n: int, seed: int = 0, noise: float = 0.06) -> list[LabelledFrame]:
    """n shaken water molecules with Lennard-Jones labels."""
    return [_lj(a) for a in _shaken(molecule("H2O"), n, seed, noise)]


def copper(n: int, seed: int = 0, noise: float = 0.1) -> list[LabelledFrame]:
    """n shaken four-atom copper cells, EMT labels with stress."""
    frames = [Frame.from_atoms(a) for a in _shaken(bulk("Cu", cubic=True), n, seed, noise)]
    return [LabelledFrame(f, calculate(f, EMT())) for f in frames]


def triclinic() -> Frame:
    """Two copper atoms in a skewed cell so small that every atom sees its own images."""
    cell = [[2.6, 0.1, 0.2], [1.1, 2.5, -0.3], [0.4, 0.9, 3.9]]
    return Frame([29, 29], [[0.1, 0.2, 0.3], [1.5, 1.6, 2.2]], cell, [True] * 3)


def slab() -> Frame:
    """A copper layer periodic in two directions without a third cell vector."""
    cell = [[2.6, 0.0, 0.0], [0.9, 2.9, 0.0], [0.0, 0.0, 0.0]]
    return Frame([29, 29, 8], [[0, 0, 0], [1.3, 1.4, 1.9], [7.2, 0.3, 3.1]], cell, [True, True, False])


def ensemble(
    seeds: Sequence[int] = (1, 2), elements: Sequence[int] = ELEMENTS, **changes: Any
) -> Ensemble:
    """Members with initial weights and made-up statistics, ready to be asked."""
    built = Ensemble.build(settings(**changes), seeds, elements)
    for k, member in enumerate(built.members):
        E0 = -3.0 * np.arange(1, len(elements) + 1) - 0.1 * k
        member.freeze(Statistics(E0, 7.0, 1.7, 0.3, "least squares", len(elements)))
    return built


def _shaken(atoms: Atoms, n: int, seed: int, noise: float) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        moved = atoms.copy()
        moved.positions += rng.normal(0, noise, moved.positions.shape)
        out.append(moved)
    return out


def _lj(atoms: Atoms) -> LabelledFrame:
    frame = Frame.from_atoms(atoms)
    label = calculate(frame, LennardJones(sigma=1.0, epsilon=1.0, rc=3.4, smooth=True))
    return LabelledFrame(frame, Label(label.energy - 500.0 * len(frame), label.forces))
