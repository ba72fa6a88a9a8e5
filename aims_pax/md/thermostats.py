"""Integrators at constant volume: velocity Verlet, Langevin dynamics, stochastic velocity rescaling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ase import units
from torch import Tensor, where

from aims_pax.md.batch import Forces, MDBatch, Motion


@dataclass(frozen=True)
class Verlet:
    """Velocity Verlet at constant energy: p ← p + h/2·F, x ← x + h·p/m, p ← p + h/2·F."""

    batch: MDBatch
    half_h: Tensor  # (A, 3) h/2, zero where fixed
    h_m: Tensor  # (A, 3) h/m, zero where fixed

    names: ClassVar[tuple[str, ...]] = ()
    needs_noise: ClassVar[bool] = False
    needs_stress: ClassVar[bool] = False

    @classmethod
    def of(cls, batch: MDBatch, md: Sequence[Any]) -> Verlet:
        half_h = batch.per_atom([m.timestep * units.fs / 2 for m in md]) * batch.free
        return cls(batch=batch, half_h=half_h, h_m=2 * half_h / batch.masses)

    def begin(self, kT: Tensor) -> dict[str, Tensor]:
        return {}

    def before(self, motion: Motion, acting: Forces, noise: Tensor | None, kT: Tensor) -> Motion:
        p = motion.momenta + self.half_h * acting.forces
        return replace(motion, positions=motion.positions + self.h_m * p, momenta=p)

    def after(self, motion: Motion, acting: Forces, kT: Tensor) -> Motion:
        return replace(motion, momenta=motion.momenta + self.half_h * acting.forces)

    def conserved(self, motion: Motion, energies: Tensor, kT: Tensor) -> Tensor:
        """(F,) eV: kinetic and potential energy. energies: (F,) eV at the motion."""
        return energies + kinetic(self.batch, motion.momenta)


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
    | (1 − c²)               | fresh   | (F,)   |                   |

    Products and sums are separate operations: a fused one rounds differently in the tail of a vectorised
    loop, so the last bit of a trajectory would depend on its position in the batch.
    """

    batch: MDBatch
    half_h: Tensor
    half_hm: Tensor
    c: Tensor
    fresh: Tensor

    names: ClassVar[tuple[str, ...]] = ()
    needs_noise: ClassVar[bool] = True
    needs_stress: ClassVar[bool] = False

    @classmethod
    def of(cls, batch: MDBatch, md: Sequence[Any]) -> Langevin:
        c = [math.exp(-m.friction * m.timestep) for m in md]
        half_h = batch.per_atom([m.timestep * units.fs / 2 for m in md]) * batch.free
        return cls(
            batch=batch,
            half_h=half_h,
            half_hm=half_h / batch.masses,
            c=batch.per_atom(c),
            fresh=batch.per_system([1 - k * k for k in c]),
        )

    def begin(self, kT: Tensor) -> dict[str, Tensor]:
        return {}

    def before(self, motion: Motion, acting: Forces, noise: Tensor | None, kT: Tensor) -> Motion:
        assert noise is not None  # needs_noise
        x, p = motion.positions, motion.momenta
        p = p + self.half_h * acting.forces
        x = x + self.half_hm * p
        p = self.c * p + thermal(self.batch, self.fresh * kT, noise)
        x = x + self.half_hm * p
        return replace(motion, positions=x, momenta=p)

    def after(self, motion: Motion, acting: Forces, kT: Tensor) -> Motion:
        return replace(motion, momenta=motion.momenta + self.half_h * acting.forces)


@dataclass(frozen=True)
class VelocityRescaling(Verlet):
    """Stochastic velocity rescaling (Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101 (2007),
    10.1063/1.2408420, eq. A7), then velocity Verlet. All momenta of a trajectory are scaled by one α,

        α² = c + f·Σ_i R_i² + 2 R_1 √(c f),   c = e^(−h/τ),   f = (1 − c) k_B T / 2K,   R_i ~ N(0, 1),

    with one R for each degree of freedom (`md.degrees_of_freedom`): 3N minus the fixed components, as in ASE, minus
    three more where the centre of mass is at rest, because α does not move it. At K = 0, where α is undefined,
    momenta become √((1 − c) m k_B T)·R, which has the same distribution of K.
    It stores the work, the energy added by the thermostat so far, so that E − work is conserved.
    """

    c: Tensor  # (F,)
    first: Tensor  # (F,) flat index of the first free component of each trajectory
    counted: Tensor  # (A, 3) one for as many components as there are degrees of freedom, else zero

    names: ClassVar[tuple[str, ...]] = ("svr/work",)
    needs_noise: ClassVar[bool] = True

    @classmethod
    def of(cls, batch: MDBatch, md: Sequence[Any]) -> VelocityRescaling:
        verlet = Verlet.of(batch, md)
        free = batch.free.cpu().numpy()
        first = [3 * rows.start + int(free[rows].ravel().argmax()) for rows in batch.slices]
        return cls(
            batch=batch,
            half_h=verlet.half_h,
            h_m=verlet.h_m,
            c=batch.per_system([math.exp(-m.timestep / m.taut) for m in md]),
            first=batch.per_system(first).long(),
            counted=_counted(batch),
        )

    def begin(self, kT: Tensor) -> dict[str, Tensor]:
        [name] = self.names
        return {name: self.batch.remembered(name, self.c * 0.0)}

    def before(self, motion: Motion, acting: Forces, noise: Tensor | None, kT: Tensor) -> Motion:
        assert noise is not None  # needs_noise
        R = noise * self.batch.free
        R2 = self.batch.total(R * R * self.counted)
        R1 = R.reshape(-1).index_select(0, self.first)
        K = kinetic(self.batch, motion.momenta)
        f = (1.0 - self.c) * kT / (2.0 * K)
        alpha2 = self.c + f * (R2[:, 0] + R2[:, 1] + R2[:, 2]) + 2.0 * R1 * (self.c * f).sqrt()
        alpha = self.batch.spread(alpha2.clamp(min=0.0).sqrt())[:, None]
        kicked = thermal(self.batch, (1.0 - self.c) * kT, R)
        p = where(self.batch.spread(K == 0.0)[:, None], kicked, alpha * motion.momenta)
        work = motion.extras["svr/work"] + (kinetic(self.batch, p) - K)
        extras = {**motion.extras, "svr/work": work}
        return super().before(replace(motion, momenta=p, extras=extras), acting, None, kT)

    def conserved(self, motion: Motion, energies: Tensor, kT: Tensor) -> Tensor:
        """(F,) eV: kinetic and potential energy minus the work of the thermostat."""
        return super().conserved(motion, energies, kT) - motion.extras["svr/work"]


def _counted(batch: MDBatch) -> Tensor:
    """(A, 3): one for free components; zero for the last atom where the centre of mass is at rest."""
    counted = batch.free.clone()
    for state, rows in zip(batch.states, batch.slices, strict=True):
        if state.degrees < int(batch.free[rows].sum()):
            counted[rows.stop - 1] = 0.0
    return counted


def kinetic(batch: MDBatch, momenta: Tensor) -> Tensor:
    """(F,) eV: Σ p²/2m."""
    each = batch.total(momenta * momenta * (0.5 / batch.masses))
    return each[:, 0] + each[:, 1] + each[:, 2]


def thermal(batch: MDBatch, energy: Tensor, noise: Tensor) -> Tensor:
    """(A, 3) momenta √(m·energy)·R along free components. energy: (F,) eV."""
    return (batch.spread(energy)[:, None] * batch.masses).sqrt() * batch.free * noise
