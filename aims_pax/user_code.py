"""Imports what settings name as `module:callable`: a user's calculators, potentials, samplers and kinds of models."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aims_pax.errors import SettingsError

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def load_factory(factory: str, folder: Path | None = None) -> Callable[..., Any]:
    """The callable named `package.module:callable`; see `load_object`."""
    target = load_object(factory, folder)
    if not callable(target):
        raise SettingsError(f"factory {factory!r}", f"{factory.partition(':')[2]} is not callable")
    return target  # type: ignore[no-any-return]


def load_object(factory: str, folder: Path | None = None) -> Any:
    """The object named `package.module:object`; modules in `folder` (the working folder) are found too.

    Raises SettingsError that names the missing part.
    """
    module_name, _, attribute = factory.partition(":")
    if not module_name or not attribute:
        raise SettingsError(f"factory {factory!r}", "expected 'package.module:callable'")
    with _importable(folder):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                module = importlib.import_module(module_name)
        except ImportError as error:
            raise SettingsError(
                f"factory {factory!r}",
                f"cannot import {module_name} ({error}); install it into this environment or put the module into the "
                "working folder",
            ) from error
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            from aims_pax.suggestions import nearest

            near = nearest(part, [name for name in dir(target) if not name.startswith("_")])
            hint = f"; nearest: {near}" if near else ""
            raise SettingsError(f"factory {factory!r}", f"{module_name} has no {attribute!r}{hint}")
        target = getattr(target, part)
    return target


def calculator_factory(
    factory: str, kwargs: Mapping[str, Any] | None = None, folder: Path | None = None
) -> Callable[[], Calculator]:
    """A function that makes a new calculator at each call. Raises SettingsError for wrong arguments."""
    return made_by(load_factory(factory, folder), factory, dict(kwargs or {}))


def made_by(make: Callable[..., Any], factory: str, arguments: dict[str, Any]) -> Callable[[], Calculator]:
    """A function that makes a new calculator at each call. Raises SettingsError for wrong arguments.

    factory: the name of `make` in the settings.
    """

    def fresh() -> Calculator:
        try:
            calculator: Calculator = make(**arguments)
            return calculator
        except TypeError as error:
            raise SettingsError(f"factory {factory!r} with kwargs {arguments}: {error}") from error

    return fresh


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Put the working folder on the import path while a module is imported."""
    if folder is None or str(folder) in sys.path:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
