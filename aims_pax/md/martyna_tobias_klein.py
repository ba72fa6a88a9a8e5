"""The barostat of Martyna, Tobias and Klein for the volume or the whole cell, with Nosé–Hoover chains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from ase import units
from torch import Tensor

from aims_pax.md import noise
from aims_pax.md.barostats import VOLUME, Flexible, first_volume
from aims_pax.md.batch import Forces, MDBatch, Motion
from aims_pax.md.linalg3x3 import small_exp, square, trace3x3

ETA, CHAINS = "mtk/eta", "mtk/chains"
LENGTH = 3  # thermostats in a chain
CUBE_ROOT = 2.0 ** (1 / 3)
SUZUKI_YOSHIDA = (1 / (2 - CUBE_ROOT), -CUBE_ROOT / (2 - CUBE_ROOT), 1 / (2 - CUBE_ROOT))


@dataclass(frozen=True)
class MTK(Flexible):
    """Martyna, Tobias and Klein (J. Chem. Phys. 101, 4177 (1994), 10.1063/1.467468), split as by Tuckerman
    et al. (J. Phys. A 39, 5629 (2006), 10.1088/0305-4470/39/19/S18).

        κ = η + tr η / N_f,     η̇ = (V (P_int − P₀) + 2K/N_f) / W,     W = (N_f + 3)/3 · k_B T τ_P²

    The isotropic barostat uses only the part of η̇ proportional to the unit matrix. The cell has n = 6 degrees of
    freedom (η is symmetric; ASE counts 9), the isotropic one n = 1. Thermostats of a chain on n degrees of
    freedom with kinetic energy K and time τ; k is its first mass in units of k_B T τ²:

        v̇₁ = (2K/k_B T − n)/(k τ²) − v₁v₂,   v̇₂ = k v₁² − 1/τ² − v₂v₃,   v̇₃ = v₂² − 1/τ²,   ξ̇ = v

    One array contains both chains: (F, 2, 2, 3) = particles | cell, ξ | v, position in the chain.
    """

    tau2: Tensor  # (F, 2) τ² of particles and cell
    n: Tensor  # (F, 2)
    first: Tensor  # (F, 2) k
    inertia: Tensor  # (F,) W / k_B T
    isotropic: Tensor  # (F, 1, 1) bool

    names: ClassVar[tuple[str, ...]] = (ETA, CHAINS, VOLUME)

    @classmethod
    def of(cls, batch: MDBatch, md: Sequence[Any]) -> MTK:
        shared = cls.shared(batch, md, [m.pressure_au for m in md])
        isotropic = [str(m.barostat).lower() == "isotropic-mtk" for m in md]
        cell = batch.per_system([1 if i else 6 for i in isotropic])
        times = [batch.per_system([getattr(m, key) * units.fs for m in md]) for key in ("taut", "taup")]
        tau2 = torch.stack(times, 1) ** 2
        n = torch.stack((shared["degrees"], cell), 1)
        return cls(
            **shared,
            tau2=tau2,
            n=n,
            first=n,
            inertia=(shared["degrees"] + 3) / 3 * tau2[:, 1],
            isotropic=torch.tensor(isotropic, device=batch.device)[:, None, None],
        )

    def begin(self, kT: Tensor) -> dict[str, Tensor]:
        """η and the chains' v, drawn for temperature T from the trajectory's stream: a stiff cell and its chain
        exchange energy slowly, so starting at rest a short run would fluctuate too little."""
        R = self._deviates()
        drawn = torch.stack([R[:, k] for k in (0, 1, 2, 1, 3, 4, 2, 4, 5)], 1).reshape(-1, 3, 3)
        one = torch.eye(3, dtype=R.dtype, device=R.device)
        drawn = drawn * (one + (1.0 - one) * 0.5**0.5)  # off-diagonal elements count twice in tr η²
        drawn = torch.where(self.isotropic, self._unit(R[:, 0] / 3.0**0.5), drawn)
        eta = drawn / self.inertia.sqrt()[:, None, None]
        masses = torch.stack((self.first, torch.ones_like(self.first), torch.ones_like(self.first)), 2)
        v = R[:, 6:].reshape(-1, 2, LENGTH) / (masses * self.tau2[:, :, None]).sqrt()
        return {
            ETA: self._without_shear(self.batch.remembered(ETA, eta)),
            CHAINS: self.batch.remembered(CHAINS, torch.stack((torch.zeros_like(v), v), 2)),
            **first_volume(self.batch),
        }

    def _without_shear(self, eta: Tensor) -> Tensor:
        """η without the change of shape that a barostat for the whole cell has left, where only the volume changes."""
        isotropic = (eta == self._unit(eta[:, 0, 0])).all(2, keepdim=True).all(1, keepdim=True)
        return torch.where(self.isotropic & ~isotropic, self._unit(trace3x3(eta) / 3.0), eta)

    def _deviates(self) -> Tensor:
        """(F, 12) normal deviates for the initial values, keyed by the states' steps."""
        states, device = self.batch.states, self.batch.device
        stream = torch.tensor([s.stream for s in states], device=device).repeat_interleave(4)
        step = torch.tensor([s.step for s in states], device=device).repeat_interleave(4)
        place = torch.arange(4, device=device).repeat(len(states))
        return noise.normals(stream, step, place, 1, noise.BAROSTAT)[0].reshape(-1, 12)

    def before(self, motion: Motion, acting: Forces, noise: Tensor | None, kT: Tensor) -> Motion:
        p, chains = self._settled(motion.momenta), motion.extras[CHAINS]
        p, twice_K, eta, chains = self._thermostats(p, motion.extras[ETA], chains, kT)
        eta = self._strain(eta, twice_K, acting, motion, kT)
        p = self._kick(p, self._drag(eta), acting.forces)
        x, cells = self._drift(motion, p, eta)
        return Motion(x, p, cells, {**motion.extras, ETA: eta, CHAINS: chains})

    def after(self, motion: Motion, acting: Forces, kT: Tensor) -> Motion:
        eta, chains = motion.extras[ETA], motion.extras[CHAINS]
        p = self._kick(motion.momenta, self._drag(eta), acting.forces)
        eta = self._strain(eta, self._kinetic(p), acting, motion, kT)
        p, _, eta, chains = self._thermostats(p, eta, chains, kT)
        return replace(motion, momenta=p, extras={**motion.extras, ETA: eta, CHAINS: chains})

    def conserved(self, motion: Motion, energies: Tensor, kT: Tensor) -> Tensor:
        """(F,) eV: U + K + P V + ½ W tr η² + Σ over both chains of ½ Q v² and k_B T (n ξ₁ + ξ₂ + ξ₃)."""
        eta, xi, v = motion.extras[ETA], motion.extras[CHAINS][:, :, 0], motion.extras[CHAINS][:, :, 1]
        masses = torch.stack((self.first, self.first * 0 + 1, self.first * 0 + 1), 2) * self.tau2[:, :, None]
        chains = (0.5 * masses * v * v).sum((1, 2)) + (self.n * xi[:, :, 0] + xi[:, :, 1:].sum(2)).sum(1)
        return self._enthalpy(motion, energies) + kT * (0.5 * self.inertia * square(eta) + chains)

    def _drag(self, eta: Tensor) -> Tensor:
        return eta + self._unit(trace3x3(eta) / self.degrees)

    def _unit(self, values: Tensor) -> Tensor:
        """(F,) → (F, 3, 3): each value times the unit matrix."""
        return values[:, None, None] * torch.eye(3, dtype=values.dtype, device=values.device)

    def _strain(self, eta: Tensor, twice_K: Tensor, acting: Forces, motion: Motion, kT: Tensor) -> Tensor:
        """η after half a step."""
        G = self._excess(twice_K, acting, motion.cells) + self._unit(trace3x3(twice_K) / self.degrees)
        G = torch.where(self.isotropic, self._unit(trace3x3(G) / 3.0), G)
        return eta + (0.5 * self.h / (self.inertia * kT))[:, None, None] * G

    def _thermostats(
        self, p: Tensor, eta: Tensor, chains: Tensor, kT: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Half a step of both chains: p, Σ p⊗p/m, η, chains."""
        twice_K = self._kinetic(p)
        energies = torch.stack((trace3x3(twice_K) / kT, self.inertia * square(eta)), 1)  # 2K / k_B T
        scale, chains = self._chains(energies, chains)
        particles, cell = scale[:, 0], scale[:, 1, None, None]
        return (
            self._scaled(p, particles),
            (particles * particles)[:, None, None] * twice_K,
            eta * cell,
            chains,
        )

    def _chains(self, energies: Tensor, chains: Tensor) -> tuple[Tensor, Tensor]:
        """Half a step: the scale (F, 2) of the momenta, and the new chains. energies: (F, 2) 2K / k_B T.

        About 200 operations on a few numbers: NumPy on the CPU is faster than tensors on any device.
        """
        device = chains.device
        E, state, tau2, n, k, h = (
            t.cpu().numpy() for t in (energies, chains, self.tau2, self.n, self.first, self.h)
        )
        xi = [state[:, :, 0, j] for j in range(LENGTH)]
        v1, v2, v3 = (state[:, :, 1, j] for j in range(LENGTH))
        scale, weak, rest = np.ones_like(E), k * tau2, 1.0 / tau2
        for weight in SUZUKI_YOSHIDA:
            d = (0.5 * weight * h)[:, None]
            half, quarter = 0.5 * d, 0.25 * d
            v3 = v3 + half * (v2 * v2 - rest)
            drag2 = small_exp(-quarter * v3)
            v2 = (v2 * drag2 + half * (k * v1 * v1 - rest)) * drag2
            drag1 = small_exp(-quarter * v2)
            v1 = (v1 * drag1 + half * ((E - n) / weak)) * drag1
            xi = [x + d * v for x, v in zip(xi, (v1, v2, v3), strict=True)]
            factor = small_exp(-d * v1)
            scale, E = scale * factor, E * (factor * factor)
            v1 = (v1 * drag1 + half * ((E - n) / weak)) * drag1
            v2 = (v2 * drag2 + half * (k * v1 * v1 - rest)) * drag2
            v3 = v3 + half * (v2 * v2 - rest)
        after = np.stack((np.stack(xi, 2), np.stack((v1, v2, v3), 2)), 2)
        return torch.from_numpy(scale).to(device), torch.from_numpy(after).to(device)
