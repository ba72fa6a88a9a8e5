"""The trajectories of the MD test: thermal ones that show whether the model survives, then some at constant energy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from aims_pax.frames import Array, Frame
from aims_pax.md.bonds import CovalentBonds
from aims_pax.md.propagate import MDOutcome, advance, never_stop
from aims_pax.md.state import MDState
from aims_pax.models.base import ModelPotential

EVERY = 10  # MD steps between two observations
CHUNK = 100  # MD steps after which bonds and the time limit are looked at
SETTLING = 0.3  # share of a trajectory that is not used for the temperature law
FRICTION = 0.02  # 1/fs, at least: short trajectories reach their temperature and forget it within 0.1 ps


@dataclass(frozen=True)
class TestStart:
    """Where a trajectory begins. temperature: K. md: its MD settings; start: id of the labelled frame."""

    __test__ = False  # not a test of pytest

    system: str
    frame: Frame
    temperature: float
    md: Any
    bonds: CovalentBonds
    stream: int


@dataclass(eq=False)
class Followed:
    """One trajectory and what was observed: K times (ps), temperatures (K), energies and total energies (eV).

    fault: why it ended early, with the time; "" if it did not. states: at each observation.
    """

    start: TestStart
    state: MDState
    ps: list[float] = field(default_factory=list)
    temperature: list[float] = field(default_factory=list)
    energy: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    states: list[MDState] = field(default_factory=list)
    fault: str = ""

    @property
    def survived(self) -> bool:
        return not self.fault

    @property
    def length(self) -> float:
        """ps until its end."""
        return self.state.step * float(self.start.md.timestep) / 1000

    def settled(self) -> Array:
        """(K',) K: temperatures after the first SETTLING of them."""
        return np.array(self.temperature[round(SETTLING * len(self.temperature)) :])


def thermal_settings(md: Any, temperature: float, frame: Frame) -> Any:
    """MD settings of a thermal trajectory: the run's barostat, else Langevin dynamics with a short relaxation time.

    temperature: K. A frame with fixed atoms has no barostat: atoms cannot be fixed at constant pressure.
    """
    asked = SimpleNamespace(**{name: getattr(md, name) for name in type(md).model_fields})
    asked.temperature = temperature
    if str(md.stat_ensemble).upper() == "NPT" and frame.periodic and frame.fixed is None:
        return asked
    asked.stat_ensemble, asked.thermostat, asked.friction = "NVT", "Langevin", max(FRICTION, md.friction)
    return asked


def follow(
    starts: Sequence[TestStart],
    potential: ModelPotential,
    n_steps: int,
    stop: Callable[[], bool] = never_stop,
    deadline: float | None = None,
) -> list[Followed]:
    """Move all in one batch until n_steps, a fault, a broken bond, or the deadline (of time.monotonic())."""
    begun = [Followed(s, MDState.start(s.frame, s.temperature, s.stream)) for s in starts]
    return continue_all(begun, potential, n_steps, stop, deadline)


def at_constant_energy(followed: Iterable[Followed]) -> list[Followed]:
    """Trajectories that begin where these ended, at constant energy."""
    found = []
    for one in followed:
        s = one.start
        md = SimpleNamespace(stat_ensemble="NVE", timestep=s.md.timestep, temperature=s.temperature)
        state = MDState(**{**_fields(one.state), "step": 0, "extras": {}})
        found.append(Followed(TestStart(s.system, s.frame, s.temperature, md, s.bonds, s.stream), state))
    return found


def _fields(state: MDState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in type(state).__dataclass_fields__}


def continue_all(
    followed: list[Followed],
    potential: ModelPotential,
    n_steps: int,
    stop: Callable[[], bool] = never_stop,
    deadline: float | None = None,
) -> list[Followed]:
    """Move these by n_steps more; see `follow`."""
    left, began = n_steps, time.monotonic()
    while left > 0 and (moving := [f for f in followed if f.survived]):
        chunk = min(_steps_in_time(n_steps - left, began, deadline), left)
        if chunk == 0:
            break
        outcomes = advance(
            [f.state for f in moving],
            potential,
            chunk,
            [f.start.md for f in moving],
            observe_every=EVERY,
            stop=stop,
        )
        _observe(moving, outcomes, potential)
        left -= chunk
    return followed


def _steps_in_time(done: int, began: float, deadline: float | None) -> int:
    """The steps of the next chunk: few at first, then as many as the time allows at the pace so far; 0 at its end."""
    if deadline is None:
        return CHUNK
    if done == 0:
        return EVERY
    now = time.monotonic()
    fitting = int((deadline - now) / max((now - began) / done, 1e-9))
    return max(0, min(CHUNK, fitting // EVERY * EVERY))


def _observe(moving: Sequence[Followed], outcomes: Sequence[MDOutcome], potential: ModelPotential) -> None:
    """Add the observations of one chunk; energies of all observed states are evaluated together."""
    frames = [state.frame() for moved in outcomes for state in moved.observed]
    energies = iter([label.energy for label in potential.labels(frames)] if frames else [])
    for one, moved in zip(moving, outcomes, strict=True):
        for state in moved.observed:
            E = next(energies)
            if one.fault:
                continue  # a bond has broken at an earlier state
            ps = state.step * one.start.md.timestep / 1000
            one.ps.append(ps)
            one.temperature.append(state.temperature)
            one.energy.append(E)
            one.total.append(E + state.kinetic_energy)
            one.states.append(state)
            one.state = state
            if broken := one.start.bonds.broken(state):
                one.fault = f"{broken} at {ps:.3g} ps"
        if one.fault:
            continue
        one.state = moved.state
        if moved.fault:
            one.fault = f"{moved.fault} ({one.length:.3g} ps)"


def drift(one: Followed) -> tuple[float, float]:
    """(slope of the total energy in meV/atom/ps, rms about that line in meV/atom); NaN with fewer than 3 values."""
    if len(one.ps) < 3:
        return float("nan"), float("nan")
    t, E = np.array(one.ps), 1000 * np.array(one.total) / len(one.state)
    slope, offset = np.polyfit(t - t.mean(), E, 1)
    return float(slope), float(np.std(E - offset - slope * (t - t.mean())))
