#!/usr/bin/env python
"""A stand-in for FHI-aims: reads geometry.in and control.in in its folder, prints an aims.out.

    python stand_in_aims.py --method emt|lj|xtb [--fault NAME[:RATE]] [--faults-in FILE] [--seconds S]

It is as strict as FHI-aims: it knows the keywords of control.in and geometry.in (stand_in_keywords.txt) and stops at
others; every element needs its species block, a periodic cell a k_grid; a molecule must not ask for stress; `spin
collinear` needs an initial moment, which Hund's rules give to a single atom only; initial charges are for molecules.
With `constrain_relaxation` the forces on fixed atoms are printed as zeros, below FHI-aims' own title for that; in a
field they are printed uncleaned. Energies depend on charge, spin, initial moments, field and point charges with every
method, so that a test sees where one of them was lost. Energies and forces are printed with all digits.

Faults happen on request, always or for a share of all geometries (by their content):

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
    other-charge           one electron less than control.in asks for
    other-spin             the other number of spin channels
    other-atoms            the same atoms in another order
    relaxed                a second structure, as relax_geometry prints it
    no-space               the disk is full in the middle, exit code 2
    tiny                   a force of 1.0-101, as Fortran prints it
    long-tail              200 lines of an MPI library behind the goodbye
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
    if fault == "missing":
        print("srun: error: execve(): aims.x: No such file or directory", file=sys.stderr)
        sys.exit(127)
    if fault == "no-output":
        sys.exit(0)
    say("          Invoking FHI-aims ...")
    say("  FHI-aims version      : 250320 (stand-in)")
    given = Geometry(geometry)
    control, species = read_control(Path("control.in").read_text())
    check_input(given, control, species)
    header(given, control, fault)
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
    if fault == "no-space":
        print("forrtl: No space left on device", file=sys.stderr)
        sys.exit(2)
    energy, forces, stress = compute(method, given, control, stress_wanted)
    body(energy, forces, stress, fault, given, control)
    if fault == "relaxed" or (_value(control, "relax_geometry") or "none") != "none":
        say("  Geometry optimization: Attempting to predict improved coordinates.")
        say("  Updated atomic structure:")
        say("          Begin self-consistency loop: Re-initialization.")
        body(energy - 0.1, forces * 0, stress, fault, given, control)
    if fault != "truncated":
        say("\n          Have a nice day.\n" + "-" * 60)
    if fault == "long-tail":
        for _ in range(200):
            say(
                "Note: The following floating-point exceptions are signalling: IEEE_UNDERFLOW_FLAG IEEE_DENORMAL"
            )


def say(text: str) -> None:
    print(text, flush=True)


def stop(text: str) -> None:
    """As aims_stop: what is wrong, on standard output, and an exit code."""
    say(f" * {text}")
    say("  *** An error led to a call to aims_stop ***")
    sys.exit(1)


def number(word: str) -> float:
    """As Fortran reads it."""
    try:
        return float(word.lower().replace("d", "e").rstrip(","))
    except ValueError:
        stop(f"Syntax error: {word} is not a number")
        raise


def keywords(section: str) -> set[str]:
    """The keywords of one section of the list beside this file."""
    text = Path(__file__).with_name("stand_in_keywords.txt").read_text()
    lines = text.partition(f"[{section}]\n")[2].partition("[")[0].splitlines()
    return {word for line in lines if not line.startswith("#") for word in line.split()}


class Geometry:
    """geometry.in by an own reader, so that a mistake of ours is not hidden by ASE's."""

    def __init__(self, text: str) -> None:
        from ase import Atoms

        self.symbols, self.positions, self.cell, self.empty, self.points = [], [], [], [], []
        self.moments, self.charges, self.fixed, self.fractional = [], [], [], []
        self.field, self.vacuum_level = np.zeros(3), 0.0
        computed, idle, elsewhere = (keywords(s) for s in ("geometry", "geometry idle", "geometry elsewhere"))
        self.behind = None  # what an indented tag belongs to
        for line in text.splitlines():
            words = line.split("#")[0].split()
            if not words or words[0] in idle:
                continue
            if words[0] in elsewhere:
                stop(f"geometry.in: {words[0]} is not in this stand-in")
            if words[0] not in computed:
                stop(f"Syntax error reading 'geometry.in' (unknown keyword) line: '{line}'")
            getattr(self, f"_{words[0].replace('atom_frac', 'atom')}")(words)
        if len(self.cell) not in (0, 3):
            stop("geometry.in: three lattice vectors or none")
        for i in self.fractional:
            if not self.cell:
                stop("Fractional coordinates atom_frac make only sense in 3D periodic calculations!")
            self.positions[i] = list(np.array(self.positions[i]) @ np.array(self.cell))
        self.atoms = Atoms(self.symbols, self.positions, cell=self.cell or None, pbc=bool(self.cell))
        if self.cell and any(self.charges):
            stop("Initial charge not possible in periodic systems - found while reading geometry.in")
        if self.cell and self.field[:2].any():
            stop("Only fields in z-direction supported for periodic boundary conditions")

    def _lattice_vector(self, words) -> None:
        self.cell.append([number(x) for x in words[1:4]])
        self.behind = "cell"

    def _atom(self, words) -> None:
        if words[0] == "atom_frac":
            self.fractional.append(len(self.symbols))
        self.positions.append([number(x) for x in words[1:4]])
        self.symbols.append(words[4])
        self.moments.append(None)
        self.charges.append(0.0)
        self.fixed.append([False, False, False])
        self.behind = "atom"

    def _initial_moment(self, words) -> None:
        self.moments[-1] = number(words[1])

    def _initial_charge(self, words) -> None:
        self.charges[-1] = number(words[1])

    def _constrain_relaxation(self, words) -> None:
        if self.behind == "atom" and words[1] != ".false.":
            axes = range(3) if words[1] == ".true." else ["xyz".index(words[1].lower())]
            for axis in axes:
                self.fixed[-1][axis] = True

    def _homogeneous_field(self, words) -> None:
        self.field = np.array([number(x) for x in words[1:4]])

    def _multipole(self, words) -> None:
        if int(words[4]):
            stop("geometry.in: multipoles beyond point charges are not in this stand-in")
        self.points.append(([number(x) for x in words[1:4]], number(words[5])))

    def _empty(self, words) -> None:
        self.empty.append(([number(x) for x in words[1:4]], words[4]))
        self.behind = "empty"

    def _set_vacuum_level(self, words) -> None:
        self.vacuum_level = number(words[1])


