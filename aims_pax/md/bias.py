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

import math
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
        self.all_biased, self.all_free = None not in biases, bool((batch.free == 1).all())
        self.strength = batch.per_system([b.strength for b in known])
        self.max_force = batch.per_system([b.max_force for b in known])
        steps = [
            max(1.0, b.memory / dt) if b.memory else math.inf for b, dt in zip(known, timesteps, strict=True)
        ]
        self.window = batch.per_system(steps)  # (F,) steps of the running means; inf: fixed
        free = batch.total(batch.free.sum(1, keepdim=True)).clamp_min(1.0)  # (F, 1) free components
        # of the two sums of squares
        self.weights = torch.cat([1 / free, torch.full_like(free, 1 / members)], 1)

    def act(self, motion: Motion, acting: Forces, said: Evaluation, kT: Tensor) -> tuple[Motion, Forces]:
        """The motion with offset and scale at these positions, and acting forces and stress with those of the bias.

        motion: at the start of a batch without variables of the bias; they are then those of the states. said: the
        evaluation of all members at the motion. kT: (F,) eV.
        """
        deviation = _about_mean(said.forces)  # (M, A, 3)
        motion = self._follow(motion, said, deviation)
        d, means = motion.extras[DEVIATIONS], motion.extras[MEANS]
        u2, square = self._reduced(d, means, kT)
        slope = torch.where(self.hal, (u2 + ROUNDING**2).rsqrt(), (-0.5 * u2).exp())  # φ'/u
        factors = (self.strength * kT * slope / (-self.members * square))[:, None] * d  # (F, M)
        weights = factors.index_select(0, self.batch.system).T[:, :, None]  # (M, A, 1)
        forces = (weights * deviation).sum(0)
        share = self._share(forces, means[:, 0])
        forces = acting.forces + self.batch.spread(share)[:, None] * forces
        stress = acting.stress
        if stress is not None and said.stress is not None:
            own = (factors.T[:, :, None, None] * _about_mean(said.stress)).sum(0)
            stress = torch.where(self.biased[:, None, None], stress + share[:, None, None] * own, stress)
        if not self.all_biased:
            forces = torch.where(self.batch.spread(self.biased)[:, None], forces, acting.forces)
        return motion, Forces(forces, stress)

    def energies(self, motion: Motion, kT: Tensor) -> Tensor:
        """(F,) eV: V at this motion, zero without a bias; the cap `max_force` does not appear in it. kT: (F,) eV."""
        u2, _ = self._reduced(motion.extras[DEVIATIONS], motion.extras[MEANS], kT)
        phi = torch.where(self.hal, (u2 + ROUNDING**2).sqrt() - ROUNDING, 1 - (-0.5 * u2).exp())
        return torch.where(self.biased, -self.strength * kT * phi, torch.zeros_like(kT))

    def _follow(self, motion: Motion, said: Evaluation, deviation: Tensor) -> Motion:
        """The motion with the offset (as d_m) and the running means at these positions."""
        energies = _about_mean(said.energies).T  # (F, M)
        before = motion.extras.get(_ENERGIES)
        if before is None:
            d = self.batch.remembered(DEVIATIONS, torch.zeros_like(energies))
            zero = torch.zeros_like(energies[:, :1])
            first = torch.cat([self._squares(said, deviation), zero, zero + 1], 1)
            means = self.batch.remembered(MEANS, first)
        else:
            means = motion.extras[MEANS]
            n = means[:, 3:] + 1  # (F, 1)
            alpha = torch.minimum(n, self.window[:, None]).reciprocal()
            alpha = torch.where(self.window[:, None].isinf(), 0.0, alpha)
            d = (motion.extras[DEVIATIONS] + energies - before) * (1 - alpha)
            now = torch.cat([self._squares(said, deviation), _square(d)[:, None]], 1)
            means = torch.cat([means[:, :3].lerp(now, alpha), n], 1)
        return replace(motion, extras={**motion.extras, DEVIATIONS: d, MEANS: means, _ENERGIES: energies})

    def _squares(self, said: Evaluation, deviation: Tensor) -> Tensor:
        """(F, 2): f² per free component and G², (eV/Å)²."""
        mean = said.forces.to(torch.float64).mean(0)
        squares = torch.stack([mean * mean, (deviation * deviation).sum(0)], 2)  # (A, 3, 2)
        if not self.all_free:
            squares = squares * self.batch.free[:, :, None]
        return torch.zeros_like(self.weights).index_add_(0, self.batch.system, squares.sum(1)) * self.weights

    def _reduced(self, d: Tensor, means: Tensor, kT: Tensor) -> tuple[Tensor, Tensor]:
        """(F,) u² = σ²/S², and S² in eV²."""
        f2, G2, s2, _ = means.unbind(1)
        square = torch.maximum(kT * kT * G2 / f2.clamp_min(SMALLEST), s2).clamp_min(SMALLEST * SMALLEST)
        return _square(d) / square, square

    def _share(self, forces: Tensor, f2: Tensor) -> Tensor:
        """(F,) at most 1: the factor that keeps the largest bias force on an atom below `max_force`."""
        squares = (forces * forces).sum(1)
        largest = torch.zeros_like(f2).scatter_reduce_(0, self.batch.system, squares, "amax")
        limit = 3 * f2 * (self.max_force * self.max_force)
        return (limit / torch.maximum(largest, limit).clamp_min(SMALLEST * SMALLEST)).sqrt()


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
