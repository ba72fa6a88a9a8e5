"""FHI-aims as the reference: write geometry.in and control.in, run the launch command, read aims.out.

Every keyword of the user's control.in reaches FHI-aims as it was written; necessary changes are listed in
`aims_input.control_for`. Each calculation has its own folder (`calculation_folders`), which is removed when its label
is stored. The command runs in its own session, which ends with this process, however that dies.
"""

from __future__ import annotations

import hashlib
import logging
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aims_pax.errors import (
    Crashed,
    LabelError,
    NotConverged,
    NotStored,
    SettingsError,
    SetupError,
    TimedOut,
    Truncated,
)
from aims_pax.frames import Frame, Label
from aims_pax.labelling.calculation_folders import OWNER, CalculationFolders
from aims_pax.labelling.executors.base import WorkerDied
from aims_pax.labelling.process_sessions import CommandRunner, SharedTimeLimit
from aims_pax.labelling.references.aims_input import (
    control_for,
    control_for_atoms,
    geometry_text,
    nuclear_charges,
    species_files,
    species_text,
)
from aims_pax.labelling.references.aims_output import (
    GOODBYE,
    converged,
    last_calculation,
    out_of_space,
    read_label,
)
from aims_pax.labelling.references.launch_output import OUTPUT, begun, output_of, redirects
from aims_pax.labelling.store import method_hash
from aims_pax.labelling.validation import check_label
from aims_pax.record.files import move
from aims_pax.schedulers.registry import known_schedulers, own_scheduler
from aims_pax.settings.control_in_check import lost_hubbard

if TYPE_CHECKING:
    from aims_pax.settings.control_in import Control, Value

__all__ = ["AimsReference", "control_for", "geometry_text", "read_label", "species_text"]

log = logging.getLogger(__name__)

SCHEDULER_AWAY = 600.0  # s for which to try again when a scheduler does not start a program
SCHEDULER_PAUSE = 5.0  # s between two attempts
# cost, so that a frame is tried three times: the program may also hang before its first line, or a step be too short
NOT_BEGUN = 0.34
# no such program (the launcher's exit code is 2), or more processes than the job has cores
CANNOT_RUN = re.compile(
    r"execve\(\): .*|More processors requested than permitted|There are not enough slots available in the system.*"
)
# exit codes; schedulers send it, a program that fails does not
TERMINATED = (
    -signal.SIGTERM,
    128 + signal.SIGTERM,
)
NO_LINE = "the program has printed nothing: {} did not start it in time, or it hangs"


