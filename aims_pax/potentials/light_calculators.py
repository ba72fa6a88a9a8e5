"""Calculators of which several can be made and used side by side: they compute in memory, on one core, without files.

Each structure that moves gets one of its own, also in other processes (`parallel.calculator_dynamics`): it then starts
from its own last density, and moves the same way however many processes there are. Others are made once and shared, as
a second one may need as much memory as a foundation model, or write to the same files.
"""

from __future__ import annotations

from typing import Any

from aims_pax.potential import parts_of

ASE = ("emt", "harmonic", "lj", "mixing", "morse", "tersoff", "tip3p", "tip4p")
MODULES = ("tblite", "xtb", "dxtb", "dftd3", "dftd4", *(f"ase.calculators.{name}" for name in ASE))


def is_light(calculator: Any) -> bool:
    """Whether it, and every calculator inside it, is of a class in MODULES."""
    return all(_within(type(part).__module__) for part in parts_of(calculator))


def _within(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in MODULES)
