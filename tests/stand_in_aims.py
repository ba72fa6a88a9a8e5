#!/usr/bin/env python
"""A stand-in for FHI-aims: reads geometry.in and control.in in its folder, prints an aims.out.

    python stand_in_aims.py --method emt|lj|xtb [--fault NAME[:RATE]] [--faults-in FILE] [--seconds S]

It is as strict as FHI-aims where that matters: every element needs its species block, a periodic cell a
k_grid, a molecule must not ask for stress, `spin collinear` needs an initial moment. Energies and forces are
printed with all digits. Faults happen on request, always or for a share of all geometries (by their content):

    unconverged            no convergence, exit code 1, no goodbye
    unconverged-once       the same unless control.in says charge_mix_param
    unconverged-goodbye    no convergence, but exit code 0 and a goodbye (postprocess_anyway)
    crash                  exit code 2 after the first iteration
    segfault               killed by SIGSEGV
    truncated              the output ends in the middle, exit code 0
    nan                    a NaN among the forces
    stars                  a force too large to be printed: *****
    no-forces, no-header, no-output, wrong-atoms
    huge-force             1e5 eV/Å on an atom
    hang                   never ends, and neither does a process it started (its pid goes to grandchild.pid)
    missing                exit code 127, as a shell does for a program that is not there
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--method", default="emt", choices=["emt", "lj", "xtb"])
    arguments.add_argument("--fault", default="none")
    arguments.add_argument("--faults-in", type=Path, help="a file with the fault, read at each call")
    arguments.add_argument("--seconds", type=float, default=0.0)
    arguments.add_argument("--faults-told", type=Path, help="a file that gets frame and fault of each call")
    arguments.add_argument("--count", type=Path, help="a file that gets one line a call")
    told = arguments.parse_args()
    geometry = Path("geometry.in").read_text()
    if told.count:
        with open(told.count, "a") as file:
            file.write(f"{hashlib.sha256(geometry.encode()).hexdigest()[:20]} {os.getpid()}\n")
    fault = told.fault
    if told.faults_in and told.faults_in.exists():
        fault = told.faults_in.read_text().split("\n")[0].strip() or "none"
    chosen = _chosen(fault, geometry)
    if told.faults_told:
        with open(told.faults_told, "a") as file:
            file.write(f"{geometry.split()[2]} {chosen}\n")  # "# frame 7f3a…" is the first line
    run(told.method, chosen, geometry, told.seconds)


def run(method: str, fault: str, geometry: str, seconds: float) -> None:
    atoms, moments = read_geometry(geometry)
    control, species = read_control(Path("control.in").read_text())
    if fault == "missing":
        print("srun: error: execve(): aims.x: No such file or directory", file=sys.stderr)
        sys.exit(127)
    if fault == "no-output":
        sys.exit(0)
    say("          Invoking FHI-aims ...")
    say("  FHI-aims version      : 250320 (stand-in)")
    check_input(atoms, moments, control, species)
    header(atoms, control, fault)
    time.sleep(seconds)
    if fault == "crash":
        print("forrtl: severe (174): something went wrong in the eigensolver", file=sys.stderr)
        sys.exit(2)
    if fault == "segfault":
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path("grandchild.pid").write_text(str(child.pid))
        say("  waiting for a message that never comes")
        time.sleep(600)
    if fault == "unconverged-once":
        fault = "none" if _value(control, "charge_mix_param") else "unconverged"
    if fault.startswith("unconverged"):
        say("  ** scf_solver: SCF cycle not converged.")
        say("  SELF-CONSISTENCY CYCLE DID NOT CONVERGE")
        if fault == "unconverged":
            sys.exit(1)
    stress_wanted = any(_true(control, k) for k in ("compute_analytical_stress", "compute_numerical_stress"))
    energy, forces, stress = compute(method, atoms, control, stress_wanted)
    body(energy, forces, stress, fault)
    if fault != "truncated":
        say("\n          Have a nice day.\n" + "-" * 60)


def say(text: str) -> None:
    print(text, flush=True)


def read_geometry(text: str):
    """Own reader, so that a mistake of ours is not hidden by ASE's."""
    from ase import Atoms

    symbols, positions, cell, moments, charges = [], [], [], [], []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] == "lattice_vector":
            cell.append([float(x) for x in words[1:4]])
        elif words[0] == "atom":
            positions.append([float(x) for x in words[1:4]])
            symbols.append(words[4])
            moments.append(0.0)
            charges.append(0.0)
        elif words[0] == "initial_moment":
            moments[-1] = float(words[1])
        elif words[0] == "initial_charge":
            charges[-1] = float(words[1])
        elif words[0] not in ("constrain_relaxation", "homogeneous_field", "set_vacuum_level"):
            sys.exit(f"geometry.in: unknown keyword {words[0]}")
    if len(cell) not in (0, 3):
        sys.exit("geometry.in: three lattice vectors or none")
    atoms = Atoms(symbols, positions, cell=cell or None, pbc=bool(cell))
    atoms.set_initial_charges(charges)
    return atoms, moments


def read_control(text: str):
    """Keywords before the first species block, [(keyword, words)], and the species that have a block."""
    keywords, species = [], []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words and words[0] == "species":
            species.append(words[1])
        elif words and not species:
            keywords.append((words[0], words[1:]))
    return keywords, species


