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
    from aims_pax.report import journal_cache as keeping

    story, offset = (RunHistory(), 0) if cache is None else keeping.load_cache(cache, path)
    parser = JournalParser(story)
    end = offset
    for lines, reached in whole_lines(path, offset):
        parser.read_lines(lines)
        end = reached
    if cache is not None:
        keeping.save_cache(cache, path, story, offset, end)
    return story


class JournalParser:
    """Adds the lines of a journal to a history."""

    def __init__(self, story: RunHistory) -> None:
        self.story = story

    def read_lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            try:
                entry, end = DECODER.raw_decode(line)
                if end != len(line):
                    continue  # two entries mixed in one line
                moment, stage, kind = float(entry["time"]), str(entry["stage"]), str(entry["kind"])
                if stage == "recalculate":
                    self.story.other = moment
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
        story = self.story
        if kind == "stage ended":
            story.ended[stage] = dict(content)
            return
        story.fresh[stage] = moment
        story.ended.pop(stage, None)
        story.sampled = {f: m for f, m in story.sampled.items() if m.stage != stage}
        if stage == "explore":
            for i in list(story.stood):
                self._back_to(i, 0)
                story.stood[i] = 0

    def _take(self, moment: float, stage: str, kind: str, entry: dict[str, Any]) -> bool:
        """Add one entry; returns True when it shows that the run was interrupted before it."""
        story, content = self.story, entry["content"]
        match kind:
            case "Advanced":
                return self._advanced(moment, content, entry.get("check", {}))
            case "Sampled":
                for system, frame in content["frames"]:
                    story.sampled[frame] = FrameOrigin(stage, str(system), moment)
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

    def _advanced(self, moment: float, content: Any, check: Any) -> bool:
        """check: what the core compared and decided, None: nothing was compared; {}: not recorded (older version)."""
        story, looks = self.story, self.story.looks
        work, step = content["work"], int(content["step"])
        largest, _, _ = spread(content["uncertainty"])
        i, start, frame = int(work["trajectory"]), int(work["start"]), str(content["frame"])
        again = start < story.stood.get(i, 0)
        if again:
            self._back_to(i, start)
        story.stood[i] = step
        fault = content.get("fault")
        if fault is not None or not math.isfinite(largest):
            story.faults.setdefault(i, []).append((step, str(fault or "the uncertainty is not finite")))
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
        looks = self.story.looks
        for k in range(len(looks.step) - 1, -1, -1):  # few rows: snapshots are frequent
            if looks.trajectory[k] == i and not looks.flags[k] & GONE:
                if looks.step[k] <= step:
                    break
                looks.flags[k] |= GONE
        if i in self.story.faults:
            self.story.faults[i] = [f for f in self.story.faults[i] if f[0] <= step]

    def _trained(self, moment: float, stage: str, content: Any) -> None:
        work, n_train, story = content["work"], int(content["n_train"]), self.story
        losses, maes = (tuple(map(float_or_nan, content[k])) for k in ("valid_loss", "force_mae"))
        visit = TrainingRecord(
            stage, int(work["visit"]), work["member"], moment, story.labels, n_train, losses, maes
        )
        story.visits[stage, visit.visit, visit.member] = visit  # a visit repeated after a restart counts once

    def _remember(self, moment: float, stage: str, kind: str, again: bool) -> None:
        """Count the time since the previous entry for the activity that this entry ends, without pauses."""
        story = self.story
        first, _ = story.moments.get(stage, (moment, moment))
        story.moments[stage] = (first, moment)
        story.began = moment if math.isnan(story.began) else story.began
        story.heard = moment
        if kind == "paused":
            return  # it belongs to the activity that the next entry ends
        if story.last is not None and moment > story.last[0]:
            cursor, stage_before, kind_before = story.last
            ended = kind_before == "time" and stage_before == stage  # a new session of this stage
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


def _join(spans: list[Span], span: Span) -> None:
    """Append a span, or extend the last one if it has the same activity."""
    if span.ended <= span.began:
        return
    if spans and spans[-1].doing == span.doing:
        span = Span(span.doing, spans.pop().began, span.ended)
    spans.append(span)
