"""Any ASE calculator as the reference, and the meaning of its exceptions.

A new calculator is made for every label: results that depend on earlier calculations (tblite starts from the last
density, which shifts forces by 1e-4 eV/Å) would make a label depend on the order of the queue.
"""

from __future__ import annotations

import copy
import errno
import inspect
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax.charge_and_spin import check_electrons
from aims_pax.errors import (
    AimsPaxError,
    Crashed,
    NotConverged,
    SettingsError,
    SetupError,
    TimedOut,
    Unsupported,
)
from aims_pax.frames import Frame, Label
from aims_pax.potential import calculate, parts_of
from aims_pax.settings.calculator_conventions import (
    ON_ATOMS,
    Conventions,
    accepts,
    arguments,
    charge_refusal,
    conventions_of,
    dressed,
    entry_of,
    without_key,
    written_charge_and_spin,
)
from aims_pax.settings.content_hashes import contents
from aims_pax.settings.control_in import MOVES_ATOMS
from aims_pax.user_code import load_factory, made_by

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

# arguments about a molecule's electrons
OF_ELECTRONS = (
    "charge",
    "total_charge",
    "multiplicity",
    "spin",
    "total_spin",
    "uhf",
)
# ASE's calculator: arguments about the motion of atoms, with the values that mean a single point; () for none. With
# others the program returns the label of a structure that it has relaxed, without another sign.
SINGLE_POINT: dict[str, dict[str, tuple[str, ...]]] = {
    "Abinit": {"ionmov": ("0",), "optcell": ("0",)},
    "Aims": dict.fromkeys(MOVES_ATOMS, ()),
    "Castep": {"task": ("singlepoint",)},
    "Dftb": {"Driver_": ("", "{}"), "Driver": ("", "{}")},
    "DMol3": {"calculate": ("energy", "gradient")},
    "Espresso": {"input_data.control.calculation": ("scf",)},
    "GAMESSUS": {"contrl.runtyp": ("energy", "gradient")},
    "Gaussian": {"opt": ()},
    "NWChem": {"task": ("energy", "gradient")},
    "Octopus": {"CalculationMode": ("gs",)},
    "Onetep": {"keywords.task": ("singlepoint", "properties")},
    "QChem": {"jobtype": ("sp", "force", "gradient")},
    "Turbomole": {"task": ("energy", "gradient", "energy calculation", "gradient calculation")},
    "Vasp": {"nsw": ("0",)},
}
# ASE's calculator: arguments with free text, and the words in it by which atoms move
MOVING_WORDS: dict[str, dict[str, str]] = {
    "CRYSTAL": {"otherkeys": r"\b(optgeom|moldyn|freqcalc)\b"},
    "ELK": {"tasks": r"\b0*([23]|42[01])\b"},
    "Gaussian": {"extra": r"\b(opt|scan|irc|bomd|admp)\b"},
    "GULP": {"keywords": r"\b(opti\w*|transition\w*|rfo|md)\b"},
    "MOPAC": {"task": r"^(?!.*\b1scf\b).*"},  # relaxes without this word
    "ORCA": {
        "orcasimpleinput": r"(?<![^\s!])((tight|verytight|loose|normal|c|l-|gdiis-|ci-|rigidbody|qmmm)?opt(ts|h)?"
        r"|md|irc|(\S+-)?neb\S*|goat\S*|scants)(?!\S)",
        "orcablocks": r"%(md|neb|irc|goat)\b",
    },
    "Siesta": {"fdf_arguments": r"'md\.(num\w*steps|steps|finaltimestep)': '?[1-9]\d*"},
}
QUICK = ("ase.calculators.", "tblite.")  # run in threads of the driver; all others in processes
# run in processes, too: the library has one molecule and one set of options for all threads
ONE_AT_A_TIME = ("ase.calculators.psi4",)
# ASE's calculators that write files, but are no FileIOCalculator
WRITE_FILES = frozenset(("CP2K", "Castep", "Psi4", "Vasp"))
LARGEST_OUTPUT = 50_000_000  # bytes; larger files are densities and wave functions
# what programs print that continue after an SCF cycle that did not converge
UNCONVERGED = (
    b"convergence NOT achieved after",  # Quantum ESPRESSO
    b"SCF run NOT converged",  # CP2K
    b"outer SCF loop FAILED to converge",
    b"was not enough SCF cycles to converge",  # Abinit
    b"system has not reached the groundstate",  # CASTEP
    b"SCC is NOT converged",  # DFTB+
    b"SCF *not* converged",  # Octopus
    b"SCF_NOT_CONV",  # Siesta
    b"Reached self-consistent loops maximum",  # Elk
    b"SCF NOT CONVERGED AFTER",  # ORCA
    b"UNABLE TO ACHIEVE SELF-CONSISTENCE",  # MOPAC
    b"Calculation failed to converge",  # NWChem
)

