"""Reads settings files as strict YAML and records the line of every key.

YAML 1.1 has pitfalls for numbers: `1e-3` is text, `010` is eight, `1:30` is ninety and `np.inf` is a word. Here
plain numbers are numbers, every spelling of infinity is infinity, and a word that is neither a number, a truth value
nor None is text. No tag is ever executed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from aims_pax.errors import SettingsError
from aims_pax.settings.yaml_errors import explain_yaml_error
from aims_pax.suggestions import no_such

Place = tuple[str | int, ...]  # ("MD", "timestep"); list items by their index

_PLAIN = "aims-pax:plain"  # tag of a scalar without quotes and without a tag
_NOTHING = {"", "~", "null", "none"}
_TRUE, _FALSE = {"true", "yes", "on"}, {"false", "no", "off"}
_INTEGER = re.compile(r"[-+]?\d+(_\d+)*")
_REAL = re.compile(r"[-+]?(\d+(_\d+)*\.?\d*|\.\d+)([eE][-+]?\d+)?")
_INFINITE = re.compile(r"([-+]?)(\.inf|inf|(np|numpy|math)\.inf|infinity)", re.IGNORECASE)
_MOST_VALUES = 100_000  # a settings file with more is an alias bomb


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in a settings file. `line` is 0 if no line can be given."""

    file: str
    line: int
    place: str
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.place}: {self.text}" if self.place else f"{where}: {self.text}"


@dataclass
class Document:
    """One settings file: plain Python values and the line of each key. joined: texts of several lines of the file that
    YAML makes one line."""

    file: str
    data: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)
    joined: set[Place] = field(default_factory=set)

    def line(self, place: Place) -> int:
        """The line of the key, or of the innermost enclosing table in the file; 0 if there is none."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0)

    def problem(self, place: Place, text: str) -> Problem:
        return Problem(self.file, self.line(place), ".".join(str(p) for p in place), text)


def read_document(path: Path, name: str) -> Document:
    """The file at `path`, called `name` in messages. Raises SettingsError that lists all mistakes."""
    text = _text(path, name)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line, words = explain_yaml_error(error, text)
        raise SettingsError(f"{name}:{line}: {words}") from error
    except yaml.YAMLError as error:  # a character YAML does not allow
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise SettingsError(f"{name}:{line}: not YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise SettingsError(f"{name}: nested too deeply to be a settings file") from error
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value.strip()):
        raise SettingsError(f"{name}: the file is empty; expected sections such as MISC:")
    if not isinstance(root, yaml.MappingNode):
        raise SettingsError(
            f"{name}:{root.start_mark.line + 1}: expected sections such as MISC: at the top level"
        )
    reader = _Values(name, text)
    try:
        data = reader.value(root, ())
    except RecursionError as error:
        raise SettingsError(f"{name}: nested too deeply to be a settings file") from error
    if reader.problems:
        raise SettingsError("\n".join(str(p) for p in sorted(set(reader.problems))))
    return Document(name, data, reader.lines, reader.joined)


def plain_word(text: str) -> Any:
    """The value of a word without quotes: None, a truth value, a number, or the text itself."""
    low = text.lower()
    if low in _NOTHING:
        return None
    if low in _TRUE or low in _FALSE:
        return low in _TRUE
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) < 400 else float(text)  # Python refuses int() of very long texts
    if _REAL.fullmatch(text):
        return float(text)
    if infinite := _INFINITE.fullmatch(text):
        return -math.inf if infinite[1] == "-" else math.inf
    return math.nan if low in {".nan", "nan", "np.nan"} else text


class _Loader(yaml.SafeLoader):
    """PyYAML's parser without the YAML 1.1 rules for plain words; explicit tags stay visible."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else "tag:yaml.org,2002:str"
        return super().resolve(kind, value, implicit)  # type: ignore[no-any-return, no-untyped-call]


class _Values:
    """Converts YAML nodes to Python values and records the line of every key and all problems."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self.lines: dict[Place, int] = {}
        self.joined: set[Place] = set()
        self.problems: list[Problem] = []
        self._open: list[int] = []  # nodes being read: an alias to one of them would recurse forever
        self._seen = 0

    def value(self, node: yaml.Node, place: Place) -> Any:
        self._seen += 1
        if self._seen > _MOST_VALUES:
            raise SettingsError(f"{self.file}: more than {_MOST_VALUES} values; this is not a settings file")
        if id(node) in self._open:
            return self._problem(node, place, "refers to itself")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        self._open.append(id(node))
        try:
            if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
                return self._problem(node, place, f"tag {node.tag} is not allowed in settings; remove it")
            if isinstance(node, yaml.MappingNode):
                return dict(self._pairs(node, place))
            return [self._item(item, (*place, i)) for i, item in enumerate(node.value)]
        finally:
            self._open.pop()

    def _item(self, node: yaml.Node, place: Place) -> Any:
        self.lines[place] = node.start_mark.line + 1
        return self.value(node, place)

    def _pairs(self, node: yaml.MappingNode, place: Place) -> Iterator[tuple[Any, Any]]:
        first: dict[Any, int] = {}
        merged: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, place, "a key must be a word")
                continue
            if key_node.value == "<<" and key_node.tag == _PLAIN:
                merged.update(self._merge(value_node, place))
                continue
            key_value = self._scalar(key_node, place)
            key = key_value if type(key_value) is int else key_node.value
            if key in first:
                text = f"written twice (first in line {first[key]}); keep one"
                self.problems.append(Problem(self.file, line, ".".join(map(str, (*place, key))), text))
                continue
            first[key] = line
            self.lines[(*place, key)] = line
            yield key, self.value(value_node, (*place, key))
        yield from ((k, v) for k, v in merged.items() if k not in first)

    def _merge(self, node: yaml.Node, place: Place) -> dict[Any, Any]:
        """`<<: *other`: the keys of the other table; keys of this table take precedence."""
        value = self.value(node, place)
        tables = value if isinstance(value, list) else [value]
        if not all(isinstance(t, dict) for t in tables):
            self._problem(node, place, "<<: expected a table to merge")
            return {}
        return {k: v for t in reversed(tables) for k, v in t.items()}

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        written = self.text[node.start_mark.index : node.end_mark.index].splitlines()
        lines = sum(bool(line.strip()) for line in written) - (node.style == ">")  # `>` has a line of its own
        if node.style != "|" and lines > 1 and "\n" not in node.value.strip():
            self.joined.add(place)
        if kind == _PLAIN:
            return plain_word(node.value)
        if kind == "str":
            return node.value
        if kind in {"int", "float", "bool", "null"}:
            return plain_word(node.value)
        return self._problem(node, place, f"tag {node.tag} is not allowed in settings; remove it")

    def _problem(self, node: yaml.Node, place: Place, text: str) -> None:
        line = node.start_mark.line + 1
        self.problems.append(Problem(self.file, line, ".".join(map(str, place)), text))


def _text(path: Path, name: str) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        where = "" if str(path) == name else f" ({path})"
        raise SettingsError(f"{name}: {no_such(path)}{where}") from error
    except OSError as error:
        raise SettingsError(f"{name}: cannot be read: {error.strerror} ({path})") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"{name}:{line}: not UTF-8 text (byte {raw[error.start]:#04x}); save it as UTF-8"
        ) from error
