"""Parses the `#SBATCH` lines of a job script in the same way as `sbatch`: option names and times.

Checked against Slurm 22.05: `getopt_long` accepts unambiguous abbreviations, of several equal options the last one
counts, and lines after the first command are not read.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator

from aims_pax.schedulers.header_lines import refuse_joined, refuse_other_marks

# letter → long name
LETTERS = {
    "a": "array", "A": "account", "b": "begin", "B": "extra-node-info", "c": "cpus-per-task", "C": "constraint",
    "d": "dependency", "D": "chdir", "e": "error", "F": "nodefile", "G": "gpus", "h": "help", "H": "hold",
    "i": "input", "J": "job-name", "k": "no-kill", "L": "licenses", "m": "distribution", "M": "clusters",
    "n": "ntasks", "N": "nodes", "o": "output", "O": "overcommit", "p": "partition", "q": "qos", "Q": "quiet",
    "s": "oversubscribe", "S": "core-spec", "t": "time", "v": "verbose", "V": "version", "w": "nodelist",
    "W": "wait", "x": "exclude",
}  # fmt: skip
# long options without an argument, or with an optional one after =
FLAGS = {
    "contiguous", "exclusive", "get-user-env", "help", "hold", "ignore-pbs", "no-kill", "no-requeue",
    "oversubscribe", "overcommit", "parsable", "propagate", "quiet", "reboot", "requeue", "spread-job",
    "test-only", "usage", "use-min-nodes", "verbose", "version", "wait", "nice", "share",
}  # fmt: skip
KNOWN = FLAGS | set(LETTERS.values()) | {
    "acctg-freq", "batch", "bb", "bbf", "cluster-constraint", "comment", "container", "container-id",
    "cores-per-socket", "cpu-freq", "cpus-per-gpu", "deadline", "delay-boot", "export", "export-file", "gid",
    "gpu-bind", "gpu-freq", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres", "gres-flags", "hint",
    "kill-on-invalid-dep", "mail-type", "mail-user", "mcs-label", "mem", "mem-bind", "mem-per-cpu",
    "mem-per-gpu", "mincpus", "network", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node",
    "ntasks-per-socket", "ntasks-per-tres", "power", "prefer", "priority", "profile", "reservation", "segment",
    "signal", "sockets-per-node", "switches", "tasks-per-node", "thread-spec", "threads-per-core", "time-min",
    "tmp", "tres-bind", "tres-per-task", "uid", "wait-all-nodes", "wckey", "wrap",
}  # fmt: skip


def sbatch_options(header: str) -> dict[str, str]:
    """The options of a job header by their long names; the last of equal options counts. Raises ValueError.

    >>> sbatch_options("#SBATCH -N 2  # nodes\\n#SBATCH --time=1:00:00 --exclusive\\n#SBATCH -t30 --acco=mine")
    {'nodes': '2', 'time': '30', 'exclusive': '', 'account': 'mine'}
    """
    found: dict[str, str] = {}
    for line in sbatch_lines(header):
        found |= dict(_options(line))
    return found


def sbatch_lines(header: str) -> list[str]:
    """The `#SBATCH` lines before the first command. Raises ValueError for others, which Slurm ignores."""
    refuse_other_marks(header, "#SBATCH")
    lines, command = [], None
    for line in header.splitlines():
        refuse_joined(line, "#SBATCH")
        if line.startswith("#SBATCH"):
            if command is not None:
                raise ValueError(
                    f"{line!r} comes after the command {command!r}, where Slurm does not read it; move it up"
                )
            lines.append(line)
        elif line.lstrip().startswith("#SBATCH"):
            raise ValueError(
                f"{line!r} does not begin with #SBATCH, and Slurm does not read it; remove the indentation"
            )
        elif line.strip() and not line.lstrip().startswith("#"):
            command = line.strip()
    return lines


def without_options(line: str, names: set[str]) -> str | None:
    """An `#SBATCH` line without these options, or the line itself if it has none; None if nothing is left."""
    options = list(_options(line))
    others = [(name, value) for name, value in options if name not in names]
    if len(others) == len(options):
        return line
    return None if not others else "#SBATCH " + " ".join(option(name, value) for name, value in others)


def option(name: str, value: str = "") -> str:
    r"""An option in the form that `sbatch` reads, quoted where needed.

    >>> print(option("comment", 'two "words"'), option("requeue"))
    --comment="two \"words\"" --requeue
    """
    if not value:
        return f"--{name}"
    if re.fullmatch(r"[\w.,:/@%+=-]+", value):
        return f"--{name}={value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'--{name}="{escaped}"'


def _options(line: str) -> Iterator[tuple[str, str]]:
    """(long name, value) of each option of one `#SBATCH` line, "" for a flag. Raises ValueError."""
    words = shlex.split(line.removeprefix("#SBATCH"), comments=True)
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = _whole(name)
            other = "--" if name in KNOWN else "-"  # an option of a newer Slurm may be a flag
            if not equals and name not in FLAGS and words and not words[0].startswith(other):
                value = words.pop(0)
            yield name, value
        elif word.startswith("-") and len(word) > 1:
            yield from _letters(word[1:], words)
        else:
            raise ValueError(f"{line!r}: {word!r} is not an option; join values to their options with =")


def _letters(word: str, words: list[str]) -> Iterator[tuple[str, str]]:
    """-N2, -N 2, -Ht30: flags may be grouped in front of an option that takes an argument."""
    while word:
        name, word = LETTERS.get(word[0], word[0]), word[1:]
        if name in FLAGS:
            yield name, ""
            continue
        yield name, word or (words.pop(0) if words else "")
        return


def _whole(name: str) -> str:
    """The full name of an abbreviated option; unknown names are returned unchanged. Raises ValueError if ambiguous."""
    if name in KNOWN:
        return name
    possible = sorted(known for known in KNOWN if known.startswith(name))
    if len(possible) > 1:
        raise ValueError(f"--{name} is ambiguous: it could be --{', --'.join(possible)}; write it out")
    return possible[0] if possible else name


def slurm_seconds(text: str) -> float:
    """Seconds from a time in the format of Slurm; UNLIMITED is inf. Raises ValueError.

    >>> [slurm_seconds(t) for t in ("30", "1:30", "2:00:00", "1-12", "1-12:30", "1-12:30:15")]
    [1800.0, 90.0, 7200.0, 129600.0, 131400.0, 131415.0]
    """
    text = text.strip()
    if text.upper() in ("UNLIMITED", "INFINITE", "-1"):
        return math.inf
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(p.isascii() and p.isdigit() for p in [*parts, *([days] if dash else [])]) or len(parts) > 3:
        raise ValueError(
            f"{text!r} is not a time of Slurm: expected minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS"
        )
    numbers = [float(p) for p in parts]
    if dash:
        hours, minutes, seconds = [*numbers, 0.0, 0.0][:3]
        return ((float(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    if len(numbers) == 1:
        return 60 * numbers[0]
    hours, minutes, seconds = [0.0, *numbers][-3:]
    return (hours * 60 + minutes) * 60 + seconds


def block_walltime(header: str | None) -> float | None:
    """Walltime of a block (s) from its header; None if the header does not set it."""
    written = sbatch_options(header or "").get("time")
    return None if written is None else slurm_seconds(written) or math.inf  # in Slurm, 0 means no limit
