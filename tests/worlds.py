"""Tiny worlds for tests: systems of a few atoms, references that cost microseconds, a stand-in FHI-aims."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms
from ase.data import atomic_numbers

from aims_pax.frames import Frame

STAND_IN = Path(__file__).with_name("stand_in_aims.py")

# REFERENCE sections, ready for aimsPAX.yaml; all of them quick calculators
EMT: dict[str, Any] = {"type": "calculator", "factory": "ase.calculators.emt:EMT"}
LENNARD_JONES: dict[str, Any] = {
    "type": "calculator",
    "factory": "ase.calculators.lj:LennardJones",
    "kwargs": {"sigma": 3.0, "epsilon": 0.01, "rc": 9.0, "smooth": True},
}
XTB: dict[str, Any] = {
    "type": "calculator",
    "factory": "tblite.ase:TBLite",
    "kwargs": {"method": "GFN1-xTB", "accuracy": 0.01, "verbosity": 0},
}


# systems --------------------------------------------------------------------------------------------------


def water() -> Frame:
    """Three atoms; EMT knows H and O too (without physics)."""
    return Frame.from_atoms(molecule("H2O"))


def ethanol() -> Frame:
    """Nine atoms."""
    return Frame.from_atoms(molecule("CH3CH2OH"))


def dimer(symbol: str = "Ar", distance: float = 3.6) -> Frame:
    """Two atoms along x, `distance` Å apart."""
    return Frame.from_atoms(Atoms([symbol] * 2, [[0, 0, 0], [distance, 0, 0]]))


def cluster(symbol: str = "Ar", n: int = 4, spacing: float = 3.5) -> Frame:
    """n atoms at corners of a cube, not periodic; for Lennard-Jones."""
    corners = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], float)[:n]
    return Frame.from_atoms(Atoms([symbol] * n, spacing * corners))


def crystal(symbol: str = "Cu", repeat: int = 1) -> Frame:
    """A cubic fcc cell of 4 atoms, periodic; for EMT."""
    constant = {"Cu": 3.61, "Al": 4.05, "Ar": 5.3}[symbol]
    return Frame.from_atoms(bulk(symbol, "fcc", a=constant, cubic=True) * repeat)


def slab(symbol: str = "Al") -> Frame:
    """Two layers of fcc(111) with the lower one fixed; periodic in x and y, with three cell vectors."""
    atoms = fcc111(symbol, size=(1, 1, 3), vacuum=6.0)
    atoms.set_constraint(FixAtoms(mask=atoms.positions[:, 2] < atoms.positions[:, 2].mean() - 0.1))
    return Frame.from_atoms(atoms)


def rattled(frame: Frame, n: int, amplitude: float = 0.05, seed: int = 0) -> list[Frame]:
    """n frames with Gaussian displacements of `amplitude` Å around a frame."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(scale=amplitude, size=(n, len(frame), 3))
    return [frame.moved(frame.positions + step) for step in steps]


# the stand-in FHI-aims ------------------------------------------------------------------------------------

CONTROL = """\
# a control.in as a user writes it
  xc                 pbe
  relativistic       atomic_zora scalar
  sc_accuracy_rho    1e-5
  output             dipole
  output             hirshfeld
"""
CONTROL_PERIODIC = CONTROL + "  k_grid             2 2 2\n"


def launch(method: str = "emt", fault: str = "none", redirect: str = "", **options: Any) -> str:
    """A CLUSTER.launch_str that runs the stand-in; see its docstring for faults and options."""
    words = [sys.executable, str(STAND_IN), "--method", method, "--fault", fault]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words) + redirect


def write_species(folder: Path, symbols: Iterable[str] = ("H", "C", "O", "Al", "Ar", "Cu")) -> Path:
    """A species_dir with a short block an element."""
    folder.mkdir(parents=True, exist_ok=True)
    for symbol in symbols:
        z = atomic_numbers[symbol]
        text = f"  species        {symbol}\n    nucleus             {z}\n    l_hartree           4\n"
        (folder / f"{z:02d}_{symbol}_default").write_text(text)
    return folder