_not_converged = re.compile(
    r"(not|n't|never|no|failed to|fails to|without)\s+(yet\s+)?(reach(ed)?\s+)?converge"
    r"|convergence\s+(was\s+)?(not|failure|failed|problem)"
    r"|scf\s+(cycle\s+)?(has\s+)?(failed|failure)",
    re.IGNORECASE,
)
_loading = threading.RLock()
_loaded: dict[tuple[str, Path | None], Callable[..., Any]] = {}


@dataclass(frozen=True)
class CalculatorReference:
    """`REFERENCE: {type: calculator, factory: package.module:callable, kwargs: {...}}`.

    folder: the working folder; the factory may be in a module there.
    scratch: where calculators that write files get a folder for each label.
    charge_key, spin_key, spin_convention: of REFERENCE; see `settings.calculator_conventions`.
    charged: some frames are charged or open-shell, so that it matters how the calculator receives charge and spin.
    atoms: labels isolated atoms, whose spin is not set by the user; a calculator without an argument for the spin is
    used without it, with initial magnetic moments.
    """

    factory: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    scratch: Path | None = None
    charge_key: str | None = None
    spin_key: str | None = None
    spin_convention: str | None = None
    charged: bool = False
    atoms: bool = field(default=False, compare=False)

    @property
    def quick(self) -> bool:
        """Whether threads of the driver can run it: it is fast, or computes outside Python."""
        return self.factory.startswith(QUICK) and not self.factory.startswith(ONE_AT_A_TIME)

    @cached_property
    def conventions(self) -> Conventions:
        """How the calculator receives charge and spin. Raises SettingsError when the factory cannot be found."""
        return conventions_of(
            self.factory, _factory(self), self.charge_key, self.spin_key, self.spin_convention
        )

    def describe(self) -> dict[str, Any]:
        """Everything that determines a label.

        source, contents: hashes of the factory's module in the working folder, of the modules there that it imports,
        and of the files that kwargs names. electrons: how charge and spin are passed, if any frame has them.
        """
        details: dict[str, Any] = {
            "type": "calculator",
            "factory": self.factory,
            "kwargs": dict(self.kwargs),
            "source": None,
        }
        if self.folder is not None:
            found = contents([self.factory, self.kwargs], self.folder)
            own = (found.pop(name, None) for name in _module_files(self.factory))
            details["source"] = next(filter(None, list(own)), None)
            details |= {"contents": found} if found else {}
        if self.charged:
            details["electrons"] = self.conventions.table()
        return details

    def for_atoms(self) -> CalculatorReference:
        """The same reference without a molecule's charge and spin: an isolated atom has its own."""
        kwargs = {name: value for name, value in self.kwargs.items() if name not in OF_ELECTRONS}
        return replace(self, kwargs=kwargs, atoms=True)

    def check(self) -> None:
        """Raise SettingsError when the factory cannot be found, or lacks a declared argument. Computes nothing."""
        make = _factory(self)
        _check_interface(make, self.factory)
        for name in ("charge_key", "spin_key"):
            key = getattr(self, name)
            if key is not None and key not in ON_ATOMS and not accepts(make, key):
                raise SettingsError(f"REFERENCE.{name}: {self.factory} takes no argument {key}")
        if (moving := moving_argument(make, self.kwargs)) is not None:
            raise SettingsError(
                f"REFERENCE.kwargs: {moving}: {self.factory} would move the atoms, but a label is a single point; "
                "remove it"
            )

    def refusal(self, frame: Frame) -> str | None:
        """Why the calculator cannot be given the charge and spin of this frame, or None."""
        return charge_refusal(frame, self.kwargs, self.conventions, self.factory)

    def label(self, frame: Frame) -> Label:
        """Raw forces and free energy. Raises LabelError or SetupError.

        The calculator is made for this frame's charge and spin; Unsupported where it cannot receive them.
        """
        if frame.statements:
            raise SetupError(
                f"{frame.formula}: {frame.statements[0]} is known to FHI-aims only; remove it from the structure"
            )
        try:
            _check_interface(_factory(self), self.factory)
            how, kwargs = self.conventions, copy.deepcopy(dict(self.kwargs))  # factories may change theirs
            if self.atoms:
                kwargs = without_key(without_key(kwargs, how.charge), how.spin)
                frame = (
                    replace(frame, cell=np.zeros((3, 3)), pbc=np.zeros(3, bool)) if how.molecules else frame
                )
            else:
                _check_parity(frame, kwargs, how)
            if not self.atoms or charge_refusal(frame, kwargs, how, self.factory) is None:
                kwargs = arguments(kwargs, frame, how, self.factory)
            make = made_by(_factory(self), self.factory, kwargs)
            with own_folder(make(), self.scratch, frame) as calculator:
                return calculate(dressed(frame, how), calculator)
        except Exception as error:
            raise classify(error, self.factory) from error

    def stop(self) -> None:
        """Does nothing: a calculation in this process runs to its end."""


