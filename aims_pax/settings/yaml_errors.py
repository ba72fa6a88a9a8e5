"""Error messages for invalid YAML, in words for users who write it by hand, with the line quoted."""

from __future__ import annotations

import re

import yaml

KEY = re.compile(r"\s*(- +)?[\w.-]+\s*:(\s|$)")
BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # line breaks in YAML
SHOWN = 100  # characters of a line that are shown


def explain_yaml_error(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    """(line, counted from 1; what is wrong there and how to correct it)."""
    lines = BREAK.split(text)
    at = error.problem_mark or error.context_mark
    here = at.line if at is not None else 0
    start = error.context_mark.line if error.context_mark is not None else here
    k, words = _words(error, lines, min(here, len(lines) - 1), min(start, len(lines) - 1))
    k = min(k, len(lines) - 1)
    shown = lines[k].rstrip().replace("\t", "→")
    return k + 1, f"{words}\n    {shown[:SHOWN]}{'…' if len(shown) > SHOWN else ''}"


def _words(error: yaml.MarkedYAMLError, lines: list[str], here: int, start: int) -> tuple[int, str]:
    """(line, counted from 0; message)."""
    said, context = error.problem or "", error.context or ""
    before = next(
        (k for k in range(here - 1, -1, -1) if lines[k].strip() and lines[k].strip()[0] != "#"), here
    )
    tabbed = next((k for k in (here, start, before) if re.match(r" *\t", lines[k])), None)
    if "'\\t'" in said or tabbed is not None:
        return here if tabbed is None else tabbed, "a tab; YAML needs spaces for indentation"
    if "expected a single document" in str(error):
        return here, "a second document (---); expected one"
    if "quoted scalar" in context:
        return start, "a quote is opened here but never closed"
    if "flow sequence" in context or "flow mapping" in context:
        kind = (
            "[ is opened here but never closed"
            if "sequence" in context
            else "{ is opened here but never closed"
        )
        return start, f"{kind}, or a comma is missing between its entries"
    if "flow node" in context:
        return here, "[ or { is opened but never closed, or a value is missing"
    if "could not find expected ':'" in said:
        return _without_colon(lines, start)
    if "mapping values are not allowed" in said:
        return _nested(lines, here, before)
    if "found character" in said:
        character = said.partition("'")[2].partition("'")[0]
        return here, f"a value cannot begin with {character}; put the value in quotes"
    if "undefined alias" in said or "scanning an" in context:  # an alias or an anchor
        return here, "a value cannot begin with * or &; put the value in quotes"
    if "block end" in said or "block mapping" in context or "block collection" in context:
        return _crooked(lines, here, before, start)
    return here, f"not YAML: {said or context or 'cannot be read'}"


def _without_colon(lines: list[str], k: int) -> tuple[int, str]:
    if re.match(r"\s*(- +)?[\w.-]+:\S", lines[k]):
        return k, "no space after the colon; expected key: value"
    return k, "no colon; expected key: value"


def _nested(lines: list[str], here: int, before: int) -> tuple[int, str]:
    """`a: b: c`, or a key that is indented deeper than a line that already has a value."""
    if not KEY.match(lines[before]) and before < here:
        return _without_colon(lines, before)
    value = lines[here].partition(":")[2]
    if ": " in value or value.rstrip().endswith(":"):
        return here, "a second colon in one line; put the value in quotes, or start a new line"
    return (
        here,
        f"indented deeper than line {before + 1}, which already has a value; align it with its neighbours",
    )


def _crooked(lines: list[str], here: int, before: int, start: int) -> tuple[int, str]:
    """A line whose indentation fits neither its table nor an enclosing one."""
    if not KEY.match(lines[here]) and not lines[here].lstrip().startswith("-"):
        return _without_colon(lines, here)
    if before < here and not KEY.match(lines[before]) and not lines[before].lstrip().startswith("-"):
        return _without_colon(lines, before)

    def depth(k: int) -> int:
        return len(lines[k]) - len(lines[k].lstrip(" "))

    if lines[here].lstrip().startswith("-") != lines[start].lstrip().startswith("-"):
        return here, f"a list entry (-) and key: value cannot be mixed; compare with line {start + 1}"
    words = f"{depth(before)} spaces before line {before + 1}, {depth(here)} before this one"
    return here, f"{words}; all keys of one table must have the same indentation"
