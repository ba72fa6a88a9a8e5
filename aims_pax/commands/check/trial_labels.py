"""The last part of `aims-PAX check`: a trial label of a cheap reference, the programs, the device, and the verdict."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aims_pax.commands.check import devices, mixed_data
from aims_pax.commands.check.derivatives import check_derivatives
from aims_pax.commands.check.readiness import bundled_names, refusals
from aims_pax.errors import AimsPaxError, SettingsError, SetupError
from aims_pax.frames import Frame
from aims_pax.label_limits import check_label
from aims_pax.labelling.references.ase_calculator import CalculatorReference, own_folder
from aims_pax.labelling.references.launch_output import written_by
from aims_pax.labelling.shared_files import files_here, shared_files_warning
from aims_pax.models.kinds import kind_of_run
from aims_pax.potential import CalculatorPotential, Potential, calculate
from aims_pax.potentials.bundled import bundled_potential
from aims_pax.potentials.factory import calculator_potential, make_potential
from aims_pax.record import folder_owners
from aims_pax.record.folder import RunFolder
from aims_pax.record.log import collected_warnings
from aims_pax.report.formatting import plural
from aims_pax.settings.augment import CallSpec
from aims_pax.settings.bundled_models import BUNDLED
from aims_pax.settings.geometries import read_geometries
from aims_pax.settings.sampler_list import calls
from aims_pax.stages import given_data_check
from aims_pax.systems import System

if TYPE_CHECKING:
    from aims_pax.commands.check.config_file import FoundFile
    from aims_pax.settings import Settings
    from aims_pax.settings.initial_dataset import FactorySettings

COLD = 30.0  # s: a first label that took longer is not repeated, to time it without imports
SMALL = 30  # atoms up to which a fast calculator is tried without --try: milliseconds
BUILT_IN = ("lennard_jones",)  # fast potentials that are built in
IN_MEMORY = (  # calculators that start no program
    "tblite.",
    *(
        f"ase.calculators.{name}"
        for name in ("acn", "eam", "emt", "harmonic", "lj", "morse", "tip3p", "tip4p")
    ),
)
SHELL = set(";&|$<>`")  # launch commands with shell syntax are not parsed


@dataclass(frozen=True)
class CheckResult:
    """The last line of `check` and its warnings. seconds: of one label, by place in the settings, if it was tried."""

    text: str
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


def check_verdict(settings: Settings, wanted: bool = False) -> CheckResult:
    """Try what takes milliseconds, or with `wanted` everything that can be tried on this machine.

    Raises SettingsError when the reference cannot label the smallest geometry, or the device is missing.
    """
    folder_owners.check_owner(RunFolder(settings), settings.model.name)
    systems = read_geometries(settings)
    smallest = min(systems, key=lambda s: len(s.frame))
    with collected_warnings() as logged:
        refused = list(refusals(settings, systems))
    if refused:
        raise SettingsError("\n".join(refused))
    warnings = [
        *logged,
        *_programs(settings),
        *_device(settings, wanted),
        *mixed_data.warnings(settings, systems),
    ]
    warnings += kind_of_run(settings).remarks(settings)
    calculators = _calculators(settings)
    before = files_here().items()
    seconds = _tries({k: c for k, c in calculators.items() if k == "REFERENCE"}, smallest, wanted)
    written = {name for name, _ in files_here().items() - before}
    seconds |= _tries({k: c for k, c in calculators.items() if k != "REFERENCE"}, smallest, wanted)
    said = _in_words(seconds, smallest)
    if wanted and "REFERENCE" in calculators:
        if written:
            warnings.append(shared_files_warning(written))
        if seconds["REFERENCE"] < COLD:
            warnings += check_derivatives(calculators["REFERENCE"].label, smallest.frame, "REFERENCE")
        warnings += given_data_check.try_given(settings, calculators["REFERENCE"].label)
    if settings.reference.type == "aims":
        said.append("FHI-aims was not started")
    elif settings.reference.type == "given":
        said.append("there is no reference, and nothing to label")
    elif "REFERENCE" not in " ".join(said):
        said.append("the reference was not tried (aims-PAX check --try labels one structure)")
    n = len(settings.warnings) + len(warnings)
    later = {place: _warm(calculators[place], smallest, s) for place, s in seconds.items()} if wanted else {}
    return CheckResult("; ".join([_head(n, "a run"), *said]), tuple(warnings), later)


def verdict_of_file(found: FoundFile, wanted: bool = False) -> CheckResult:
    """The same for the file of sample, augment or training-set: its potentials are tried."""
    said = []
    bundled = [(".".join(map(str, place)), name) for place, name in found.models if name in BUNDLED]
    if found.systems and (found.callables or bundled):
        smallest = min(found.systems, key=lambda s: len(s.frame))
        potentials = {
            ".".join(map(str, place)): _Calculator(
                call.target, _potential(call, Path.cwd(), ".".join(map(str, place)), None)
            )
            for place, call in found.callables
        } | {place: _bundled(name) for place, name in bundled}
        said = _in_words(_tries(potentials, smallest, wanted), smallest)
        if len(said) < len(potentials):
            more = "no" if not said else "not every"
            said.append(f"{more} potential was tried (aims-PAX check --try labels one structure with each)")
    return CheckResult("; ".join([_head(len(found.warnings), f"aims-PAX {found.kind}"), *said]))


def _head(n: int, what: str) -> str:
    if n == 0:
        return "everything is in order"
    return f"ready for {what} ({plural(n, 'warning')}, see above)"


def _tries(calculators: Mapping[str, _Calculator], smallest: System, wanted: bool) -> dict[str, float]:
    """Label the smallest structure with each fast calculator (with `wanted`, with each); times in s by place."""
    return {
        place: _label(place, one, smallest)
        for place, one in calculators.items()
        if wanted or (one.quick and len(smallest.frame) <= SMALL)
    }


def _in_words(seconds: Mapping[str, float], smallest: System) -> list[str]:
    return [f"{place} labelled {smallest.name} in {s:.2g} s" for place, s in seconds.items()]


def _warm(calculator: _Calculator, system: System, first: float) -> float:
    """The time of a second label, s, without imports and weights; the first one where that took long."""
    return first if first > COLD else _label("REFERENCE", calculator, system)


@dataclass(frozen=True)
class _Calculator:
    """A calculator or potential for trial labels. called: its name in the settings."""

    called: str
    label: Callable[[Frame], Any]

    @property
    def quick(self) -> bool:
        return self.called.startswith(IN_MEMORY) or self.called in BUILT_IN


def _calculators(settings: Settings) -> dict[str, _Calculator]:
    """The calculators among the reference and the potentials for the first structures, by settings key."""
    found: dict[str, _Calculator] = {}
    scratch = settings.path(settings.misc.log_dir) / "check"
    reference, initial = settings.reference, settings.initial_dataset
    if reference.type == "calculator" and reference.factory is not None:
        found["REFERENCE"] = _Calculator(
            reference.factory,
            CalculatorReference(
                reference.factory,
                dict(reference.kwargs),
                settings.folder,
                scratch,
                reference.charge_key,
                reference.spin_key,
                None if reference.spin_convention == "None" else reference.spin_convention,
            ).label,
        )
    own = None if initial is None or settings.samplers else initial.initial_calculator
    if initial is not None and initial.initial_sampling == "calculator" and own is not None:
        place = "INITIAL_DATASET_GENERATION.initial_calculator"
        found[place] = _Calculator(own.factory, _initial(own, settings.folder, place, scratch))
    for written, call in calls(settings.samplers):
        place = ".".join(map(str, written))
        found[place] = _Calculator(call.target, _potential(call, settings.folder, place, scratch))
    for written, name in bundled_names(settings):
        if written[-1] != "factory":
            found[".".join(map(str, written))] = _bundled(name)
    return found


def _bundled(name: str) -> _Calculator:
    """The foundation model of a short name."""
    # once: a second label shows the time without loading
    made = cache(lambda: bundled_potential(name, "cpu"))
    return _Calculator(name, lambda frame: made().labels([frame]))


def _initial(own: FactorySettings, folder: Path, place: str, scratch: Path) -> Callable[[Frame], Any]:
    """Function that labels a structure with the calculator of the first structures."""

    def label(frame: Frame) -> Any:
        return _evaluated(calculator_potential(own.factory, own.kwargs, folder, place), frame, scratch)

    return label


def _potential(call: CallSpec, folder: Path, place: str, scratch: Path | None) -> Callable[[Frame], Any]:
    """Function that labels a structure with the potential of a sampler; files that it writes are removed."""

    made = cache(lambda: make_potential(call, folder, place))

    def label(frame: Frame) -> Any:
        return _evaluated(made(), frame, scratch)

    return label


def _evaluated(potential: Potential, frame: Frame, scratch: Path | None) -> Any:
    """Label a structure with a potential, which may ignore its charge; files that it writes are removed."""
    if not isinstance(potential, CalculatorPotential):
        return potential.labels([frame])
    electrons = potential.electrons
    make = potential.make if electrons is None else electrons.maker(frame)
    with own_folder(make(), scratch, frame) as calculator:
        return calculate(frame if electrons is None else electrons.dressed(frame), calculator)


def _label(place: str, calculator: _Calculator, system: System) -> float:
    """Label one structure; returns the time in s. Raises SettingsError when it fails."""
    began = time.monotonic()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            label = calculator.label(system.frame)
            for one in label if isinstance(label, list) else [label]:
                check_label(system.frame, one)
    except (SettingsError, SetupError):
        raise
    except Exception as error:  # a calculator may raise anything
        said = str(error) if isinstance(error, AimsPaxError) else f"{type(error).__name__}: {error}"
        raise SettingsError(
            f"{place}: {calculator.called} cannot label {system.name} ({system.frame.formula}): {said}"
        ) from error
    return time.monotonic() - began


def _programs(settings: Settings) -> Sequence[str]:
    """Warnings for programs of CLUSTER.launch_str that are missing on this machine; cluster nodes may have them."""
    launch = settings.cluster.launch_str
    if settings.reference.type != "aims" or launch is None:
        return ()
    beside = _relative(launch, settings.folder)
    said = [
        f"CLUSTER.launch_str: {w} will not be found: the command runs in the folder of each calculation; write "
        f"{settings.folder / w}"
        for w in beside
    ]
    if settings.cluster.scheduler is not None or SHELL & set(launch):
        missing = [w for w in _absolute(launch) if not Path(w).exists()]
        return [*said, *(f"CLUSTER.launch_str: {w} does not exist on this machine" for w in missing)]
    try:
        words = shlex.split(launch)
    except ValueError as error:
        raise SettingsError(f"CLUSTER.launch_str: {launch!r}: {error}") from error
    programs = [w for k, w in enumerate(words) if k == 0 or "/" in w or w.endswith(".x")]
    others = [w for w in programs if "=" not in w and w not in beside]
    missing = [w for w in others if shutil.which(os.path.expanduser(w)) is None]
    said += [f"CLUSTER.launch_str: {w} does not exist or is not executable on this machine" for w in missing]
    return said


def _relative(launch: str, folder: Path) -> list[str]:
    """Files beside the settings that the command names by a relative path; not the input and output of FHI-aims."""
    other = {"geometry.in", "control.in", *written_by(launch)}
    words = [w for w in re.split(r"[\s;&|<>`'\"()=]+", launch) if w and w not in other]
    found = [
        w for w in dict.fromkeys(words) if not w.startswith(("/", "-", "~")) and not set(w) & set("$*?[]{}")
    ]
    return [w for w in found if (folder / w).is_file() and ("/" in w or shutil.which(w) is None)]


def _absolute(launch: str) -> list[str]:
    """Absolute paths without shell syntax, except output files, which do not exist yet."""
    words = re.split(r"[\s;&|<`'\"()]+", re.sub(r"&?>+[&|]?\s*\S+", " ", launch))
    return [w for w in dict.fromkeys(words) if w.startswith("/") and not set(w) & set("$*?[]{}:=\\")]


def _device(settings: Settings, wanted: bool) -> Sequence[str]:
    """Warnings for missing GPUs: from their device files, or with `wanted` from torch."""
    others = [(key, device) for key, device in devices.named_devices(settings) if device != "cpu"]
    if not others:
        return ()
    if wanted:
        devices.check_devices(settings)
        return ()
    if Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists() or Path("/dev/dxg").exists():
        return ()
    key, device = others[0]
    return [f"{key}: {device}, but this machine shows no GPU; start the run on a machine with a GPU"]