def check_input(atoms, moments, control, species) -> None:
    names = [k for k, _ in control]
    missing = sorted(set(atoms.symbols) - set(species))
    if missing:
        sys.exit(f"*** Error: Species {missing[0]} has no definition in control.in.")
    if "xc" not in names:
        sys.exit("*** Error: no xc in control.in")
    if atoms.pbc.any() and not {"k_grid", "k_grid_density"} & set(names):
        sys.exit("*** Error: periodic geometry, but no k_grid")
    if not atoms.pbc.any() and "k_grid" in names:
        sys.exit("*** Error: k_grid given for a cluster")
    if not atoms.pbc.any() and "compute_analytical_stress" in names:
        sys.exit("*** Error: analytical stress needs a periodic system")
    collinear = any(k == "spin" and v[:1] == ["collinear"] for k, v in control)
    if collinear and not any(moments) and "default_initial_moment" not in names:
        sys.exit("*** Error: spin collinear, but no initial moment anywhere")
    if not collinear and "fixed_spin_moment" in names:
        sys.exit("*** Error: fixed_spin_moment needs spin collinear")


def header(atoms, control, fault: str) -> None:
    n = len(atoms) + (1 if fault == "wrong-atoms" else 0)
    for keyword, rest in control:
        say(f"  control.in: {keyword} {' '.join(rest)}")
    if _value(control, "charge"):
        say(f"  Charge = {_value(control, 'charge')}: Charged system requested explicitly.")
    if _value(control, "fixed_spin_moment"):
        say(f"  fixed_spin_moment = {_value(control, 'fixed_spin_moment')}")
    channels = 2 if (_value(control, "spin") or "none").startswith("collinear") else 1
    if fault != "no-header":
        say(f"  | Number of atoms                   : {n:8d}")
        say(f"  | Number of spin channels           : {channels:8d}")
        electrons = float(atoms.numbers.sum()) - float((_value(control, "charge") or "0").split()[0])
        say(f"  The structure contains {len(atoms):8d} atoms,  and a total of {electrons:12.3f} electrons.")
        say(f"  | Number of Kohn-Sham states (occupied + empty): {int(electrons) + 6:8d}")
    if atoms.pbc.any():
        say("  | Unit cell:")
        for vector in atoms.cell:
            say("  | " + "".join(f"{x:20.8f}" for x in vector))
        say("  | Number of k-points             :        8")
    say("  | Atomic structure:")
    say("  |       Atom                x [A]            y [A]            z [A]")
    for i, atom in enumerate(list(atoms) + [atoms[0]] * (n - len(atoms))):
        place = "".join(f"{x:20.8f}" for x in atom.position)
        say(f"  |{i + 1:5d}: Species {atom.symbol:5s}{place}")
    say("\n  Begin self-consistency iteration #    1\n")
    say("  Total energy evaluation: max(cpu_time) : 0.1 s")


def compute(method: str, atoms, control, stress_wanted: bool):
    if method == "emt":
        from ase.calculators.emt import EMT

        calculator = EMT()
    elif method == "lj":
        from ase.calculators.lj import LennardJones

        calculator = LennardJones(sigma=3.0, epsilon=0.01, rc=9.0, smooth=True)
    else:
        from tblite.ase import TBLite

        charge = float((_value(control, "charge") or "0").split()[0])
        unpaired = float((_value(control, "fixed_spin_moment") or "0").split()[0])
        calculator = TBLite(
            method="GFN1-xTB", accuracy=0.01, verbosity=0, charge=charge, multiplicity=int(unpaired) + 1
        )
    atoms.calc = calculator
    consistent = "free_energy" in calculator.implemented_properties  # what the forces derive from
    energy = atoms.get_potential_energy(force_consistent=consistent)
    forces = atoms.get_forces()
    return energy, forces, atoms.get_stress(voigt=False) if stress_wanted else None


def body(energy: float, forces, stress, fault: str) -> None:
    say("  Self-consistency cycle converged.")
    for name in ("Total energy uncorrected", "Total energy corrected", "Electronic free energy"):
        say(f"  | {name:30s}: {energy:30.14E} eV")
    if fault == "truncated":
        return
    if stress is not None:
        say("  +-------------------------------------------------------------------+")
        say("  |              Analytical stress tensor - Symmetrized               |")
        say("  |                  Cartesian components [eV/A**3]                   |")
        say("  +-------------------------------------------------------------------+")
        say("  |                x                y                z                |")
        say("  |                                                                   |")
        for axis, row in zip("xyz", stress, strict=True):
            say(f"  |  {axis} " + "".join(f"{x:26.15E}" for x in row) + "  |")
        say("  +-------------------------------------------------------------------+")
    if fault == "no-forces":
        return
    forces = np.array(forces)
    if fault == "nan":
        forces[0, 0] = np.nan
    if fault == "huge-force":
        forces[0, 0] = 1e5
    say("  Total atomic forces (unitary forces cleaned) [eV/Ang]:")
    for i, force in enumerate(forces):
        numbers = ["*" * 26] * 3 if fault == "stars" and i == 0 else [f"{x:26.15E}" for x in force]
        say(f"  |{i + 1:5d} " + " ".join(numbers))


def _chosen(fault: str, geometry: str) -> str:
    """`crash:0.3`: for three in ten geometries; `nan+crash:0.3`: either; same geometry, same fate."""
    names, _, rate = fault.partition(":")
    dice = int(hashlib.sha256(geometry.encode()).hexdigest()[:12], 16)
    if rate and dice / 16**12 >= float(rate):
        return "none"
    choices = names.split("+")
    return choices[dice % len(choices)]


def _value(control, keyword: str) -> str | None:
    return next((" ".join(rest) for k, rest in control if k == keyword), None)


def _true(control, keyword: str) -> bool:
    return (_value(control, keyword) or "").lower().startswith(".true")


if __name__ == "__main__":
    main()
