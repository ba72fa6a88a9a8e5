"""`aims-PAX check train.in`: reads the settings and all structures of `aims-PAX gpr` without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aims_pax.commands.gpr.workflow import read_gpr
from aims_pax.settings.gpr_input import KEYS


@dataclass(frozen=True)
class CheckedInput:
    """text: effective settings and verdict. warnings: keys without effect."""

    text: str
    warnings: tuple[str, ...]


def checked_gpr_input(path: Path) -> CheckedInput:
    """Raises SettingsError, SetupError for what `aims-PAX gpr` would refuse."""
    given = read_gpr(path, Path.cwd())
    lines = [f"{name} {given.settings[name]}" for name, key in KEYS.items() if not key.idle]
    verdict = f"check: {len(given.train)} structures to train on, {len(given.test)} to test; `aims-PAX gpr {path}` runs"
    return CheckedInput("\n".join([*lines, verdict]), given.settings.notes)
