"""Forecast of the time and cost of a run, from measured times and from the plan, as ranges.

What is not known in advance is drawn: MD steps between two labels, epochs until convergence, how much of training, MD
and labels overlaps, and how far measured times carry. Of DRAWS forecasts the 10th, 50th and 90th percentile are given.
The spreads are those of finished runs (small molecules, MACE): steps between two labels 2 … 18 times `skip_step_mlff`
with `acquisition: crossing`; with windows those of a window for each of its labels, or more where few are uncertain.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.commands.timings import Timings
from aims_pax.frames import Array
from aims_pax.record.files import write_text
from aims_pax.report.cost_summary import processes_of_label
from aims_pax.report.forecast import FILE, read_forecast
from aims_pax.schedulers.usable_cores import cores
from aims_pax.seeds import rng
from aims_pax.settings import Settings, effective
from aims_pax.settings.active_learning import ActiveLearningSettings
from aims_pax.systems import System

DRAWS = 4000
PERCENTILES = (10, 50, 90)
# median and σ of the logarithm: uncertainty checks of all trajectories for one label
CHECKS_PER_LABEL = (
    6.0,
    0.8,
)
OF_WINDOW = (0.8, 1.6)  # MD steps for one label, over those of a window for each of its labels
EPOCHS_TO_BEST = (90.0, 1.0)  # the same, of the best epoch of convergence
UNTIL_FLAT = (0.3, 1.0)  # share of the epochs before exploration until the force error no longer falls
CARRIES = 0.25  # σ of the logarithm of a measured time against the one in the run
# sections on which measured times depend
WATCHED = (
    "REFERENCE",
    "ARCHITECTURE",
    "TRAINING",
    "FOUNDATION",
    "MODEL",
)


def forecast(
    ahead: Mapping[str, Any], settings: Settings, systems: tuple[System, ...], timings: Timings
) -> dict[str, Any]:
    """Percentiles of hours by stage and in all, of labels and of core hours of the reference; plain values.

    ahead: the plan. None: a stage that no limit ends, or whose times are not known.
    """
    draw = _Draw(ahead, settings, systems, timings)
    stages = {"initial": draw.initial(), "explore": draw.active_learning(), "converge": draw.convergence()}
    labels = draw.labels()
    known = [s for s in stages.values() if s is not None]
    whole = None if len(known) < len(stages) else draw.start + np.sum(known, axis=0)
    reference = None if labels is None or draw.label is None else labels * draw.label
    slots = reference_slots(settings)
    return {
        "format": 1,
        "made": round(time.time(), 1),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 2),
        "timings": {k: dict(v) if isinstance(v, Mapping) else v for k, v in vars(timings).items()},
        "settings": settings_digest(settings, systems),
        "stages_s": {name: percentiles(s) for name, s in stages.items()},
        "wall_s": percentiles(whole),
        "labels": percentiles(labels),
        "reference_s": percentiles(reference),
        "reference_slots": slots,
        "driver_core_s": percentiles(None if whole is None else whole * cores()),
    }


def percentiles(values: Array | None) -> list[float] | None:
    """[10th, 50th, 90th]."""
    if values is None or not np.isfinite(values).all():
        return None
    return [float(f"{v:.4g}") for v in np.percentile(values, PERCENTILES)]


class _Draw:
    """Draws of everything that is not known; each method gives seconds (DRAWS,), or None."""

    def __init__(
        self, ahead: Mapping[str, Any], settings: Settings, systems: tuple[System, ...], timings: Timings
    ) -> None:
        self.ahead, self.settings, self.timings = ahead, settings, timings
        self.random = rng("forecast", settings.model.seed)
        self.label, self.training, self.md_step = (
            None if t is None else t * self._factor(CARRIES)
            for t in (timings.label, timings.training, timings.md_step)
        )
        mean = sum(len(s.frame) for s in systems) / len(systems)
        # the smallest system was labelled: cost grows with N to the power of 1 … 2.5
        if self.label is not None:
            self.label = self.label * (mean / timings.label_atoms) ** self._between(1.0, 2.5)
        cluster = ahead["cluster"]
        self.at_once = max(1, int(cluster["at_once"]))
        shares = ahead["processes"] or {"training": 0, "dynamics": 1}
        self.trainers, self.movers = max(1, shares["training"]), max(1, shares["dynamics"])
        self.beside = shares["training"] > 0
        self.members = int(ahead["members"])
        self.start = 5.0 + timings.starting * self._between(0.5, 1.5)
        self.given = 0 if ahead["initial"] is not None else None
        self.explored = self._explored()

    def _factor(self, sigma: float) -> Array:
        return np.asarray(np.exp(sigma * self.random.normal(size=DRAWS)), float)

    def _between(self, low: float, high: float) -> Array:
        return np.asarray(low + (high - low) * self.random.random(DRAWS), float)

    def _either(self, values: list[int | None]) -> Array | None:
        """A number of this range, evenly on a logarithmic scale."""
        low, high = values
        if low is None or high is None:
            return None
        return np.asarray(np.expm1(self._between(math.log1p(low), math.log1p(max(low, high)))), float)

    def initial(self) -> Array | None:
        """Sampling, labels and training of the initial dataset, one after the other."""
        first = self.ahead["initial"]
        if first is None:
            return np.zeros(DRAWS)
        calls, steps, epochs = (self._either(first[k]) for k in ("reference_calls", "MD_steps", "epochs"))
        n = self._either(first["n_train"])
        if calls is None or steps is None or epochs is None or n is None:
            return None
        if self.label is None or self.training is None:
            return None
        slowest = max(self.timings.sampling.values(), default=0.0)
        free = self.ahead["pretraining"]
        seconds = calls * self.label / self.at_once + steps * slowest * self._factor(CARRIES)
        seconds = seconds + self._trained(
            epochs * self._with_copies(n * self._between(0.6, 1.0)), self.members
        )
        if free is not None:
            drawn = free["MD_steps"] * slowest
            seconds = seconds + drawn + self._trained(
                free["most_epochs"] * free["free_labels"] * self._between(0.3, 1.0), self.members
            )  # fmt: skip
        return seconds

    def _with_copies(self, frames: Array) -> Array:
        """Training frames with the copies of AUGMENTATION, of which the gate lets through anything from none to all."""
        rules = self.settings.augmentation
        if rules is None:
            return frames
        some = (frames >= rules.min_labels) & (frames <= rules.until_labels)
        return np.asarray(
            np.where(some, frames * (1 + rules.copies * self._between(0.0, 1.0)), frames), float
        )

    def _trained(self, frame_epochs: Array, members: int) -> Array:
        """Seconds of training so many frames × epochs of each of these members; validation adds a fifth."""
        assert self.training is not None
        rounds = math.ceil(members / min(self.trainers, members))
        return np.asarray(1.2 * frame_epochs * self.training * rounds, float)

    def _explored(self) -> tuple[Array, Array] | None:
        """(labels, MD steps of all trajectories) of active learning; None without a limit."""
        active = self.ahead["active_learning"]
        if active is None:
            return np.zeros(DRAWS), np.zeros(DRAWS)
        al = self.settings.active_learning
        assert al is not None
        most, steps = active["reference_calls"][1], active["MD_steps"]
        if most is None and steps is None:
            return None
        if (window := active["MD_steps_per_label"]) is None:
            median, sigma = CHECKS_PER_LABEL
            per_label = np.maximum(1.0, median * self._factor(sigma)) * al.skip_step_mlff
        else:
            per_label = window * self._between(*OF_WINDOW)
        labels = np.full(DRAWS, math.inf if most is None else float(most))
        least = float(active["reference_calls"][0] or 0)
        if most is not None and active["limits"].keys() & {"max_train_set_size", "max_labels"}:
            # how many of them are for validation and testing varies
            labels = self._between(least, float(most))
        if steps is not None:
            labels = np.minimum(labels, np.maximum(least, steps / per_label))
        if al.desired_acc or al.stop == "when_done":
            labels = labels * self._between(0.3, 1.0)
        moved = labels * per_label
        return labels, moved if steps is None else np.minimum(moved, steps)

    def active_learning(self) -> Array | None:
        """MD, labels and training, of which a part overlaps."""
        if self.explored is None or self.label is None or self.training is None or self.md_step is None:
            return None
        labels, steps = self.explored
        al = self.settings.active_learning
        if al is None:
            return np.zeros(DRAWS)
        n = sum(self.ahead["active_learning"]["trajectories"].values())
        begun, size = self._trained_on(self._size(labels, 0.0), al), self._trained_on(self._size(labels), al)
        shared = np.exp(self._between(math.log(0.3), 0.0))  # several trajectories train in one visit
        training = self._trained(labels * al.epochs_per_worker * size * shared, self.members)
        moving = steps * self.md_step / n * self._between(1.0, 1.6) / self.movers**0.8
        labelling = labels * self.label / min(self.at_once, n)
        together = training + moving + labelling
        alone = np.maximum(np.maximum(training, moving), labelling) if self.beside else np.maximum(
            training + moving, labelling
        )  # fmt: skip
        before = self.ahead["active_learning"]["epochs_before_exploration"] * self._between(*UNTIL_FLAT)
        first = self._trained(before * begun, self.members)  # nothing else runs meanwhile
        return np.asarray(first + alone + self._between(0.2, 1.0) * (together - alone), float)

    def _trained_on(self, size: Array, al: ActiveLearningSettings) -> Array:
        """Frames of an epoch of active learning with training sets of this size."""
        if al.replay_strategy == "random_subset":
            size = np.minimum(size, al.train_subset_size)
        return self._with_copies(size)

    def _size(self, labels: Array, half: float = 0.5) -> Array:
        """Training frames of a member, on average over active learning, at its beginning (half 0) or end (half 1)."""
        begun = float(self.ahead["active_learning"]["n_train"][1] or 0)
        limit = self.ahead["active_learning"]["limits"].get("max_train_set_size", math.inf)
        return np.asarray(np.maximum(1.0, np.minimum(begun + half * labels, limit)), float)

    def convergence(self) -> Array | None:
        """The last training, of one member or all, on the frames of all members."""
        stages = self.ahead["convergence"]
        if not stages:
            return np.zeros(DRAWS)
        if self.explored is None or self.training is None:
            return None
        labels = self.labels()
        if labels is None:
            return None
        given = 0.0 if self.ahead["initial"] is not None else self._size(np.zeros(DRAWS))
        seconds = np.zeros(DRAWS)
        median, sigma = EPOCHS_TO_BEST
        for one in stages:
            al = self.settings.active_learning
            patience = al.convergence_patience if al is not None else 50
            epochs = np.minimum(one["most_epochs"], median * self._factor(sigma) + patience)
            seconds = seconds + self._trained(
                epochs * self._with_copies(np.maximum(1.0, given + 0.9 * labels)), one["members"]
            )
        return seconds

    def labels(self) -> Array | None:
        """All reference calculations."""
        first = self.ahead["initial"]
        begun = np.zeros(DRAWS) if first is None else self._either(first["reference_calls"])
        if begun is None or self.explored is None:
            return None
        return np.asarray(begun + self.explored[0] + self.ahead["isolated_atoms"], float)


def reference_slots(settings: Settings) -> int:
    """Cores of one reference calculation, from CLUSTER.launch_str or the job's header; 1 where they do not say."""
    c = settings.cluster
    nodes = 1 if c.parsl_options is None else c.parsl_options.nodes_per_block
    return processes_of_label(c.launch_str or "", c.scheduler, c.header, nodes) or 1


def settings_digest(settings: Settings, systems: tuple[System, ...]) -> str:
    """Hash of the settings on which the measured times depend."""
    sections = {name: table for file in effective(settings).values() for name, table in file.items()}
    text = json.dumps(
        {name: str(table) for name, table in sections.items() if name in WATCHED}, sort_keys=True
    )
    al = settings.active_learning
    many = [settings.ensemble_size, al.num_trajectories if al is not None else 0, settings.model.device]
    return hashlib.sha256(f"{text} {many} {[s.frame.id for s in systems]}".encode()).hexdigest()[:20]


def write_forecast(folder: Path, found: Mapping[str, Any]) -> Path:
    """Store it in the folder of logs, where `plan` and the report of the run find it."""
    write_text(folder / FILE, json.dumps(found, indent=1) + "\n")
    return folder / FILE


def stored_timings(folder: Path, settings: Settings, systems: tuple[System, ...]) -> Timings | None:
    """The times that `check --try` has measured for these settings; None when there are none."""
    stored = read_forecast(folder)
    if not stored or stored.get("settings") != settings_digest(settings, systems):
        return None
    try:
        return Timings(**stored["timings"])
    except TypeError:  # written by another version
        return None
