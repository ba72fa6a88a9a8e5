"""Descriptors of atoms: the invariant node features of a MACE model, one vector per atom."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.frames import Array, Frame
from aims_pax.models.mace import foundation
from aims_pax.models.mace.build import DTYPES, read_model
from aims_pax.models.mace.mace_import import quiet


def calculator_of(size_or_path: str, device: str, folder: Path) -> Any:
    """MACE's own ASE calculator of a model, in double precision; named as for `foundation.load_foundation_model`."""
    path = foundation.foundation_file(size_or_path, folder)
    model = read_model(path, device, DTYPES["float64"])
    with quiet():
        from mace.calculators import MACECalculator

        return MACECalculator(models=[model], device=device, default_dtype="float64")


def calculator_features(calculator: Any, frames: Sequence[Frame]) -> Array:
    """(F, N, D) for F frames of one system: the scalar channels of all layers, concatenated.

    calculator: an ASE calculator with MACE's `get_descriptors`.
    """
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [calculator.get_descriptors(f.to_atoms(), invariants_only=True) for f in frames]
    return np.array([d[0] if isinstance(d, list) else d for d in found], float)
