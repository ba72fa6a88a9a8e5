"""Delivered models are written in a precision that holds their energies, and looked at as their user will load them."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from aims_pax.frames import LabelledFrame
from aims_pax.models.base import Precision

if TYPE_CHECKING:
    from aims_pax.engine.run_context import RunContext

log = logging.getLogger(__name__)

FILE = "precision.json"  # in results/
FRAMES = 5  # looked at


def save_member(run: RunContext, member: int, path: Path) -> None:
    """The file of a member, in numbers that resolve the labelled energies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    energies = [frame.label.energy for frame in run.dataset.frames.values()]
    run.ensemble.deliver(member, path, energies)


def check_delivery(
    run: RunContext, files: Mapping[int, Path], sets: Mapping[str, Sequence[LabelledFrame]]
) -> Precision | None:
    """Load each delivered file (of a member) as its user does, and compare with the models of this run.

    What was found is left in `results/precision.json` for the card; None where there is nothing to look at.
    """
    frames = [f.frame for f in _alike(sets)]
    worst = run.ensemble.check_delivered(files, frames) if frames else None
    if worst is not None:
        run.folder.write_text(run.folder.results / FILE, json.dumps(asdict(worst)) + "\n")
    return worst


def _alike(sets: Mapping[str, Sequence[LabelledFrame]]) -> list[LabelledFrame]:
    """A few structures of one composition, of which there are most, preferably not trained on."""
    for name in ("validation", "test", "training"):
        frames = sets.get(name) or ()
        if frames:
            [(formula, _)] = Counter(f.frame.formula for f in frames).most_common(1)
            same = [f for f in frames if f.frame.formula == formula]
            return list(same[:: max(1, len(same) // FRAMES)][:FRAMES])
    return []