def read_control(text: str):
    """Keywords outside species blocks, [(keyword, words)], and {species: words behind its keywords}."""
    general, of_species = keywords("control"), keywords("species")
    found, species, name = [], {}, None
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] == "species":
            name = words[1]
            species[name] = {}
        elif name is not None and (words[0] in of_species or not words[0][0].isalpha()):
            species[name][words[0]] = words[1:]
        elif words[0] in general:
            name = None
            found.append((words[0], words[1:]))
        else:
            say(" Syntax error reading 'control.in' (unknown keyword)")
            stop(f"line: '{line}'")
    return found, species


def check_input(given: Geometry, control, species) -> None:
    names, atoms = [k for k, _ in control], given.atoms
    missing = sorted({*atoms.symbols, *(symbol for _, symbol in given.empty)} - set(species))
    if missing:
        stop(f"Species {missing[0]}, listed in geometry.in, is not described in input file control.in.")
    if "xc" not in names:
        stop("Error: no xc in control.in")
    if atoms.pbc.any() and not {"k_grid", "k_grid_density", "k_points_external"} & set(names):
        stop("Error: periodic geometry, but no k_grid")
    if not atoms.pbc.any() and "k_grid" in names:
        stop("Error: k_grid given for a cluster")
    if not atoms.pbc.any() and "compute_analytical_stress" in names:
        stop("Error: analytical stress needs a periodic system")
    if len({tuple(v) for k, v in control if k == "spin"}) > 1:
        stop("Error: conflicting 'spin' keywords in input file 'control.in'.")
    for k, v in control:
        if k in ("compute_forces", "compute_analytical_stress") and v[:1] not in ([".true."], [".false."]):
            stop(f"{k}: {' '.join(v)}? keyword not defined - please correct and rerun.")
    start = _value(control, "default_initial_moment")
    alone = len(atoms) == 1 and not atoms.pbc.any()
    if start in ("hund", "Hund") and not alone:
        stop(
            "You have specified default initial spin moments set by Hund's rules for a system with more than one atom"
        )
    if collinear(control) and all(m is None for m in given.moments) and start is None and not alone:
        stop("Error: spin collinear, but no initial moment anywhere")


