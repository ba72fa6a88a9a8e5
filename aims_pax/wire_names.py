"""Names of events, states and failures in files, independent of their names in the code.

Later versions must be able to read an old journal, snapshot or quarantine. So a class or a field may be renamed in the
code, but its name in files must not change:

>>> from dataclasses import dataclass
>>> @in_files("Trajectory", restart_frame="home")
... @dataclass(frozen=True)
... class Trajectory:
...     restart_frame: str
>>> name_in_files(Trajectory), field_in_files(Trajectory, "restart_frame")
('Trajectory', 'home')
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T", bound=type)

_classes: dict[type, str] = {}
_fields: dict[type, dict[str, str]] = {}  # class → field in the code → name in files


def in_files(name: str, **fields: str) -> Callable[[T], T]:
    """Set the name of a class in files, and names in files for fields whose name in the code is different."""

    def mark(kind: T) -> T:
        _classes[kind] = name
        _fields[kind] = fields
        return kind

    return mark


def name_in_files(kind: type) -> str:
    """The name of a class in files. Raises LookupError for a class without one."""
    if kind not in _classes:
        raise LookupError(f"{kind.__name__} has no name in files: write @in_files(...) above it")
    return _classes[kind]


def field_in_files(kind: type, field: str) -> str:
    """The name of a field of this class in files; by default its name in the code."""
    return _fields.get(kind, {}).get(field, field)
