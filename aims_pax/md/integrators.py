"""How atoms move: one object per ensemble and thermostat, acting on a whole batch at once.

A step is cut where the forces are needed, so that all trajectories share one evaluation:

    motion = integrator.before(motion, forces, noise)    # to the new positions and cells
    forces = …                                           # there
    motion = integrator.after(motion, forces)            # momenta complete the step

Both halves are pure. A new ensemble is a class with these two and a line in `_INTEGRATORS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from ase import units
from torch import Tensor

from aims_pax.errors import SettingsError
from aims_pax.md.batch import Batch, Motion


class Integrator(Protocol):
    """One step of every trajectory of a batch."""

    extras: ClassVar[tuple[str, ...]]  # the variables it keeps in MDState.extras
    noisy: ClassVar[bool]  # whether it wants normal deviates

    @classmethod
    def of(cls, batch: Batch, md: Sequence[Any]) -> Integrator:
        """For this batch; md: the MD settings of each trajectory."""
        ...

    def before(self, motion: Motion, forces: Tensor, noise: Tensor | None) -> Motion:
        """Everything before the new forces. forces: (A, 3) eV/Å at motion, noise: (A, 3) normal deviates."""
        ...

    def after(self, motion: Motion, forces: Tensor) -> Motion:
        """Everything after them. forces: (A, 3) eV/Å at the new positions."""
        ...


@dataclass(frozen=True)
class Langevin:
    """Langevin dynamics at constant volume, split as BAOAB (Leimkuhler and Matthews, Appl. Math. Res. Express
    2013, 34, 10.1093/amrx/abs010): positions of a harmonic oscillator are sampled exactly at any stable h.

        B   p ← p + h/2 · F(x)
        A   x ← x + h/2 · p/m
        O   p ← c·p + √((1 − c²) m k_B T) · R,   c = exp(−γh),  R ~ N(0, 1)
        A   x ← x + h/2 · p/m
        B   p ← p + h/2 · F(x)

    | letter                 | here    | shape  | unit              |
    |------------------------|---------|--------|-------------------|
    | h/2, zero where fixed  | half_h  | (A, 3) | ASE time          |
    | h/2m, zero where fixed | half_hm | (A, 3) | ASE time / amu    |
    | c                      | c       | (A, 1) |                   |
    | √((1 − c²) m k_B T)    | kick    | (A, 3) | √(eV·amu)         |

    Products and sums are separate operations: a fused one rounds differently in the tail of a vectorised
    loop, and a trajectory would feel its place in the batch in the last bit.
    """

    half_h: Tensor
    half_hm: Tensor
    c: Tensor
    kick: Tensor

    extras: ClassVar[tuple[str, ...]] = ()
    noisy: ClassVar[bool] = True

    @classmethod
    def of(cls, batch: Batch, md: Sequence[Any]) -> Langevin:
        h = [m.timestep * units.fs for m in md]
        c = [math.exp(-m.friction * m.timestep) for m in md]
        half_h = batch.per_atom([x / 2 for x in h]) * batch.free
        thermal = [(1 - k * k) * units.kB * m.temperature for k, m in zip(c, md, strict=True)]
        return cls(
            half_h=half_h,
            half_hm=half_h / batch.masses,
            c=batch.per_atom(c),
            kick=(batch.per_atom(thermal) * batch.masses).sqrt() * batch.free,
        )

    def before(self, motion: Motion, forces: Tensor, noise: Tensor | None) -> Motion:
        assert noise is not None  # noisy
        x, p = motion.positions, motion.momenta
        p = p + self.half_h * forces
        x = x + self.half_hm * p
        p = self.c * p + self.kick * noise
        x = x + self.half_hm * p
        return Motion(x, p, motion.cells, motion.extras)

    def after(self, motion: Motion, forces: Tensor) -> Motion:
        p = motion.momenta + self.half_h * forces
        return Motion(motion.positions, p, motion.cells, motion.extras)


_INTEGRATORS: dict[tuple[str, str], type[Integrator]] = {("nvt", "langevin"): Langevin}


def kind(md: Any) -> type[Integrator]:
    """The integrator that MD settings ask for. Raises SettingsError for one that does not exist yet."""
    ensemble = str(md.stat_ensemble).lower()
    which = "barostat" if ensemble == "npt" else "thermostat"
    name = str(getattr(md, which, ""))
    found = _INTEGRATORS.get((ensemble, name.lower()))
    if found is None:
        raise SettingsError(
            f"MD: stat_ensemble {md.stat_ensemble} with {which} {name} is not available yet "
            "(it comes with the engine); use stat_ensemble: NVT with thermostat: Langevin"
        )
    return found


def choose(batch: Batch, md: Sequence[Any]) -> Integrator:
    """The integrator of a batch. md: the MD settings of each trajectory. Raises SettingsError as `kind`."""
    kinds = {kind(m) for m in md}
    if len(kinds) > 1:
        raise SettingsError("MD: trajectories of one batch move in the same ensemble for now")
    return kinds.pop().of(batch, md)