@dataclass(frozen=True)
class AimsReference:
    """FHI-aims with one control.in. species_dir: one `{Z:02d}_{El}_default` file per element.

    launch: the shell command, run in the calculation's folder. stress: requested for periodic frames.
    time_limit: seconds, or None.
    """

    control: Control
    species_dir: Path
    launch: str
    calc_dir: Path
    clean_dirs: bool = True
    stress: bool = False
    time_limit: float | None = None
    shared: bool = False  # several run at the same time in one scheduler job
    retries: tuple[Mapping[str, Value], ...] = ()  # keywords changed after an SCF cycle that did not converge
    controls: Mapping[str, Control] = field(default_factory=dict)  # by name of the system; empty: one for all
    quick = True  # an external program: threads only wait for it
    _running: CommandRunner = field(default_factory=CommandRunner, repr=False, compare=False)

    def describe(self) -> dict[str, Any]:
        """control.in, the species files, and whether stress is requested; not where or how it runs."""
        keywords = [list(k) for k in self.control.keywords]
        return {"type": "aims", "control": keywords, "species": self._species, "stress": self.stress}

    @cached_property
    def _species(self) -> str:
        """A hash of all species defaults; computed once and sent to the workers."""
        files = sorted(self.species_dir.glob("*_default"))
        return hashlib.sha256(b"".join(f.name.encode() + f.read_bytes() for f in files)).hexdigest()

    def for_system(self, name: str | None) -> AimsReference:
        """The same reference with the control.in of one geometry. Raises SetupError when it has none."""
        if not self.controls:
            return self
        if name is None or name not in self.controls:
            raise SetupError(
                f"MISC.path_to_control names no file for {name or 'a structure of unknown origin'}"
            )
        return replace(self, control=self.controls[name], controls={})

    def for_atoms(self) -> AimsReference:
        """The same reference for isolated atoms. Warns when the methods of several control files differ."""
        given = self.controls or {"": self.control}
        of_atoms = {name: control_for_atoms(control) for name, control in given.items()}
        first, *others = of_atoms
        differing = [n for n in others if sorted(of_atoms[n].keywords) != sorted(of_atoms[first].keywords)]
        if differing:
            log.warning(
                "the control.in of %s and of %s differ in more than charge, spin and k-points; isolated atoms "
                "are computed with that of %s", first, ", ".join(differing), first,
            )  # fmt: skip
        return replace(self, control=of_atoms[first], controls={}, stress=False)

    def check(self) -> None:
        """Raise SetupError when the species folder is missing, SettingsError where DFT+U would be lost."""
        if not self.species_dir.is_dir():
            raise SetupError(
                f"species_dir: {self.species_dir} is not a folder; give the species defaults of FHI-aims, "
                "like …/species_defaults/defaults_2020/light"
            )
        if not any(self.species_dir.glob("*_default")):
            raise SetupError(f"species_dir: no files like 01_H_default in {self.species_dir}")
        for control in (self.control, *self.controls.values()):
            if (lost := lost_hubbard(control, self.species_dir)) is not None:
                raise SettingsError(f"control.in: {lost}")

    def check_elements(self, numbers: Sequence[int]) -> None:
        """Raise SetupError naming every species file that these elements lack."""
        species_files(self.species_dir, numbers)

    @cached_property
    def method(self) -> str:
        """The hash of everything that determines a label."""
        return method_hash(self.describe())

    def label(self, frame: Frame) -> Label:
        """Raw forces and free energy. Raises LabelError, with the path of its files, or SetupError."""
        return self.label_and_store(frame, lambda label: None)

    def label_and_store(self, frame: Frame, store: Callable[[Label], None]) -> Label:
        """As `label`, but calls `store` with the label before the calculation's files are removed.

        Raises NotStored when `store` raises SetupError: the files stay, and the next request for the frame finds them.
        """
        control = control_for(self.control, frame, self.stress)
        species = species_text(self.species_dir, frame)
        with self._folder(frame, control, species) as (folder, found):
            label = self._compute(folder, frame, control, species) if found is None else found
            try:
                store(label)
            except SetupError as error:
                raise NotStored(str(error)) from error
        return label

    def _compute(self, folder: Path, frame: Frame, control: Control, species: str) -> Label:
        clock = SharedTimeLimit(self.time_limit)  # of all attempts together
        (folder / "geometry.in").write_text(geometry_text(frame))
        for rung in range(len(self.retries) + 1):
            changes = dict(self.retries[rung - 1]) if rung else {}
            changed = control.replaced(**changes)
            inputs = changed.text().rstrip("\n") + "\n\n" + species
            (folder / "control.in").write_text(inputs, encoding="utf-8", errors="surrogateescape")
            try:
                return self._attempt(folder, frame, clock, changed, species)
            except NotConverged as error:
                if rung == len(self.retries):
                    raise NotConverged(_after(error.reason, rung)) from error
                what = ", ".join(f"{k} {v}" for k, v in self.retries[rung].items())
                log.info("frame %s: SCF not converged; trying again with %s", frame.id[:6], what)
                _set_aside(folder, rung)
        raise AssertionError("the last rung returns or raises")

    def _attempt(
        self, folder: Path, frame: Frame, clock: SharedTimeLimit, control: Control, species: str
    ) -> Label:
        own = folder / ("launch.out" if redirects(self.launch) else OUTPUT)
        code = self._launched(folder, own, clock)
        text = self._output(folder, own)
        _check_end(text, code, folder, self.launch)
        return self._believed(text, frame, control, species)

    def _output(self, folder: Path, own: Path) -> str:
        path = output_of(folder, self.launch, own)
        return last_calculation(_read(path)) if path is not None else ""

    def _believed(self, text: str, frame: Frame, control: Control, species: str) -> Label:
        label = read_label(text, frame, self.stress and frame.periodic, control, nuclear_charges(species))
        check_label(frame, label)  # here, so that the files of an invalid label are archived
        return label

    def _finished(self, folder: Path, frame: Frame, control: Control, species: str) -> Label | None:
        """The label of a completed calculation in a folder of an earlier run, or None."""
        try:
            text = self._output(folder, folder / OUTPUT)
            if GOODBYE in text and converged(text):
                return self._believed(text, frame, control, species)
        except (LabelError, SetupError, OSError) as error:
            log.info("frame %s: unusable files of an earlier run in calc_dir (%s)", frame.id[:6], error)
        return None

    def stop(self) -> None:
        """Kill all commands that this process runs."""
        self._running.stop()

    def listen(self, check: Callable[[], None]) -> None:
        """Set a function that is called while the main thread waits for a calculation; it may raise."""
        self._running.check = check

    def _launched(self, folder: Path, own: Path, clock: SharedTimeLimit) -> int:
        """The exit code of the launch command; repeated while the scheduler does not start the program.

        Inside a job of a scheduler that starts steps, the time limit counts from the first line of output: before it
        the launcher waits for its step, sometimes for minutes. Raises TimedOut; WorkerDied when nothing is started
        for too long, which is not the fault of the frame.
        """
        errors, scheduler = folder / "aims.err", own_scheduler()
        inside = scheduler is not None and scheduler.starts_steps
        until = time.monotonic() + SCHEDULER_AWAY

        def alive() -> bool:
            return begun(folder, self.launch, own)

        def failed() -> bool:
            text = _read(errors)
            return any(s.launch_failed(text) for s in known_schedulers().values())

        nothing = NO_LINE.format("the scheduler" if scheduler is None else scheduler.title)
        while True:
            try:
                code = self._running.run(
                    self.launch, folder, own, errors, clock, self.shared,
                    waiting=lambda: inside and not alive() and time.monotonic() < until,
                )  # fmt: skip
            except TimedOut:
                if alive() or not (inside or failed()):
                    raise
                raise WorkerDied(
                    f"{nothing}: {_tail(folder) or 'the launcher printed nothing'}", NOT_BEGUN
                ) from None
            if code == 0 or alive() or not failed():
                return code
            if time.monotonic() > until:
                raise WorkerDied(f"{nothing}: {_tail(folder)}", NOT_BEGUN)
            log.warning("%s: %s; trying again", folder.name, _tail(folder))
            time.sleep(SCHEDULER_PAUSE)

    @contextmanager
    def _folder(self, frame: Frame, control: Control, species: str) -> Iterator[tuple[Path, Label | None]]:
        """The folder of one calculation; afterwards removed, packed, or left, depending on the outcome.

        Yields also the label, if a calculation of an earlier run had completed without its label being stored.
        """
        folders = CalculationFolders(self.calc_dir, self.method)
        folder: Path | None = None
        found: Label | None = None
        try:
            for folder in folders.left(frame.id, self.time_limit):
                found = self._finished(folder, frame, control, species)
                if found is not None:
                    log.info(
                        "frame %s: its calculation had completed (%s); not repeated", frame.id[:6], folder
                    )
                    break
                folders.remove(folder)  # unfinished calculations start again
            if found is None or folder is None:
                folder = folders.make(frame.id, self.time_limit)
            yield folder, found
        except LabelError as error:
            assert folder is not None
            if self._running.stopping:  # killed because the run stops: not a failure
                folders.remove(folder)
            else:
                error.folder = folders.keep(folder, frame.id, failed=True)
            raise
        except NotStored as error:
            assert folder is not None
            raise NotStored(
                f"{error}. The label of frame {frame.id} is computed; its calculation stays in "
                f"{folders.leave(folder)}, and the next run takes the label from there"
            ) from error
        except OSError as error:
            if folder is not None:
                folders.remove(folder)
            raise SetupError(
                f"CLUSTER.calc_dir: {self.calc_dir}: {error.strerror or error}; "
                "make it writable or free space"
            ) from error
        except BaseException:  # Ctrl-C, or a SetupError
            if folder is not None:
                folders.remove(folder)
            raise
        if self.clean_dirs:
            folders.remove(folder)
        else:
            folders.keep(folder, frame.id, failed=False)