def collinear(control) -> bool:
    return (_value(control, "spin") or "none").split()[0] == "collinear"


def charge_of(control) -> float:
    return number((_value(control, "charge") or "0").split()[0])


def moment_of(given: Geometry, control) -> float:
    """N_up − N_down at the end: fixed, or where the initial moments lead."""
    if not collinear(control):
        return 0.0
    fixed = _value(control, "fixed_spin_moment")
    if fixed is not None:
        return number(fixed.split()[0])
    start = _value(control, "default_initial_moment") or "0"
    default = 0.0 if start.lower() == "hund" else number(start)
    return float(sum(default if m is None else m for m in given.moments))


def header(given: Geometry, control, fault: str) -> None:
    atoms = given.atoms
    n = len(atoms) + len(given.empty) + (1 if fault == "wrong-atoms" else 0)
    for keyword, rest in control:
        say(f"  control.in: {keyword} {' '.join(rest)}")
    charge = charge_of(control)
    if charge:
        say(f"  Charged system requested: Charge = {charge:14.6E}.")
    elif _value(control, "charge"):
        say(f"  Charge = {charge:14.6E}: Neutral system requested explicitly.")
    if collinear(control):
        say("  Spin treatment: Spin density functional theory - collinear spins.")
    fixed = _value(control, "fixed_spin_moment")
    if fixed and collinear(control):
        say(f"  Fixed spin moment calculation, N_up - N_down = {number(fixed.split()[0]):15.8f}")
    elif fixed:
        say(" * WARNING - found 'fixed_spin_moment' keyword, but no spin polarization requested.")
        say(" * Ignoring 'fixed_spin_moment' in control.in .")
    if not collinear(control) and any(m is not None for m in given.moments):
        say(" * Initial moment specified in geometry.in, but spin-unpolarized calculation requested.")
        say(" * Ignoring initial moment.")
    channels = 2 if collinear(control) != (fault == "other-spin") else 1
    for i, fixed_axes in enumerate(given.fixed, 1):
        if all(fixed_axes):
            say(f"  Found relaxation constraint for atom {i:6d}: All coordinates fixed.")
        else:
            for axis in np.flatnonzero(fixed_axes):
                say(f"  Found relaxation constraint for atom {i:6d}: {'xyz'[axis]} coordinate fixed.")
    if given.field.any():
        say("  Homogeneous electric field specified. Values: " + "".join(f"{x:14.6E}" for x in given.field))
    if fault != "no-header":
        say(f"  | Number of atoms                   : {n:8d}")
        say(f"  | Number of spin channels           : {channels:8d}")
        electrons = float(atoms.numbers.sum()) - charge - (1 if fault == "other-charge" else 0)
        say(f"  The structure contains {n:8d} atoms,  and a total of {electrons:12.3f} electrons.")
        say(f"  | Number of Kohn-Sham states (occupied + empty): {int(electrons) + 6:8d}")
    structure(given, n, fault)
    say("\n          Begin self-consistency loop: Initialization.\n")
    say("\n  Begin self-consistency iteration #    1\n")
    say("  Total energy evaluation: max(cpu_time) : 0.1 s")


def structure(given: Geometry, n: int, fault: str) -> None:
    atoms = given.atoms
    say("  Input geometry:")
    if atoms.pbc.any():
        say("  | Unit cell:")
        for vector in atoms.cell:
            say("  | " + "".join(f"{x:20.8f}" for x in vector))
        say("  | Number of k-points             :        8")
    say("  | Atomic structure:")
    say("  |       Atom                x [A]            y [A]            z [A]")
    sites = [(a.position, a.symbol) for a in atoms] + given.empty
    sites += [sites[0]] * (n - len(sites))
    if fault == "other-atoms":
        sites.reverse()
    for i, (position, symbol) in enumerate(sites):
        place = "".join(f"{x:20.8f}" for x in position)
        say(f"  |{i + 1:5d}: Species {symbol:5s}{place}")


