"""Parses the journal into a RunHistory: requested labels and their results, uncertainty checks, time spent.

A journal has a line for every advance of a trajectory, up to millions. They are stored as columns of numbers, and what
was read is cached (`report.journal_cache`), so that the next reading begins where this one ended.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aims_pax.record.journal import spread
from aims_pax.report import journal_cache
from aims_pax.report.run_history import CHECK, DECISIONS, GONE, FrameOrigin, RunHistory
from aims_pax.report.run_record import Span, TrainingRecord
from aims_pax.report.tolerant_readers import float_or_nan, whole_lines

DOING = {
    "Advanced": "moving",
    "Selected": "moving",
    "Trained": "training",
    "Sampled": "sampling",
    "Labelled": "waiting",
    "LabelFailed": "waiting",
}
DECODER = json.JSONDecoder()


def read_journal(path: Path, cache: Path | None = None) -> RunHistory:
    """Read a journal. cache: file that stores what was read, so that the next reading is fast; None: no cache."""
    history, offset = (RunHistory(), 0) if cache is None else journal_cache.load_cache(cache, path)
    parser = JournalParser(history)
    end = offset
    for lines, reached in whole_lines(path, offset):
        parser.read_lines(lines)
        end = reached
    if cache is not None:
        journal_cache.save_cache(cache, path, history, offset, end)
    return history


class JournalParser:
    """Adds the lines of a journal to a history."""

    def __init__(self, history: RunHistory) -> None:
        self.history = history

    def read_lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            try:
                entry, end = DECODER.raw_decode(line)
                if end != len(line):
                    continue  # two entries mixed in one line
                moment, stage, kind = float(entry["time"]), str(entry["stage"]), str(entry["kind"])
                if stage == "recalculate":
                    self.history.other = moment
                    continue  # written by `aims-PAX-recalc` in the same folder
                if kind in ("stage begun", "stage ended"):
                    self._bound(moment, stage, kind, entry["content"])
                    continue
                again = self._take(moment, stage, kind, entry)
            except (KeyError, TypeError, ValueError, IndexError, RecursionError, OverflowError):
                continue  # an incomplete entry, or one of another version
            self._remember(moment, stage, kind, again)

    def _bound(self, moment: float, stage: str, kind: str, content: Any) -> None:
        """A stage has ended, or begins again from the start, which discards its earlier entries."""
        history = self.history
        if kind == "stage ended":
            history.ended[stage] = dict(content)
            return
        history.fresh[stage] = moment
        history.ended.pop(stage, None)
        history.sampled = {f: m for f, m in history.sampled.items() if m.stage != stage}
        if stage == "explore":
            for i in list(history.stood):
                self._back_to(i, 0)
                history.stood[i] = 0

    def _take(self, moment: float, stage: str, kind: str, entry: dict[str, Any]) -> bool:
        """Add one entry; returns True when it shows that the run was interrupted before it."""
        history, content = self.history, entry["content"]
        match kind:
            case "Advanced":
                return self._advanced(moment, content, entry.get("check", {}))
            case "Sampled":
                for system, frame in content["frames"]:
                    history.sampled[frame] = FrameOrigin(stage, str(system), moment)
            case "Labelled":
                frame = content["work"]["frame"]
                history.labels += history.answers.get(frame, ("", ""))[1] != "labelled"
                history.answers[frame] = (moment, "labelled", "")
            case "LabelFailed":
                reason = str(content["reason"])
                history.answers[content["work"]["frame"]] = (moment, str(content["kind"]), reason)
            case "LabelDropped":
                history.answers.setdefault(content["work"]["frame"], (moment, "dropped", ""))
            case "Trained":
                self._trained(moment, stage, content)
            case "paused":
                history.pauses.append((float(content["began"]), float(content["ended"])))
            case "time":
                sums = history.seconds.setdefault(stage, {})
                for name, seconds in content.items():
                    sums[name] = sums.get(name, 0.0) + float(seconds)
        return False

    def _advanced(self, moment: float, content: Any, check: Any) -> bool:
        """check: what the core compared and decided, None: nothing was compared; {}: not recorded (older version)."""
        history, looks = self.history, self.history.looks
        work, step = content["work"], int(content["step"])
        largest, _, _ = spread(content["uncertainty"])
        i, start, frame = int(work["trajectory"]), int(work["start"]), str(content["frame"])
        again = start < history.stood.get(i, 0)
        if again:
            self._back_to(i, start)
        history.stood[i] = step
        fault = content.get("fault")
        if fault is not None or not math.isfinite(largest):
            history.faults.setdefault(i, []).append((step, str(fault or "the uncertainty is not finite")))
            return again
        decision = "" if not check else str(check["decision"])
        looks.trajectory.append(i)
        looks.step.append(step)
        looks.time.append(moment)
        looks.largest.append(largest)
        looks.threshold.append(float(check["threshold"]) if check else math.nan)
        looks.decision.append(DECISIONS.index(decision) if decision in DECISIONS else 0)
        looks.flags.append(0 if check is None else CHECK)
        looks.frames.append(frame)
        return again

    def _back_to(self, i: int, step: int) -> None:
        """Mark what a restart has repeated: rows of this trajectory after `step`."""
        looks = self.history.looks
        for k in range(len(looks.step) - 1, -1, -1):  # few rows: snapshots are frequent
            if looks.trajectory[k] == i and not looks.flags[k] & GONE:
                if looks.step[k] <= step:
                    break
                looks.flags[k] |= GONE
        if i in self.history.faults:
            self.history.faults[i] = [f for f in self.history.faults[i] if f[0] <= step]

    def _trained(self, moment: float, stage: str, content: Any) -> None:
        work, n_train, history = content["work"], int(content["n_train"]), self.history
        losses, maes = (tuple(map(float_or_nan, content[k])) for k in ("valid_loss", "force_mae"))
        visit = TrainingRecord(
            stage, int(work["visit"]), work["member"], moment, history.labels, n_train, losses, maes
        )
        history.visits[stage, visit.visit, visit.member] = (
            visit  # a visit repeated after a restart counts once
        )

    def _remember(self, moment: float, stage: str, kind: str, again: bool) -> None:
        """Count the time since the previous entry for the activity that this entry ends, without pauses."""
        history = self.history
        first, _ = history.moments.get(stage, (moment, moment))
        history.moments[stage] = (first, moment)
        history.began = moment if math.isnan(history.began) else history.began
        history.heard = moment
        if kind == "paused":
            return  # it belongs to the activity that the next entry ends
        if history.last is not None and moment > history.last[0]:
            cursor, stage_before, kind_before = history.last
            ended = kind_before == "time" and stage_before == stage  # a new session of this stage
            rest = "starting" if kind == "going" or kind_before == "begun" else "saving"
            doing = "stopped" if again or ended or kind == "begun" else DOING.get(kind, rest)
            for began, until in history.pauses:
                began, until = max(began, cursor), min(until, moment)
                if until > began:
                    _join(history.spans, Span(doing, cursor, began))
                    _join(history.spans, Span("paused", began, until))
                    cursor = until
            _join(history.spans, Span(doing, cursor, moment))
        history.pauses.clear()
        history.last = (moment, stage, kind)


def _join(spans: list[Span], span: Span) -> None:
    """Append a span, or extend the last one if it has the same activity."""
    if span.ended <= span.began:
        return
    if spans and spans[-1].doing == span.doing:
        span = Span(span.doing, spans.pop().began, span.ended)
    spans.append(span)