def _check_end(text: str, code: int, folder: Path, launch: str) -> None:
    """Raise the error that the exit code and the end of aims.out mean, before any number is read."""
    if code in (126, 127):
        raise SetupError(
            f"CLUSTER.launch_str: {launch!r} cannot be run: {_tail(folder) or f'exit code {code}'}{_where(launch)}"
        )
    if code != 0 and (found := CANNOT_RUN.search(_read(folder / "aims.err"))):
        raise SetupError(f"CLUSTER.launch_str: {launch!r} cannot be run: {found[0]}")
    said = _read(folder / "aims.err") + "\n" + text[-4000:]
    ended = code in TERMINATED or any(s.ended_program(said) for s in known_schedulers().values())
    if code != 0 and GOODBYE not in text and ended:
        raise WorkerDied(
            f"the program was ended from outside ({_exit(code)}): {_tail(folder, text)}", NOT_BEGUN
        )
    if not converged(text):  # also where the output ends normally
        raise NotConverged("the self-consistency cycle did not converge")
    full = out_of_space(said)
    if full is not None and (code != 0 or GOODBYE not in text):
        raise SetupError(f"CLUSTER.calc_dir: {folder.parent}: {full}; free space or make it writable")
    if code != 0:
        raise Crashed(f"{_exit(code)}: {_tail(folder, text) or 'no output'}")
    if GOODBYE not in text:  # anywhere: MPI libraries print lines after it
        if not text.strip():
            raise Crashed(f"no output: {_tail(folder) or 'nothing on standard error either'}")
        raise Truncated(f"aims.out ends early: {_tail(folder, text)}")


