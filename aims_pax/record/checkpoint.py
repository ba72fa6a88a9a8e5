"""Snapshots of one stage in `restart/<stage>/`, from which a run is restarted.

A snapshot is a small file `state-<generation>.npy` (state, trajectories, frames being labelled) that names the large
file it belongs to, `weights-<version>.npy`. Large files are written first; the rename of the small one commits.
The newest two snapshots remain: if the newest one is damaged, the one before it is read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from aims_pax.errors import RestartError
from aims_pax.record.arrays import Torn, pack_arrays, unpack_arrays
from aims_pax.record.folder import RunFolder
from aims_pax.wire_names import field_in_files

log = logging.getLogger(__name__)
T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]

KEEP = 2  # snapshots


@dataclass(frozen=True)
class Snapshot:
    """One committed snapshot: the state as plain JSON values, small arrays, weights, and free remarks."""

    state: Any
    arrays: dict[str, NDArray[Any]]
    weights: dict[str, NDArray[Any]]
    version: int
    remarks: dict[str, Any]


class Checkpoint:
    """Snapshots of one stage."""

    def __init__(self, folder: RunFolder, stage: str) -> None:
        self.folder = folder
        self.path = folder.restart / stage
        self._generation = max(self._generations(), default=0)
        self._version: int | None = None  # of the weights file that this process last read or wrote

    def write(
        self,
        state: Any,
        arrays: Arrays,
        version: int,
        weights: Callable[[], Arrays],
        remarks: Mapping[str, Any],
    ) -> None:
        """Commit a snapshot. `weights` is called only if this process did not read or write this version last.

        That a file of that name exists proves nothing: a killed process may have left it, or it may be damaged.
        """
        if version != self._version:
            heavy = self.path / f"weights-{version:06d}.npy"
            self.folder.write_bytes(heavy, pack_arrays(weights(), {"version": version}))
            self._version = version
        meta = {"state": to_plain(state), "version": version, "remarks": dict(remarks)}
        self._generation += 1
        self.folder.write_bytes(self.path / f"state-{self._generation:06d}.npy", pack_arrays(arrays, meta))
        self._forget(version)

    def read(self) -> Snapshot | None:
        """The newest readable snapshot, or None when there are no snapshots.

        Raises RestartError when there are snapshots and none can be read.
        """
        reasons = []
        for generation in sorted(self._generations(), reverse=True):
            path = self.path / f"state-{generation:06d}.npy"
            try:
                arrays, meta = unpack_arrays(path.read_bytes())
                version = int(meta["version"])
                weights, _ = unpack_arrays((self.path / f"weights-{version:06d}.npy").read_bytes())
            except (Torn, OSError, KeyError) as error:
                log.warning("%s cannot be read (%s); trying the snapshot before it", path, error)
                reasons.append(f"{path.name}: {error}")
                continue
            self._version = version
            return Snapshot(meta["state"], arrays, weights, version, meta["remarks"])
        if reasons:
            raise RestartError(
                f"no snapshot in {self.path} can be read ({'; '.join(reasons)}); move that folder away to begin "
                "this stage again: finished reference calculations are stored and not repeated"
            )
        return None

    def _generations(self) -> list[int]:
        return [int(p.stem.split("-")[1]) for p in self.path.glob("state-*.npy")]

    def _forget(self, version: int) -> None:
        """Remove all snapshots but the newest two, and the weights that only the removed ones used."""
        generations = sorted(self._generations())
        for generation in generations[:-KEEP]:
            (self.path / f"state-{generation:06d}.npy").unlink(missing_ok=True)
        needed = {version}
        for generation in generations[-KEEP:]:
            try:
                _, meta = unpack_arrays((self.path / f"state-{generation:06d}.npy").read_bytes())
                needed.add(int(meta["version"]))
            except (Torn, OSError):
                continue  # damaged: it refers to no weights
        for path in self.path.glob("weights-*.npy"):
            if int(path.stem.split("-")[1]) not in needed:
                path.unlink(missing_ok=True)


def discard(folder: RunFolder, stage: str) -> None:
    """Remove the snapshots of a stage that has to begin again."""
    path = folder.restart / stage
    for file in sorted(path.glob("state-*.npy")) + sorted(path.glob("weights-*.npy")):
        file.unlink()


def to_plain(value: Any) -> Any:
    """Frozen dataclasses, tuples and numbers as JSON values; fields keep their order."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        return {field_in_files(kind, f.name): to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    return value


def from_plain(kind: type[T], value: Any) -> T:
    """The inverse of `to_plain` for a dataclass. Raises RestartError when the values do not match its fields."""
    try:
        made: T = _adapter(kind).validate_python(_named_as_in_code(kind, value))  # type: ignore[arg-type]
        return made
    except ValidationError as error:
        raise RestartError(f"the restart files do not match this version of aims-PAX: {error}") from error


def _named_as_in_code(kind: Any, value: Any) -> Any:
    """Plain values of this type, with field names as in files replaced by those in the code."""
    if is_dataclass(kind) and isinstance(value, dict):
        hints = _hints(kind)  # type: ignore[arg-type]
        names = {field_in_files(kind, name): name for name in hints}  # type: ignore[arg-type]
        renamed = {str(names.get(key, key)): one for key, one in value.items()}
        return {name: _named_as_in_code(hints.get(name), one) for name, one in renamed.items()}
    arguments = get_args(kind)
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        each = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(each) == len(value):
            return [_named_as_in_code(one, v) for one, v in zip(each, value, strict=True)]
    if isinstance(kind, UnionType) and isinstance(value, dict):
        return _named_as_in_code(next((one for one in arguments if is_dataclass(one)), None), value)
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def to_line(value: Any) -> str:
    """One line of JSON; infinity and NaN as Python's json writes them."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def exists(path: Path) -> bool:
    """Whether this folder of a stage holds a snapshot."""
    return any(path.glob("state-*.npy"))
