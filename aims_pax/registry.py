"""Registries of objects that are chosen by name: built-in ones, and those of installed packages and user programs.

A registry has three sources, and imports a module only when its name is requested:

    a file NAME.py in a package of aims-PAX                  it calls `register` when it is imported
    an entry point NAME of an installed package              "package.module", which calls `register` too, or
                                                             "package.module:object", which is registered as NAME
    register(NAME)                                           called by a program before it uses the name

>>> colours = Registry("colour", package="", group="aims_pax.no_such_group")
>>> @colours.register("red")
... class Red: ...
>>> list(colours), colours["red"] is Red, colours.get("blue")
(['red'], True, None)
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, TypeVar

from aims_pax.errors import SettingsError

log = logging.getLogger(__name__)

T = TypeVar("T")
V = TypeVar("V")  # type of the registered objects


class Registry(Mapping[str, V]):
    """Name → object, loaded when it is requested. Iterating gives the names and loads nothing."""

    def __init__(
        self,
        what: str,
        package: str,
        group: str,
        accept: Callable[[str, Any], V] = lambda name, thing: thing,
    ) -> None:
        """what: word for the objects, for messages. package: package of the built-in modules; its ORDER, if present,
        lists the names that come first. group: group of the entry points. accept: (name, registered object) → object
        to store, or raises TypeError.
        """
        self.what, self.package, self.group, self._accept = what, package, group, accept
        self._loaded: dict[str, V] = {}
        # name → module and qualified name of the registered object
        self._origins: dict[str, tuple[str, str]] = {}
        self._foreign: dict[str, list[EntryPoint]] | None = None

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers an object under this name.

        Raises ValueError if another object has the name (one with the same module and qualified name is replaced, e.g.
        when a notebook cell runs again), TypeError for an object of the wrong type.
        """

        def registered(thing: T) -> T:
            origin = (getattr(thing, "__module__", ""), getattr(thing, "__qualname__", ""))
            own = origin[0] == f"{self.package}.{name}"
            if self._origins.get(name, origin) != origin or (name in self._modules() and not own):
                raise ValueError(f"a {self.what} named {name!r} already exists")
            self._loaded[name], self._origins[name] = self._accept(name, thing), origin
            return thing

        return registered

    def unregister(self, name: str) -> None:
        """Remove an object that a program registered under this name. Raises KeyError if there is none."""
        del self._loaded[name], self._origins[name]

    def __getitem__(self, name: str) -> V:
        """Raises KeyError for an unknown name, SettingsError for one that cannot be loaded, with the reason."""
        if name not in self._loaded:
            if name in self._modules():
                importlib.import_module(f"{self.package}.{name}")
            elif name in self._entry_points():
                self._load(name)
            else:
                raise KeyError(name)
            if name not in self._loaded:
                raise SettingsError(f"the module of the {self.what} {name!r} does not register this name")
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._modules(), *sorted(self._entry_points()), *self._loaded]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))

    def available(self) -> dict[str, V]:
        """All objects that can be loaded; a warning is logged for those of installed packages that cannot."""
        found = {}
        for name in self:
            try:
                found[name] = self[name]
            except SettingsError as error:
                log.warning("%s", error)
        return found

    def _modules(self) -> list[str]:
        """The names of the built-in modules, in their order."""
        if not self.package:
            return []
        package = importlib.import_module(self.package)
        names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))
        first = [name for name in getattr(package, "ORDER", ()) if name in names]
        return list(dict.fromkeys([*first, *names]))

    def _entry_points(self) -> dict[str, list[EntryPoint]]:
        if self._foreign is None:
            self._foreign = {}
            for point in entry_points(group=self.group):
                if point.name in self._modules():
                    log.warning(
                        "the %s %s of the package %s is not used: aims-PAX has a built-in one with this name",
                        self.what,
                        point.name,
                        _distribution(point),
                    )
                    continue
                self._foreign.setdefault(point.name, []).append(point)
        return self._foreign

    def _load(self, name: str) -> None:
        points = self._entry_points()[name]
        packages = " and ".join(_distribution(point) for point in points)
        if len({point.value for point in points}) > 1:
            raise SettingsError(f"the {self.what} {name!r} is provided by {packages}; uninstall all but one")
        try:
            thing = points[0].load()
            if not isinstance(thing, ModuleType) and name not in self._loaded:
                self.register(name)(thing)
        except Exception as error:  # code of another package may raise any exception
            log.debug("traceback", exc_info=True)
            said = f"{type(error).__name__}: {error}"
            raise SettingsError(
                f"the {self.what} {name!r} of the package {packages} cannot be loaded: {said}"
            ) from error


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
