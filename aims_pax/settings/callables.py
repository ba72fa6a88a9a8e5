"""Checks callables and models that settings name, without calling or loading them; used by `check`."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from aims_pax.errors import SettingsError
from aims_pax.settings.bundled_models import BUNDLED, MATERIALS
from aims_pax.settings.yaml_reader import Place
from aims_pax.suggestions import nearest
from aims_pax.user_code import load_factory

# MACE 0.3.16's names for its foundation models of materials
_NAMES = (
    "small medium large small-0b medium-0b small-0b2 medium-0b2 large-0b2 medium-0b3 medium-mpa-0 "
    "small-omat-0 medium-omat-0 mace-matpes-pbe-0 mace-matpes-r2scan-0 mh-0 mh-1"
)
FOUNDATION_MODELS = tuple(_NAMES.split())
MACE_ONLY = "initial_foundational_size"  # the key that takes no short names of other models
# those of organic molecules: MACE's functions mace_off and mace_anicc; `small` … alone are the models of materials
ORGANIC_MODELS = ("off-small", "off-medium", "off-large", "anicc")
PUBLISHED_MODELS = (*FOUNDATION_MODELS, *ORGANIC_MODELS)
ELEMENTS_OF_PUBLISHED: Mapping[str, frozenset[int]] = {
    **dict.fromkeys(FOUNDATION_MODELS, MATERIALS),
    **dict.fromkeys(ORGANIC_MODELS, frozenset({1, 6, 7, 8, 9, 15, 16, 17, 35, 53})),
    "anicc": frozenset({1, 6, 7, 8}),
}
# mace_omol reads the charge and the spin of each structure: FOUNDATION can fix them to one value
FOUNDATION_ONLY = ("omol",)
CHARGED_MODELS = (*FOUNDATION_ONLY, "polar-1-s", "polar-1-m", "polar-1-l")
CHARGED = (
    "this model reads the total charge and spin of each structure, or has long-range electrostatics, which "
    "models in aims-PAX cannot; choose another one, such as off-medium, medium-mpa-0 or mh-1"
)

_IMPORT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")  # package.module:callable

Wanted = tuple[Place, str, Mapping[str, Any]]  # place of the table, factory, keyword arguments


REFERENCES = (
    "aims_pax.references"  # entry points: name → package.module:callable that returns an ASE calculator
)


def registered_factory(factory: str) -> str:
    """`package.module:callable` of a factory, which may be the name that an installed package registers for it, or the
    short name of a foundation model.

    Raises ValueError where no package registers the name.
    """
    if ":" in factory:
        return factory
    if factory in BUNDLED:
        return BUNDLED[factory].calculator
    registered = {point.name: point.value for point in entry_points(group=REFERENCES)}
    if factory in registered:
        return registered[factory]
    near = nearest(factory, [*registered, *BUNDLED])
    hint = f"; nearest: {near}" if near else ""
    raise ValueError(
        f"expected 'package.module:callable', {', '.join(BUNDLED)}, or a name that an installed package registers "
        f"({REFERENCES}){hint}"
    )


def wrong_callables(wanted: Iterable[Wanted], folder: Path) -> Iterator[tuple[Place, str]]:
    """(place, text) for each callable that cannot be imported or cannot be called with these arguments."""
    for place, factory, kwargs in wanted:
        try:
            make = loaded(factory, folder)
        except SettingsError as error:
            yield (*place, "factory"), str(error)
        except Exception as error:  # the user's module may raise any exception
            yield (*place, "factory"), f"importing {factory!r} failed: {type(error).__name__}: {error}"
        else:
            if text := _wrong_arguments(make, kwargs):
                yield (*place, "kwargs"), f"{factory!r}: {text}"


def odd_arguments(wanted: Iterable[Wanted], folder: Path) -> Iterator[tuple[Place, str]]:
    """(place, text) for arguments that **kwargs accepts but that look like a misspelling of a known argument.

    wanted: callables that passed `wrong_callables`. Known arguments are the parameters of the callable and, for ASE
    calculators, `default_parameters`.
    """
    for place, factory, kwargs in wanted:
        known = _parameters(loaded(factory, folder))
        for name in kwargs:
            near = nearest(str(name), known - set(kwargs))
            if name not in known and near is not None:
                text = f"{factory} has no such argument and may ignore it; nearest: {near}"
                yield (*place, "kwargs", name), text


def unknown_models(
    wanted: Iterable[tuple[Place, str]],
    folder: Path,
    others: Sequence[str] = (),
    short: Iterable[str] = BUNDLED,
) -> Iterator[tuple[Place, str]]:
    """(place, text) for each model that is neither the name of a foundation model nor a file.

    others: further names of MACE's models. short: names of models of other packages.
    """
    for place, name in wanted:
        known = (*PUBLISHED_MODELS, *(() if place[-1:] == (MACE_ONLY,) else short))
        if name in others:
            continue
        if name in CHARGED_MODELS:
            yield place, f"{name}: {CHARGED}"
        elif place[-1:] == (MACE_ONLY,) and name in BUNDLED:
            yield place, f"only names of MACE's models and files; write initial_sampling: {name}"
        elif name not in known and not (folder / Path(name).expanduser()).is_file():
            near = nearest(name, [*known, *others, *(p.name for p in sorted(folder.glob("*.model")))])
            hint = f"; nearest: {near}" if near else ""
            if _IMPORT.fullmatch(name) and place[-1:] != (MACE_ONLY,):
                hint = f"; a callable is written {{factory: {name}, kwargs: {{…}}}}"
            yield place, f"{name!r} is neither a model file nor one of {', '.join((*known, *others))}{hint}"


def loaded(factory: str, folder: Path) -> Callable[..., Any]:
    """The callable; output of its module goes to standard error. Raises SettingsError, or what the module raises."""
    with contextlib.redirect_stdout(sys.stderr):  # some packages print to standard output when imported
        return load_factory(factory, folder)


def _wrong_arguments(make: Callable[..., Any], kwargs: Mapping[str, Any]) -> str | None:
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # compiled callables may have no signature
        return None
    try:
        signature.bind(**kwargs)
    except TypeError as error:
        return str(error)
    return None


def _parameters(make: Callable[..., Any]) -> set[str]:
    """The names of all arguments that a callable is known to take, including those of its base classes."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found: set[str] = set()
    for one in [make, *(c.__init__ for c in getattr(make, "__mro__", ()))]:
        with contextlib.suppress(TypeError, ValueError):
            found |= {p.name for p in inspect.signature(one).parameters.values() if p.kind in named}
    for one in getattr(make, "__mro__", (make,)):
        defaults = getattr(one, "default_parameters", None)
        found |= set(map(str, defaults)) if isinstance(defaults, Mapping) else set()
    return found - {"self"}
