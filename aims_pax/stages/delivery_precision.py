"""Saves the final models in a precision that resolves their energies, then checks them as their user will load them."""

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
FRAMES = 5  # number of structures in the check


def save_member(run: RunContext, member: int, path: Path) -> None:
    """Write the file of a member, in a precision that resolves the labelled energies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    energies = [frame.label.energy for frame in run.dataset.frames.values()]
    run.ensemble.deliver(member, path, energies)


def check_delivery(
    run: RunContext, files: Mapping[int, Path], sets: Mapping[str, Sequence[LabelledFrame]]
) -> Precision | None:
    """Load each model file (keys: members) as its user does, and compare it with the models of this run.

    The largest differences are written to `results/precision.json` for the model card; None without structures.
    """
    frames = [f.frame for f in _alike(sets)]
    worst = run.ensemble.check_delivered(files, frames) if frames else None
    if worst is not None:
        run.folder.write_text(run.folder.results / FILE, json.dumps(asdict(worst)) + "\n")
    return worst


def _alike(sets: Mapping[str, Sequence[LabelledFrame]]) -> list[LabelledFrame]:
    """Up to FRAMES structures of the most frequent composition, from validation, test or training data."""
    for name in ("validation", "test", "training"):
        frames = sets.get(name) or ()
        if frames:
            [(formula, _)] = Counter(f.frame.formula for f in frames).most_common(1)
            same = [f for f in frames if f.frame.formula == formula]
            return list(same[:: max(1, len(same) // FRAMES)][:FRAMES])
    return []
