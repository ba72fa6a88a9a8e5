"""The only door to MACE: imports it without letting it print or warn over the program's own output.

`import mace` prints a line about cuequivariance to standard output and, on recent torch, every building,
copying or loading of a model repeats deprecation warnings of TorchScript. Both are silenced here, only here.
It also sets TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD for the whole process, so everybody who loads a torch file must
pass `weights_only` himself.

TorchScript's profiling executor is switched off: its first calls run another graph than the later ones, so a
run that was stopped and one that was not would differ in the last bit. Measured: the speed is the same.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TypeAlias

import torch

log = logging.getLogger(__name__)

MaceModel: TypeAlias = Any  # a torch.nn.Module whose attributes no type checker knows

NOISE = (
    r".*torch\.jit.*",
    r".*TorchScript.*",
    r".*TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD.*",
    r".*cuequivariance.*",
)


@contextmanager
def quiet() -> Iterator[None]:
    """No prints and none of MACE's known warnings inside; what was printed goes to the debug log."""
    printed = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(printed):
        for message in NOISE:
            warnings.filterwarnings("ignore", message=message)
        yield
    for line in printed.getvalue().splitlines():
        if line.strip():
            log.debug("MACE: %s", line.strip())


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """torch's default dtype inside, as MACE's constructors expect it; restored afterwards."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


with quiet():
    torch.serialization.add_safe_globals([slice])  # e3nn 0.4 cannot load its own constants without it
    import mace.modules
    from e3nn import o3

for switch in ("_jit_set_profiling_executor", "_jit_set_profiling_mode"):
    getattr(torch._C, switch, bool)(False)

modules: Any = mace.modules  # its __init__ re-exports names without saying so


def foundation_models() -> Any:
    """MACE's list of published models and its downloader (imports its calculators too: half a second)."""
    with quiet():
        from mace.calculators import foundations_models

    return foundations_models


__all__ = ["MaceModel", "default_dtype", "foundation_models", "modules", "o3", "quiet"]
