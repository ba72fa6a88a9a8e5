"""`aims-PAX check` of the files of `aims-PAX gpr`, `neb`, `relax` and `md`: reads everything, trains nothing."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aims_pax.commands.gpr.workflow import read_gpr
from aims_pax.commands.surrogate.neb import read_neb
from aims_pax.commands.surrogate.observations import prior_mean
from aims_pax.commands.surrogate.relax import read_relax
from aims_pax.commands.surrogate.uncertain_dynamics import read_surrogate_md
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.labelling.factory import reference_of
from aims_pax.models.gp.process import needs_featomic
from aims_pax.models.gp.soap import require_featomic
from aims_pax.settings.gpr_input import KEYS, is_gpr_input
from aims_pax.settings.settings import as_yaml
from aims_pax.settings.surrogate_search import SurrogateSearch, search_of
from aims_pax.settings.yaml_reader import read_document


@dataclass(frozen=True)
class CheckedInput:
    """text: effective settings and verdict. warnings: keys without effect, unusual values."""

    text: str
    warnings: tuple[str, ...]


def checked_surrogate_input(path: Path) -> CheckedInput | None:
    """None for files of other commands. Raises SettingsError, SetupError for what the command would refuse."""
    if is_gpr_input(path):
        return checked_gpr_input(path)
    if path.suffix not in (".yaml", ".yml"):
        return None
    try:
        command = search_of(read_document(path, str(path)))
    except SettingsError:  # said with more words by the commands that read YAML
        return None
    return None if command is None else _checked_search(path, command)


def checked_gpr_input(path: Path) -> CheckedInput:
    """The file of `aims-PAX gpr` and its structures."""
    given = read_gpr(path, Path.cwd())
    lines = [f"{name} {given.settings[name]}" for name, key in KEYS.items() if not key.idle]
    counts = f"{len(given.train)} structures to train on, {len(given.test)} to test"
    verdict = f"check: {counts}; `aims-PAX gpr {shlex.quote(str(path))}` runs"
    return CheckedInput("\n".join([*lines, verdict]), given.settings.notes)


def _neb(path: Path) -> tuple[SurrogateSearch, Frame]:
    search, first, _ = read_neb(path)
    return search, first


_READ: dict[str, Callable[[Path], tuple[SurrogateSearch, Frame]]] = {
    "neb": _neb, "relax": read_relax, "md": read_surrogate_md,
}  # fmt: skip


def _checked_search(path: Path, command: str) -> CheckedInput:
    search, frame = _READ[command](path)
    if needs_featomic([frame]):
        require_featomic()
    prior_mean(search.keys.baseline, frame)
    reference = reference_of(search.reference, [frame])
    text = as_yaml(search.keys.model_dump())
    verdict = f"check: {frame.formula}, {len(frame)} atoms · reference {reference.describe()['type']}"
    return CheckedInput(
        f"{text}{verdict}; `aims-PAX {command} {shlex.quote(str(path))}` runs", search.warnings
    )