def compute(method: str, given: Geometry, control, stress_wanted: bool):
    atoms = given.atoms
    charge, moment = charge_of(control), moment_of(given, control)
    if method == "emt":
        from ase.calculators.emt import EMT

        calculator = EMT()
    elif method == "lj":
        from ase.calculators.lj import LennardJones

        calculator = LennardJones(sigma=3.0, epsilon=0.01, rc=9.0, smooth=True)
    else:
        from tblite.ase import TBLite

        unpaired = moment if _value(control, "fixed_spin_moment") else 0.0
        calculator = TBLite(
            method="GFN1-xTB",
            accuracy=0.01,
            verbosity=0,
            charge=charge,
            multiplicity=round(abs(unpaired)) + 1,
        )
    atoms.calc = calculator
    consistent = "free_energy" in calculator.implemented_properties  # what the forces derive from
    energy = atoms.get_potential_energy(force_consistent=consistent)
    forces = atoms.get_forces()
    stress = atoms.get_stress(voigt=False) if stress_wanted else None
    if method != "xtb":
        energy += 6.0 * charge + 2.0 * charge**2 + 0.4 * moment**2
    extra, pull = outside(given)
    return energy + extra, forces + pull, stress


def outside(given: Geometry):
    """Energy (eV) and forces (N, 3) of the field and of point charges on made-up atomic charges that sum to zero."""
    atoms = given.atoms
    charges = 0.1 * (atoms.numbers - atoms.numbers.mean())
    energy = -float(charges @ (atoms.positions @ given.field)) + 1e-3 * given.vacuum_level
    forces = np.outer(charges, given.field)
    for place, point in given.points:
        away = atoms.positions - np.array(place)
        r = np.linalg.norm(away, axis=1)
        energy += float(14.399645 * point * (charges / r).sum())
        forces = forces + 14.399645 * point * (charges / r**3)[:, None] * away
    return energy, forces


def body(energy: float, forces, stress, fault: str, given: Geometry, control) -> None:
    if collinear(control):
        say("  Current spin moment of the entire structure :")
        say(f"  | N = N_up - N_down : {abs(moment_of(given, control)):7.2f}")
    say("  Self-consistency cycle converged.")
    if stress is not None:
        print_stress(stress)
    say("  Energy and forces in a compact form:")
    for name in ("Total energy uncorrected", "Total energy corrected", "Electronic free energy"):
        say(f"  | {name:30s}: {energy:30.14E} eV")
    if fault in ("truncated", "no-forces"):
        return
    forces = np.vstack([forces, np.zeros((len(given.empty), 3))])
    fixed = np.array(given.fixed + [[True] * 3] * len(given.empty))
    if fault == "nan":
        forces[0, 0] = np.nan
    if fault == "huge-force":
        forces[0, 0] = 1e5
    how = "unitary forces cleaned"
    if given.field.any() or _value(control, "final_forces_cleaned") == ".false.":
        how = "derivative of free energy"
    elif fixed.any():
        how = "unitary forces were cleaned, then relaxation constraints were applied"
        forces = np.where(fixed, 0.0, forces)
    say(f"  Total atomic forces ({how}) [eV/Ang]:")
    for i, force in enumerate(forces):
        numbers = ["*" * 26] * 3 if fault == "stars" and i == 0 else [f"{x:26.15E}" for x in force]
        if fault == "tiny" and i == 0:
            numbers[2] = "     0.100000000000000-101"
        say(f"  |{i + 1:5d} " + " ".join(numbers))


def print_stress(stress) -> None:
    say("  +-------------------------------------------------------------------+")
    say("  |              Analytical stress tensor - Symmetrized               |")
    say("  |                  Cartesian components [eV/A**3]                   |")
    say("  +-------------------------------------------------------------------+")
    say("  |                x                y                z                |")
    say("  |                                                                   |")
    for axis, row in zip("xyz", stress, strict=True):
        say(f"  |  {axis} " + "".join(f"{x:26.15E}" for x in row) + "  |")
    say("  |                                                                   |")
    say(f"  |  Pressure:  {-np.trace(stress) / 3:16.8f}   [eV/A**3]                         |")
    say("  +-------------------------------------------------------------------+")


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
