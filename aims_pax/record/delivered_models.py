"""Which model files a run has delivered: `results/models.json`, with the SHA-256 of each and what it is made of.

A `.model` file is a pickle, and reading a pickle can execute arbitrary code. So a file found in a folder is opened
only when its SHA-256 is that of a file the run has written there; any other must be named by the user.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

FILE = "models.json"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of `results/models.json`. models: {path relative to results/: {sha256, architecture, …}}."""
    return json.dumps({"format": 1, "models": {name: dict(m) for name, m in models.items()}}, indent=1) + "\n"


def recorded_models(results: Path) -> dict[str, dict[str, Any]]:
    """The recorded entries for the models of a results folder; {} when there is no record, or it cannot be read."""
    try:
        stored = json.loads((results / FILE).read_text(encoding="utf-8"))
        models = stored["models"]
        return {str(name): dict(m) for name, m in models.items()} if stored["format"] == 1 else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def delivered_files(results: Path) -> list[Path]:
    """The model files directly in a results folder: those recorded and every `*.model`; subfolders are left out."""
    recorded = [results / name for name in recorded_models(results) if "/" not in name]
    return sorted({*(p for p in recorded if p.is_file()), *results.glob("*.model")})


def models_of_run(results: Path) -> list[Path]:
    """The model files that the run delivered; without a record every `*.model` in the folder."""
    recorded = [results / name for name in recorded_models(results) if "/" not in name]
    return sorted(p for p in recorded or results.glob("*.model") if p.is_file())


def remove_replaced(results: Path, names: Collection[str]) -> list[Path]:
    """Remove the models of an earlier end of this run that are not among `names`, with their cards; returns them.

    names: paths relative to results/. A file that the run did not write, or that was changed since, stays.
    """
    removed = []
    for name, entry in recorded_models(results).items():
        path = results / name
        if name not in names and path.is_file() and entry.get("sha256") == file_digest(path):
            path.with_suffix(".md").unlink(missing_ok=True)
            path.unlink()
            removed.append(path)
    return removed


def is_ours(path: Path) -> bool:
    """Whether this file is, by its SHA-256, one that the run of this results folder wrote."""
    recorded = recorded_models(path.parent).get(path.name, {}).get("sha256")
    return recorded is not None and recorded == file_digest(path)
