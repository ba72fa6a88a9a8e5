"""Modules that MACE imports at its start and that this package never or seldom uses: they are loaded on first use.

`import mace` loads the tools of its own training (with pandas, matplotlib and torchmetrics), e3nn's search for peaks
(with scipy.signal and scipy.stats) and torch's compiler. Measured with one thread beside other work: about 5 of the
10 to 12 s of CPU time that the import of MACE and torch takes.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)

DURING_THE_IMPORT = ("torch._dynamo", "scipy.signal")
# its package has a function of that name, which a late import would replace
FROM_THEN_ON = ("mace.tools.train",)
_loading = threading.RLock()


class LateModule(ModuleType):
    """Stands in `sys.modules` for a module until one of its names is used; then it hands on what the module has."""

    in_block = True  # of `imported_late`

    def __getattr__(self, name: str) -> Any:
        if name == "__path__" and self.__name__ in DURING_THE_IMPORT:  # an import of something inside it
            return self.loaded().__path__
        if name.startswith("__"):  # what `inspect` asks of every module
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if self.in_block and self.__name__ in FROM_THEN_ON:
            return LateFunction(self, name)
        return getattr(self.loaded(), name)

    def loaded(self) -> ModuleType:
        """The module itself."""
        with _loading:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
            if self.__name__ in sys.modules:
                return sys.modules[self.__name__]
            package, _, name = self.__name__.rpartition(".")
            parent = importlib.import_module(package)
            before = vars(parent).get(name)
            module = importlib.import_module(self.__name__)
            if before is not None and not isinstance(before, ModuleType):
                setattr(parent, name, before)  # the function, not the module of the same name
            return module


class LateFunction:
    """A function or class of such a module, for `from module import name`."""

    def __init__(self, module: LateModule, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *words: Any, **keywords: Any) -> Any:
        return getattr(self.module.loaded(), self.name)(*words, **keywords)


@contextmanager
def imported_late() -> Iterator[None]:
    """Inside the block the modules above are not loaded unless they are used; those that are loaded already stay."""
    late = [LateModule(name) for name in DURING_THE_IMPORT + FROM_THEN_ON if name not in sys.modules]
    sys.modules.update({module.__name__: module for module in late})
    try:
        yield
    finally:
        for module in late:
            module.in_block = False
            if module.__name__ in DURING_THE_IMPORT and sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]


def import_late(name: str) -> None:
    """Import a module with the modules above late; as usual if it needs one of them in a way that is not known here."""
    try:
        with imported_late():
            importlib.import_module(name)
    except Exception as error:  # of any kind: another version of MACE does something else with them
        log.debug("%s: imported with everything that it names (%s)", name, error)
        package = name.partition(".")[0]
        for found in [n for n in sys.modules if n.partition(".")[0] == package]:
            del sys.modules[found]
        importlib.import_module(name)
