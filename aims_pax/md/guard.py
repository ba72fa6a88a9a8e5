"""Detects exploded trajectories: checks the whole batch at every step and gives the reason.

A frame is impossible when its energy, forces or momenta are not finite, when it is hotter than 10 × its
target (at least 3 000 K), or when a pair of atoms is closer than half the sum of their covalent radii. Where
the cell moves, also when it or its stress is not finite, or when its volume is not within 1/8 … 8 times the
initial one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase import units
from torch import Tensor

from aims_pax.md.barostats import VOLUME
from aims_pax.md.batch import Forces, MDBatch, Motion
from aims_pax.md.contacts import Contacts
from aims_pax.md.linalg3x3 import volume

SWOLLEN = 8.0  # times the initial volume: the cell has exploded; below 1/8 it has collapsed


class Guard:
    """Checks a batch. `faults` costs a dozen small operations and one synchronisation with the device."""

    def __init__(
        self, batch: MDBatch, temperatures: Sequence[float], flexible: Sequence[bool] | None = None
    ) -> None:
        """temperatures: the (highest) target of each trajectory in K. flexible: whether its cell moves."""
        hottest = [max(10 * t, 3000.0) for t in temperatures]
        limit = [s.degrees / 2 * units.kB * t for s, t in zip(batch.states, hottest, strict=True)]
        self.batch = batch
        self.limit = torch.tensor(limit, dtype=torch.float64, device=batch.device)  # (F,) eV
        self.half_inverse_mass = 0.5 / batch.masses
        flexible = list(flexible or [False] * len(batch.states))
        self.flexible = torch.tensor(flexible, device=batch.device) if any(flexible) else None  # (F,)
        self.contacts = Contacts(batch, any(flexible))

    def faults(self, motion: Motion, energies: Tensor, acting: Forces, steps: int) -> dict[int, str]:
        """{trajectory: reason} for those in an impossible state, `steps` steps after the start of the batch.

        energies: (M, F) eV. acting: forces and stress at this motion.
        """
        kinetic = self._kinetic(motion)
        finite = energies.sum(0).isfinite()
        cold = kinetic <= self.limit  # False for NaN
        shaped, pressed = self._cells(motion, acting)
        if self.flexible is not None:  # the search for contacts would fail with an exploded cell
            sound = (shaped & pressed).all()
            if not bool(sound):
                return self._reasons(
                    motion, kinetic, finite & self._finite(acting), cold, None, steps, shaped, pressed
                )
        self.contacts.follow(motion.cells)
        close = self.contacts.close(motion.positions)
        flags = [
            (cold & finite).all().logical_not(),
            close.any(),
            acting.forces.sum().isfinite().logical_not(),
        ]
        moved = self.contacts.moved(motion.positions)
        hot, near, wild, far = torch.stack([*flags, moved]).tolist()
        if far and not (hot or wild):  # otherwise the next batch makes new lists anyway
            self.contacts.rebuild(motion.positions)
            close = self.contacts.close(motion.positions)
            near = bool(close.any())
        if not (hot or near or wild):
            return {}
        return self._reasons(
            motion, kinetic, finite & self._finite(acting), cold, close, steps, shaped, pressed
        )

    def _cells(self, motion: Motion, acting: Forces) -> tuple[Tensor, Tensor]:
        """(F,) whether the cell's volume is allowed, and whether its stress is finite; True where no cell moves."""
        if self.flexible is None:
            yes = torch.ones_like(self.limit, dtype=torch.bool)
            return yes, yes
        V, first = volume(motion.cells), motion.extras[VOLUME]
        stress = torch.zeros_like(motion.cells) if acting.stress is None else acting.stress
        shaped = (first / SWOLLEN <= V) & (first * SWOLLEN >= V)  # False for NaN
        return shaped | ~self.flexible, stress.isfinite().flatten(1).all(1) | ~self.flexible

    def _kinetic(self, motion: Motion) -> Tensor:
        """(F,) eV: kinetic energies."""
        per_atom = (motion.momenta * motion.momenta * self.half_inverse_mass).sum(1)
        return torch.zeros_like(self.limit).index_add_(0, self.batch.system, per_atom)

    def _finite(self, acting: Forces) -> Tensor:
        """(F,) whether all forces of the trajectory are finite."""
        return torch.stack([acting.forces[rows].isfinite().all() for rows in self.batch.slices])

    def _reasons(
        self,
        motion: Motion,
        kinetic: Tensor,
        finite: Tensor,
        cold: Tensor,
        close: Tensor | None,
        steps: int,
        shaped: Tensor,
        pressed: Tensor,
    ) -> dict[int, str]:
        pairs = {} if close is None else self.contacts.named(motion.positions, close)
        reasons: dict[int, str] = {}
        for f, state in enumerate(self.batch.states):
            if not bool(finite[f]):
                what = "energy or forces are not finite"
            elif not bool(kinetic[f].isfinite()):
                what = "momenta are not finite"
            elif not bool(pressed[f]):
                what = "stress is not finite"
            elif not bool(shaped[f]):
                what = self._swollen(motion, f)
            elif not bool(cold[f]):
                what = f"temperature {spaced(2 * float(kinetic[f]) / (max(state.degrees, 1) * units.kB))} K"
            elif f in pairs:
                what = pairs[f]
            else:
                continue
            reasons[f] = f"{what} at step {spaced(state.step + steps)}"
        return reasons

    def _swollen(self, motion: Motion, f: int) -> str:
        if not bool(motion.cells[f].isfinite().all()):
            return "cell is not finite"
        V, first = float(volume(motion.cells)[f]), float(motion.extras[VOLUME][f])
        return f"cell volume {V:.4g} Å³ ({V / first:.2g} times the initial one)"


def spaced(value: float) -> str:
    """A whole number with spaces between thousands: 12 345."""
    return f"{value:,.0f}".replace(",", " ")
