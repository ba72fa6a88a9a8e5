"""MD of many trajectories together: one evaluation of forces per step for all of them, if memory allows.

Each call of `advance` is independent: the forces at the starting positions are evaluated first and the noise depends
on the step only, so 50 steps give the same result as 25 and 25, also after a restart in between (for a calculator that
starts from its last density, to the accuracy of its SCF cycles).

The atoms move by the mean forces of a committee, or each trajectory by those of one member (`driving_members`). Then a
binding with `drives = True` is called as `bound(positions, cells, stress=…, driving_members=(m₀, …, m_F−1))` and
returns one member only, which is m_f for trajectory f; all members are evaluated once, at the end. Trajectories with
a bias towards structures about which the members disagree (`md.bias`) need all members at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from aims_pax.errors import Abandoned, SettingsError
from aims_pax.frames import Frame
from aims_pax.md import noise
from aims_pax.md.barostats import VOLUME
from aims_pax.md.batch import Forces, MDBatch, Motion
from aims_pax.md.bias import NAMES, BatchBias, UncertaintyBias
from aims_pax.md.guard import Guard, spaced
from aims_pax.md.integrators import choose_owned, integrator_kind
from aims_pax.md.state import MDState
from aims_pax.md.temperature import Targets, hottest, temperature_at
from aims_pax.potential import Evaluation, Potential

Item = TypeVar("Item")
NO_STRESS = "MD: NPT needs the stress, which this potential does not give; use stat_ensemble: NVT"
NOISE_AT_ONCE = 1 << 17  # atom-steps whose noise is drawn together: needs a few tens of MB


@dataclass(frozen=True)
class MDOutcome:
    """The result for one trajectory.

    state: after the last step; at a fault, the faulty state, or one step earlier if that is not finite.
    evaluation: of that state, NumPy: energies (M,) eV, forces (M, N, 3) eV/Å of every member, spread (N,) eV/Å where
        the potential has one; at a fault with `driving_members` possibly of the driving member only.
    fault: why the trajectory cannot continue, or None.
    observed: states at steps divisible by `observe_every`, including the last step, not the first.
    """

    state: MDState
    evaluation: Evaluation
    fault: str | None = None
    observed: tuple[MDState, ...] = ()

    @classmethod
    def failed(cls, state: MDState, fault: str) -> MDOutcome:
        """The result for a trajectory that could not move; its forces are unknown (NaN)."""
        unknown = Evaluation(np.full(1, np.nan), np.full((1, len(state), 3), np.nan))
        return cls(state, unknown, fault)


def never_stop() -> bool:
    return False


def advance(
    states: Sequence[MDState],
    potential: Potential,
    n_steps: int,
    md: Sequence[Any],
    *,
    guard: bool = True,
    observe_every: int | None = None,
    stop: Callable[[], bool] = never_stop,
    length: float | None = None,
    driving_members: Sequence[int] | None = None,
    bias: Sequence[UncertaintyBias | None] | None = None,
) -> list[MDOutcome]:
    """Move every trajectory n_steps steps in one batch; one that explodes stops, the others continue without it.

    A potential with a memory limit (`pieces(frames)`: ranges of structures) gets one group after another.

    md: the MD settings of each state (`MDSettings`: temperature K, times fs, pressures eV/Å³); they may have
    different ensembles. length: MD steps of a whole trajectory, over which a temperature ramp extends.
    The mean of the potential's members moves the atoms, or member driving_members[k] those of states[k]; with the
    forces of bias[k] (`md.bias`) where it is not None.
    `stop` is checked before every evaluation. Raises Abandoned when it returns True, SettingsError for impossible
    settings (`integrator_kind`, `temperature_at`) or a bias of a single member, and all exceptions of the potential.
    """
    if len(states) != len(md):
        raise ValueError(f"{len(states)} states but {len(md)} MD settings")
    for name, given in (("driving_members", driving_members), ("bias", bias)):
        if given is not None and len(states) != len(given):
            raise ValueError(f"{len(states)} states but {len(given)} {name}")
    for state, settings in zip(states, md, strict=True):  # raises SettingsError before any evaluation
        integrator_kind(settings, state)
        temperature_at(settings, state.step, length)
    results: dict[int, MDOutcome] = {}
    for chosen in _together_at_all(bias, driving_members, len(states)):
        mine = [states[k] for k in chosen]
        for group in _groups(mine, potential):
            rows = [chosen[k] for k in group]
            moved = _together(
                [states[k] for k in rows], potential, n_steps, [md[k] for k in rows], guard, observe_every, stop,
                length, _of(driving_members, rows), _of(bias, rows),
            )  # fmt: skip
            results |= zip(rows, moved, strict=True)
    return [results[k] for k in range(len(states))]


def _of(given: Sequence[Item] | None, rows: Sequence[int]) -> list[Item] | None:
    """The entries of these trajectories."""
    return None if given is None else [given[k] for k in rows]


def _together_at_all(
    bias: Sequence[UncertaintyBias | None] | None, driving_members: Sequence[int] | None, n: int
) -> list[list[int]]:
    """Trajectories that may share a batch: those with a bias need all members, those driven by one member only it."""
    if bias is None or driving_members is None:
        return [list(range(n))]
    parts = [[k for k in range(n) if (bias[k] is None) is free] for free in (True, False)]
    return [part for part in parts if part]


def _groups(states: Sequence[MDState], potential: Potential) -> list[range]:
    """Groups of trajectories that move together: all, or as many as a potential with `pieces` can evaluate at once."""
    pieces: Callable[[Sequence[Frame]], list[range]] | None = getattr(potential, "pieces", None)
    # the others are not evaluated
    sound = [k for k, s in enumerate(states) if np.isfinite(s.positions).all()]
    if pieces is None or not sound:
        return [range(len(states))]
    starts = [sound[piece.start] for piece in pieces([states[k].frame() for k in sound])]
    ends = [*starts[1:], len(states)]
    return [range(start, end) for start, end in zip([0, *starts[1:]], ends, strict=True)]


def _together(
    states: Sequence[MDState],
    potential: Potential,
    n_steps: int,
    md: Sequence[Any],
    guard: bool,
    observe_every: int | None,
    stop: Callable[[], bool],
    length: float | None,
    driving_members: Sequence[int] | None,
    bias: Sequence[UncertaintyBias | None] | None,
) -> list[MDOutcome]:
    """`advance` in one batch."""
    results: dict[int, MDOutcome] = {}
    observed: list[list[MDState]] = [[] for _ in states]
    current = dict(enumerate(states))
    if guard:
        for k, state in enumerate(states):
            if not (np.isfinite(state.positions).all() and np.isfinite(state.momenta).all()):
                fault = f"positions or momenta are not finite at step {spaced(state.step)}"
                results[k] = MDOutcome.failed(current.pop(k), fault)
    left = n_steps
    while current:
        members = list(current)
        leg = _Leg(
            [current[k] for k in members],
            potential,
            [md[k] for k in members],
            guard,
            stop,
            length,
            _of(driving_members, members),
            _of(bias, members),
        )
        ended = leg.run(left, observe_every)
        left -= leg.steps
        for f, k in enumerate(members):
            observed[k] += leg.observed[f]
            if f in ended:
                results[k] = replace(ended[f], observed=tuple(observed[k]))
                del current[k]
            else:
                current[k] = leg.state(f, leg.motion, leg.steps)
    return [results[k] for k in range(len(states))]


class _Leg:
    """A batch from its start to the last step, or until the first trajectory explodes."""

    def __init__(
        self,
        states: Sequence[MDState],
        potential: Potential,
        md: Sequence[Any],
        guard: bool,
        stop: Callable[[], bool],
        length: float | None,
        driving_members: Sequence[int] | None,
        bias: Sequence[UncertaintyBias | None] | None,
    ) -> None:
        self.bound = potential.bind([s.frame() for s in states])
        self.batch = MDBatch.of(states, self.bound.device)
        self.integrator, self.owned = choose_owned(self.batch, md)
        self.targets = Targets(self.batch, md, length)
        self.bias: BatchBias | None = None
        if bias is not None and any(b is not None for b in bias):
            steps = [float(m.timestep) for m in md]
            self.bias = BatchBias(self.batch, bias, steps, self.bound.members)
            self.owned = [(*o, *NAMES) if b else o for o, b in zip(self.owned, bias, strict=True)]
        flexible = [VOLUME in names for names in self.owned]
        self.guard = Guard(self.batch, [hottest(m) for m in md], flexible) if guard else None
        self.stop = stop
        self.driving_members = driving_members
        self.motion = self.batch.motion(self.integrator.begin(self.targets(0)))
        self.steps = 0
        self.observed: list[list[MDState]] = [[] for _ in states]
        self._noise: Tensor | None = None
        self._noise_from = 0

    def run(self, n_steps: int, observe_every: int | None) -> dict[int, MDOutcome]:
        """The results by index in the batch: of all trajectories, or only of those that exploded."""
        said = self._evaluate(self.motion)
        self._refuse_missing_stress(said)
        self.motion, acting = self._act(self.motion, said, 0)
        last = self.motion, said
        faults = self._faults(self.motion, said, acting)
        while not faults and self.steps < n_steps:
            last = self.motion, said
            kT = self.targets(self.steps)
            motion = self.integrator.before(self.motion, acting, self._deviates(n_steps), kT)
            said = self._evaluate(motion)
            motion, acting = self._act(motion, said, self.steps + 1)
            self.motion = self.integrator.after(motion, acting, kT)
            self.steps += 1
            faults = self._faults(self.motion, said, acting)
            if observe_every:
                self._observe(observe_every, faults)
        if not faults:
            # a separate evaluation of all members, so that the driving forces do not depend on it
            if self._alone:
                said = self._evaluate(self.motion, alone=False)
            faults = dict.fromkeys(range(len(self.batch.states)))
        here = self.motion, said
        return {f: self._ended(f, fault, here, last) for f, fault in faults.items()}

    def _act(self, motion: Motion, said: Evaluation, steps: int) -> tuple[Motion, Forces]:
        """Forces and stress that move the batch at a motion, and the motion with the variables of the bias."""
        acting = driving(said, self._choice(said), self.batch)
        if self.bias is None:
            return motion, acting
        return self.bias.act(motion, acting, said, self.targets(steps))

    @property
    def _alone(self) -> bool:
        """Whether the binding can evaluate only the member that drives each trajectory."""
        drives = self.driving_members is not None and self.bound.members > 1 and self.bias is None
        return drives and bool(getattr(self.bound, "drives", False))

    def _choice(self, said: Evaluation) -> Sequence[int] | None:
        return None if len(said.forces) == 1 else self.driving_members

    def _evaluate(self, motion: Motion, alone: bool = True) -> Evaluation:
        """The detached evaluation; of the driving members only, if `alone` is set and the binding supports it."""
        if self.stop():
            raise Abandoned("molecular dynamics was interrupted")
        asked: dict[str, Any] = {"stress": True} if self.integrator.needs_stress else {}
        if alone and self._alone:
            assert self.driving_members is not None
            asked["driving_members"] = tuple(self.driving_members)
        said = self.bound(motion.positions, motion.cells, **asked)
        if self.integrator.needs_stress and said.stress is None:
            raise SettingsError(NO_STRESS)
        stress, spread = (None if x is None else x.detach() for x in (said.stress, said.spread))
        return Evaluation(said.energies.detach(), said.forces.detach(), stress, spread)

    def _refuse_missing_stress(self, said: Evaluation) -> None:
        """Raises SettingsError where the cell moves and energy and forces are finite, but there is no stress (NaN)."""
        for f, names in enumerate(self.owned):
            if VOLUME in names and said.stress is not None and said.stress[:, f].isnan().all():
                forces = said.forces[:, self.batch.slices[f]]
                if bool(said.energies[:, f].isfinite().all() & forces.isfinite().all()):
                    raise SettingsError(NO_STRESS)

    def _faults(self, motion: Motion, said: Evaluation, acting: Forces) -> dict[int, str | None]:
        return {} if self.guard is None else {**self.guard.faults(motion, said.energies, acting, self.steps)}

    def state(self, f: int, motion: Motion, steps: int) -> MDState:
        """Trajectory f, with the variables of its own integrator."""
        return self.batch.state(f, motion, steps, self.owned[f])

    def _deviates(self, n_steps: int) -> Tensor | None:
        """(A, 3) normal deviates of this step; drawn for `NOISE_AT_ONCE` atom-steps at a time."""
        if not self.integrator.needs_noise:
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
                self.observed[f].append(self.state(f, self.motion, self.steps))

    def _ended(
        self,
        f: int,
        fault: str | None,
        here: tuple[Motion, Evaluation],
        before: tuple[Motion, Evaluation],
    ) -> MDOutcome:
        motion, said = here
        rows, steps = self.batch.slices[f], self.steps
        if fault and steps and not _finite(motion, rows, f):
            motion, said = before
            steps -= 1
        spread = None if said.spread is None else said.spread[rows].cpu().numpy()
        evaluation = Evaluation(
            said.energies[:, f].cpu().numpy(), said.forces[:, rows].cpu().numpy(), spread=spread
        )
        return MDOutcome(self.state(f, motion, steps), evaluation, fault)


def driving(said: Evaluation, driving_members: Sequence[int] | None, batch: MDBatch) -> Forces:
    """The forces and stress that move the batch, float64: the members' mean, or for trajectory f those of member
    driving_members[f]."""
    forces, stress = said.forces, said.stress
    if len(forces) == 1:
        return Forces(forces[0].to(torch.float64), None if stress is None else stress[0].to(torch.float64))
    if driving_members is None:
        both = None if stress is None else stress.to(torch.float64).mean(0)
        return Forces(forces.to(torch.float64).mean(0), both)
    member = torch.tensor(driving_members, device=forces.device)
    atoms = torch.arange(forces.shape[1], device=forces.device)
    frames = torch.arange(len(driving_members), device=forces.device)
    own = forces[member[batch.system], atoms].to(torch.float64)
    return Forces(own, None if stress is None else stress[member, frames].to(torch.float64))


def _finite(motion: Motion, rows: slice, f: int) -> bool:
    atoms = (motion.momenta[rows] + motion.positions[rows]).isfinite().all()
    return bool(atoms & motion.cells[f].isfinite().all())
