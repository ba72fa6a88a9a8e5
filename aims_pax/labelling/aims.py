"""FHI-aims as the reference: write geometry.in and control.in, run the launch command, read aims.out.

    {calc_dir}/{frame_id}/                   one calculation: geometry.in, control.in, aims.out, aims.err
    {calc_dir}/kept/{frame_id}.tar.gz        all of it afterwards, with clean_dirs: false
    {calc_dir}/failed/{frame_id}.tar.gz      what is left of a failed one, always (the last 50)

Every keyword of the user's control.in reaches FHI-aims as it was written; what must change is listed in
`aims_input.control_for`. The command runs in a session of its own that ends with this process, whatever kills it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aims_pax.errors import (
    Crashed,
    LabelError,
    NotConverged,
    NotFinite,
    SetupError,
    TimedOut,
    Truncated,
    WrongShape,
)
from aims_pax.frames import Frame, Label
from aims_pax.labelling.aims_input import (
    control_for,
    control_for_atoms,
    geometry_text,
    species_files,
    species_text,
)
from aims_pax.labelling.executor import WorkerDied
from aims_pax.labelling.sessions import Clock, Running
from aims_pax.labelling.validation import check_label
from aims_pax.record.files import move, replacing

if TYPE_CHECKING:
    from ase.io.aims import AimsOutCalcChunk

    from aims_pax.settings.control import Control, Value

__all__ = ["AimsReference", "control_for", "geometry_text", "read_label", "species_text"]

log = logging.getLogger(__name__)

OUTPUT = "aims.out"
OURS = ".aims_pax.json"  # marks a folder that we made and may remove
KEPT_FAILURES = 50
LARGEST_KEPT = 20_000_000  # bytes; densities and cubes of a failed calculation are not worth the disk
GOODBYE = "Have a nice day."
UNCONVERGED = ("SELF-CONSISTENCY CYCLE DID NOT CONVERGE", "scf_solver: SCF cycle not converged")

SCHEDULER_AWAY = 600.0  # s for which Slurm may not start a program, and the pause between two attempts
SCHEDULER_PAUSE = 5.0
NOT_BEGUN = (
    0.34  # counts against the frame so that it is tried three times: it may also hang before its first line
)
NO_LINE = "the program has printed nothing: Slurm did not start it in time, or it hangs"
_no_step = re.compile(
    r"srun: .*(unable to (confirm allocation|contact slurm controller|create step)|connection failure"
    r"|connect failure|socket timed out|zero bytes|temporarily disabled)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class AimsReference:
    """FHI-aims with one control.in. species_dir: one `{Z:02d}_{El}_default` file an element.

    launch: the shell command, run inside the calculation's folder. stress: asked for where it exists.
    time_limit: seconds, or None.
    """

    control: Control
    species_dir: Path
    launch: str
    calc_dir: Path
    clean_dirs: bool = True
    stress: bool = False
    time_limit: float | None = None
    shared: bool = False  # several run side by side in one Slurm job
    retries: tuple[Mapping[str, Value], ...] = ()  # keywords changed after an SCF cycle that did not converge
    controls: Mapping[str, Control] = field(default_factory=dict)  # by name of the system; empty: one for all
    quick = True  # a program of its own: threads only wait for it
    _running: Running = field(default_factory=Running, repr=False, compare=False)

    def describe(self) -> dict[str, Any]:
        """control.in, the species files, and whether stress is asked for; not where or how it runs."""
        files = sorted(self.species_dir.glob("*_default"))
        species = hashlib.sha256(b"".join(f.name.encode() + f.read_bytes() for f in files)).hexdigest()
        keywords = [list(k) for k in self.control.keywords]
        return {"type": "aims", "control": keywords, "species": species, "stress": self.stress}

    def for_system(self, name: str | None) -> AimsReference:
        """The same with the control.in of one geometry. Raises SetupError when it has none."""
        if not self.controls:
            return self
        if name is None or name not in self.controls:
            raise SetupError(
                f"MISC.path_to_control names no file for {name or 'a structure of unknown origin'}"
            )
        return replace(self, control=self.controls[name], controls={})

    def for_atoms(self) -> AimsReference:
        """The same for isolated atoms. Control files of several geometries must agree on the method."""
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
        """Raise SetupError when the species folder is missing."""
        if not self.species_dir.is_dir():
            raise SetupError(
                f"species_dir: {self.species_dir} is not a folder; give the species defaults of FHI-aims, "
                "like …/species_defaults/defaults_2020/light"
            )
        if not any(self.species_dir.glob("*_default")):
            raise SetupError(f"species_dir: no files like 01_H_default in {self.species_dir}")

    def check_elements(self, numbers: Sequence[int]) -> None:
        """Raise SetupError naming every species file that these elements lack."""
        species_files(self.species_dir, numbers)

    def label(self, frame: Frame) -> Label:
        """Raw forces and free energy. Raises LabelError, with where its files are, or SetupError."""
        control = control_for(self.control, frame, self.stress)
        species = species_text(self.species_dir, frame)
        clock = Clock(self.time_limit)  # of all attempts together
        with self._folder(frame) as folder:
            (folder / "geometry.in").write_text(geometry_text(frame))
            for rung in range(len(self.retries) + 1):
                changes = dict(self.retries[rung - 1]) if rung else {}
                inputs = control.replaced(**changes).text().rstrip("\n") + "\n\n" + species
                (folder / "control.in").write_text(inputs, encoding="utf-8", errors="surrogateescape")
                try:
                    return self._attempt(folder, frame, clock)
                except NotConverged as error:
                    if rung == len(self.retries):
                        raise NotConverged(_after(error.reason, rung)) from error
                    told = ", ".join(f"{k} {v}" for k, v in self.retries[rung].items())
                    log.info("frame %s: SCF not converged; once more with %s", frame.id[:6], told)
                    _set_aside(folder, rung)
        raise AssertionError("the last rung returns or raises")

    def _attempt(self, folder: Path, frame: Frame, clock: Clock) -> Label:
        redirected = _redirected_to(self.launch)
        output = folder / (redirected or OUTPUT)
        own = folder / ("launch.out" if redirected else OUTPUT)
        code = self._launched(folder, own, output, clock)
        text = output.read_text(errors="replace") if output.is_file() else ""
        _check_end(text, code, folder, self.launch)
        label = read_label(text, frame, stress=self.stress and frame.periodic)
        check_label(frame, label)  # here, so that the files of an unusable label are kept
        return label

    def stop(self) -> None:
        """Kill what this process has running."""
        self._running.stop()

    def _launched(self, folder: Path, own: Path, output: Path, clock: Clock) -> int:
        """The exit code of the launch command; begun again as long as it is Slurm that does not start it.

        Inside a Slurm job a calculation begins with its first line: before, srun waits for its step, sometimes for
        minutes. Raises TimedOut, and WorkerDied when Slurm starts nothing for too long: no fault of the frame.
        """
        errors, inside = folder / "aims.err", "SLURM_JOB_ID" in os.environ
        until = time.monotonic() + SCHEDULER_AWAY
        while True:
            try:
                code = self._running.run(
                    self.launch, folder, own, errors, clock, self.shared,
                    waiting=lambda: inside and not _begun(output) and time.monotonic() < until,
                )  # fmt: skip
            except TimedOut:
                if _begun(output) or not (inside or _no_step.search(_read(errors))):
                    raise
                raise WorkerDied(f"{NO_LINE}: {_tail(folder) or 'srun says nothing'}", NOT_BEGUN) from None
            if code == 0 or _begun(output) or not _no_step.search(_read(errors)):
                return code
            if time.monotonic() > until:
                raise WorkerDied(f"{NO_LINE}: {_tail(folder)}", NOT_BEGUN)
            log.warning("%s: %s; trying again", folder.name, _tail(folder))
            time.sleep(SCHEDULER_PAUSE)

    @contextmanager
    def _folder(self, frame: Frame) -> Iterator[Path]:
        """A folder of its own for one calculation; afterwards gone, kept, or packed, as it went."""
        folder = self.calc_dir / frame.id
        for n in range(2, 1000):
            if not folder.exists():
                break
            if (folder / OURS).is_file():  # left by a run that was killed; >> aims.out would append to it
                shutil.rmtree(folder, ignore_errors=True)
                continue
            folder = self.calc_dir / f"{frame.id}-{n}"
        try:
            folder.mkdir(parents=True)
            (folder / OURS).write_text(
                json.dumps({"frame_id": frame.id, "host": socket.gethostname(), "pid": os.getpid()})
            )
            yield folder
        except LabelError as error:
            if self._running.stopping:  # killed with the run: nothing to learn from it
                shutil.rmtree(folder, ignore_errors=True)
            else:
                error.folder = _pack(folder, self.calc_dir / "failed", frame.id)
            raise
        except OSError as error:
            raise SetupError(
                f"CLUSTER.calc_dir: {self.calc_dir}: {error.strerror or error}; "
                "make it writable or free space"
            ) from error
        except BaseException:  # Ctrl-C, or what every calculation lacks
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if self.clean_dirs:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            _pack(folder, self.calc_dir / "kept", frame.id, all_of_them=True)


def read_label(text: str, frame: Frame, stress: bool) -> Label:
    """The label in a finished aims.out. Raises Truncated, WrongShape or NotFinite."""
    from ase.io.aims import AimsParseError

    try:
        chunk = _last_chunk(text)
        if chunk.n_atoms != len(frame):
            raise WrongShape(f"aims.out is about {chunk.n_atoms} atoms, the frame has {len(frame)}")
        energy, forces = chunk.free_energy, chunk.forces
        tensor = chunk.stress if stress else None
    except AimsParseError as error:
        raise Truncated(f"aims.out lacks lines it should have: {error}") from error
    except (ValueError, LookupError, TypeError, ArithmeticError, AssertionError) as error:
        if "***" in text:
            raise NotFinite("aims.out holds numbers too large to be printed (***)") from error
        raise Truncated(f"aims.out is garbled: {error}") from error
    if energy is None:
        raise WrongShape("no 'Electronic free energy' in aims.out")
    if forces is None or forces.shape != (len(frame), 3):
        raise WrongShape(
            "no forces in aims.out" if forces is None else f"forces have shape {forces.shape} in aims.out"
        )
    if stress and tensor is None:
        raise WrongShape(
            "no stress in aims.out; if this functional has no analytical stress, "
            "write compute_numerical_stress .true. into control.in"
        )
    return Label(energy, forces, None if tensor is None else _full(tensor))


def _last_chunk(text: str) -> AimsOutCalcChunk:
    # ASE's own reader without its announcement of a plug-in at each call, and without its check of the end
    import io

    from ase.io import ParseError
    from ase.io.aims import get_aims_out_chunks, get_header_chunk

    lines = iter(io.StringIO(text))
    try:
        chunks = list(get_aims_out_chunks(lines, get_header_chunk(lines)))
    except ParseError as error:
        raise Truncated(f"aims.out: {error}") from error
    if not chunks:
        raise Truncated("aims.out ends with its header")
    return cast("AimsOutCalcChunk", chunks[-1])


def _check_end(text: str, code: int, folder: Path, launch: str) -> None:
    """Raise what an exit code and the end of aims.out mean, before any number is believed."""
    if code in (126, 127):
        raise SetupError(
            f"CLUSTER.launch_str: {launch!r} cannot be run: {_tail(folder) or f'exit code {code}'}"
        )
    if code != 0 and (found := re.search(r"execve\(\): .*", _read(folder / "aims.err"))):  # srun's code is 2
        raise SetupError(f"CLUSTER.launch_str: {launch!r} cannot be run: {found[0]}")
    if any(mark in text for mark in UNCONVERGED):  # also where the output still says goodbye
        raise NotConverged("the self-consistency cycle did not converge")
    if code != 0:
        raise Crashed(f"{_exit(code)}: {_tail(folder, text) or 'no output'}")
    if GOODBYE not in text[-4000:]:
        if not text.strip():
            raise Crashed(f"no output: {_tail(folder) or 'nothing on standard error either'}")
        raise Truncated(f"aims.out ends early: {_tail(folder, text)}")


def _begun(output: Path) -> bool:
    """Whether the program has given a sign of life."""
    return output.is_file() and output.stat().st_size > 0


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
    """The last telling lines: standard error, else the output, in one line."""
    text = _read(folder / "aims.err").strip() or text
    lines = [line.strip() for line in text.strip().splitlines() if line.strip(" *-=")]
    return " / ".join(lines[-3:])[-300:]


def _redirected_to(command: str) -> str | None:
    """The file a launch command sends its output to, if it does so itself.

    >>> _redirected_to("srun aims.x >> aims.out 2> err"), _redirected_to("srun aims.x 2> err")
    ('aims.out', None)
    """
    targets = re.findall(r"(?<![\d&])1?>{1,2}\s*([^\s;&|<>]+)", command)
    targets = [t for t in targets if t != "/dev/null"]
    if targets:
        return str(targets[-1]).strip("'\"")
    return OUTPUT if re.search(rf"\b{re.escape(OUTPUT)}\b", command) else None


def _set_aside(folder: Path, rung: int) -> None:
    """aims.out → aims.out.0 and so on, before the next attempt writes its own."""
    for file in list(folder.iterdir()):
        if file.is_file() and file.name not in ("geometry.in", OURS) and not re.search(r"\.\d+$", file.name):
            move(file, file.with_name(f"{file.name}.{rung}"))


def _after(reason: str, retries: int) -> str:
    return reason if not retries else f"{reason}, nor with the changes of {retries} retries"


def _pack(folder: Path, kept: Path, name: str, all_of_them: bool = False) -> str | None:
    """Pack what is left of a calculation and remove its folder; only so many are kept. Says where."""
    path = kept / f"{name}.tar.gz"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, tarfile.open(part, "w:gz") as archive:
            for file in sorted(folder.iterdir()):
                if file.is_file() and file.name != OURS and file.stat().st_size <= LARGEST_KEPT:
                    archive.add(file, f"{name}/{file.name}")
        shutil.rmtree(folder, ignore_errors=True)
        ours = [p for p in kept.iterdir() if re.fullmatch(r"[0-9a-f]{20}\.tar\.gz", p.name)]
        for old in sorted(ours, key=lambda p: p.stat().st_mtime)[:-KEPT_FAILURES]:
            if not all_of_them:
                old.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot keep the files of the calculation %s: %s", folder, error)
        return str(folder) if folder.exists() else None
    return str(path)


def _full(stress: Any) -> Any:
    from ase.stress import voigt_6_to_full_3x3_stress

    return voigt_6_to_full_3x3_stress(stress)