def moving_argument(make: Callable[..., Any], kwargs: Mapping[str, Any]) -> str | None:
    """The argument by which one of ASE's calculators relaxes a structure or runs dynamics, or None."""
    own = [c for c in getattr(make, "__mro__", ()) if c.__module__.startswith("ase.calculators.")]
    spelled = {str(key).lower(): value for key, value in kwargs.items()}  # many programs read any spelling
    for name in (c.__name__ for c in own):
        for key, allowed in SINGLE_POINT.get(name, {}).items():
            value = entry_of(spelled, key.lower())
            if value is not None and str(value).strip().lower() not in allowed:
                return f"{key}: {value}"
        for key, words in MOVING_WORDS.get(name, {}).items():
            value = spelled.get(key)
            found = None if value is None else re.search(words, str(value), re.IGNORECASE | re.DOTALL)
            if found is not None:
                return f"{key}: {found[0]}"
    return None


def classify(error: Exception, who: str) -> AimsPaxError:
    """Convert an exception of a calculator: LabelError if it concerns one frame, SetupError if it concerns all.

    >>> classify(RuntimeError("SCF not converged in 250 cycles"), "tblite").__class__.__name__
    'NotConverged'
    """
    from ase.calculators import calculator as ase

    if isinstance(error, AimsPaxError):
        return error
    text = f"{who}: {type(error).__name__}: {error}".strip().removesuffix(":")
    if isinstance(error, ImportError):
        return SetupError(f"{text}; install what is missing into this environment")
    if isinstance(error, ase.SCFError) or _not_converged.search(text):
        return NotConverged(text)
    if isinstance(error, TimeoutError | subprocess.TimeoutExpired):
        return TimedOut(text)
    if isinstance(error, subprocess.CalledProcessError):
        return (
            SetupError(f"{text}; is the program installed?")
            if error.returncode in (126, 127)
            else Crashed(text)
        )
    if isinstance(error, FileNotFoundError):
        return SetupError(f"{text}; a program or data file the reference needs is missing")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return SetupError(f"{text}; the reference cannot write its files")
    if isinstance(
        error, NotImplementedError | ase.CalculatorSetupError | ase.EnvironmentError | ase.InputError
    ):
        return SetupError(f"{text}; the reference cannot compute this kind of system: choose another one")
    return Crashed(text)


