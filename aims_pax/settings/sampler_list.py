"""Reads the list SAMPLERS and derives what depends on the whole list: shares and potentials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aims_pax.errors import SettingsError
from aims_pax.registry import Registry
from aims_pax.settings.augment import CallSpec, as_calculator
from aims_pax.settings.fields import Section
from aims_pax.settings.messages import hint, in_words
from aims_pax.settings.samplers import (
    FILTERS,
    KINDS,
    MACE_MP0,
    NAME,
    FilterSettings,
    OwnSamplerSettings,
    SamplerSettings,
    as_surrogate,
)
from aims_pax.settings.yaml_reader import Document, Place, Problem
from aims_pax.suggestions import nearest

S = TypeVar("S", bound=Section)
TOLERANCE = 1e-3  # of the sum of the shares


def read_samplers(
    document: Document, folder: Path, place: Place = (NAME,)
) -> tuple[tuple[SamplerSettings, ...], list[Problem], list[Problem]]:
    """(samplers, errors, warnings) of the list at `place` of a document.

    folder: folder with the user's own modules.
    """
    value: Any = document.data
    for part in place:
        value = value[part]
    problems: list[Problem] = []
    if not isinstance(value, list) or not value:
        text = "expected a list of samplers, such as - {kind: md, share: 1.0}"
        return (), [document.problem(place, text)], []
    reader = _Reader(document, folder)
    found = [reader.sampler(entry, (*place, k)) for k, entry in enumerate(value)]
    problems = reader.problems
    samplers = tuple(s for s in found if s is not None)
    if len(samplers) == len(value):
        problems += [document.problem(place, text) for text in _shares_wrong(samplers)]
    return samplers, problems, reader.oddities


def samplers_as_written(samplers: Sequence[SamplerSettings]) -> list[dict[str, Any]]:
    """The complete list, in the form in which it is written in YAML."""
    return [
        {
            **{
                n: _as_written(getattr(s, n))
                for n in ("kind", "share", *type(s).model_fields)
                if n != "filters"
            },
            "filters": [{"kind": f.kind, **{n: _as_written(v) for n, v in f.settings}} for f in s.filters],
        }
        for s in samplers
    ]


def _as_written(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def sampler_shares(samplers: Sequence[SamplerSettings]) -> list[float]:
    """The share of each sampler; the sum is 1."""
    open_ = [s for s in samplers if s.share is None]
    rest = 1 - sum(s.share for s in samplers if s.share is not None)
    given = [rest / len(open_) if s.share is None else s.share for s in samplers]
    return [share / sum(given) for share in given]


def samplers_in_words(samplers: Sequence[SamplerSettings]) -> str:
    """The shares as text: `md 50 %, phonons 50 %`."""
    return ", ".join(
        f"{s.label} {100 * w:.3g} %" for s, w in zip(samplers, sampler_shares(samplers), strict=True)
    )


def spelling_of(samplers: Sequence[SamplerSettings], one: SamplerSettings) -> Any:
    """The potential that a sampler uses, as written in the settings."""
    named = [s.potential for s in (one, *samplers) if s.potential is not None]
    return named[0] if named else "small"


def potential_place(samplers: Sequence[SamplerSettings], k: int, place: str = NAME) -> str:
    """`SAMPLERS.N.potential`: the key that sets the potential of the k-th sampler. place: of the list."""
    named = [i for i in (k, *range(len(samplers))) if samplers[i].potential is not None]
    return f"{place}.{(named or [k])[0]}.potential"


def potentials(samplers: Sequence[SamplerSettings]) -> list[tuple[Place, str, dict[str, Any]]]:
    """(place, factory, keyword arguments) of every callable that the samplers name, for `check`."""
    found: list[tuple[Place, str, dict[str, Any]]] = []
    for k, one in enumerate(samplers):
        if isinstance(one, OwnSamplerSettings) and ":" in one.kind:
            found.append(((NAME, k), one.kind, dict(one.kwargs)))
        found += [
            (place, call.target, dict(call.kwargs))
            for place, call in calls(samplers)
            if place[1] == k and ":" in call.target and not call.args
        ]
    return found


def calls(samplers: Sequence[SamplerSettings]) -> list[tuple[Place, CallSpec]]:
    """(place, call) of every potential of the samplers that is not a MACE model."""
    found: list[tuple[Place, CallSpec]] = []
    for place, spelling in _spellings(samplers):
        call = None if spelling in MACE_MP0 else as_calculator(spelling)
        if isinstance(call, CallSpec) and call.called:
            found.append((place, call))
    return found


def models(samplers: Sequence[SamplerSettings]) -> list[tuple[Place, str]]:
    """(place, foundation size or path) of every MACE model of the samplers."""
    found: list[tuple[Place, str]] = []
    for place, spelling in _spellings(samplers):
        if isinstance(spelling, str) and spelling not in MACE_MP0:
            as_call = as_calculator(spelling)
            found += [(place, as_call)] if isinstance(as_call, str) else []
    return found


def _spellings(samplers: Sequence[SamplerSettings]) -> list[tuple[Place, Any]]:
    """(place, potential as written) of all potentials; of a surrogate its baseline."""
    found: list[tuple[Place, Any]] = []
    for k, one in enumerate(samplers):
        surrogate = as_surrogate(one.potential)
        written = one.potential if surrogate is None else surrogate.baseline
        found.append(((NAME, k, "potential"), written))
        found.append(((NAME, k, "baseline"), getattr(one, "baseline", None)))
    return [(place, value) for place, value in found if value is not None]


def _shares_wrong(samplers: Sequence[SamplerSettings]) -> list[str]:
    given = [s.share for s in samplers if s.share is not None]
    total = sum(given)
    if len(given) == len(samplers) and abs(total - 1) > TOLERANCE:
        return [f"the shares sum to {total:.6g}; expected 1"]
    if len(given) < len(samplers) and total > 1 - TOLERANCE:
        return [
            f"the shares sum to {total:.6g} and leave nothing for the samplers without a share; lower them"
        ]
    return []


class _Reader:
    """Reads the tables one by one and collects errors and warnings."""

    def __init__(self, document: Document, folder: Path) -> None:
        self.document = document
        self.folder = folder
        self.problems: list[Problem] = []
        self.oddities: list[Problem] = []

    def sampler(self, entry: Any, place: Place) -> SamplerSettings | None:
        if not isinstance(entry, dict):
            self._wrong(place, "expected a table such as {kind: md, share: 0.5}")
            return None
        kind = str(entry.get("kind", ""))
        model = OwnSamplerSettings if ":" in kind else self._kind(KINDS, kind, (*place, "kind"))
        if model is None:
            return None
        raw = {str(k): v for k, v in entry.items()}
        written = raw.pop("filters", None)
        if raw.get("potential") is not None and model.needs_reference:
            text = f"{kind} uses the reference as its potential; remove this key"
            self._wrong((*place, "potential"), text)
            return None
        if (
            model is OwnSamplerSettings
            and set(raw) - set(model.model_fields)
            and not _there(kind, self.folder)
        ):
            text = f"module {kind.partition(':')[0]!r} cannot be found, neither installed nor in this folder"
            self._wrong((*place, "kind"), f"{text}; or one of {', '.join(KINDS)}")
            return None  # its keys are unknown
        before = len(self.problems)
        filters = self._filters([] if written is None else written, (*place, "filters"))
        made = self._validated(model, {**raw, "filters": filters}, place)
        for name, text in made.problems(self.folder) if made is not None else ():
            self._wrong((*place, name), text)
        surrogate = None if made is None else as_surrogate(made.potential)
        if surrogate is not None and surrogate.data is not None and not _is_file(self.folder, surrogate.data):
            self._wrong((*place, "potential"), f"kwargs.data: {surrogate.data}: no such file")
        return made if len(self.problems) == before else None

    def _kind(self, kinds: Registry[type[S]], kind: str, place: Place) -> type[S] | None:
        """The settings class of a kind; None, with a problem recorded, if it is unknown or cannot be loaded."""
        try:
            model = kinds.get(kind)
        except SettingsError as error:  # an installed package registers it, but it cannot be loaded
            self._wrong(place, str(error))
            return None
        if model is None:
            self._wrong(place, _unknown(kinds.what, kind, kinds))
        return model

    def _filters(self, written: Any, place: Place) -> tuple[FilterSettings, ...]:
        entries = written if isinstance(written, list) else [written]
        found = []
        for k, entry in enumerate(entries):
            raw = {"kind": entry} if isinstance(entry, str) else entry
            if not isinstance(raw, dict):
                self._wrong((*place, k), "expected the name of a filter, or a table {kind: …}")
                continue
            kind = str(raw.get("kind", ""))
            model = self._kind(FILTERS, kind, (*place, k))
            if model is None:
                continue
            rest = {str(name): v for name, v in raw.items() if name != "kind"}
            settings = self._validated(model, rest, (*place, k))
            if settings is not None:
                found.append(FilterSettings(kind=kind, settings=settings))
        return tuple(found)

    def _validated(self, model: type[S], raw: Mapping[str, Any], place: Place) -> S | None:
        try:
            made = model.model_validate(raw)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._wrong((*place, *detail["loc"]), explain_sampler_error(detail, model))
            return None
        self.oddities += [self.document.problem((*place, k), text) for k, text in made.oddities()]
        return made

    def _wrong(self, place: Place, text: str) -> None:
        self.problems.append(self.document.problem(place, text))


def explain_sampler_error(detail: ErrorDetails, model: type[Section]) -> str:
    """One validation error of a sampler, a filter or another table, as text."""
    name = str(detail["loc"][0]) if detail["loc"] else ""
    near = nearest(name, model.model_fields)
    homes = [
        k for k, other in {**KINDS.available(), **FILTERS.available()}.items() if name in other.model_fields
    ]
    return in_words(detail, model, f"it is a key of {' and '.join(homes)}" if homes and near is None else "")


def _is_file(folder: Path, name: str) -> bool:
    return (folder / Path(name).expanduser()).is_file()


def _there(target: str, folder: Path) -> bool:
    """Whether the package of `module:callable` is installed or in the folder; nothing is imported."""
    package = target.partition(":")[0].partition(".")[0]
    if (folder / f"{package}.py").is_file() or (package and (folder / package).is_dir()):
        return True
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # not a module name
        return False


def _unknown(what: str, kind: str, known: Iterable[str]) -> str:
    if not kind:
        return f"mandatory. The {what}: {', '.join(known)}"
    return f"{kind!r} is not a {what}; {hint(kind, known)}"
