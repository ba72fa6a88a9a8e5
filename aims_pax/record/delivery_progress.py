"""How far the writing of `results/` has come: `restart/delivery.json`, which is there until all of it is written."""

from __future__ import annotations

import json
from pathlib import Path

from aims_pax.record.files import write_text

FILE = "delivery.json"  # in restart/
MODELS, PREDICTIONS, MD_TEST, REPORT = "models and datasets", "predictions", "MD test", "report"
STEPS = (MODELS, PREDICTIONS, MD_TEST, REPORT)


def begin_step(restart: Path, step: str) -> None:
    """Remember that this step is under way and those before it are complete. Raises OSError."""
    write_text(restart / FILE, json.dumps({"format": 1, "step": step}) + "\n")


def all_written(restart: Path) -> None:
    """Remember that `results/` is complete. Raises OSError."""
    (restart / FILE).unlink(missing_ok=True)


def step_under_way(restart: Path) -> str:
    """The step that has begun and not ended; "" for none, or for a file that cannot be read."""
    try:
        step = json.loads((restart / FILE).read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return step if step in STEPS else ""
