"""Keeps MACE's generalised Clebsch–Gordan coefficients (its U matrices) in memory and on disk.

MACE computes them anew for every model that it builds. They depend only on max_ell, the irreps and the correlation
order, and take about a second of CPU time for the default architecture with one thread (six with two threads on a busy
machine). Files hold arrays, never code; one that cannot be read or has another content than was written is computed
again.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aims_pax.errors import SetupError
from aims_pax.models.mace.mace_import import clebsch_gordan, symmetric_contraction
from aims_pax.record.files import write_bytes

log = logging.getLogger(__name__)

WORTH_A_FILE = 0.1  # s of computing
_known: dict[str, torch.Tensor] = {}
_lock = threading.RLock()


@contextmanager
def remembered_coefficients() -> Iterator[None]:
    """Inside the block MACE's constructors take coefficients from the cache; one thread at a time."""
    with _lock:
        computed = symmetric_contraction.U_matrix_real

        def remembered(*further: Any, **arguments: Any) -> list[Any]:
            if further:  # another version of MACE: not the call that is known here
                return list(computed(*further, **arguments))
            return [None, _coefficients(computed, arguments)]

        symmetric_contraction.U_matrix_real = remembered
        try:
            yield
        finally:
            symmetric_contraction.U_matrix_real = computed


def cache_file(arguments: Mapping[str, Any]) -> Path:
    """Where the coefficients for these arguments of `U_matrix_real` are stored."""
    base = (
        os.environ.get("AIMS_PAX_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "aims-pax"
    )
    return Path(base).expanduser() / "clebsch-gordan" / f"{_key(arguments)}.npz"


def _coefficients(computed: Callable[..., Sequence[Any]], arguments: Mapping[str, Any]) -> torch.Tensor:
    key = _key(arguments)
    if key not in _known:
        path = cache_file(arguments)
        found = _read(path)
        if found is None:
            began = time.perf_counter()
            found = computed(**arguments)[-1]
            if time.perf_counter() - began > WORTH_A_FILE:
                _write(path, found)
        _known[key] = found
    return _known[key].clone()


def _key(arguments: Mapping[str, Any]) -> str:
    """Hash of what the values depend on: arguments, versions, and which package computes them."""
    words = [f"{name}={value}" for name, value in sorted(arguments.items())]
    words += [f"{package} {version(package)}" for package in ("mace-torch", "e3nn", "torch")]
    words += [f"{name}={getattr(clebsch_gordan, name, None)}" for name in ("CUET_AVAILABLE", "USE_CUEQ_CG")]
    return hashlib.sha256(" · ".join(words).encode()).hexdigest()[:32]


def _read(path: Path) -> torch.Tensor | None:
    """The stored coefficients; None if there are none, or they are not what was written."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            values, digest = stored["values"], str(stored["sha256"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        log.debug("no stored coefficients: %s", error)
        return None
    return torch.from_numpy(values) if _digest(values) == digest else None


def _write(path: Path, values: torch.Tensor) -> None:
    """Store coefficients. A disk that takes nothing costs time in the next run, and is no error of this one."""
    array, file = values.numpy(), io.BytesIO()
    np.savez_compressed(file, values=array, sha256=_digest(array))
    try:
        write_bytes(path, file.getvalue())
    except SetupError as error:
        log.debug("coefficients are not stored: %s", error)


def _digest(values: np.ndarray[Any, Any]) -> str:
    head = f"{values.dtype} {values.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(values).tobytes()).hexdigest()
