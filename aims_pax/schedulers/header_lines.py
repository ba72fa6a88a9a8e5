"""Lines of a job script that hold options of the submit command: `#$ -l h_rt=60`, `#PBS -q short`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

# options with the mark of any scheduler, in any case, or with none
OPTIONS = re.compile(r"\s*(#?(SBATCH|PBS|BSUB)|#\$)?\s*-{1,2}[a-z]", re.IGNORECASE)


@dataclass(frozen=True)
class HeaderOption:
    """An option without its hyphen, and its arguments."""

    name: str
    arguments: tuple[str, ...] = ()

    @property
    def value(self) -> str:
        """The first argument, "" for a flag."""
        return self.arguments[0] if self.arguments else ""


@dataclass(frozen=True)
class HeaderSyntax:
    """How one scheduler reads these lines.

    arguments: option → number of its arguments. optional: option → pattern of optional further arguments.
    joined: the first argument may be joined to a one-letter option, and flags may be grouped (-lselect=1).
    anywhere: lines after the first command are read, too.
    """

    directive: str
    command: str  # the submit command, for messages: qsub
    arguments: Mapping[str, int]
    optional: Mapping[str, str]
    joined: bool = False
    anywhere: bool = False

    def lines(self, header: str) -> list[str]:
        """The lines that hold options. Raises ValueError for a line that the scheduler would ignore."""
        refuse_other_marks(header, self.directive)
        found: list[str] = []
        first = None  # command
        for line in header.splitlines():
            refuse_joined(line, self.directive)
            if line.startswith(self.directive):
                if first is not None and not self.anywhere:
                    raise ValueError(
                        f"{line!r} comes after the command {first!r} and is not read there; move it up"
                    )
                found.append(line)
            elif line.lstrip().startswith(self.directive):
                raise ValueError(
                    f"{line!r} does not begin with {self.directive} and is not read; remove the indentation"
                )
            elif line.strip() and not line.lstrip().startswith("#"):
                first = line.strip()
        return found

    def options(self, line: str) -> list[HeaderOption]:
        """The options of one line. Raises ValueError.

        >>> pbs = HeaderSyntax("#PBS", "qsub", {"l": 1, "V": 0}, {}, joined=True)
        >>> pbs.options("#PBS -V -lselect=2 -l 'walltime=1:0:0' # mine")[1:]
        [HeaderOption(name='l', arguments=('select=2',)), HeaderOption(name='l', arguments=('walltime=1:0:0',))]
        """
        words = shlex.split(line.removeprefix(self.directive), comments=True)
        found = []
        while words:
            name = self._name(words, line)
            count = self.arguments[name]
            arguments, words = words[:count], words[count:]
            if len(arguments) < count or any(
                a.startswith("-") and a[1:] in self.arguments for a in arguments
            ):
                raise ValueError(f"{line!r}: -{name} needs {count} argument{'s' if count > 1 else ''}")
            while words and name in self.optional and re.fullmatch(self.optional[name], words[0]):
                arguments.append(words.pop(0))
            found.append(HeaderOption(name, tuple(arguments)))
        return found

    def _name(self, words: list[str], line: str) -> str:
        """Name of the next option; removes it from the words and puts a joined argument back."""
        word = words.pop(0)
        name = word.removeprefix("-")
        if word.startswith("-") and name in self.arguments:
            return name
        if word.startswith("-") and self.joined and name[:1] in self.arguments:
            words.insert(0, name[1:] if self.arguments[name[0]] else f"-{name[1:]}")
            return name[0]
        raise ValueError(f"{line!r}: {word!r} is not an option of {self.command}")

    def without(self, line: str, names: Collection[str]) -> str | None:
        """A line without these options (one option per line), or the line itself if it has none; None if empty."""
        options = self.options(line)
        others = [option for option in options if option.name not in names]
        if len(others) == len(options):
            return line
        return "\n".join(self.written(option) for option in others) or None

    def written(self, option: HeaderOption) -> str:
        """An option on a line of its own, quoted where needed."""
        words = [w if re.fullmatch(r"[^\s\"'#]+", w) else _in_quotes(w) for w in option.arguments]
        return f"{self.directive} {' '.join([f'-{option.name}', *words])}"


def refuse_joined(line: str, directive: str) -> None:
    """Raise ValueError for lines of a header that YAML has joined into one: the scheduler would read the first only."""
    ours = re.escape(directive)
    if re.match(rf"(#!|{ours})[^#]*(\s|\\n){ours}[\s-]", line):
        raise ValueError(f"{line!r}: several lines in one; begin the text with | instead of > or quotes")


def refuse_other_marks(header: str, directive: str) -> None:
    """Raise ValueError for options behind the mark of another scheduler, behind a misspelt one, or behind none.

    >>> refuse_other_marks("# SBATCH --time=1:00  (switched off)", "#SBATCH")
    >>> refuse_other_marks("#sbatch --time=1:00", "#SBATCH")
    Traceback (most recent call last):
    ValueError: '#sbatch --time=1:00' holds options, but does not begin with #SBATCH; write it so, or remove the line
    """
    lines = header.replace("\\\n", " ").splitlines()  # a command may be continued on the next line
    for k, line in enumerate(lines):
        if line.lstrip().startswith(directive) or not OPTIONS.match(line):
            continue
        if not _quote_is_open(lines[:k]):
            raise ValueError(
                f"{line!r} holds options, but does not begin with {directive}; write it so, or remove the line"
            )


def _quote_is_open(lines: Iterable[str]) -> bool:
    """Whether a quote is still open after these lines of a shell script."""
    try:
        shlex.split("\n".join(lines), comments=True)
    except ValueError:
        return True
    return False


def _in_quotes(word: str) -> str:
    return f"'{word}'" if '"' in word else f'"{word}"'


def refuse(options: Iterable[HeaderOption], refused: Mapping[str, str]) -> None:
    """Raise ValueError for an option that is not allowed for a block. refused: option → why."""
    for option in options:
        if option.name in refused:
            raise ValueError(f"{refused[option.name]}: remove -{option.name}")


def replaced(options: Iterable[HeaderOption], ours: Collection[str]) -> tuple[str, ...]:
    """The options that aims-PAX sets itself, with their hyphen."""
    return tuple(f"-{name}" for name in sorted({option.name for option in options} & set(ours)))


def resources(values: Iterable[str]) -> dict[str, str]:
    """`a=1,b=2` from several options as one dict. Raises ValueError for a resource with two values.

    >>> resources(["h_rt=60,mem_free=2G", "exclusive"])
    {'h_rt': '60', 'mem_free': '2G', 'exclusive': ''}
    """
    found: dict[str, str] = {}
    for part in (part for value in values for part in value.split(",") if part):
        name, _, value = part.partition("=")
        if found.get(name, value) != value:
            raise ValueError(f"-l {name}={found[name]} and -l {name}={value} contradict each other; keep one")
        found[name] = value
    return found
