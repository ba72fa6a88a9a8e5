"""Suggestions for error messages: the nearest known word, the nearest file name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably intended, ignoring case; None if no word is similar."""
    by_case = {k.lower(): k for k in known}
    found = difflib.get_close_matches(str(word).lower(), by_case, n=1, cutoff=0.6)
    return by_case[found[0]] if found else None


def no_such(path: Path, what: str = "file") -> str:
    """`no such file; nearest: aimsPAX.yaml`, with the nearest name in the same folder; or what there is instead."""
    try:
        if path.exists():
            return "a folder; expected a file" if path.is_dir() else f"a file; expected a {what}"
        there = [p.name for p in path.parent.iterdir() if p.is_dir() == (what == "folder")]
    except OSError:
        return f"no such {what}"
    near = nearest(path.name, [name for name in there if not name.startswith(".")])
    return f"no such {what}" + (f"; nearest: {path.with_name(near)}" if near else "")
