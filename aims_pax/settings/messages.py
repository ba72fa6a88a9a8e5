"""Error messages for single keys of a table."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic_core import ErrorDetails

from aims_pax.settings.fields import Section
from aims_pax.suggestions import nearest


def in_words(detail: ErrorDetails, model: type[Section], elsewhere: str = "") -> str:
    """One validation error of a table read by `model`, as text.

    elsewhere: words for where an unknown key belongs.
    """
    name = str(detail["loc"][-1]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        return (
            f"unknown key here; {elsewhere}"
            if elsewhere
            else f"unknown key; {hint(name, model.model_fields)}"
        )
    if detail["type"] == "missing":
        return f"mandatory. {model.model_fields[name].description}"
    error = detail.get("ctx", {}).get("error")
    return str(error) if error is not None else detail["msg"]


def hint(name: str, known: Iterable[str]) -> str:
    """`nearest: …`, or all known names.

    >>> hint("temprature", ["temperature", "timestep"]), hint("x", ["temperature", "timestep"])
    ('nearest: temperature', 'known: temperature, timestep')
    """
    known = list(known)
    near = nearest(name, known)
    return f"nearest: {near}" if near else f"known: {', '.join(known)}"
