"""Move many trajectories side by side: one evaluation of forces a step for all of them.

Each block stands on its own: the forces at the starting positions are evaluated first and the noise depends
on the step alone, so 50 steps are the same as 25 and 25, whether or not anything stayed in memory in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aims_pax.errors import Abandoned
from aims_pax.md import noise
from aims_pax.md.batch import Batch, Motion
from aims_pax.md.guard import Guard, spaced
from aims_pax.md.integrators import choose, kind
from aims_pax.md.state import MDState
from aims_pax.potential import Evaluation, Potential

NOISE_AT_ONCE = 1 << 17  # atom-steps whose noise is drawn together: a few tens of MB at work


@dataclass(frozen=True)
class Advance:
    """What became of one trajectory.

    state: after the last step; at a fault, where it was found, or one step earlier if that is not finite.
    evaluation: of that state, NumPy: energies (M,) eV, forces (M, N, 3) eV/Å of every member.
    fault: why the trajectory cannot go on, or None.
    observed: states on the way at steps divisible by `observe_every`, the last one included, the first not.
    """

    state: MDState
    evaluation: Evaluation
    fault: str | None = None
    observed: tuple[MDState, ...] = ()

    @classmethod
    def failed(cls, state: MDState, fault: str) -> Advance:
        """A trajectory that could not move at all: nothing is known of its forces."""
        unknown = Evaluation(np.full(1, np.nan), np.full((1, len(state), 3), np.nan))
        return cls(state, unknown, fault)


def never() -> bool:
    return False


def advance(
    states: Sequence[MDState],
    potential: Potential,
    n_steps: int,
    md: Sequence[Any],
    *,
    guard: bool = True,
    observe_every: int | None = None,
    stop: Callable[[], bool] = never,
) -> list[Advance]:
    """Move every trajectory n_steps steps in one batch; one that explodes stops, the others go on without it.

    md: the MD settings of each state (stat_ensemble, thermostat, temperature K, friction 1/fs, timestep fs).
    The mean force of the potential's members moves the atoms. `stop` is looked at before every evaluation.
    Raises Abandoned when it fires, SettingsError for an ensemble that is not available, and whatever the
    potential raises.
    """
    if len(states) != len(md):
        raise ValueError(f"{len(states)} states but {len(md)} MD settings")
    for settings in md:
        kind(settings)  # refused before anything is evaluated
    results: dict[int, Advance] = {}
    observed: list[list[MDState]] = [[] for _ in states]
    current = dict(enumerate(states))
    if guard:
        for k, state in enumerate(states):
            if not (np.isfinite(state.positions).all() and np.isfinite(state.momenta).all()):
                fault = f"positions or momenta are not finite at step {spaced(state.step)}"
                results[k] = Advance.failed(current.pop(k), fault)
    left = n_steps
    while current:
        members = list(current)
        leg = _Leg([current[k] for k in members], potential, [md[k] for k in members], guard, stop)
        ended = leg.run(left, observe_every)
        left -= leg.steps
        for f, k in enumerate(members):
            observed[k] += leg.observed[f]
            if f in ended:
                results[k] = replace(ended[f], observed=tuple(observed[k]))
                del current[k]
            else:
                current[k] = leg.batch.state(f, leg.motion, leg.steps)
    return [results[k] for k in range(len(states))]


class _Leg:
    """A batch on its way until the last step, or until the first trajectory explodes."""

    def __init__(
        self,
        states: Sequence[MDState],
        potential: Potential,
        md: Sequence[Any],
        guard: bool,
        stop: Callable[[], bool],
    ) -> None:
        self.bound = potential.bind([s.frame() for s in states])
        self.batch = Batch.of(states, self.bound.device)
        self.integrator = choose(self.batch, md)
        self.guard = Guard(self.batch, [m.temperature for m in md]) if guard else None
        self.stop = stop
        self.motion = self.batch.motion(self.integrator.extras)
        self.steps = 0
        self.observed: list[list[MDState]] = [[] for _ in states]
        self._noise: Tensor | None = None
        self._noise_from = 0

    def run(self, n_steps: int, observe_every: int | None) -> dict[int, Advance]:
        """Those that ended, by their place in the batch: all of them, or the ones that exploded."""
        energies, members, forces = self._evaluate(self.motion)
        last = self.motion, energies, members
        faults = self._faults(self.motion, energies, forces)
        while not faults and self.steps < n_steps:
            last = self.motion, energies, members
            motion = self.integrator.before(self.motion, forces, self._deviates(n_steps))
            energies, members, forces = self._evaluate(motion)
            self.motion = self.integrator.after(motion, forces)
            self.steps += 1
            faults = self._faults(self.motion, energies, forces)
            if observe_every:
                self._observe(observe_every, faults)
        if not faults:
            faults = dict.fromkeys(range(len(self.batch.states)))
        here = self.motion, energies, members
        return {f: self._ended(f, fault, here, last) for f, fault in faults.items()}

    def _evaluate(self, motion: Motion) -> tuple[Tensor, Tensor, Tensor]:
        """Energies (M, F), forces (M, A, 3) of the members, and the float64 mean force (A, 3)."""
        if self.stop():
            raise Abandoned("molecular dynamics was interrupted")
        said = self.bound(motion.positions, motion.cells)
        members = said.forces.detach()
        mean = members[0] if len(members) == 1 else members.to(torch.float64).mean(0)
        return said.energies.detach(), members, mean.to(torch.float64)

    def _faults(self, motion: Motion, energies: Tensor, forces: Tensor) -> dict[int, str | None]:
        return {} if self.guard is None else {**self.guard.faults(motion, energies, forces, self.steps)}

    def _deviates(self, n_steps: int) -> Tensor | None:
        """(A, 3) normal deviates of this step; drawn for as many steps at once as memory likes."""
        if not self.integrator.noisy:
            return None
        k = self.steps - self._noise_from
        if self._noise is None or k == len(self._noise):
            batch, many = self.batch, max(1, NOISE_AT_ONCE // len(self.batch.system))
            block = min(many, n_steps - self.steps)
            self._noise = noise.normals(batch.stream, batch.step + self.steps, batch.atom, block)
            self._noise_from, k = self.steps, 0
        return self._noise[k]

    def _observe(self, every: int, faults: dict[int, str | None]) -> None:
        for f, state in enumerate(self.batch.states):
            if (state.step + self.steps) % every == 0 and f not in faults:
                self.observed[f].append(self.batch.state(f, self.motion, self.steps))

    def _ended(
        self,
        f: int,
        fault: str | None,
        here: tuple[Motion, Tensor, Tensor],
        before: tuple[Motion, Tensor, Tensor],
    ) -> Advance:
        motion, energies, forces = here
        rows, steps = self.batch.slices[f], self.steps
        if fault and steps and not bool((motion.momenta[rows] + motion.positions[rows]).isfinite().all()):
            motion, energies, forces = before
            steps -= 1
        evaluation = Evaluation(energies[:, f].cpu().numpy(), forces[:, rows].cpu().numpy())
        return Advance(self.batch.state(f, motion, steps), evaluation, fault)
