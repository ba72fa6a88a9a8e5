"""Any ASE calculator as the reference, and what its exceptions mean.

A calculator is made anew for every label: results that depend on what was computed before (tblite starts
from the last density and shifts forces by 1e-4 eV/Å) would make a label depend on the order of the queue.
"""

from __future__ import annotations

import errno
import hashlib
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aims_pax.errors import AimsPaxError, Crashed, NotConverged, SetupError, TimedOut
from aims_pax.frames import Frame, Label
from aims_pax.potential import calculate, calculator_factory

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

OF_ELECTRONS = (
    "charge",
    "total_charge",
    "multiplicity",
    "spin",
    "total_spin",
    "uhf",
)  # arguments about a molecule's
QUICK = ("ase.calculators.", "tblite.")  # compute in the driver's threads; everything else gets processes

_not_converged = re.compile(
    r"(not|n't|never|no|failed to|fails to|without)\s+(yet\s+)?(reach(ed)?\s+)?converge"
    r"|convergence\s+(was\s+)?(not|failure|failed|problem)"
    r"|scf\s+(cycle\s+)?(has\s+)?(failed|failure)",
    re.IGNORECASE,
)
_loading = threading.RLock()
_makers: dict[tuple[str, str, Path | None], Callable[[], Any]] = {}


@dataclass(frozen=True)
class CalculatorReference:
    """`REFERENCE: {type: calculator, factory: package.module:callable, kwargs: {...}}`.

    folder: the working folder; modules in it can be the factory's.
    scratch: where calculators that write files get a folder for each label.
    """

    factory: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    scratch: Path | None = None

    @property
    def quick(self) -> bool:
        """Cheap enough, or busy enough outside Python, to run in threads of the driver."""
        return self.factory.startswith(QUICK)

    def describe(self) -> dict[str, Any]:
        """Everything that determines a label; a module in the working folder counts with its text."""
        return {
            "type": "calculator",
            "factory": self.factory,
            "kwargs": dict(self.kwargs),
            "source": _source_hash(self.factory, self.folder),
        }

    def for_atoms(self) -> CalculatorReference:
        """The same without a molecule's charge and spin: an isolated atom's spin is its initial magnetic moment."""
        kwargs = {name: value for name, value in self.kwargs.items() if name not in OF_ELECTRONS}
        return replace(self, kwargs=kwargs)

    def check(self) -> None:
        """Raise SettingsError when the factory cannot be found. Nothing is computed."""
        _maker(self)

    def label(self, frame: Frame) -> Label:
        """Raw forces and free energy. Raises LabelError or SetupError."""
        if frame.statements:
            raise SetupError(
                f"{frame.formula}: {frame.statements[0]} is known to FHI-aims only; remove it from the structure"
            )
        try:
            with own_folder(_maker(self)(), self.scratch, frame) as calculator:
                return calculate(frame, calculator)
        except Exception as error:
            raise classify(error, self.factory) from error

    def stop(self) -> None:
        """Nothing can be stopped: a calculation in this process runs to its end."""


def classify(error: Exception, who: str) -> AimsPaxError:
    """What an exception of a calculator means: this frame (LabelError) or every frame (SetupError).

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
            SetupError(f"{text}; is the program there?") if error.returncode in (126, 127) else Crashed(text)
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


def _maker(reference: CalculatorReference) -> Callable[[], Calculator]:
    key = (reference.factory, repr(reference.kwargs), reference.folder)
    with _loading:  # importing changes sys.path for a moment, and threads would see it
        if key not in _makers:
            folder = reference.folder
            if folder is not None and str(folder) not in sys.path:
                sys.path.append(str(folder))  # last and for good: the factory may import a neighbour later
            _makers[key] = calculator_factory(reference.factory, reference.kwargs, folder)
        return _makers[key]


@contextmanager
def own_folder(calculator: Calculator, scratch: Path | None, frame: Frame) -> Iterator[Calculator]:
    """Calculators that write files get a folder for this label, unless the user chose one."""
    from ase.calculators.calculator import FileIOCalculator
    from ase.calculators.genericfileio import GenericFileIOCalculator

    writes = isinstance(calculator, FileIOCalculator | GenericFileIOCalculator)
    if not writes or Path(calculator.directory) != Path("."):
        yield calculator
        return
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{frame.id}-", dir=scratch) as folder:
        calculator.directory = Path(folder) if isinstance(calculator, GenericFileIOCalculator) else folder
        yield calculator


def _source_hash(factory: str, folder: Path | None) -> str | None:
    """A hash of the module's text when it lies in the working folder: editing it changes the method."""
    if folder is None:
        return None
    parts = factory.partition(":")[0].split(".")
    for path in (folder.joinpath(*parts).with_suffix(".py"), folder.joinpath(*parts, "__init__.py")):
        if path.is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return None
