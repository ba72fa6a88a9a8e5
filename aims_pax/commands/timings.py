"""Times of one label, one epoch and MD steps, measured on this machine with the models of the settings.

The labels that the models are trained on here are random numbers: how long an epoch takes does not depend on them.
Nothing of this is stored but the times.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.base import ForceFieldModel, MemberData
from aims_pax.models.kinds import kind_of_run
from aims_pax.record.log import only_errors
from aims_pax.seeds import member_seeds, rng
from aims_pax.settings import Settings
from aims_pax.systems import System, deal, elements

ATOMS = 400  # of all frames of the trial training together, at least two frames
STEPS = 100  # MD steps that are timed, fewer if they take longer than ENOUGH
ENOUGH = 15.0  # s
EPOCHS = 5  # at most
STILL = 1e-6  # fs: atoms hardly move, so that a model that knows nothing does not drive them apart


@dataclass(frozen=True)
class Timings:
    """All in seconds; None: not measured.

    label: one label of a structure of `label_atoms` atoms. training: one epoch of one member, for one frame.
    md_step: one MD step of all `trajectories` with the whole committee. starting: until models are built.
    sampling: one evaluation of the potentials that make the first structures, by place in the settings.
    """

    label: float | None
    label_atoms: int
    training: float | None = None
    md_step: float | None = None
    trajectories: int = 1
    starting: float = 0.0
    sampling: Mapping[str, float] = field(default_factory=dict)
    md_steps_timed: int = 0
    missing: str = ""  # why training and MD were not timed


def measure_timings(settings: Settings, systems: tuple[System, ...], labels: Mapping[str, float]) -> Timings:
    """Time training and MD. labels: s of one label of the smallest system by place, as `check --try` found them."""
    smallest = min(len(s.frame) for s in systems)
    sampling = {place: s for place, s in labels.items() if place != "REFERENCE"}
    known = Timings(labels.get("REFERENCE"), smallest, sampling=sampling)
    began = time.monotonic()
    kind = kind_of_run(settings)
    seeds = member_seeds(settings.model.seed, settings.ensemble_size)
    zs = elements(s.frame for s in systems)
    if kind.beginning(settings) is not None and kind.trial_members(settings, seeds, zs) is None:
        return _replaced(known, missing="the models begin from weights that are not on this machine yet")
    with only_errors("aims_pax.models"):  # they would remark on the random labels
        model = kind.build(settings, seeds, zs)
        frames = _random_labels(systems, settings.model.seed)
        data = MemberData(frames, frames[:1])
        model.train({m: data for m in range(len(model.members))}, 1)  # the first epoch is not typical
        starting = time.monotonic() - began
        n = settings.active_learning.num_trajectories if settings.active_learning else 1
        dealt = list(deal(systems, max(n, len(systems))))
        md_step, steps = _md_step(settings, model, dealt)
        return _replaced(
            known, training=_epoch(model, data), md_step=md_step, trajectories=len(dealt), starting=starting,
            md_steps_timed=steps,
        )  # fmt: skip


def _replaced(timings: Timings, **values: Any) -> Timings:
    return Timings(**{**vars(timings), **values})


def _random_labels(systems: tuple[System, ...], seed: int) -> list[LabelledFrame]:
    """Rattled structures of all systems in turn with random energies and forces."""
    mean = sum(len(s.frame) for s in systems) / len(systems)
    n = max(2, min(40, round(ATOMS / mean)))
    random = rng("timings", seed)
    found = []
    for k in range(n):
        frame: Frame = systems[k % len(systems)].frame
        moved = frame.moved(frame.positions + random.normal(scale=0.01, size=(len(frame), 3)))
        forces = random.normal(scale=0.5, size=(len(frame), 3))
        stress = random.normal(scale=0.001) * np.eye(3) if frame.periodic else None
        label = Label(float(-5.0 * len(frame) + random.normal()), forces, stress)
        found.append(LabelledFrame(moved, label, {"system": systems[k % len(systems)].name}))
    return found


def _epoch(model: ForceFieldModel, data: MemberData) -> float:
    """Seconds of one epoch of one member, for one frame: the least of a few epochs."""
    times: list[float] = []
    while len(times) < EPOCHS and sum(times) < ENOUGH:
        began = time.monotonic()
        model.train({0: data}, 1)
        times.append(time.monotonic() - began)
    return min(times) / len(data.train)


def _md_step(settings: Settings, model: ForceFieldModel, dealt: list[System]) -> tuple[float, int]:
    """(seconds of one MD step of all trajectories with the committee, number of steps timed)."""
    from aims_pax.md.propagate import advance  # torch: `aims-PAX plan` reads this module without it
    from aims_pax.md.state import MDState

    md = []
    for system in dealt:
        own = settings.md_of(system.name)
        one = SimpleNamespace(**{name: getattr(own, name) for name in type(own).model_fields})
        one.timestep, one.temperature = STILL, 1.0
        md.append(one)
    states = [MDState.start(s.frame, 1.0, k) for k, s in enumerate(dealt)]
    potential = model.potential()
    moved = advance(states, potential, 2, md, guard=False)  # neighbour lists, native code
    steps, spent = 0, 0.0
    while steps < STEPS and spent < ENOUGH:
        began = time.monotonic()
        moved = advance([m.state for m in moved], potential, 20, md, guard=False)
        spent, steps = spent + time.monotonic() - began, steps + 20
    return spent / steps, steps