def _factory(reference: CalculatorReference) -> Callable[..., Any]:
    """The callable that makes calculators, not a calculator: one made for one charge is wrong for another."""
    key = (reference.factory, reference.folder)
    with _loading:  # importing changes sys.path briefly, which other threads would see
        if key not in _loaded:
            folder = reference.folder
            if folder is not None and str(folder) not in sys.path:
                sys.path.append(str(folder))  # last, never removed: the factory may import from it later
            _loaded[key] = load_factory(reference.factory, folder)
        return _loaded[key]


def _check_interface(make: Callable[..., Any], factory: str) -> None:
    """Raise SettingsError for a class that cannot be asked for properties, as ASE's Turbomole.

    Turbomole also computes in the current folder, where it deletes files as soon as it is made.
    """
    calculate = getattr(make, "calculate", None) if isinstance(make, type) else None
    if calculate is None:
        return
    try:
        inspect.signature(calculate).bind(None, None, [], [])
    except TypeError as error:
        raise SettingsError(
            f"factory {factory!r}",
            "its calculate() takes no list of properties, as those of ASE's other calculators do; write a calculator "
            "of your own that runs the program in self.directory",
        ) from error


@contextmanager
def own_folder(calculator: Calculator, scratch: Path | None, frame: Frame) -> Iterator[Calculator]:
    """Give calculators that write files a folder for this label, unless the user chose one.

    Also those inside it (of a sum, of DFT-D3): in one folder two labels would read each other's output, or start from
    each other's wave function. Raises NotConverged if an output in such a folder says so, which few calculators read.
    """
    made: list[Path] = []
    with ExitStack() as folders:
        for part in parts_of(calculator):
            name = _folder_attribute(part)
            if name is None:
                continue
            if scratch is not None:
                scratch.mkdir(parents=True, exist_ok=True)
            own = folders.enter_context(tempfile.TemporaryDirectory(prefix=f"{frame.id}-", dir=scratch))
            made.append(Path(own))
            folder = min(own, os.path.relpath(own), key=len)  # names in CP2K have at most 80 characters
            setattr(part, name, Path(folder) if isinstance(getattr(part, name), Path) else folder)
        yield calculator
        for one in made:
            _check_outputs(one)


def _check_outputs(folder: Path) -> None:
    """Raise NotConverged if a text in this folder has one of the lines by which programs say so and continue."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size < LARGEST_OUTPUT):
        text = path.read_bytes()
        for phrase in UNCONVERGED:
            if (at := text.find(phrase)) >= 0:
                line = text[text.rfind(b"\n", 0, at) + 1 : at] + text[at:].partition(b"\n")[0]
                raise NotConverged(f"{path.name}: {line.decode(errors='replace').strip()}")


def _folder_attribute(calculator: Any) -> str | None:
    """The attribute for the folder of a calculator; None if it writes no files, or if the user chose its folder."""
    from ase.calculators.calculator import FileIOCalculator
    from ase.calculators.genericfileio import GenericFileIOCalculator

    classes = type(calculator).__mro__
    if not isinstance(calculator, FileIOCalculator | GenericFileIOCalculator):
        in_memory = classes[0].__module__.startswith(QUICK)
        if in_memory and not WRITE_FILES.intersection(c.__name__ for c in classes):
            return None
    if classes[0].__name__ == "Castep":
        return "_directory" if calculator._directory == os.path.abspath("CASTEP") else None
    chosen = getattr(calculator, "directory", None)
    return "directory" if chosen is not None and Path(chosen) == Path(".") else None


def _check_parity(frame: Frame, kwargs: Mapping[str, Any], how: Conventions) -> None:
    """Raise Unsupported for an impossible multiplicity: some codes silently compute another one."""
    if how.spin is None or frame.spin is None:
        return
    try:
        check_electrons(frame, written_charge_and_spin(kwargs, how)[0])
    except SettingsError as error:
        raise Unsupported(f"{frame.formula}: {error}") from error


def _module_files(factory: str) -> tuple[str, str]:
    """The possible files of a factory's module in the working folder."""
    path = Path(*factory.partition(":")[0].split("."))
    return str(path / "__init__.py"), str(path.with_suffix(".py"))
