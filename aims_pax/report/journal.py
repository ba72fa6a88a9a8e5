"""The journal read as a story: who asked for what, what was answered, how the threshold moved, where time went."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aims_pax.core.threshold import MEMORY, WARM_UP
from aims_pax.report.nouns import Span, Visit
from aims_pax.report.reading import number

DOING = {
    "Advanced": "moving",
    "Trained": "training",
    "Sampled": "sampling",
    "Labelled": "waiting",
    "LabelFailed": "waiting",
}


@dataclass(frozen=True)
class Met:
    """Where and when a frame came up."""

    stage: str
    system: str
    time: float


@dataclass
class Checks:
    """The uncertainty checks of one trajectory, one entry each, in order."""

    step: int = 0
    steps: list[int] = field(default_factory=list)
    uncertainty: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    order: list[int] = field(default_factory=list)  # position among the checks of all trajectories
    threshold: list[float] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)

    def back_to(self, step: int) -> list[str]:
        """Forget what a restart has done again; returns the frames of it."""
        gone = [f for f, s in zip(self.frames, self.steps, strict=True) if s > step]
        while self.steps and self.steps[-1] > step:
            for column in (self.steps, self.uncertainty, self.times, self.frames, self.order):
                column.pop()
        self.faults = [f for f in self.faults if f[0] <= step]
        return gone


@dataclass
class Story:
    """What the journal tells. answers: frame → (when, outcome, reason). moments: stage → (first, last) entry."""

    began: float = math.nan
    heard: float = 0.0
    series: dict[int, Checks] = field(default_factory=dict)
    met: dict[str, Met] = field(default_factory=dict)
    answers: dict[str, tuple[float, str, str]] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    moments: dict[str, tuple[float, float]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)


def told(entries: Iterable[Any], settings: Mapping[str, str], explore: Mapping[str, Any]) -> Story:
    """Read a journal. settings: the flat ones in force; explore: the state of the newest snapshot, for system names."""
    return _Teller(settings, explore).told(entries)


class _Teller:
    def __init__(self, settings: Mapping[str, str], explore: Mapping[str, Any]) -> None:
        al = "aimsPAX.ACTIVE_LEARNING."
        self.skip = max(1, int(_or(settings.get(al + "skip_step_mlff"), 1)))
        self.max_steps = _or(settings.get(al + "max_MD_steps"), math.inf)
        self.c_x = _or(settings.get(al + "c_x"), 0.0)
        self.freeze_at = _or(settings.get(al + "freeze_threshold_dataset"), math.inf)
        self.per_system = settings.get(al + "threshold") == "per_system"
        self.systems = [str(t.get("system", "")) for t in explore.get("trajectories", ())]
        self.checks: list[tuple[int, float, int, bool]] = []  # trajectory, mean, values, frozen by then
        self.frozen = False
        self.labels = 0
        self.visits: dict[tuple[str, int, int | None], Visit] = {}
        self.story = Story()
        self.last: tuple[float, str, str] | None = None  # time, stage, kind of the entry before

    def told(self, entries: Iterable[Any]) -> Story:
        for entry in entries:
            try:
                moment, stage, kind = float(entry["time"]), str(entry["stage"]), str(entry["kind"])
                if stage == "recalculate":
                    continue  # of a command of its own in the same folder
                again = self._take(moment, stage, kind, entry["content"])
            except (KeyError, TypeError, ValueError, IndexError):
                continue  # another version's entry, or half of one
            self._remember(moment, stage, kind, again)
        self.story.visits = sorted(self.visits.values(), key=lambda v: v.time)
        self._thresholds()
        return self.story

    def _take(self, moment: float, stage: str, kind: str, content: Any) -> bool:
        """One entry; True when it shows that the run had been interrupted before."""
        story = self.story
        match kind:
            case "Advanced":
                return self._advanced(moment, stage, content)
            case "Sampled":
                for system, frame in content["frames"]:
                    story.met[frame] = Met(stage, str(system), moment)
            case "Labelled":
                frame = content["work"]["frame"]
                self.labels += story.answers.get(frame, ("", ""))[1] != "labelled"
                story.answers[frame] = (moment, "labelled", "")
            case "LabelFailed":
                reason = str(content["reason"])
                story.answers[content["work"]["frame"]] = (moment, str(content["kind"]), reason)
            case "LabelDropped":
                story.answers.setdefault(content["work"]["frame"], (moment, "dropped", ""))
            case "Trained":
                self._trained(moment, stage, content)
            case "time":
                sums = story.seconds.setdefault(stage, {})
                for name, seconds in content.items():
                    sums[name] = sums.get(name, 0.0) + float(seconds)
        return False

    def _advanced(self, moment: float, stage: str, content: Any) -> bool:
        i, start, step = (
            int(content["work"]["trajectory"]),
            int(content["work"]["start"]),
            int(content["step"]),
        )
        checks = self.story.series.setdefault(i, Checks())
        again = start < checks.step
        if again:
            for frame in checks.back_to(start):
                self.story.met.pop(frame, None)
        checks.step = step
        fault, values = content.get("fault"), content["uncertainty"]
        if fault is not None or not all(map(math.isfinite, values)):
            checks.faults.append((step, str(fault or "the uncertainty is not finite")))
            return again
        system = self.systems[i] if i < len(self.systems) else ""
        self.story.met.setdefault(content["frame"], Met(stage, system, moment))
        if step % self.skip and step < self.max_steps:
            return again
        checks.steps.append(step)
        checks.uncertainty.append(max(values))
        checks.times.append(moment)
        checks.frames.append(content["frame"])
        checks.order.append(len(self.checks))
        self.checks.append((i, math.fsum(values) / len(values), len(values), self.frozen))
        return again

    def _trained(self, moment: float, stage: str, content: Any) -> None:
        work, n_train = content["work"], int(content["n_train"])
        losses, maes = (tuple(map(number, content[k])) for k in ("valid_loss", "force_mae"))
        visit = Visit(stage, int(work["visit"]), work["member"], moment, self.labels, n_train, losses, maes)
        self.visits[stage, visit.visit, visit.member] = visit  # one done again after a restart counts once
        if stage == "explore":
            self.frozen = n_train >= self.freeze_at

    def _remember(self, moment: float, stage: str, kind: str, again: bool) -> None:
        """Time belongs to what ended it: the device does one thing after the other."""
        story = self.story
        first, _ = story.moments.get(stage, (moment, moment))
        story.moments[stage] = (first, moment)
        story.began = moment if math.isnan(story.began) else story.began
        story.heard = moment
        if self.last is not None and moment > self.last[0]:
            before, stage_before, kind_before = self.last
            ended = kind_before == "time" and stage_before == stage  # it had ended and was begun again
            doing = "stopped" if again or ended or kind == "begun" else DOING.get(kind, "saving")
            _join(story.spans, Span(doing, before, moment))
        self.last = (moment, stage, kind)

    def _thresholds(self) -> None:
        """δ as it stood before each check; the checks of all trajectories in their order (Eq. 2, core.threshold)."""
        history: dict[str, deque[tuple[float, int]]] = {}
        sums: dict[str, list[float]] = {}
        fixed: dict[str, float] = {}
        kept = {k for checks in self.story.series.values() for k in checks.order}
        values: dict[int, float] = {}
        for k, (i, mean, n, frozen) in enumerate(self.checks):
            if k not in kept:
                continue
            key = self.systems[i] if self.per_system and i < len(self.systems) else ""
            past, total = history.setdefault(key, deque()), sums.setdefault(key, [0.0, 0.0])
            δ = fixed.get(key, math.inf if len(past) < WARM_UP else (1 + self.c_x) * total[0] / total[1])
            values[k] = δ
            if key in fixed:
                continue
            past.append((mean, n))
            total[0] += mean * n
            total[1] += n
            if len(past) > MEMORY:
                old, m = past.popleft()
                total[0] -= old * m
                total[1] -= m
            if frozen and len(past) >= WARM_UP:
                fixed[key] = (1 + self.c_x) * total[0] / total[1]
        for checks in self.story.series.values():
            checks.threshold = [values[k] for k in checks.order]


def _join(spans: list[Span], span: Span) -> None:
    """Append, or lengthen the last one when it is of the same kind."""
    if spans and spans[-1].doing == span.doing:
        span = Span(span.doing, spans.pop().began, span.ended)
    spans.append(span)


def _or(text: Any, default: float) -> float:
    value = number(text)
    return default if math.isnan(value) else value
