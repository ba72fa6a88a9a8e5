"""Integrators at constant pressure, for cells of any shape.

All act on Cartesian positions x (rows) and cells h (rows) and transform both by the same matrix, x → x·M and
h → h·M, so the orientation of the cell does not matter. Pressures are in eV/Å³, positive in compression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from ase import units
from torch import Tensor

from aims_pax.md.batch import Forces, MDBatch, Motion
from aims_pax.md.degrees_of_freedom import degrees
from aims_pax.md.linalg3x3 import flow, rows_times, small_exp, square, trace3x3, volume
from aims_pax.md.thermostats import kinetic

BAR = 1e5 * units.Pascal  # eV/Å³
VOLUME = "npt/volume"  # Å³ at the start of the barostat


@dataclass(frozen=True)
class Berendsen:
    """Weak coupling (Berendsen et al., J. Chem. Phys. 81, 3684 (1984), 10.1063/1.448118), isotropic.

        p ← p − m P/M
        λ = √(1 + h/τ_T (T₀/T − 1)) within 0.9 … 1.1,   p ← λ p
        μ = 1 − h/τ_P · β/3 · (P₀ − P),                 x ← μ x,  h ← μ h

    and a step of velocity Verlet without motion of the centre of mass, as in ASE's NPTBerendsen. The temperature T
    uses the 3N − 3 remaining degrees of freedom (ASE: 3N, which makes four atoms a third too hot). The first half of
    the step uses the forces at the unscaled positions: a scaling of 1e-6 does not justify another evaluation.
    The mean pressure is right, but the fluctuations are not those of any ensemble.
    """

    batch: MDBatch
    half_h: Tensor  # (A, 1)
    h_m: Tensor  # (A, 1)
    couple_t: Tensor  # (F,) h/τ_T
    couple_p: Tensor  # (F,) h/τ_P · β/3 in Å³/eV
    pressure: Tensor  # (F,)
    degrees: Tensor  # (F,)
    share: Tensor  # (A, 1) m/M, zero in a trajectory of one atom

    names: ClassVar[tuple[str, ...]] = (VOLUME,)
    needs_noise: ClassVar[bool] = False
    needs_stress: ClassVar[bool] = True

    @classmethod
    def of(cls, batch: MDBatch, md: Sequence[Any]) -> Berendsen:
        half_h = batch.per_atom([m.timestep * units.fs / 2 for m in md])
        return cls(
            batch=batch,
            half_h=half_h,
            h_m=2 * half_h / batch.masses,
            couple_t=batch.per_system([m.timestep / m.taut for m in md]),
            couple_p=batch.per_system([m.timestep / m.taup * m.compressibility / BAR / 3 for m in md]),
            pressure=batch.per_system([m.pressure_au for m in md]),
            degrees=at_rest(batch),
            share=mass_shares(batch),
        )

    def begin(self, kT: Tensor) -> dict[str, Tensor]:
        return first_volume(self.batch)

    def before(self, motion: Motion, acting: Forces, noise: Tensor | None, kT: Tensor) -> Motion:
        assert acting.stress is not None  # needs_stress
        p, h = without_drift(self.batch, self.share, motion.momenta), motion.cells
        twice_K = 2.0 * kinetic(self.batch, p)
        scale2 = (1.0 + (self.degrees * kT / twice_K - 1.0) * self.couple_t).clamp(0.9**2, 1.1**2)
        pressure = (scale2 * twice_K / volume(h) - trace3x3(acting.stress)) / 3.0
        mu = 1.0 - self.couple_p * (self.pressure - pressure)
        p = self.batch.spread(scale2.sqrt())[:, None] * p + self.half_h * acting.forces
        x = self.batch.spread(mu)[:, None] * motion.positions + self.h_m * p
        return replace(motion, positions=x, momenta=p, cells=mu[:, None, None] * h)

    def after(self, motion: Motion, acting: Forces, kT: Tensor) -> Motion:
        return replace(motion, momenta=motion.momenta + self.half_h * acting.forces)


@dataclass(frozen=True)
class Flexible:
    """Base class of extended systems: symmetric strain rate η (F, 3, 3) of the cell and the atoms.

        ẋ = p/m + x·η,   ṗ = F − p·κ,   ḣ = h·η

    η stays symmetric, so the cell does not rotate. The centre of mass is kept at rest, because its momentum
    would only be rescaled; 3N − 3 degrees of freedom remain (3 for a single atom).
    """

    batch: MDBatch
    h: Tensor  # (F,) time step, ASE time
    pressure: Tensor  # (F,)
    degrees: Tensor  # (F,)
    share: Tensor  # (A, 1) m / Σ m, zero in a trajectory of one atom

    needs_noise: ClassVar[bool] = False
    needs_stress: ClassVar[bool] = True

    @classmethod
    def shared(cls, batch: MDBatch, md: Sequence[Any], pressure: Sequence[float]) -> dict[str, Any]:
        return {
            "batch": batch,
            "h": batch.per_system([m.timestep * units.fs for m in md]),
            "pressure": batch.per_system(pressure),
            "degrees": at_rest(batch),
            "share": mass_shares(batch),
        }

    def _settled(self, p: Tensor) -> Tensor:
        return without_drift(self.batch, self.share, p)

    def _kinetic(self, p: Tensor) -> Tensor:
        """(F, 3, 3) eV: Σ p⊗p/m, twice the kinetic energy along each direction."""
        pairs = (p / self.batch.masses)[:, :, None] * p[:, None, :]
        return self.batch.total(pairs.reshape(-1, 9)).reshape(-1, 3, 3)

    def _excess(self, twice_K: Tensor, acting: Forces, cells: Tensor) -> Tensor:
        """(F, 3, 3) eV: V·(P_int − P₀)."""
        assert acting.stress is not None  # needs_stress
        V = volume(cells)[:, None, None]
        one = torch.eye(3, dtype=V.dtype, device=V.device)
        sigma = 0.5 * (acting.stress + acting.stress.transpose(1, 2))
        return twice_K - V * (sigma + self.pressure[:, None, None] * one)

    def _kick(self, p: Tensor, kappa: Tensor, forces: Tensor) -> Tensor:
        """Half a step of ṗ = F − p·κ."""
        half = 0.5 * self.h
        decay, phi = flow(-half[:, None, None] * kappa)
        spread = self.batch.spread
        return rows_times(p, spread(decay)) + spread(half)[:, None] * rows_times(forces, spread(phi))

    def _drift(self, motion: Motion, p: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Positions and cells after a step of ẋ = p/m + x·η, ḣ = h·η."""
        spread = self.batch.spread
        grow, phi = flow(self.h[:, None, None] * eta)
        free = spread(self.h)[:, None] * rows_times(p / self.batch.masses, spread(phi))
        return rows_times(motion.positions, spread(grow)) + free, torch.bmm(motion.cells, grow)

    def _scaled(self, p: Tensor, factor: Tensor) -> Tensor:
        return self.batch.spread(factor)[:, None] * p

    def _enthalpy(self, motion: Motion, energies: Tensor) -> Tensor:
        return energies + kinetic(self.batch, motion.momenta) + self.pressure * volume(motion.cells)


