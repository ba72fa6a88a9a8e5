"""A diffusion model as a sampler: structures with composition, order of the atoms, cell and fixed atoms of a system.

The structures of a call depend on its generator alone, so a restart makes none again and skips none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from ase.data import chemical_symbols

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.models.diffusion.atoms_graph import AtomsGraph
from aims_pax.models.diffusion.denoiser import Denoiser
from aims_pax.models.diffusion.generation import (
    Generating,
    GenerationFailed,
    generate,
    warn_of_other_cell,
)
from aims_pax.models.diffusion.noisers import Positions
from aims_pax.models.diffusion.training_data import DataSummary, check_confinement, one_charge_and_spin
from aims_pax.sampler import Sample, SamplingError
from aims_pax.systems import System

log = logging.getLogger(__name__)

ModelOf = Callable[[System], tuple[Denoiser, DataSummary]]


class DiffusionSampler:
    """model_of: the model of a system and the summary of its data; called once for each system. how: see
    `Generating`."""

    def __init__(self, model_of: ModelOf, how: Generating, name: str = "diffusion") -> None:
        self.model_of, self.how, self.name = model_of, how, name
        self._models: dict[str, tuple[Denoiser, DataSummary]] = {}

    def sample(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        """n structures of each system, one of each in turn. Raises SamplingError when too many are refused."""
        seed = int(rng.integers(2**63))
        made = [self._frames(system, n, seed) for system in systems] if n else []
        for k in range(n):
            for system, frames in zip(systems, made, strict=True):
                origin: dict[str, str | int | float] = {"sampler": self.name, "system": system.name}
                if self.how.value is not None:
                    origin["property"] = float(self.how.value)
                yield Sample(frames[k], None, origin)

    def _frames(self, system: System, n: int, seed: int) -> list[Frame]:
        if system.name not in self._models:
            _warn_of_unlike_atoms(system)
            self._models[system.name] = self.model_of(system)
        model, data = self._models[system.name]
        try:
            start, counts = system_graph(model, data, system.frame)
            how = replace(self.how, charge=system.frame.charge, spin=system.frame.spin)
            made = generate(model, data, start, n, (seed, system.name), how, counts)
        except (SettingsError, GenerationFailed) as error:
            raise SamplingError(f"{system.name}: {error}") from error
        log.info("%s, %s: %s", self.name, system.name, made.words())
        return [placed(system.frame, graph) for graph in made.graphs]


def system_graph(
    model: Denoiser, data: DataSummary, frame: Frame
) -> tuple[AtomsGraph, dict[int, int] | None]:
    """The system as `generate` takes it, and the counts of its free atoms. Raises SettingsError."""
    graph = AtomsGraph.from_frame(frame, data.confinement)
    if graph.fixed.all():
        raise SettingsError("all atoms are fixed: there is nothing to generate")
    if model.positions is None:
        raise SettingsError("the model generates elements only; a sampler needs one that generates positions")
    wanted = not isinstance(model.positions, Positions)
    if bool(graph.pbc.any()) != wanted:
        has = "periodic" if wanted else "without a cell"
        raise SettingsError(f"the model was trained on structures that are {has}; this system is not")
    if data.pbc is not None and graph.pbc.tolist() != [bool(p) for p in data.pbc]:
        had, now = (" ".join("T" if p else "F" for p in pbc) for pbc in (data.pbc, graph.pbc))
        raise SettingsError(f"the model was trained on structures with pbc {had}, the system has {now}")
    check_confinement(graph, "the system", placed=False)
    if (fixed := bool(graph.fixed.any())) != data.anchored:
        has, have = ("has", "none") if fixed else ("has no", "some")
        raise SettingsError(
            f"the system {has} fixed atoms and the training structures have {have}; train on structures with the same "
            "fixed atoms"
        )
    warn_of_other_cell("the system's cell", graph.cell, graph.pbc, data)
    own = one_charge_and_spin([frame])
    for name, value in data.extra.items():
        if own.get(name) != value:
            raise SettingsError(
                f"{name}: the model was trained on structures with {value:g}, the system has {own.get(name, 'none')}"
            )
    for name, value in own.items():
        if name not in data.extra:
            log.warning("%s: %g, but the training structures of the diffusion model have none", name, value)
    model.classes_of(torch.from_numpy(graph.x))
    numbers, counts = np.unique(graph.x[~graph.fixed], return_counts=True)
    return graph, {int(z): int(k) for z, k in zip(numbers, counts, strict=True)}


def _warn_of_unlike_atoms(system: System) -> None:
    """Of atoms of one element the model does not know which is which, but the reference may (antiferromagnets)."""
    frame = system.frame
    free = np.ones(len(frame), bool) if frame.fixed is None else ~frame.fixed.all(1)
    for name, values in (("moments", frame.moments), ("charges", frame.charges)):
        if values is None:
            continue
        for z in np.unique(frame.numbers[free]):
            if len(np.unique(values[free & (frame.numbers == z)])) > 1:
                log.warning(
                    "%s: initial %s of %s differ, and the diffusion model does not know which atom is which: they "
                    "are on other atoms in each structure it makes, which may change the label",
                    system.name, name, chemical_symbols[z],
                )  # fmt: skip


def placed(frame: Frame, graph: AtomsGraph) -> Frame:
    """The frame with generated positions; atoms of one element are interchangeable, fixed ones stay bit for bit.

    A structure without a cell is moved to the centre of the frame.
    """
    free = ~graph.fixed
    positions = np.array(frame.positions)
    made = graph.pos
    if not graph.pbc.any() and free.all():
        made = made - made.mean(0) + frame.positions.mean(0)
    for z in np.unique(frame.numbers[free]):
        here = np.flatnonzero(free & (frame.numbers == z))
        there = np.flatnonzero(free & (graph.x == z))
        positions[here] = made[there]
    return replace(frame, positions=positions)
