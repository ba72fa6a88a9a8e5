"""The head of a Grid Engine job script as `qsub` reads it: its `#$` lines and their options.

Checked against 8.1.9: lines are read anywhere in the script, also behind commands; a line that does not begin with `#$`
is none; the last of several equal resources counts; behind a quote the rest of a line is one word.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

DIRECTIVE = "#$"
ARGUMENTS = {
    "a": 1, "ac": 1, "ar": 1, "A": 1, "b": 1, "binding": 1, "c": 1, "ckpt": 1, "clear": 0, "cwd": 0, "C": 1, "dc": 1,
    "display": 1, "dl": 1, "e": 1, "h": 0, "hard": 0, "help": 0, "hold_jid": 1, "hold_jid_ad": 1, "i": 1,
    "inherit": 0, "j": 1, "js": 1, "jsv": 1, "l": 1, "m": 1, "M": 1, "masterq": 1, "mods": 3, "N": 1, "noshell": 0,
    "nostdin": 0, "notify": 0, "now": 1, "o": 1, "ot": 1, "P": 1, "p": 1, "pe": 2, "pty": 1, "q": 1, "R": 1, "r": 1,
    "rsh_inherit": 0, "sc": 1, "shell": 1, "soft": 0, "sync": 1, "S": 1, "t": 1, "tc": 1, "terse": 0, "u": 1, "v": 1,
    "V": 0, "verbose": 0, "verify": 0, "w": 1, "wd": 1,
}  # fmt: skip
OPTIONAL = {
    "h": r"[usonUOS]+",
    "binding": r"(set|env|pe|linear|striding|explicit).*",
}  # words that may follow
TIMES = ("h_rt", "s_rt")


@dataclass(frozen=True)
class QsubOption:
    """One option of a line, with its arguments; hard: no `-soft` stands before it."""

    name: str
    arguments: tuple[str, ...]
    hard: bool = True

    def line(self) -> str:
        """As qsub reads it back, on a line of its own."""
        words = [w if re.fullmatch(r"[^\s\"']+", w) else f'"{w}"' for w in self.arguments]
        return f"{DIRECTIVE} {' '.join([f'-{self.name}', *words])}"


def qsub_options(header: str) -> list[QsubOption]:
    """The options of a job header, in their order. Raises ValueError.

    >>> [(o.name, *o.arguments) for o in qsub_options("#$ -pe smp 4 -cwd # here\\n#$ -l h_rt=1:0:0,mem_free=2G")]
    [('pe', 'smp', '4'), ('cwd',), ('l', 'h_rt=1:0:0,mem_free=2G')]
    """
    found: list[QsubOption] = []
    hard = True
    for line in header.splitlines():
        if line.startswith(DIRECTIVE):
            for option in line_options(line):
                hard = option.name == "hard" or (hard and option.name != "soft")
                found.append(QsubOption(option.name, option.arguments, hard))
        elif line.lstrip().startswith(DIRECTIVE):
            raise ValueError(
                f"{line!r}: Grid Engine reads no line that does not begin with #$; move it to the left"
            )
    return found


def line_options(line: str) -> Iterator[QsubOption]:
    """Of one `#$` line. Raises ValueError."""
    text = line.removeprefix(DIRECTIVE)
    closed = re.search(r"[\"'].*[\"']", text)
    if (
        closed is not None
        and text[closed.end() :].strip()
        and not text[closed.end() :].lstrip().startswith("#")
    ):
        raise ValueError(
            f"{line!r}: Grid Engine takes all that follows a quote for one word; give what stands behind it a line "
            "of its own"
        )
    words = shlex.split(text, comments=True)
    while words:
        word = words.pop(0)
        name = word.removeprefix("-")
        if not word.startswith("-") or name not in ARGUMENTS:
            raise ValueError(f"{line!r}: {word!r} is no option of qsub")
        count = ARGUMENTS[name]
        arguments, words = words[:count], words[count:]
        if len(arguments) < count or any(a.startswith("-") and a[1:] in ARGUMENTS for a in arguments):
            raise ValueError(f"{line!r}: -{name} needs {count} argument{'s' if count > 1 else ''}")
        while words and name in OPTIONAL and re.fullmatch(OPTIONAL[name], words[0]):
            arguments.append(words.pop(0))
        yield QsubOption(name, tuple(arguments))


def hard_resources(options: list[QsubOption]) -> dict[str, str]:
    """What `-l` asks for. Raises ValueError for a resource with two values."""
    found: dict[str, str] = {}
    for option in options:
        if option.name != "l" or not option.hard:
            continue
        for part in filter(None, option.arguments[0].split(",")):
            name, _, value = part.partition("=")
            if found.get(name, value) != value:
                raise ValueError(
                    f"-l {name}={found[name]} and -l {name}={value} contradict each other; keep one"
                )
            found[name] = value
    return found


def grid_engine_seconds(text: str) -> float:
    """Seconds of a time as Grid Engine reads it. Raises ValueError.

    >>> [grid_engine_seconds(t) for t in ("90", "12:00:00", "::30", "1::", "INFINITY")]
    [90.0, 43200.0, 30.0, 3600.0, inf]
    """
    text = text.strip()
    if text.upper() == "INFINITY":
        return math.inf
    parts = text.split(":")
    if (
        len(parts) not in (1, 3)
        or not all(re.fullmatch(r"\d*", p, re.ASCII) for p in parts)
        or not any(parts)
    ):
        raise ValueError(f"{text!r} is not a time of Grid Engine: seconds, HH:MM:SS or INFINITY")
    numbers = [float(p or 0) for p in parts]
    return numbers[0] if len(numbers) == 1 else (numbers[0] * 60 + numbers[1]) * 60 + numbers[2]


def block_limit(options: list[QsubOption]) -> float | None:
    """Seconds that a job may run: the smaller of h_rt and s_rt, None where neither is asked for. Raises ValueError."""
    asked = hard_resources(options)
    times = [grid_engine_seconds(asked[name]) for name in TIMES if name in asked]
    return min(times, default=None)
