"""Declares a key of a section: its type, default, unit, range and description in one place.

    timestep: Real = key(0.5, "Time step.", unit="fs", possible="(0, 100]", plausible="[0.05, 10]", usual=1.0)

Ranges are written as intervals. A value outside `possible` is an error; a value outside `plausible` gives a
warning, which suggests the intended value when a wrong unit explains it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from aims_pax.suggestions import nearest

# possible values of a number that is counted, and of one that may be unlimited
COUNT, LIMIT = (
    "[1, inf)",
    "[1, inf]",
)
MEV = {"meV/Å": 1e-3}  # a unit that a value in eV/Å may be confused with


@dataclass(frozen=True)
class Kind:
    """Name of a type in the documentation: `int`, `float`, `str` …"""

    name: str


@dataclass(frozen=True)
class Interval:
    """`(0, 100]`: a round bracket excludes the end."""

    low: float
    high: float
    low_in: bool
    high_in: bool

    @classmethod
    def read(cls, text: str) -> Interval:
        found = re.fullmatch(r"([\[(])\s*(\S+)\s*,\s*(\S+)\s*([\])])", text)
        if found is None:
            raise ValueError(f"not an interval: {text}")
        return cls(float(found[2]), float(found[3]), found[1] == "[", found[4] == "]")

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.low_in else value > self.low
        return above and (value <= self.high if self.high_in else value < self.high)

    def words(self, unit: str, finite: bool = False) -> str:
        """`more than 0 and at most 100 fs`; `finite`: add "finite" if there is no other upper end."""
        ends = []
        if not math.isinf(self.low):
            ends.append(("at least " if self.low_in else "more than ") + show(self.low))
        if not math.isinf(self.high):
            ends.append(("at most " if self.high_in else "less than ") + show(self.high))
        elif not self.high_in and (finite or not ends):
            ends.append("finite")
        return " and ".join(ends) + (f" {unit}" if unit else "")


@dataclass(frozen=True)
class FieldInfo:
    """Allowed and usual values of a key. `unit_confusions` maps units that users confuse with `unit` to their size."""

    unit: str = ""
    possible: Interval | None = None
    plausible: Interval | None = None
    usual: float | None = None
    unit_confusions: tuple[tuple[str, float], ...] = ()
    mandatory: str = ""  # "always", or a description of when

    def implausible(self, value: float) -> str | None:
        """Why this value is probably a mistake, or None."""
        if self.plausible is None or value in self.plausible:
            return None
        unit = f" {self.unit}" if self.unit else ""
        low, high = show(self.plausible.low), show(self.plausible.high)
        text = f"{show(value)}{unit} is outside the usual {low} … {high}"
        if self.usual is not None and value > 0 and math.isfinite(value):
            ratio = self.usual / value
            times = show(float(f"{max(ratio, 1 / ratio):.3g}"))
            size = f"{times} times {'smaller' if ratio > 1 else 'larger'}"
            text = f"{show(value)}{unit} is {size} than usual"
        if self.unit:
            text += f"; aims-PAX takes {self.unit}"
        for other, factor in self.unit_confusions:
            intended = float(f"{value * factor:.12g}")
            if intended in self.plausible:
                return f"{text}, did you mean {show(intended)} ({show(value)} {other})?"
        return text


def key(
    default: Any,
    prose: str,
    *,
    unit: str = "",
    possible: str = "",
    plausible: str = "",
    usual: float | None = None,
    unit_confusions: Mapping[str, float] | None = None,
    mandatory: str = "",
) -> Any:
    """A field of a section. With the default `...` the key is always mandatory."""
    meaning = FieldInfo(
        unit,
        Interval.read(possible) if possible else None,
        Interval.read(plausible) if plausible else None,
        usual,
        tuple((unit_confusions or {}).items()),
        mandatory or ("always" if default is ... else ""),
    )
    return Field(default, description=prose, json_schema_extra={"meaning": meaning})  # type: ignore[dict-item]


class Section(BaseModel):
    """A table of the settings: frozen, no unknown keys, every value within its possible range."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), validate_default=False)

    aliases: ClassVar[Mapping[str, str]] = {}  # other spelling → name of the key

    @field_validator("*", mode="after")
    @classmethod
    def _within_range(cls, value: Any, info: ValidationInfo) -> Any:
        meaning = cls.meaning(info.field_name or "")
        if meaning.possible is None:
            return value
        for number in numbers(value):
            if math.isnan(number) or number not in meaning.possible:
                unit = f" {meaning.unit}" if meaning.unit else ""
                expected = meaning.possible.words(meaning.unit, finite=math.isinf(number))
                raise ValueError(f"{show(number)}{unit} is not possible; expected {expected}")
        return value

    @classmethod
    def meaning(cls, name: str) -> FieldInfo:
        extra = cls.model_fields[name].json_schema_extra
        found = extra.get("meaning") if isinstance(extra, dict) else None
        return found if isinstance(found, FieldInfo) else FieldInfo()

    def oddities(self) -> Iterator[tuple[str, str]]:
        """(key, why it looks wrong) for every number in the file that is outside its plausible range."""
        for name in type(self).model_fields:
            if not self.is_set(name):
                continue
            for number in numbers(getattr(self, name)):
                if text := self.meaning(name).implausible(number):
                    yield name, text

    def is_set(self, name: str) -> bool:
        """Whether the file has this key, with another value than the default."""
        default = type(self).model_fields[name].default
        return name in self.model_fields_set and bool(getattr(self, name) != default)

    def unused(self, names: str, why: str) -> Iterator[tuple[str, str]]:
        """(key, text) for those of these keys, separated by spaces, that are set although they have no effect."""
        for name in names.split():
            if self.is_set(name):
                yield name, f"has no effect: {why}"


