"""How atoms move: one object per ensemble and thermostat, acting on a whole batch at once.

A step is cut where the forces are needed, so that all trajectories share one evaluation:

    motion = integrator.before(motion, acting, noise, kT)    # to the new positions and cells
    acting = …                                               # forces (and stress) there
    motion = integrator.after(motion, acting, kT)            # momenta complete the step

Both halves are pure. A new ensemble is a class with these two and a line in `_INTEGRATORS`. Trajectories of
different ensembles share a batch too: `Mixed` gives each integrator its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from aims_pax.errors import SettingsError
from aims_pax.md.barostats import Berendsen, ParrinelloRahman
from aims_pax.md.batch import Forces, MDBatch, Motion
from aims_pax.md.martyna_tobias_klein import MTK
from aims_pax.md.state import MDState
from aims_pax.md.thermostats import Langevin, VelocityRescaling, Verlet


class Integrator(Protocol):
    """One step of every trajectory of a batch."""

    @property
    def needs_noise(self) -> bool:
        """Whether it wants normal deviates."""
        ...

    @property
    def needs_stress(self) -> bool:
        """Whether it wants the stress, because cells move."""
        ...

    def begin(self, kT: Tensor) -> Mapping[str, Tensor]:
        """What it remembers of each trajectory (F, …) by name: from the states, else as at a first step.

        kT: (F,) eV.
        """
        ...

    def before(self, motion: Motion, acting: Forces, noise: Tensor | None, kT: Tensor) -> Motion:
        """Everything before the new forces. acting: at motion, noise: (A, 3) normal deviates, kT: (F,) eV."""
        ...

    def after(self, motion: Motion, acting: Forces, kT: Tensor) -> Motion:
        """Everything after them. acting: at the new positions."""
        ...


Made = type[Langevin] | type[VelocityRescaling] | type[Verlet] | type[Berendsen] | type[ParrinelloRahman]
Kind = Made | type[MTK]

_INTEGRATORS: dict[tuple[str, str], Kind] = {
    ("nve", ""): Verlet,
    ("nvt", "langevin"): Langevin,
    ("nvt", "svr"): VelocityRescaling,
    ("npt", "berendsen"): Berendsen,
    ("npt", "npt"): ParrinelloRahman,
    ("npt", "mtk"): MTK,
    ("npt", "isotropic-mtk"): MTK,
}


def integrator_kind(md: Any, state: MDState | None = None) -> Kind:
    """The integrator that MD settings ask for; a state that is not periodic in three directions has no
    pressure and moves in NVT with the settings' thermostat.

    Raises SettingsError for an unknown one, and for fixed atoms at constant pressure: an atom that stays
    while the cell is scaled under it does work that no pressure accounts for.
    """
    ensemble = str(md.stat_ensemble).lower()
    if ensemble == "npt" and state is not None and not state.pbc.all():
        ensemble = "nvt"
    which = {"npt": "barostat", "nvt": "thermostat"}.get(ensemble, "")
    name = str(getattr(md, which, ""))
    found = _INTEGRATORS.get((ensemble, name.lower()))
    if found is None:
        raise SettingsError(
            f"MD: stat_ensemble {md.stat_ensemble} with {which} {name} is not known; use NVT with thermostat "
            "Langevin or SVR, or NPT with barostat Berendsen, npt, MTK or isotropic-MTK"
        )
    if ensemble == "npt" and state is not None and state.fixed is not None and state.fixed.any():
        raise SettingsError(
            "MD: atoms cannot be fixed at constant pressure; use stat_ensemble: NVT for this geometry, "
            "or remove its constraints"
        )
    return found


def make_integrator(batch: MDBatch, md: Sequence[Any]) -> Integrator:
    """The integrator of a batch. md: the MD settings of each trajectory. Raises SettingsError as `kind`."""
    return choose_owned(batch, md)[0]


def choose_owned(batch: MDBatch, md: Sequence[Any]) -> tuple[Integrator, list[tuple[str, ...]]]:
    """The integrator, and the names of what it remembers of each trajectory."""
    kinds = [integrator_kind(m, s) for m, s in zip(md, batch.states, strict=True)]
    owned = [k.names for k in kinds]
    if len(set(kinds)) == 1:
        return kinds[0].of(batch, md), owned
    parts = []
    for each in dict.fromkeys(kinds):
        frames = [f for f, k in enumerate(kinds) if k is each]
        parts.append(_Part.of(batch, md, frames, each.of))
    return Mixed(len(kinds), tuple(parts)), owned


@dataclass(frozen=True)
class _Part:
    """The trajectories of one integrator. frames, rows: their places in the whole batch."""

    frames: Tensor
    rows: Tensor
    integrator: Integrator

    @classmethod
    def of(
        cls, batch: MDBatch, md: Sequence[Any], frames: Sequence[int], make: Callable[..., Integrator]
    ) -> _Part:
        own = MDBatch.of([batch.states[f] for f in frames], batch.device)
        rows = [torch.arange(batch.slices[f].start, batch.slices[f].stop) for f in frames]
        return cls(
            frames=torch.tensor(frames, device=batch.device),
            rows=torch.cat(rows).to(batch.device),
            integrator=make(own, [md[f] for f in frames]),
        )

    def of_motion(self, motion: Motion) -> Motion:
        extras = {name: v.index_select(0, self.frames) for name, v in motion.extras.items()}
        x, p = (v.index_select(0, self.rows) for v in (motion.positions, motion.momenta))
        return Motion(x, p, motion.cells.index_select(0, self.frames), extras)

    def of_forces(self, acting: Forces) -> Forces:
        stress = None if acting.stress is None else acting.stress.index_select(0, self.frames)
        return Forces(acting.forces.index_select(0, self.rows), stress)

    def into(self, whole: Motion, part: Motion) -> Motion:
        """The whole with these trajectories moved."""
        changed = {n: whole.extras[n].index_copy(0, self.frames, v) for n, v in part.extras.items()}
        return replace(
            whole,
            positions=whole.positions.index_copy(0, self.rows, part.positions),
            momenta=whole.momenta.index_copy(0, self.rows, part.momenta),
            cells=whole.cells.index_copy(0, self.frames, part.cells),
            extras={**whole.extras, **changed},
        )


@dataclass(frozen=True)
class Mixed:
    """Several integrators in one batch of F trajectories."""

    n: int
    parts: tuple[_Part, ...]

    @property
    def needs_noise(self) -> bool:
        return any(part.integrator.needs_noise for part in self.parts)

    @property
    def needs_stress(self) -> bool:
        return any(part.integrator.needs_stress for part in self.parts)

    def begin(self, kT: Tensor) -> dict[str, Tensor]:
        """Zero where a trajectory has no such variable."""
        found: dict[str, Tensor] = {}
        for part in self.parts:
            for name, v in part.integrator.begin(kT.index_select(0, part.frames)).items():
                whole = found.get(name, v.new_zeros(self.n, *v.shape[1:]))
                found[name] = whole.index_copy(0, part.frames, v)
        return found

    def before(self, motion: Motion, acting: Forces, noise: Tensor | None, kT: Tensor) -> Motion:
        for part in self.parts:
            own = part.of_motion(motion)
            deviates = None if noise is None else noise.index_select(0, part.rows)
            target = kT.index_select(0, part.frames)
            motion = part.into(motion, part.integrator.before(own, part.of_forces(acting), deviates, target))
        return motion

    def after(self, motion: Motion, acting: Forces, kT: Tensor) -> Motion:
        for part in self.parts:
            own, target = part.of_motion(motion), kT.index_select(0, part.frames)
            motion = part.into(motion, part.integrator.after(own, part.of_forces(acting), target))
        return motion
