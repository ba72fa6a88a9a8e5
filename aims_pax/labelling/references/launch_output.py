"""Finds the file to which a launch command writes the output of its program.

A command may be a small script: several commands, pipes, quotes, other output written to other files.

    >>> written_by("srun aims.x > 'my aims.out' 2> err; date > finished")
    ['my aims.out', 'finished']
    >>> written_by("srun aims.x 2>&1 | tee -a aims.out"), written_by("srun aims.x 2> err")
    (['aims.out'], [])

All such files are candidates; the one that FHI-aims wrote is recognised by its contents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aims_pax.errors import SetupError
from aims_pax.labelling.references.aims_output import GOODBYE, looks_like_output
from aims_pax.schedulers.registry import known_schedulers

OUTPUT = "aims.out"
HEAD = 200_000  # bytes that are searched for marks of FHI-aims
LARGEST = 500_000_000  # bytes; larger files in a calculation's folder are densities and matrices
OURS = ("geometry.in", "control.in", "aims.err", ".aims_pax.json")

_token = re.compile(
    r"""(?P<space>\s+|\\\n)
      |(?P<operator>&>>|&>|\d*>&|\d*>>|\d*>\||\d*>|\d*<<<|\d*<<-?|\d*<&|\d*<|&&|\|\||\|&|[;&|()\n])
      |(?P<word>(?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|\$\([^()]*\)|[^\s;&|()<>"'\\]|["'\\])+)""",
    re.VERBOSE | re.DOTALL,
)
_ends_command = frozenset(("&&", "||", "|&", ";", "&", "|", "(", ")", "\n"))
_nowhere = ("/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty")


def written_by(command: str) -> list[str]:
    """The files, in order, to which a shell command redirects standard output."""
    return list(dict.fromkeys(_targets(command)))


def output_of(folder: Path, command: str, own: Path) -> Path | None:
    """The file in a calculation's folder with the output of FHI-aims, or None while there is no output.

    own: the file of the command's standard output. Raises SetupError when there are two different outputs.
    """
    named = [folder / name for name in written_by(command)]
    mentioned = [folder / OUTPUT] if OUTPUT in command else []
    for candidates in ([*named, *mentioned, own], sorted(_others(folder))):
        found = [path for path in dict.fromkeys(candidates) if _of_aims(path)]
        within = [path for path in found if path.resolve().is_relative_to(folder.resolve())]
        if within:
            return _only(within)
        if found:
            raise SetupError(
                f"CLUSTER.launch_str: FHI-aims writes to {found[0]}, one file for all calculations; redirect its "
                f"output to a file in the calculation's folder, like {OUTPUT}"
            )
    return next((path for path in [*named, *mentioned, own] if _size(path)), None)


def begun(folder: Path, command: str, own: Path) -> bool:
    """Whether the program has started: whether the first line of its output is there."""
    named = [folder / name for name in written_by(command)] or [own]
    if len(named) == 1:
        return _size(named[0]) > 0
    return any(_of_aims(path) for path in named)


def redirects(command: str) -> bool:
    """Whether the command itself sends its output to a file."""
    return bool(written_by(command)) or OUTPUT in command


@dataclass
class SimpleCommand:
    """Part of a shell command: its words, the files of its standard output, and the operator that ends it, "" for the
    last."""

    words: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    end: str = ""


def simple_commands(command: str) -> list[SimpleCommand]:
    """The parts of a shell command that are no empty lines.

    >>> [(one.words, one.files, one.end) for one in simple_commands("module load x; srun aims.x > aims.out &")]
    [(['module', 'load', 'x'], [], ';'), (['srun', 'aims.x'], ['aims.out'], '&')]
    """
    found = [SimpleCommand()]
    redirection = ""
    for token in _token.finditer(command):
        operator, space = token["operator"] or "", token["space"] or ""
        if token["word"]:
            word = _unquoted(token["word"])
            if not redirection:
                found[-1].words.append(word)
            elif _is_stdout(redirection) and _is_file(word):
                found[-1].files.append(word)
            redirection = ""
        elif operator in _ends_command or ("\n" in space and not space.startswith("\\")):
            found[-1].end = operator.strip()
            found.append(SimpleCommand())
            redirection = ""
        elif operator:
            redirection = operator
    return [one for one in found if one.words or one.files]


def _targets(command: str) -> Iterator[str]:
    for one in simple_commands(command):
        yield from one.files
        yield from _of_simple(one.words)


def _of_simple(words: list[str]) -> Iterator[str]:
    """Files that a command writes because of its options: tee FILE, a scheduler's launcher, bash -c "… > FILE"."""
    names = [word.rsplit("/", 1)[-1] for word in words]
    if "tee" in names:
        yield from (w for w in words[names.index("tee") + 1 :] if not w.startswith("-") and _is_file(w))
    for scheduler in known_schedulers().values():
        yield from filter(_is_file, scheduler.launcher_outputs(words))
    if {"bash", "sh"} & set(names) and "-c" in words[:-1]:
        yield from _targets(words[words.index("-c") + 1])


def _is_stdout(operator: str) -> bool:
    descriptor = re.match(r"\d*", operator)
    return ">" in operator and (descriptor is None or descriptor[0] in ("", "1"))


def _is_file(word: str) -> bool:
    """Whether a word is a file name: not a descriptor (`>&2`), a device, or a name that only the shell can expand."""
    return bool(word) and not (
        word.isdigit() or word == "-" or word in _nowhere or re.search(r"[$`*?]", word)
    )


def _unquoted(word: str) -> str:
    return re.sub(r"'([^']*)'|\"((?:\\.|[^\"\\])*)\"|\\(.)", lambda m: m[1] or m[2] or m[3] or "", word)


def _others(folder: Path) -> Iterable[Path]:
    """Files that a user's script may have written in a folder; not those of an earlier attempt (aims.out.0)."""
    return [
        p
        for p in folder.iterdir()
        if p.is_file() and p.name not in OURS and not re.search(r"\.\d+$", p.name) and _size(p) <= LARGEST
    ]


def _of_aims(path: Path) -> bool:
    try:
        with open(path, errors="replace") as file:
            return looks_like_output(file.read(HEAD))
    except OSError:
        return False


def _only(found: list[Path]) -> Path:
    """One of several outputs: the finished one. Several finished ones must have the same text."""
    if len(found) == 1:
        return found[0]
    texts = {path: path.read_text(errors="replace") for path in found}
    finished = [path for path in found if GOODBYE in texts[path]] or found[:1]
    if len({texts[path] for path in finished}) > 1:
        raise SetupError(
            f"CLUSTER.launch_str: {' and '.join(p.name for p in finished)} are both outputs of FHI-aims, and they "
            "differ; change the command so that it writes one"
        )
    return finished[0]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
