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

if TYPE_CHECKING:
    from aims_pax.engine.stage_environment import RunContext
    from aims_pax.models.mace.precision import Precision

log = logging.getLogger(__name__)

FILE = "precision.json"  # in results/
FRAMES = 5  # looked at


def save_member(run: RunContext, member: int, path: Path) -> None:
    """The averaged weights of a member, in double precision where single is too coarse for the labelled energies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    run.ensemble.save(member, path, double=_too_large(run))


def check_delivery(
    run: RunContext, files: Mapping[int, Path], sets: Mapping[str, Sequence[LabelledFrame]]
) -> Precision | None:
    """Load each delivered file (of a member) as its user does: MACECalculator, in the file's own precision.

    A file in single precision whose energies are not ours is written again in double precision. What was found is left
    in `results/precision.json` for the card; None where there is nothing to look at.
    """
    from aims_pax.models.mace.precision import FINE, check_precision

    frames = [f.frame for f in _alike(sets)]
    if not frames:
        return None
    worst: Precision | None = None
    for member, path in files.items():
        ours = run.ensemble.potential(members=[member]).labels(frames)
        found = check_precision(path, frames, ours)
        if found.dtype == "float32" and not found.difference <= FINE:
            run.ensemble.save(member, path, double=True)
            found = check_precision(path, frames, ours)
        if worst is None or found.difference > worst.difference:
            worst = found
        if not found.difference <= FINE:
            log.warning(
                "%s: MACECalculator (default_dtype %s) gives energies that differ from ours by up to %.3g eV on %d "
                "structures; please report this", path.name, found.dtype, found.difference, len(frames),
            )  # fmt: skip
    assert worst is not None
    if worst.dtype == "float64" and worst.resolution > FINE:
        log.info(
            "energies are so large that single precision knows them to %.2g eV only: the models are in double "
            'precision; load them with default_dtype="float64"',
            worst.resolution,
        )
    run.folder.write_text(run.folder.results / FILE, json.dumps(asdict(worst)) + "\n")
    return worst


def _too_large(run: RunContext) -> bool:
    from aims_pax.models.mace.precision import is_too_coarse

    return is_too_coarse([frame.label.energy for frame in run.dataset.frames.values()])


def _alike(sets: Mapping[str, Sequence[LabelledFrame]]) -> list[LabelledFrame]:
    """A few structures of one composition, of which there are most, preferably not trained on."""
    for name in ("validation", "test", "training"):
        frames = sets.get(name) or ()
        if frames:
            [(formula, _)] = Counter(f.frame.formula for f in frames).most_common(1)
            same = [f for f in frames if f.frame.formula == formula]
            return list(same[:: max(1, len(same) // FRAMES)][:FRAMES])
    return []
