"""The configuration of `aims-PAX augment`: the file of augment-atoms, with a few additional keys.

data:   {input: input.xyz, output: output.xyz}
config: {n_per_structure: 10, T: 300, beta: 0.5, sigma_range: [0.01, 0.1], seed: 42}
model:  {calculator: +lennard_jones()}
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError
from pydantic_core import ErrorDetails

from aims_pax.errors import SettingsError
from aims_pax.settings.bundled_models import BUNDLED, named_by_calculator
from aims_pax.settings.fields import Kind, Real, Section, Text, Whole, as_real, key, one_of, optional
from aims_pax.settings.messages import hint, in_words
from aims_pax.settings.yaml_reader import read_document
from aims_pax.suggestions import nearest

BUILT_IN = ("lennard_jones", "graph_pes_calculator")  # callables without a module


@dataclass(frozen=True)
class CallSpec:
    """An object to import and call: `target` is `package.module:callable`, or the name of a built-in.

    called: False to use the imported object itself without calling it. Arguments may be CallSpecs too.
    """

    target: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    called: bool = True


def as_calculator(value: Any) -> CallSpec | str:
    """A CallSpec from any spelling, or the text itself: a short name, a foundation size or a model path.

    >>> as_calculator("+my_file.my_function()").target
    'my_file:my_function'
    """
    if isinstance(value, dict) and "factory" in value:
        unknown = set(value) - {"factory", "kwargs"}
        if unknown:
            raise ValueError(f"unknown key {min(unknown)} next to factory; expected factory and kwargs")
        kwargs = value.get("kwargs") or {}
        if not isinstance(value["factory"], str) or not isinstance(kwargs, dict):
            raise ValueError("expected {factory: 'package.module:callable', kwargs: {…}}")
        name = named_by_calculator(value["factory"])
        if name is not None:
            return CallSpec(BUNDLED[name].calculator, kwargs=kwargs) if kwargs else name
        return CallSpec(value["factory"], kwargs=kwargs)
    made = _as_call(value)
    if isinstance(made, CallSpec) or (isinstance(made, str) and made.strip()):
        return made
    raise ValueError(
        "expected +lennard_jones(), +graph_pes_calculator: {path: …}, +my_file.my_function(), {factory, kwargs}, "
        f"{', '.join(BUNDLED)}, a foundation size or the path of a MACE model"
    )


def called(value: Any) -> str:
    """A value as text for messages, with every CallSpec in it written as a call.

    >>> called(CallSpec("my_file:make", kwargs={"rc": 3.0}))
    'my_file:make(rc=3.0)'
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(called, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {called(v)}" for k, v in value.items()) + "}"
    if not isinstance(value, CallSpec):
        return repr(value)
    if not value.called:
        return value.target
    said = [*map(called, value.args), *(f"{k}={called(v)}" for k, v in value.kwargs.items())]
    return f"{value.target}({', '.join(said)})"


def _as_call(value: Any) -> Any:
    """The value with every `+name()` and `+name: {…}` in it replaced by a CallSpec."""
    if isinstance(value, str) and value.startswith("+") and len(value) > 1:
        return _from_text(value)
    if isinstance(value, list):
        return [_as_call(v) for v in value]
    if not isinstance(value, dict):
        return value
    inside = {k: _as_call(v) for k, v in value.items()}
    name = next(iter(inside)) if len(inside) == 1 else ""
    if not isinstance(name, str) or not name.startswith("+"):
        return inside
    given = inside[name]
    if isinstance(given, dict):
        return CallSpec(_target(name[1:]), kwargs=given)
    return CallSpec(_target(name[1:]), () if given is None else (given,))


