"""Bias towards the unknown: forces that drive trajectories to structures whose energy the committee disagrees about.

With energies E_m of M members, their deviations from the mean relative to an offset of each member, and the spread

    d_m = (E_m − Ē) − o_m,    σ² = ⟨d_m²⟩_m,    u = σ / S,    V = −s k_BT · φ(u)

    hal   φ = √(u² + c²) − c       linear as in HAL (van der Oord et al., npj Comput. Mater. 9, 168 (2023),
                                   10.1038/s41524-023-01104-6); c = 1/2 rounds the kink at σ = 0
    udd   φ = 1 − exp(−u²/2)       at most s k_BT, as in UDD-AL (Kulichenko et al., Nat. Comput. Sci. 3, 230 (2023),
                                   10.1038/s43588-023-00406-5)

Force and stress follow from one evaluation of all members, the stress as in Zaverkin et al., npj Comput. Mater. 10, 83
(2024), 10.1038/s41524-024-01254-1:

    −∇V = (s k_BT φ'/(u S²)) · ⟨d_m ∇(E_m − Ē)⟩_m,    and of the stress, ∂V/∂ε over the volume, likewise

**Scale.** S is the thermal width of σ, so that `strength` s means the same for every system and age of the models.
With forces of root mean square f per free component, a thermal displacement is k_BT/f (harmonic), and

    S = max( k_BT G / f,  √⟨σ²⟩ ),    G² = ⟨|∇(E_m − Ē)|²⟩_m summed over the free components

Then `hal` moves a harmonic disagreement by s of its thermal standard deviations: its force, over all components, is at
most s·f long (τ_rel = s/√(3N) in HAL's words). `udd` makes structures with large σ up to exp(s) times as likely.

**Offset.** Energies of members differ by constants that drift in training and say nothing about forces; σ of the raw
energies would be that constant and its gradient that of one arbitrary direction. o_m is the running mean of E_m − Ē
along the trajectory: the mean of all steps, over about `memory` fs. It is stored as d_m, which changes by differences
of energies only, d_m ← (1 − α)(d_m + Δ(E_m − Ē)): when training changes the weights, their jump does not appear in it.

The bias acts on the atoms only: energies and forces of the evaluation, the guard and the labels do not contain it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from aims_pax.errors import SettingsError
from aims_pax.md.batch import Forces, MDBatch, Motion
from aims_pax.potential import Evaluation

DEVIATIONS = "bias/deviations"  # (M,) eV: d_m
MEANS = "bias/means"  # (4,): ⟨f²⟩ (eV/Å)² per free component, ⟨G²⟩ (eV/Å)², ⟨σ²⟩ eV², number of steps
NAMES = (DEVIATIONS, MEANS)
_ENERGIES = (
    "bias/energies"  # (M,) eV: E_m − Ē of the last evaluation; not stored, a restart evaluates it again
)

MEMORY = 1000.0  # fs
ROUNDING = 0.5  # c
SMALLEST = 1e-12  # eV: members that agree everywhere have no bias
KINDS = ("hal", "udd")


@dataclass(frozen=True)
class UncertaintyBias:
    """The bias of one trajectory.

    kind: hal | udd. strength: s, in k_BT. max_force: largest bias force on an atom, in units of the root mean square
    of the forces on the atoms (running mean); beyond it all bias forces of the trajectory and its bias stress are
    scaled down together. memory: fs of the running means; 0: offset and scale stay those of the first step.
    """

    kind: str
    strength: float
    max_force: float = 1.0
    memory: float = MEMORY


def biases(wanted: Any, systems: Sequence[str]) -> tuple[UncertaintyBias | None, ...] | None:
    """The bias of each trajectory, or None without any.

    wanted: `BiasSettings` or None. systems: name of each trajectory's geometry; with `every other` the first, third, …
    trajectory of each has the bias.
    """
    if wanted is None:
        return None
    own = UncertaintyBias(wanted.kind, wanted.strength, wanted.max_force)
    if wanted.trajectories == "all":
        return (own,) * len(systems)
    return tuple(None if systems[:i].count(name) % 2 else own for i, name in enumerate(systems))


class BatchBias:
    """The bias of a batch of F trajectories with M members; trajectories without one (None) are not changed."""

    def __init__(
        self,
        batch: MDBatch,
        biases: Sequence[UncertaintyBias | None],
        timesteps: Sequence[float],
        members: int,
    ) -> None:
        """timesteps: of each trajectory, fs. Raises SettingsError for an unknown kind and for a single member."""
        refuse_bias(biases, members)
        self.batch, self.members = batch, members
        known = [b or UncertaintyBias("hal", 0.0) for b in biases]
        self.biased = torch.tensor([b is not None for b in biases], device=batch.device)  # (F,)
        self.hal = torch.tensor([b.kind == "hal" for b in known], device=batch.device)
        self.strength = batch.per_system([b.strength for b in known])
        self.max_force = batch.per_system([b.max_force for b in known])
        steps = [max(1.0, b.memory / dt) if b.memory else 0.0 for b, dt in zip(known, timesteps, strict=True)]
        self.window = batch.per_system(steps)  # (F,) steps of the running means
        self.components = batch.total(batch.free.sum(1, keepdim=True))[:, 0].clamp_min(1.0)  # (F,) free ones

    def follow(self, motion: Motion, said: Evaluation) -> Motion:
        """The motion with offset and scale at these positions; at the start of a batch those of the states."""
        energies = _about_mean(said.energies).T  # (F, M)
        now = self._instant(said)
        before = motion.extras.get(_ENERGIES)
        if before is None:
            d = self.batch.remembered(DEVIATIONS, torch.zeros_like(energies))
            first = torch.cat([now, torch.zeros_like(now[:, :1]), torch.ones_like(now[:, :1])], 1)
            means = self.batch.remembered(MEANS, first)
        else:
            n, means = motion.extras[MEANS][:, 3], motion.extras[MEANS]
            alpha = torch.where(self.window > 0, 1 / torch.minimum(n + 1, self.window.clamp_min(1.0)), 0.0)
            d = (1 - alpha)[:, None] * (motion.extras[DEVIATIONS] + (energies - before))
            now = torch.cat([now, _square(d)[:, None]], 1)
            running = means[:, :3] + alpha[:, None] * (now - means[:, :3])
            means = torch.cat([running, (n + 1)[:, None]], 1)
        return replace(motion, extras={**motion.extras, DEVIATIONS: d, MEANS: means, _ENERGIES: energies})

    def energies(self, motion: Motion, kT: Tensor) -> Tensor:
        """(F,) eV: V at this motion, zero without a bias; the cap `max_force` does not appear in it. kT: (F,) eV."""
        u2, _ = self._reduced(motion, kT)
        c = ROUNDING
        phi = torch.where(self.hal, (u2 + c * c).sqrt() - c, 1 - (-0.5 * u2).exp())
        return torch.where(self.biased, -self.strength * kT * phi, torch.zeros_like(kT))

    def added(self, acting: Forces, said: Evaluation, motion: Motion, kT: Tensor) -> Forces:
        """The acting forces and stress with those of the bias. motion: from `follow`; kT: (F,) eV."""
        u2, scale = self._reduced(motion, kT)
        c = ROUNDING
        slope = torch.where(self.hal, 1 / (u2 + c * c).sqrt(), (-0.5 * u2).exp())  # φ'/u
        factor = self.strength * kT * slope / (scale * scale)  # (F,) 1/eV
        d = motion.extras[DEVIATIONS]  # (F, M)
        forces = -factor[self.batch.system, None] * _weighted(d[self.batch.system], said.forces)
        share = self._share(forces, motion.extras[MEANS][:, 0])
        total = acting.forces + share[self.batch.system, None] * forces
        atoms = self.biased[self.batch.system, None]
        stress = acting.stress
        if stress is not None and said.stress is not None:
            of_bias = factor[:, None, None] * _weighted(d, said.stress)
            stress = torch.where(self.biased[:, None, None], stress - share[:, None, None] * of_bias, stress)
        return Forces(torch.where(atoms, total, acting.forces), stress)

    def _instant(self, said: Evaluation) -> Tensor:
        """(F, 2): f² per free component and G², (eV/Å)²."""
        forces = said.forces.to(torch.float64)
        mean = forces.mean(0) * self.batch.free
        deviation = (forces - forces.mean(0)) * self.batch.free
        squares = torch.stack([(mean * mean).sum(1), (deviation * deviation).mean(0).sum(1)], 1)  # (A, 2)
        total = self.batch.total(squares)
        return torch.stack([total[:, 0] / self.components, total[:, 1]], 1)

    def _reduced(self, motion: Motion, kT: Tensor) -> tuple[Tensor, Tensor]:
        """(F,) u² = σ²/S², and S in eV."""
        f2, G2, s2 = motion.extras[MEANS][:, :3].unbind(1)
        harmonic = kT * kT * G2 / f2.clamp_min(SMALLEST)
        square = torch.maximum(harmonic, s2).clamp_min(SMALLEST * SMALLEST)
        return _square(motion.extras[DEVIATIONS]) / square, square.sqrt()

    def _share(self, forces: Tensor, f2: Tensor) -> Tensor:
        """(F,) at most 1: the factor that keeps the largest bias force on an atom below `max_force`."""
        lengths = (forces * forces).sum(1).sqrt()
        largest = torch.zeros_like(f2).scatter_reduce(0, self.batch.system, lengths, "amax")
        limit = self.max_force * (3 * f2).sqrt()
        return torch.where(largest > limit, limit / largest.clamp_min(SMALLEST), torch.ones_like(limit))


def refuse_bias(biases: Sequence[UncertaintyBias | None], members: int) -> None:
    """Raises SettingsError for a kind that does not exist, and for a bias with a single member."""
    for bias in biases:
        if bias is not None and bias.kind not in KINDS:
            raise SettingsError(f"bias: kind {bias.kind!r} is not known; use {' or '.join(KINDS)}")
    if members < 2 and any(b is not None for b in biases):
        raise SettingsError(
            "bias: it follows the spread of the energies of at least two members; with a single one there is none"
        )


def _about_mean(values: Tensor) -> Tensor:
    """(M, …) float64: differences to the mean of the members."""
    double = values.to(torch.float64)
    return double - double.mean(0)


def _square(d: Tensor) -> Tensor:
    """(F, M) → (F,): mean of the squares."""
    return (d * d).mean(1)


def _weighted(d: Tensor, values: Any) -> Tensor:
    """⟨d_m (X_m − X̄)⟩ of forces or stresses X. d: (K, M); values: (M, K, …)."""
    deviation = _about_mean(values)
    weights = d.T.reshape(*d.T.shape, *[1] * (deviation.dim() - 2))
    return (weights * deviation).mean(0)
