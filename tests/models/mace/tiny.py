"""Tiny models and tiny data: an architecture of 8 channels, Lennard-Jones molecules and EMT crystals."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.mace.ensemble import Ensemble
from aims_pax.models.mace.statistics import Statistics
from aims_pax.potential import calculate
from aims_pax.settings.mace import (
    ArchitectureSettings,
    GeneralSettings,
    MaceMiscSettings,
    MaceSettings,
    TrainingSettings,
)

ELEMENTS = (1, 6, 8, 29)

TINY: dict[str, Any] = {
    "name_exp": "tiny",
    "correlation": 2,
    "max_ell": 2,
    "max_L": 1,
    "num_channels": 8,
    "num_radial_basis": 6,
    "r_max": 3.5,
    "radial_MLP": [16],
    # of tests of tests/models on a machine with a GPU
    "device": os.environ.get("AIMS_PAX_TEST_DEVICE", "cpu"),
}
SECTIONS = {
    "general": GeneralSettings,
    "architecture": ArchitectureSettings,
    "training": TrainingSettings,
    "misc": MaceMiscSettings,
}


def settings(**changes: Any) -> MaceSettings:
    """The defaults with a tiny architecture; keywords change keys wherever they live."""
    wanted = TINY | changes
    homes = {key: name for name, section in SECTIONS.items() for key in section.model_fields}
    assert set(wanted) <= set(homes), set(wanted) - set(homes)
    chosen = {
        name: section(**{k: v for k, v in wanted.items() if homes[k] == name})
        for name, section in SECTIONS.items()
    }
    return MaceSettings(**chosen)  # type: ignore[arg-type]


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


def ensemble(seeds: Sequence[int] = (1, 2), elements: Sequence[int] = ELEMENTS, **changes: Any) -> Ensemble:
    """Members with initial weights and made-up statistics, ready to be asked."""
    built = Ensemble.build(settings(**changes), seeds, elements)
    for k, member in enumerate(built.members):
        E0 = -3.0 * np.arange(1, len(elements) + 1) - 0.1 * k
        member.freeze(Statistics(E0, 7.0, 1.7, 0.3, "least squares", len(elements)))
    return built


@contextmanager
def with_part(model: Any, part: str, value: Any) -> Iterator[None]:
    """The model with something else in a place such as `interactions.1.linear`; as it was afterwards."""
    *way, name = part.split(".")
    owner = model
    for step in way:
        owner = getattr(owner, step)  # also of a list of modules: they are its attributes 0, 1, …
    before = [
        (table, dict(table)) for table in (vars(owner), owner._modules, owner._buffers, owner._parameters)
    ]
    owner._modules.pop(name, None)  # only a module could take its place
    setattr(owner, name, value)
    try:
        yield
    finally:
        for table, content in before:
            table.clear()
            table.update(content)


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
