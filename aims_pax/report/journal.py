"""The journal read as a story: who asked for what, what was answered, how the threshold moved, where time went.

A journal has a line for every look at a trajectory, millions in the end. They are kept as columns of numbers, and what
was read once is kept beside it (`report.kept`): the next reading begins where this one ended.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.core.threshold import MEMORY, WARM_UP
from aims_pax.frames import Array
from aims_pax.record.journal import spread
from aims_pax.report.nouns import Span, Visit
from aims_pax.report.reading import number, whole_lines

DOING = {
    "Advanced": "moving",
    "Trained": "training",
    "Sampled": "sampling",
    "Labelled": "waiting",
    "LabelFailed": "waiting",
}
DECODER = json.JSONDecoder()
CHECK, FROZEN, GONE = (
    1,
    2,
    4,
)  # flags of a look: counts for the threshold, which was frozen by then; done again later


@dataclass(frozen=True)
class Met:
    """Where and when a frame came up."""

    stage: str
    system: str
    time: float


@dataclass
class Looks:
    """Every look at a trajectory that found finite uncertainties, one row each, in order."""

    trajectory: array[int] = field(default_factory=lambda: array("i"))
    step: array[int] = field(default_factory=lambda: array("q"))
    time: array[float] = field(default_factory=lambda: array("d"))
    largest: array[float] = field(default_factory=lambda: array("d"))  # eV/Å
    mean: array[float] = field(default_factory=lambda: array("d"))  # eV/Å, of n values
    n: array[int] = field(default_factory=lambda: array("i"))
    flags: array[int] = field(default_factory=lambda: array("b"))
    frames: list[str] = field(default_factory=list)


@dataclass
class Checks:
    """The uncertainty checks of one trajectory, (K,) each, in order; `step`: where it stands."""

    step: int
    steps: NDArray[np.int64]
    uncertainty: Array
    threshold: Array
    times: Array
    frames: list[str]
    faults: list[tuple[int, str]]


@dataclass
class Story:
    """What the journal tells. answers: frame → (when, outcome, reason). moments: stage → (first, last) entry.

    sampled: frames of the initial dataset. seconds: what the time of a stage went into, closed sessions only.
    stood: where each trajectory stands. faults: trajectory → (step, why). other: last sign of a recalculation here.
    """

    began: float = math.nan
    heard: float = 0.0
    other: float = 0.0
    looks: Looks = field(default_factory=Looks)
    stood: dict[int, int] = field(default_factory=dict)
    faults: dict[int, list[tuple[int, str]]] = field(default_factory=dict)
    sampled: dict[str, Met] = field(default_factory=dict)
    answers: dict[str, tuple[float, str, str]] = field(default_factory=dict)
    visits: dict[tuple[str, int, int | None], Visit] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    moments: dict[str, tuple[float, float]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    labels: int = 0
    frozen: bool = False
    last: tuple[float, str, str] | None = None  # time, stage, kind of the entry before
    pauses: list[tuple[float, float]] = field(default_factory=list)  # since then

    def met(self, wanted: Container[str], systems: tuple[str, ...]) -> dict[str, Met]:
        """Where and when these frames came up first; what was done again later does not count."""
        found: dict[str, Met] = {}
        looks = self.looks
        for k in [k for k, frame in enumerate(looks.frames) if frame in wanted]:
            if not looks.flags[k] & GONE and looks.frames[k] not in found:
                i = looks.trajectory[k]
                system = systems[i] if i < len(systems) else ""
                found[looks.frames[k]] = Met("explore", system, looks.time[k])
        return {f: m for f, m in self.sampled.items() if f in wanted} | found

    def series(self, rules: Reading) -> dict[int, Checks]:
        """The checks of every trajectory, with the threshold as it stood before each of them."""
        looks = self.looks
        flags = np.frombuffer(looks.flags, np.int8)
        rows = np.flatnonzero((flags & (CHECK | GONE)) == CHECK)
        columns = [np.frombuffer(c, c.typecode)[rows] for c in (
            looks.trajectory, looks.step, looks.time, looks.largest, looks.mean, looks.n
        )]  # fmt: skip
        trajectory, step, time, largest, mean, n = columns
        δ = thresholds(mean, n, (flags[rows] & FROZEN) != 0, trajectory, rules)
        order = np.argsort(trajectory, kind="stable")
        found: dict[int, Checks] = {}
        for i in sorted({*self.stood, *self.faults}):
            first, end = np.searchsorted(trajectory[order], (i, i + 1))
            mine = order[first:end]
            names = [looks.frames[k] for k in rows[mine].tolist()]
            steps = step[mine].astype(np.int64)
            stands = self.stood.get(i, 0)
            found[i] = Checks(
                stands, steps, largest[mine], δ[mine], time[mine], names, self.faults.get(i, [])
            )
        return found


@dataclass(frozen=True)
class Reading:
    """The settings and names that decide how a journal is read."""

    skip: int
    max_steps: float
    c_x: float
    freeze_at: float
    systems: tuple[str, ...]  # of the trajectories
    per_system: bool

    @classmethod
    def of(cls, settings: Mapping[str, str], explore: Mapping[str, Any]) -> Reading:
        """settings: the flat ones in force; explore: the state of the newest snapshot, for system names."""
        al = "aimsPAX.ACTIVE_LEARNING."
        return cls(
            skip=max(1, int(_or(settings.get(al + "skip_step_mlff"), 1))),
            max_steps=_or(settings.get(al + "max_MD_steps"), math.inf),
            c_x=_or(settings.get(al + "c_x"), 0.0),
            freeze_at=_or(settings.get(al + "freeze_threshold_dataset"), math.inf),
            systems=tuple(str(t.get("system", "")) for t in explore.get("trajectories", ())),
            per_system=settings.get(al + "threshold") == "per_system",
        )

    @property
    def decisive(self) -> list[float]:
        """What decides how a line is taken in: read with others, everything has to be read again."""
        return [self.skip, self.max_steps, self.freeze_at]


def told(path: Path, rules: Reading, kept: Path | None = None) -> Story:
    """Read a journal. kept: where to keep what was read, so that the next reading is short; None: nowhere."""
    from aims_pax.report import kept as keeping

    story, offset = (Story(), 0) if kept is None else keeping.load(kept, path, rules.decisive)
    teller = _Teller(rules, story)
    end = offset
    for lines, reached in whole_lines(path, offset):
        teller.told(lines)
        end = reached
    if kept is not None:
        keeping.save(kept, path, rules.decisive, story, offset, end)
    return story


class _Teller:
    """Takes a story on, line by line."""

    def __init__(self, rules: Reading, story: Story) -> None:
        self.rules, self.story = rules, story

    def told(self, lines: Iterable[str]) -> None:
        for line in lines:
            try:
                entry, end = DECODER.raw_decode(line)
                if end != len(line):
                    continue  # two entries in one another
                moment, stage, kind = float(entry["time"]), str(entry["stage"]), str(entry["kind"])
                if stage == "recalculate":
                    self.story.other = moment
                    continue  # of a command of its own in the same folder
                again = self._take(moment, stage, kind, entry["content"])
            except (KeyError, TypeError, ValueError, IndexError, RecursionError, OverflowError):
                continue  # another version's entry, or half of one
            self._remember(moment, stage, kind, again)

    def _take(self, moment: float, stage: str, kind: str, content: Any) -> bool:
        """One entry; True when it shows that the run had been interrupted before."""
        story = self.story
        match kind:
            case "Advanced":
                return self._advanced(moment, content)
            case "Sampled":
                for system, frame in content["frames"]:
                    story.sampled[frame] = Met(stage, str(system), moment)
            case "Labelled":
                frame = content["work"]["frame"]
                story.labels += story.answers.get(frame, ("", ""))[1] != "labelled"
                story.answers[frame] = (moment, "labelled", "")
            case "LabelFailed":
                reason = str(content["reason"])
                story.answers[content["work"]["frame"]] = (moment, str(content["kind"]), reason)
            case "LabelDropped":
                story.answers.setdefault(content["work"]["frame"], (moment, "dropped", ""))
            case "Trained":
                self._trained(moment, stage, content)
            case "paused":
                story.pauses.append((float(content["began"]), float(content["ended"])))
            case "time":
                sums = story.seconds.setdefault(stage, {})
                for name, seconds in content.items():
                    sums[name] = sums.get(name, 0.0) + float(seconds)
        return False

    def _advanced(self, moment: float, content: Any) -> bool:
        story, looks, rules = self.story, self.story.looks, self.rules
        work, step = content["work"], int(content["step"])
        largest, mean, n = spread(content["uncertainty"])
        i, start, frame = int(work["trajectory"]), int(work["start"]), str(content["frame"])
        again = start < story.stood.get(i, 0)
        if again:
            self._back_to(i, start)
        story.stood[i] = step
        fault = content.get("fault")
        if fault is not None or not math.isfinite(largest):
            story.faults.setdefault(i, []).append((step, str(fault or "the uncertainty is not finite")))
            return again
        checked = step % rules.skip == 0 or step >= rules.max_steps
        looks.trajectory.append(i)
        looks.step.append(step)
        looks.time.append(moment)
        looks.largest.append(largest)
        looks.mean.append(mean)
        looks.n.append(n)
        looks.flags.append(CHECK * checked | FROZEN * story.frozen)
        looks.frames.append(frame)
        return again

    def _back_to(self, i: int, step: int) -> None:
        """Forget what a restart has done again."""
        looks = self.story.looks
        for k in range(len(looks.step) - 1, -1, -1):  # never far: a snapshot is young
            if looks.trajectory[k] == i and not looks.flags[k] & GONE:
                if looks.step[k] <= step:
                    break
                looks.flags[k] |= GONE
        if i in self.story.faults:
            self.story.faults[i] = [f for f in self.story.faults[i] if f[0] <= step]

    def _trained(self, moment: float, stage: str, content: Any) -> None:
        work, n_train, story = content["work"], int(content["n_train"]), self.story
        losses, maes = (tuple(map(number, content[k])) for k in ("valid_loss", "force_mae"))
        visit = Visit(stage, int(work["visit"]), work["member"], moment, story.labels, n_train, losses, maes)
        story.visits[stage, visit.visit, visit.member] = visit  # one done again after a restart counts once
        if stage == "explore":
            story.frozen = n_train >= self.rules.freeze_at

    def _remember(self, moment: float, stage: str, kind: str, again: bool) -> None:
        """Time belongs to what ended it: the device does one thing after the other. Pauses are cut out."""
        story = self.story
        first, _ = story.moments.get(stage, (moment, moment))
        story.moments[stage] = (first, moment)
        story.began = moment if math.isnan(story.began) else story.began
        story.heard = moment
        if kind == "paused":
            return  # it belongs to what comes next
        if story.last is not None and moment > story.last[0]:
            cursor, stage_before, kind_before = story.last
            ended = kind_before == "time" and stage_before == stage  # it had ended and was begun again
            rest = "starting" if kind == "going" or kind_before == "begun" else "saving"
            doing = "stopped" if again or ended or kind == "begun" else DOING.get(kind, rest)
            for began, until in story.pauses:
                began, until = max(began, cursor), min(until, moment)
                if until > began:
                    _join(story.spans, Span(doing, cursor, began))
                    _join(story.spans, Span("paused", began, until))
                    cursor = until
            _join(story.spans, Span(doing, cursor, moment))
        story.pauses.clear()
        story.last = (moment, stage, kind)


def thresholds(
    mean: Array, n: NDArray[Any], frozen: NDArray[np.bool_], trajectory: NDArray[Any], rules: Reading
) -> Array:
    """δ (K,) as it stood before each check, eV/Å: Eq. 2, `core.threshold`, for each system alone or all together.

    mean, n (K,): each check's mean over n values; frozen (K,): the training set was that large by then.
    """
    δ = np.full(len(mean), math.inf)
    keys = np.zeros(len(mean), np.int64)
    if rules.per_system:
        names = dict.fromkeys(rules.systems)
        number_of = np.array([list(names).index(s) for s in rules.systems] or [0])
        keys = np.where(
            trajectory < len(rules.systems), number_of[np.minimum(trajectory, len(number_of) - 1)], -1
        )
    for key in np.unique(keys):
        mine = np.flatnonzero(keys == key)
        δ[mine] = _of_one(mean[mine], n[mine].astype(float), frozen[mine], 1 + rules.c_x)
    return δ


def _of_one(mean: Array, n: Array, frozen: NDArray[np.bool_], factor: float) -> Array:
    ends = np.arange(len(mean) + 1)  # checks in the past
    starts = np.maximum(ends - MEMORY, 0)
    # offsets keep the running sums small: what is subtracted would else swallow the digits of a long run
    centre = float(mean.mean()) if len(mean) else 0.0
    total, count = (np.concatenate([[0.0], np.cumsum(v)]) for v in ((mean - centre) * n, n))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = factor * (centre + (total[ends] - total[starts]) / (count[ends] - count[starts]))
    value[:WARM_UP] = math.inf
    stops = np.flatnonzero(frozen & (ends[1:] >= WARM_UP))
    if len(stops):
        value[stops[0] + 1 :] = value[stops[0] + 1]
    result: Array = value[:-1]
    return result


def _join(spans: list[Span], span: Span) -> None:
    """Append, or lengthen the last one when it is of the same kind."""
    if span.ended <= span.began:
        return
    if spans and spans[-1].doing == span.doing:
        span = Span(span.doing, spans.pop().began, span.ended)
    spans.append(span)


def _or(text: Any, default: float) -> float:
    value = number(text)
    return default if math.isnan(value) else value
