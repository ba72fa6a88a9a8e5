"""Decides whether a finished run has anything to do when it is started again.

`restart/delivered.json` stores the complete settings and, with size and time, the files they name, the snapshots,
datasets and results. If nothing has changed, there is nothing to do. In doubt the run repeats its final steps: that
costs some time and changes nothing.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aims_pax.record.delivery_progress import step_under_way
from aims_pax.record.folder import RunFolder
from aims_pax.record.lock import Lock
from aims_pax.report.html_page import PAGE
from aims_pax.settings import effective
from aims_pax.structure_files.images import split_index
from aims_pax.version import __version__

if TYPE_CHECKING:
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)

FILE = "delivered.json"  # in restart/
Stamps = dict[str, list[int]]


def fingerprint_inputs(settings: Settings) -> dict[str, Any]:
    """The inputs of a run: version, settings, and the files that the settings name. Call it when the run begins."""
    said = effective(settings)
    named = {Path(os.path.join(settings.folder, os.path.expanduser(text))) for text in _texts(said)}
    own = [_without_index(p) for p in named if p != settings.folder]
    modules = [*settings.folder.glob("*.py"), *_packages(settings)]
    return {
        "version": __version__,
        "settings": json.loads(json.dumps(said, default=repr)),
        "inputs": _stamps([*own, *modules], settings.folder),
    }


def save_fingerprint(settings: Settings, begun_with: Mapping[str, Any]) -> None:
    """Store the fingerprint of a finished run. begun_with: result of `fingerprint_inputs` when it began."""
    folder = RunFolder(settings)
    known = {"format": 1, **begun_with, "made": _made(folder), "report": settings.misc.report}
    folder.write_text(folder.restart / FILE, json.dumps(known) + "\n")


def is_up_to_date(settings: Settings) -> bool:
    """Whether the run has finished and nothing has changed since."""
    folder = RunFolder(settings)
    try:
        known = json.loads((folder.restart / FILE).read_text(encoding="utf-8"))
        if known["format"] != 1 or Lock(folder.restart / "lock").holder() is not None:
            return False
        if step_under_way(folder.restart):
            return False
        if known["report"] and not (folder.root / PAGE).exists():
            return False
        return bool(
            {k: known[k] for k in ("version", "settings", "inputs")} == fingerprint_inputs(settings)
            and known["made"] == _made(folder, known["made"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _made(folder: RunFolder, known: Iterable[str] = ()) -> Stamps:
    """Snapshots, datasets, results. known: if given, other files in the result folders are ignored, as users may add
    some."""
    results = [p for p in folder.results.rglob("*") if p.is_file()]
    results += [p for p in folder.model.glob("*") if p.is_file()]
    firm = [*folder.restart.glob("*/*.npy"), *folder.data.glob("*.*")]
    found = _stamps([*firm, *results], folder.root)
    wanted = {*_stamps(firm, folder.root), *known} if known else set(found)
    return {name: stamp for name, stamp in found.items() if name in wanted}


def _texts(value: Any, key: str = "") -> Iterator[str]:
    """Every string of the settings that may be the path of an input, without the folders that the run writes."""
    if isinstance(value, Mapping):
        for k, inner in value.items():
            yield from _texts(inner, str(k))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, key)
    elif isinstance(value, str) and (not key.endswith("_dir") or key == "species_dir"):
        yield value


def _without_index(path: Path) -> Path:
    """The file of a geometry `file@index`; any other text as it is."""
    return split_index(path)[0] if "@" in path.name else path


def _packages(settings: Settings) -> Iterator[Path]:
    """Modules of packages in the working folder that a `factory` or `kind` names."""
    for text in _texts(effective(settings)):
        package, colon, _ = text.partition(":")
        name = package.partition(".")[0]
        if colon and name.isidentifier():
            yield from (settings.folder / name).rglob("*.py")


def _stamps(paths: Iterable[Path], root: Path) -> Stamps:
    """{path: [size, time of the last change in ns]} of files; for a folder, of the files directly in it."""
    found: Stamps = {}
    for path in paths:
        with suppress(OSError):  # unreadable files count as missing; most settings strings are not paths
            if os.path.isdir(path):
                found |= _stamps((p for p in path.iterdir() if p.is_file()), root)
            elif os.path.isfile(path):
                stat = os.stat(path)
                found[os.path.relpath(path, root)] = [stat.st_size, stat.st_mtime_ns]
    return dict(sorted(found.items()))
