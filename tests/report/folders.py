"""Working folders for the report's tests.

`recorded.zip` is what one real run left behind: copper (periodic, with stress) and water, EMT as the reference that
fails for one structure in eleven, 2 members, 4 trajectories of 120 steps, analysis every 30 steps, 4 test frames.
Newest snapshots only, without weights; the model file is a stand-in.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_name("recorded.zip")

SETTINGS = {
    "aimsPAX.ACTIVE_LEARNING.skip_step_mlff": "10",
    "aimsPAX.ACTIVE_LEARNING.c_x": "0.5",
    "aimsPAX.ACTIVE_LEARNING.max_MD_steps": "inf",
    "aimsPAX.ACTIVE_LEARNING.freeze_threshold_dataset": "inf",
    "aimsPAX.ACTIVE_LEARNING.threshold": "shared",
    "aimsPAX.MD.temperature": "300.0",
    "mace.GENERAL.name_exp": "made up",
}


def recorded(folder: Path) -> Path:
    """A fresh copy of the recorded run."""
    with zipfile.ZipFile(RECORDED) as archive:
        archive.extractall(folder)
    return folder


def made_up(folder: Path, entries: Iterable[Mapping[str, Any]] = (), **settings: str) -> Path:
    """A folder with a journal of these entries and nothing else but settings."""
    restart = folder / "restart"
    restart.mkdir(parents=True)
    keys = {**SETTINGS, **{f"aimsPAX.ACTIVE_LEARNING.{k}": v for k, v in settings.items()}}
    (restart / "settings.json").write_text(
        json.dumps({"format": 1, "settings": keys, "geometries": {"water": "0"}})
    )
    (restart / "journal.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    return folder


def advanced(
    time: float,
    trajectory: int,
    start: int,
    step: int,
    *uncertainty: float,
    fault: str | None = None,
    threshold: float = math.inf,
    decision: str | None = "certain",
) -> dict[str, Any]:
    """A trajectory moved, as the journal tells it; decision "": no check, None: a version that did not write it."""
    work = {"trajectory": trajectory, "start": start, "end": step, "life": 0}
    frame = f"f{trajectory}s{step}"
    content = {"work": work, "step": step, "frame": frame, "uncertainty": list(uncertainty), "fault": fault}
    entry = {"time": time, "stage": "explore", "kind": "Advanced", "content": content}
    if decision is None:
        return entry
    check = {"trajectory": trajectory, "step": step, "uncertainty": max(uncertainty, default=0.0),
             "threshold": threshold, "decision": decision}  # fmt: skip
    return {**entry, "check": check if decision and fault is None else None}


def trained(time: float, visit: int, n_train: int, *maes: float, stage: str = "explore") -> dict[str, Any]:
    """A training visit was over."""
    work = {"visit": visit, "epochs": 1, "member": None}
    content = {"work": work, "n_train": n_train, "valid_loss": list(maes), "force_mae": list(maes)}
    return {"time": time, "stage": stage, "kind": "Trained", "content": content}


def answered(time: float, frame: str, kind: str = "", reason: str = "") -> dict[str, Any]:
    """The reference answered; `kind` is a failure class."""
    content: dict[str, Any] = {"work": {"frame": frame}}
    if kind:
        content |= {"kind": kind, "reason": reason}
    return {
        "time": time,
        "stage": "explore",
        "kind": "LabelFailed" if kind else "Labelled",
        "content": content,
    }
