"""Numbers of labels and frames, counted in one place for log, status, report and model card.

asked    = labelled + failed + pending, in each stage and over all of them
asked in active learning is what ACTIVE_LEARNING.max_labels limits (`core.active_learning.State.n_asked`)
frames   = given + labelled by this run and put into a set; each frame counts once, also if several members have it
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from aims_pax.report.formatting import plural
from aims_pax.report.run_record import RunRecord

INITIAL, ACTIVE, EARLIER = "initial dataset", "active learning", "earlier attempts"
SETS = (("train", "training"), ("valid", "validation"), ("test", "test"))


@dataclass(frozen=True)
class LabelCounts:
    """Frames the reference was asked for in one stage."""

    labelled: int = 0
    failed: int = 0
    pending: int = 0

    @property
    def asked(self) -> int:
        return self.labelled + self.failed + self.pending


def by_stage(run: RunRecord) -> dict[str, LabelCounts]:
    """{stage: counts}; always has the two stages; earlier attempts only when a stage was begun again."""
    found: dict[str, list[int]] = {INITIAL: [0, 0, 0], ACTIVE: [0, 0, 0]}
    for call in run.calls:
        stage = {"initial": INITIAL, "explore": ACTIVE}.get(call.stage, EARLIER)
        place = {"labelled": 0, "pending": 2}.get(call.outcome, 1)
        found.setdefault(stage, [0, 0, 0])[place] += 1
    return {stage: LabelCounts(*n) for stage, n in found.items()}


def frames(run: RunRecord) -> dict[str, int]:
    """{set: number of different frames, over all members}, and `given`: how many of them the user provided."""
    counts = {split: len(run.splits.get(split, ())) for split, _ in SETS}
    return {**counts, "given": len(run.given)}


def budget(run: RunRecord) -> float:
    """ACTIVE_LEARNING.max_labels; inf if not set."""
    try:
        return float(run.setting("ACTIVE_LEARNING.max_labels", "inf"))
    except ValueError:
        return math.inf


def labels_line(run: RunRecord) -> str:
    """`20 labels: 12 initial dataset + 8 active learning (8 of max_labels 8 asked for)`."""
    stages = by_stage(run)
    parts = [f"{n.labelled} {stage}" for stage, n in stages.items() if n.asked]
    text = plural(run.labelled, "label") + (f": {' + '.join(parts)}" if parts else "")
    if math.isfinite(most := budget(run)):
        text += f" ({stages[ACTIVE].asked} of max_labels {most:g} asked for)"
    failed = sum(n.failed for n in stages.values())
    return text + (f" · {failed} failed" if failed else "")


def frames_line(run: RunRecord) -> str:
    """`13 training + 5 validation + 2 test frames (all members together; 3 of them given)`; "" without frames."""
    n = frames(run)
    sets = " + ".join(f"{n[split]} {words}" for split, words in SETS if n[split])
    given = f"; {n['given']} of them given" if n["given"] else ""
    return f"{sets} frames (all members together{given})" if sets else ""