def numbers(value: Any) -> Iterator[float]:
    """The numbers in a value: itself, or those of a list or table."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from numbers(inner)


def show(value: float) -> str:
    """A number as text: 10 significant digits at most."""
    return str(value) if isinstance(value, int) else f"{value:.10g}"


def _said(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    return f"text {value!r}" if isinstance(value, str) else str(value)


def _number(value: Any, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        quotes = "; remove the quotes" if isinstance(value, str) and _reads_as_number(value) else ""
        raise ValueError(f"expected {expected}, got {_said(value)}{quotes}")
    if math.isnan(value):
        raise ValueError(f"expected {expected}, got nan")
    return value


def _reads_as_number(text: str) -> bool:
    from aims_pax.settings.yaml_reader import plain_word

    intended = plain_word(text)
    return isinstance(intended, int | float) and not isinstance(intended, bool)


def as_real(value: Any) -> float:
    try:
        return float(_number(value, "a number"))
    except OverflowError:
        raise ValueError("expected a number, got one with more than 308 digits") from None


def as_whole(value: Any) -> int:
    number = _number(value, "a whole number")
    if math.isinf(number) or number != int(number):
        raise ValueError(f"expected a whole number, got {show(number)}")
    return int(number)


def as_limit(value: Any) -> int | float:
    number = _number(value, "a whole number, or inf for no limit")
    if math.isinf(number):
        return math.inf if number > 0 else -math.inf
    if number != int(number):
        raise ValueError(f"expected a whole number, or inf for no limit, got {show(number)}")
    return int(number)


def as_flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected True or False, got {_said(value)}")


def as_text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, bool | float) else ""
        raise ValueError(f"expected text, got {_said(value)}{hint}")
    if "\0" in value:
        raise ValueError("expected text, got a null character in it")
    if not value.strip():
        raise ValueError("expected text, got an empty one")
    return value


def as_table(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return {str(k): v for k, v in value.items()}
    raise ValueError(f"expected a table, got {_said(value)}")


def as_texts(value: Any) -> str | tuple[str, ...]:
    """One text, or a list of them."""
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("expected at least one entry, got an empty list")
        return tuple(as_text(v) for v in value)
    return as_text(value)


def as_list_of_texts(value: Any) -> tuple[str, ...]:
    texts = as_texts(value)
    return (texts,) if isinstance(texts, str) else texts


def as_text_or_map(value: Any) -> str | dict[str, str]:
    """One text, or a map from member name to text."""
    if isinstance(value, dict):
        return {str(k): as_text(v) for k, v in value.items()}
    return as_text(value)


def as_real_or_map(value: Any) -> float | dict[str, float]:
    """One number, or a map from the name of a geometry to a number."""
    if isinstance(value, dict):
        return {str(k): as_real(v) for k, v in value.items()}
    return as_real(value)


def as_whole_or_map(value: Any) -> int | dict[str, int]:
    """One whole number, or a map from the name of a geometry to a whole number."""
    if isinstance(value, dict):
        return {str(k): as_whole(v) for k, v in value.items()}
    return as_whole(value)


def one_of(*choices: str, **spellings: str) -> BeforeValidator:
    """One of these words in any case; `spellings` maps other spellings (underscores for hyphens) to them."""

    def plainly(word: str) -> str:
        return word.lower().replace("_", "-")

    known = {plainly(c): c for c in choices} | {plainly(k): v for k, v in spellings.items()}

    def convert(value: Any) -> str:
        word = "None" if value is None and "None" in choices else value
        if isinstance(word, str) and plainly(word) in known:
            return known[plainly(word)]
        near = nearest(word, choices) if isinstance(word, str) else None
        hint = f"; nearest: {near}" if near else ""
        raise ValueError(f"expected {' | '.join(choices)}, got {_said(value)}{hint}")

    return BeforeValidator(convert, json_schema_input_type=Literal.__getitem__((*choices, *spellings)))


def optional(convert: Any) -> BeforeValidator:
    """None stays None; other values are converted by `convert`."""
    return BeforeValidator(lambda value: None if value is None else convert(value))


Real = Annotated[float, BeforeValidator(as_real), Kind("`float`")]
Whole = Annotated[int, BeforeValidator(as_whole), Kind("`int`")]
Limit = Annotated[int | float, BeforeValidator(as_limit), Kind("`int` or `float`")]
Flag = Annotated[bool, BeforeValidator(as_flag), Kind("`bool`")]
Text = Annotated[str, BeforeValidator(as_text), Kind("`str`")]
Texts = Annotated[str | tuple[str, ...], BeforeValidator(as_texts), Kind("`str` or `list`")]
Table = Annotated[dict[str, Any], BeforeValidator(as_table), Kind("`dict`")]
TextOrMap = Annotated[str | dict[str, str], BeforeValidator(as_text_or_map), Kind("`str` or `dict`")]
OptionalReal = Annotated[float | None, optional(as_real), Kind("`float` or `None`")]
OptionalText = Annotated[str | None, optional(as_text), Kind("`str` or `None`")]
RealLimit = Annotated[float, BeforeValidator(as_real), Kind("`float`")]
OptionalWhole = Annotated[int | None, optional(as_whole), Kind("`int` or `None`")]
OptionalTexts = Annotated[tuple[str, ...] | None, optional(as_list_of_texts), Kind("`list` or `None`")]
OptionalTextOrMap = Annotated[
    str | dict[str, str] | None, optional(as_text_or_map), Kind("`str`, `dict` or `None`")
]
OptionalRealOrMap = Annotated[
    float | dict[str, float] | None, optional(as_real_or_map), Kind("`float`, `dict` or `None`")
]
OptionalWholeOrMap = Annotated[
    int | dict[str, int] | None, optional(as_whole_or_map), Kind("`int`, `dict` or `None`")
]
