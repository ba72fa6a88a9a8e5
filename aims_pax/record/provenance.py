"""The settings that a file or folder was made with, key by key, to be compared before more is added to it.

>>> old = flat_settings({"MD": {"temperature": 300.0}, "of": (1, 2)})
>>> new = flat_settings({"MD": {"temperature": 200.0}, "of": (1, 2)})
>>> changes(old, new)
['MD.temperature: 300.0 → 200.0']
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NAMED = 8  # at most this many changes are listed
LONG = 100  # longest value, in characters


def flat_settings(settings: Mapping[Any, Any]) -> dict[str, str]:
    """{"MD": {"timestep": 0.5}} → {"MD.timestep": "0.5"}; entries of a list of tables have their index as key.
    Values are text, so that infinity and lists can be compared."""
    return dict(_leaves(settings, ""))


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """`key: old value → new value` for every key that differs."""
    differing = [k for k in dict.fromkeys([*old, *new]) if old.get(k) != new.get(k)]
    return [f"{k}: {_short(old.get(k))} → {_short(new.get(k))}" for k in differing]


def provenance_refusal(what: str, differences: list[str], way_out: str) -> str:
    """The error text for data that was made with other settings and therefore cannot be continued."""
    more = len(differences) - NAMED
    lines = [*differences[:NAMED], *([f"… and {more} more"] if more > 0 else [])]
    return (
        f"{what} was made with other settings:\n  " + "\n  ".join(lines) + f"\nUndo the change; or {way_out}"
    )


def _leaves(value: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        place = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, place)
        elif isinstance(inner, list | tuple) and inner and all(isinstance(x, Mapping) for x in inner):
            yield from _leaves(dict(enumerate(inner)), place)
        else:
            yield place, str(list(inner) if isinstance(inner, tuple) else inner)


def _short(value: str | None) -> str:
    if value is None:
        return "not set"
    return value if len(value) <= LONG else f"{value[:LONG]}…"
