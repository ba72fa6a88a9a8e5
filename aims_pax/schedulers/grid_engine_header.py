"""The head of a Grid Engine job script as `qsub` reads it: its `#$` lines and their options.

Checked against 8.1.9: lines are read anywhere in the script, also behind commands; a line that does not begin with `#$`
is none; the last of several equal resources counts; behind a quote the rest of a line is one word.
"""

from __future__ import annotations

import math
import re

from aims_pax.schedulers.header_lines import HeaderOption, HeaderSyntax, resources

ARGUMENTS = {
    "a": 1, "ac": 1, "ar": 1, "A": 1, "b": 1, "binding": 1, "c": 1, "ckpt": 1, "clear": 0, "cwd": 0, "C": 1, "dc": 1,
    "display": 1, "dl": 1, "e": 1, "h": 0, "hard": 0, "help": 0, "hold_jid": 1, "hold_jid_ad": 1, "i": 1,
    "inherit": 0, "j": 1, "js": 1, "jsv": 1, "l": 1, "m": 1, "M": 1, "masterq": 1, "N": 1, "noshell": 0,
    "nostdin": 0, "notify": 0, "now": 1, "o": 1, "ot": 1, "P": 1, "p": 1, "pe": 2, "pty": 1, "q": 1, "R": 1, "r": 1,
    "sc": 1, "shell": 1, "soft": 0, "sync": 1, "S": 1, "t": 1, "tc": 1, "terse": 0, "u": 1, "v": 1,
    "V": 0, "verbose": 0, "verify": 0, "w": 1, "wd": 1,
}  # fmt: skip
SYNTAX = HeaderSyntax(
    "#$", "qsub", ARGUMENTS, {"h": r"[usonUOS]+", "binding": r"(linear|striding|explicit).*"}, anywhere=True
)
TIMES = ("h_rt", "s_rt")


def qsub_lines(header: str) -> list[str]:
    """The `#$` lines. Raises ValueError for one that Grid Engine reads otherwise than it looks."""
    lines = SYNTAX.lines(header)
    for line in lines:
        text = line.removeprefix(SYNTAX.directive)
        quoted = re.search(r"[\"'].*[\"']", text)
        behind = "" if quoted is None else text[quoted.end() :].strip()
        if behind and not behind.startswith("#"):
            raise ValueError(
                f"{line!r}: Grid Engine takes all that follows a quote for one word; give what stands behind it a "
                "line of its own"
            )
    return lines


def qsub_options(header: str) -> list[HeaderOption]:
    """The options of a job header, in their order. Raises ValueError.

    >>> [(o.name, *o.arguments) for o in qsub_options("#$ -pe smp 4 -cwd # here\\n#$ -l h_rt=1:0:0,mem_free=2G")]
    [('pe', 'smp', '4'), ('cwd',), ('l', 'h_rt=1:0:0,mem_free=2G')]
    """
    return [option for line in qsub_lines(header) for option in SYNTAX.options(line)]


def hard_resources(options: list[HeaderOption]) -> dict[str, str]:
    """What `-l` asks for where no `-soft` stands before it. Raises ValueError for a resource with two values."""
    hard, values = True, []
    for option in options:
        hard = option.name == "hard" or (hard and option.name != "soft")
        if option.name == "l" and hard:
            values.append(option.value)
    return resources(values)


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


def block_limit(options: list[HeaderOption]) -> float | None:
    """Seconds that a job may run: the smaller of h_rt and s_rt, None where neither is asked for. Raises ValueError."""
    asked = hard_resources(options)
    return min((grid_engine_seconds(asked[name]) for name in TIMES if name in asked), default=None)
