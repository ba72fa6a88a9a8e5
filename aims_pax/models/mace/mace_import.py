"""The only module that imports MACE; suppresses what MACE prints and its warnings.

`import mace` prints a line about cuequivariance to standard output and, with recent torch, building, copying or
loading a model repeats deprecation warnings of TorchScript. Both are suppressed here, and only here. The import also
sets TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD for the whole process, so all code that loads a torch file must pass
`weights_only` explicitly.

TorchScript's profiling executor is switched off: its first calls run a different graph than later ones, so a run that
was stopped and continued would differ in the last bit from one that was not. Measured: the speed is the same.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeAlias

import torch

from aims_pax.models.mace.late_imports import import_late

log = logging.getLogger(__name__)

MaceModel: TypeAlias = Any  # a torch.nn.Module with attributes unknown to type checkers

NOISE = (
    r".*torch\.jit.*",
    r".*TorchScript.*",
    r".*TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD.*",
    r".*cuequivariance.*",
    r"To copy construct from a tensor.*",  # from the converter to cuEquivariance
)


class _Sieve(io.TextIOBase):
    """Standard output that captures what some threads print; other threads print as usual."""

    def __init__(self) -> None:
        self.real: TextIO = sys.stdout
        self.aside = threading.local()

    def write(self, text: str) -> int:
        return (getattr(self.aside, "buffer", None) or self.real).write(text)

    def flush(self) -> None:
        self.real.flush()

    def isatty(self) -> bool:
        return self.real.isatty()

    def fileno(self) -> int:
        return self.real.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.real.encoding


class _Hush:
    """Counts active `quiet` blocks: the first one replaces standard output and warnings, the last one restores them.

    Both are global to the process, and members are built, copied and pickled in several threads. A thread that restored
    them separately would undo the change of another one.
    """

    def __init__(self) -> None:
        self.lock, self.depth = threading.Lock(), 0
        self.sieve = _Sieve()
        self.warnings = warnings.catch_warnings()

    def begin(self) -> None:
        with self.lock:
            self.depth += 1
            if self.depth > 1:
                return
            self.sieve.real, sys.stdout = sys.stdout, self.sieve
            self.warnings = warnings.catch_warnings()
            self.warnings.__enter__()
            for message in NOISE:
                warnings.filterwarnings("ignore", message=message)

    def end(self) -> None:
        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                sys.stdout = self.sieve.real
                self.warnings.__exit__(None, None, None)


_hush = _Hush()


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block, prints of this thread go to the debug log, and known warnings of MACE are ignored."""
    _hush.begin()
    before, printed = getattr(_hush.sieve.aside, "buffer", None), io.StringIO()
    _hush.sieve.aside.buffer = printed
    try:
        yield
    finally:
        _hush.sieve.aside.buffer = before
        _hush.end()
    for line in printed.getvalue().splitlines():
        if line.strip():
            log.debug("MACE: %s", line.strip())


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set torch's default dtype, which MACE's constructors use, inside the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


with quiet():
    torch.serialization.add_safe_globals([slice])  # e3nn 0.4 cannot load its own constants without it
    import_late("mace.modules")
    import e3nn
    import mace.modules
    from e3nn import o3
    from mace.tools import cg as clebsch_gordan

for switch in ("_jit_set_profiling_executor", "_jit_set_profiling_mode"):
    getattr(torch._C, switch, bool)(False)

modules: Any = mace.modules  # Any: its __init__ re-exports names without `__all__`
symmetric_contraction: Any = mace.modules.symmetric_contraction


@contextmanager
def without_code_generation() -> Iterator[None]:
    """Inside the block e3nn neither optimises nor compiles the functions of new modules: for their weights only."""
    before = e3nn.get_optimization_defaults()
    e3nn.set_optimization_defaults(jit_script_fx=False, optimize_einsums=False)
    try:
        yield
    finally:
        e3nn.set_optimization_defaults(**before)


def foundation_models() -> Any:
    """MACE's list of published models and its downloader (also imports its calculators: half a second)."""
    with quiet():
        from mace.calculators import foundations_models

    return foundations_models


__all__ = [
    "MaceModel",
    "clebsch_gordan",
    "default_dtype",
    "foundation_models",
    "modules",
    "o3",
    "quiet",
    "symmetric_contraction",
    "without_code_generation",
]


def interaction_energy(out: dict[str, Any]) -> torch.Tensor:
    """(F,) eV above the atomic energies; plain MACE models list it as their first contribution."""
    if "interaction_energy" in out:
        return out["interaction_energy"]  # type: ignore[no-any-return]
    return out["contributions"][:, 1:].sum(-1)  # type: ignore[no-any-return]