def _from_text(text: str) -> CallSpec:
    name, bracket, _ = text[1:].partition("(")
    if not bracket:
        return CallSpec(_target(name), called=False)
    try:
        call = ast.parse(text[1:], mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError(text)
        args = tuple(ast.literal_eval(a) for a in call.args)
        kwargs = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (ValueError, SyntaxError) as error:
        raise ValueError(
            f"{text}: expected a call such as {'+' + name}(); or write {'+' + name}: {{…}}"
        ) from error
    return CallSpec(_target(name), args, kwargs)


def _target(name: str) -> str:
    module, _, attribute = name.strip().rpartition(".")
    if module:
        return f"{module.replace('/', '.')}:{attribute}"
    if attribute in BUILT_IN:
        return attribute
    near = nearest(attribute, BUILT_IN)
    hint = f"nearest: +{near}" if near else f"built in: {', '.join('+' + b for b in BUILT_IN)}"
    raise ValueError(f"+{attribute} is not known; {hint}; your own: +my_file.my_function()")


def as_range(value: Any) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("expected two numbers, [smallest, largest]")
    low, high = map(as_real, value)
    if low > high:
        raise ValueError(f"expected [smallest, largest], got [{low:g}, {high:g}]")
    return low, high


Range = Annotated[tuple[float, float], BeforeValidator(as_range), Kind("`list`")]
OptionalReal = Annotated[float | None, optional(as_real), Kind("`float` or `None`")]
Units = Annotated[str, one_of("eV", "kcal/mol"), Kind("`str`")]
BetaReading = Annotated[str, one_of("document", "code"), Kind("`str`")]
PerAtom = Annotated[str, one_of("per_atom", "total"), Kind("`str`")]
CellReading = Annotated[str, one_of("strain", "length", "code"), Kind("`str`")]
Model = Annotated[Any, BeforeValidator(as_calculator), Kind("`str` or `dict`")]
LENGTH = {"nm": 10.0, "pm": 0.01}


class RattleSettings(Section):
    """rattle_tree: family trees of structures that are rattled and then relaxed for a few steps."""

    beta: Real = key(
        ...,
        "Choice of a parent: 1 prefers low energies, 0 prefers late generations.",
        possible="[0, 1]",
    )
    sigma_range: Range = key(
        ...,
        "Smallest and largest σ of the random displacements (Å); σ is drawn log-uniformly between them.",
        unit="Å",
        possible="(0, 10]",
        plausible="[0.001, 1]",
        usual=0.1,
        unit_confusions=LENGTH,
    )
    cell_sigma: OptionalReal = key(
        None,
        "Size of random changes of the cell, always relative to the starting cell; `None`: the cell does not change. "
        "See `cell_sigma_reading`.",
        possible="(0, 10]",
        plausible="[1e-4, 0.5]",
    )
    max_force: Real = key(
        30.0, "Largest force on an atom in an accepted structure (energy/Å).", possible="(0, inf]"
    )
    min_separation: Real = key(
        0.5,
        "Smallest distance between two atoms in an accepted structure (Å).",
        unit="Å",
        possible="[0, 10]",
        plausible="[0, 5]",
        unit_confusions=LENGTH,
    )
    max_relax_steps: Whole = key(20, "Maximum number of relaxation steps of a child.", possible="[0, 100000]")
    similarity_threshold: Real = key(
        0.1,
        "A child is rejected when its atoms are on average displaced by less than this from a structure of its tree "
        "(Å, minimum image).",
        unit="Å",
        possible="[0, 100]",
        plausible="[0, 2]",
    )
    max_attempts: Whole = key(
        500, "A tree is abandoned after this many rejected children in a row.", possible="[1, 1000000000]"
    )
    beta_reading: BetaReading = key(
        "document",
        "`document`: as described under `beta`; `code`: β and 1 − β exchanged, as in the code of augment-atoms 0.2.0.",
    )
    boltzmann: PerAtom = key(
        "per_atom",
        "Energies in exp(−E/kT): `per_atom` (as in the code of augment-atoms) or `total` (as in its documentation).",
    )
    cell_sigma_reading: CellReading = key(
        "strain",
        "`strain`: C = (1 + A)·C0, A_ij from N(0, s), s uniform in [0, cell_sigma] (augment-atoms' formula); "
        "`length`: C = C0 + N(0, cell_sigma) in Å (its documented unit); `code`: C_ij = C0_ij + N(0, "
        "cell_sigma)·|a_j| (its code).",
    )

    def oddities(self) -> Iterator[tuple[str, str]]:
        """Also the reading of a `cell_sigma` that is not set."""
        yield from super().oddities()
        if self.cell_sigma is None:
            yield from self.unused("cell_sigma_reading", "cell_sigma is not set")

    def rattling(self) -> dict[str, Any]:
        """Arguments of `RattleTreeSampler` and `Rattling`, without the temperature."""
        return {name: getattr(self, name) for name in RattleSettings.model_fields}


class ConfigSettings(RattleSettings):
    """config: how the trees grow."""

    n_per_structure: Whole = key(
        ...,
        "Structures per starting structure, including the starting structure.",
        possible="[1, 1000000000]",
    )
    T: Real = key(
        ..., "Temperature of the Boltzmann factors (K).", unit="K", possible="[0, 1e7]", plausible="[1, 1e5]"
    )
    seed: Whole = key(..., "Seed for all random numbers.", possible="[0, 9007199254740992]")
    units: Units = key("eV", "Units of the calculator's energies, `eV` or `kcal/mol`; lengths are Å.")


class DataSettings(Section):
    """data: where structures come from and go to."""

    input: Text = key(..., "File with the starting structures, any format ASE reads.")
    output: Text = key(
        ...,
        "Extended XYZ file to which new structures are appended; run the same command again to continue it.",
    )


class ModelSettings(Section):
    """model: the potential."""

    calculator: Model = key(
        ...,
        "`+lennard_jones()`, `+graph_pes_calculator: {path: …}`, `+my_file.my_function()`, `{factory, kwargs}`, a "
        "[foundation model](foundation_models.md) (`so3lr`, `chgnet`, `small`, …), or the path of a MACE model.",
    )


@dataclass(frozen=True)
class AugmentSettings:
    """The contents of the file."""

    data: DataSettings
    config: ConfigSettings
    model: ModelSettings
    warnings: tuple[str, ...] = ()


SECTIONS: dict[str, type[Section]] = {"data": DataSettings, "config": ConfigSettings, "model": ModelSettings}


def read_augment(path: Path) -> AugmentSettings:
    """The configuration at `path`. Raises SettingsError that lists all mistakes, one per line."""
    document = read_document(path, str(path))
    problems = [
        document.problem((name,), f"unknown section; {hint(name, SECTIONS)}")
        for name in document.data
        if name not in SECTIONS
    ]
    sections: dict[str, Any] = {}
    warnings: list[str] = []
    for name, model in SECTIONS.items():
        raw = document.data.get(name)
        if not isinstance(raw, dict):
            text = "expected a table" if name in document.data else "this section is mandatory"
            problems.append(document.problem((name,), f"{text}; it holds {', '.join(model.model_fields)}"))
            continue
        try:
            sections[name] = model.model_validate({str(k): v for k, v in raw.items()})
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                place = (name, *detail["loc"])
                problems.append(document.problem(place, _explained(detail, model)))
            continue
        warnings += [str(document.problem((name, k), text)) for k, text in sections[name].oddities()]
    if problems:
        raise SettingsError("\n".join(str(p) for p in sorted(set(problems))))
    settings = AugmentSettings(**sections, warnings=tuple(warnings))
    low, moves = settings.config.similarity_threshold, math.sqrt(8 / math.pi) * settings.config.sigma_range[1]
    if moves < low:
        text = (
            f"atoms move by {moves:.2g} Å on average at the largest σ, less than similarity_threshold ({low:g} Å): "
            "few children will differ from their parents"
        )
        warned = str(document.problem(("config", "sigma_range"), text))
        return AugmentSettings(**sections, warnings=(*warnings, warned))
    return settings


def _explained(detail: ErrorDetails, model: type[Section]) -> str:
    """One validation error as text."""
    homes = [s for s, other in SECTIONS.items() if str(detail["loc"][0]) in other.model_fields]
    return in_words(detail, model, f"it belongs to {homes[0]}" if homes else "")