@dataclass(frozen=True)
class ParrinelloRahman(Flexible):
    """Nosé–Hoover thermostat and Parrinello–Rahman cell, combined by Melchionna, Ciccotti and Holian (Mol.
    Phys. 78, 533 (1993), 10.1080/00268979300100371): the equations and constants of ASE's NPT.

        κ = η + ζ,   ζ̇ = (2K − N_f k_B T) / Q,          Q = 3N k_B T τ²
                     η̇ = V (P_int − P₀) / W,            W = pfactor · V(first step)

    ASE integrates them by central differences with a triangular η; here the step is split symmetrically
    (ζ, η, p | x, h | p, η, ζ) and η is symmetric, so the cell may have any shape and orientation.
    """

    tau2: Tensor  # (F,) τ²
    atoms: Tensor  # (F,) N
    pfactor: Tensor  # (F,)

    names: ClassVar[tuple[str, ...]] = ("npt/eta", "npt/zeta", VOLUME)

    @classmethod
    def of(cls, batch: MDBatch, md: Sequence[Any]) -> ParrinelloRahman:
        return cls(
            **cls.shared(batch, md, [m.external_stress for m in md]),
            tau2=batch.per_system([(m.ttime * units.fs) ** 2 for m in md]),
            atoms=batch.per_system([len(s) for s in batch.states]),
            pfactor=batch.per_system([m.pfactor for m in md]),
        )

    def begin(self, kT: Tensor) -> dict[str, Tensor]:
        """η, [ζ, ∫ζ dt] and the volume."""
        n = len(self.h)
        return {
            "npt/eta": self.batch.remembered("npt/eta", self.h.new_zeros(n, 3, 3)),
            "npt/zeta": self.batch.remembered("npt/zeta", self.h.new_zeros(n, 2)),
            **first_volume(self.batch),
        }

    def before(self, motion: Motion, acting: Forces, noise: Tensor | None, kT: Tensor) -> Motion:
        eta, zeta = motion.extras["npt/eta"], motion.extras["npt/zeta"]
        p, twice_K, zeta = self._thermostat(self._settled(motion.momenta), zeta, kT)
        eta = self._strain(eta, twice_K, acting, motion)
        p = self._kick(p, eta, acting.forces)
        x, cells = self._drift(motion, p, eta)
        return Motion(x, p, cells, {**motion.extras, "npt/eta": eta, "npt/zeta": zeta})

    def after(self, motion: Motion, acting: Forces, kT: Tensor) -> Motion:
        eta, zeta = motion.extras["npt/eta"], motion.extras["npt/zeta"]
        p = self._kick(motion.momenta, eta, acting.forces)
        eta = self._strain(eta, self._kinetic(p), acting, motion)
        p, _, zeta = self._thermostat(p, zeta, kT)
        return replace(motion, momenta=p, extras={**motion.extras, "npt/eta": eta, "npt/zeta": zeta})

    def conserved(self, motion: Motion, energies: Tensor, kT: Tensor) -> Tensor:
        """(F,) eV: U + K + P V + ½ W tr η² + ½ Q ζ² + N_f k_B T ∫ζ dt."""
        eta, zeta = motion.extras["npt/eta"], motion.extras["npt/zeta"]
        cell = 0.5 * self.pfactor * motion.extras[VOLUME] * square(eta)
        bath = 0.5 * self._mass(kT) * zeta[:, 0] ** 2 + self.degrees * kT * zeta[:, 1]
        return self._enthalpy(motion, energies) + cell + bath

    def _mass(self, kT: Tensor) -> Tensor:
        return 3.0 * self.atoms * kT * self.tau2

    def _thermostat(self, p: Tensor, zeta: Tensor, kT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Half a step: p, Σ p⊗p/m and [ζ, ∫ζ]."""
        quarter, Q = 0.25 * self.h, self._mass(kT)
        twice_K = self._kinetic(p)
        rate = zeta[:, 0] + quarter * (trace3x3(twice_K) - self.degrees * kT) / Q
        scale = small_exp(-2.0 * quarter * rate)
        twice_K = (scale * scale)[:, None, None] * twice_K
        integral = zeta[:, 1] + 2.0 * quarter * rate
        rate = rate + quarter * (trace3x3(twice_K) - self.degrees * kT) / Q
        return self._scaled(p, scale), twice_K, torch.stack((rate, integral), 1)

    def _strain(self, eta: Tensor, twice_K: Tensor, acting: Forces, motion: Motion) -> Tensor:
        """η after half a step."""
        W = self.pfactor * motion.extras[VOLUME]
        return eta + (0.5 * self.h / W)[:, None, None] * self._excess(twice_K, acting, motion.cells)


def at_rest(batch: MDBatch) -> Tensor:
    """(F,) number of degrees of freedom with the centre of mass at rest."""
    return batch.per_system([degrees(len(s), s.fixed, at_rest=True) for s in batch.states])


def mass_shares(batch: MDBatch) -> Tensor:
    """(A, 1) each atom's share m/M of the mass of its trajectory, zero for a single atom."""
    total = [s.masses.sum() if len(s) > 1 else torch.inf for s in batch.states]
    return batch.masses / batch.per_atom(total)


def without_drift(batch: MDBatch, share: Tensor, momenta: Tensor) -> Tensor:
    """Momenta (A, 3) without that of the centre of mass: p − m P/M; the relative momenta stay thermal."""
    return momenta - share * batch.spread(batch.total(momenta))


def first_volume(batch: MDBatch) -> dict[str, Tensor]:
    """The volume (F,) in Å³ of each trajectory at the start of its barostat."""
    cells = torch.stack([torch.tensor(s.cell) for s in batch.states]).to(batch.device)
    return {VOLUME: batch.remembered(VOLUME, volume(cells))}