def _where(launch: str) -> str:
    """Where a command with a relative path runs, which may be why it is not found."""
    relative = any(
        "/" in word and word[0] not in "/~$-" for word in re.split(r"[\s;&|<>()'\"=]+", launch) if word
    )
    return "; it runs in the folder of each calculation, so write paths in full" if relative else ""


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def _exit(code: int) -> str:
    number = -code if code < 0 else code - 128 if 128 < code < 160 else 0
    if number:
        with suppress(ValueError):
            return f"killed by {signal.Signals(number).name}"
    return f"exit code {code}"


def _tail(folder: Path, text: str = "") -> str:
    """The last three non-empty lines of standard error, else of the output, joined into one."""
    text = _read(folder / "aims.err").strip() or text
    lines = [line.strip() for line in text.strip().splitlines() if line.strip(" *-=")]
    return " / ".join(lines[-3:])[-300:]


def _set_aside(folder: Path, rung: int) -> None:
    """aims.out → aims.out.0 and so on, before the next attempt writes its own."""
    for file in list(folder.iterdir()):
        if file.is_file() and file.name not in ("geometry.in", OWNER) and not re.search(r"\.\d+$", file.name):
            move(file, file.with_name(f"{file.name}.{rung}"))


def _after(reason: str, retries: int) -> str:
    return reason if not retries else f"{reason}, nor with the changes of {retries} retries"
