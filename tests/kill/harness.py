"""Runs that are killed: a forked driver (torch is loaded once), fault points in the file layer, an honest count.

The child patches its own file operations: at the n-th of them it writes only half and kills itself with SIGKILL, or
dies right before or right after a rename. The parent kills at a random time. Nothing in the package knows of it.
"""

from __future__ import annotations

import builtins
import io
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aims_pax.errors import AimsPaxError
from aims_pax.record.arrays import unpack_arrays
from tests.projects import write_project

REFERENCE = '''
"""EMT that writes down when a calculation begins and when it ends."""
import os
from ase.calculators.emt import EMT

class Counted(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        self.note("b", atoms)
        super().calculate(atoms, properties, system_changes)
        self.note("e", atoms)

    def note(self, what, atoms):
        file = os.open(os.environ["CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{what} {atoms.info['frame_id']}\\n".encode())
        os.close(file)
'''


CHANGES = {
    "REFERENCE": {"factory": "counted:Counted"},
    "INITIAL_DATASET_GENERATION": {"max_initial_epochs": 4},
    "ACTIVE_LEARNING": {
        "max_MD_steps": 40,
        "n_test": 1,
        "max_convergence_epochs": 4,
        "final_training": "fresh",
    },
}


PRETRAINING = {
    "potential": {"factory": "ase.calculators.emt:EMT"},
    "n_frames": 24,
    "skip_step": 2,
    "max_epochs": 5,
    "temperature": [300, 600],
}


def project(folder: Path, executor: str, pretraining: bool = False) -> Path:
    cluster = {"executor": executor, "max_workers": 2, "training": {"workers": 0}}
    free = {"PRETRAINING": PRETRAINING} if pretraining else {}
    write_project(folder, {**CHANGES, "CLUSTER": cluster, **free})
    (folder / "counted.py").write_text(REFERENCE)
    return folder


def outcome(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """What a run leaves: bytes of the datasets, and the arrays of the final weights."""
    sets = {p.name: p.read_bytes() for p in (folder / "results").glob("*.xyz")}
    free = folder / "data" / "pretraining"
    kept = ("labelled.xyz", "splits.jsonl")  # not the torn ends, which recovery sets aside
    sets |= {f"pretraining/{p.name}": p.read_bytes() for p in free.glob("*") if p.name in kept}
    newest = max((folder / "restart" / "converge").glob("state-*.npy"))
    version = unpack_arrays(newest.read_bytes())[1]["version"]
    weights, _ = unpack_arrays((folder / "restart" / "converge" / f"weights-{version:06d}.npy").read_bytes())
    return sets, weights


@dataclass
class Ledger:
    """What was counted over all attempts of one run."""

    kills: int = 0
    attempts: int = 0
    repeated: list[str] = field(default_factory=list)  # began although the label was on the disk
    twice: list[str] = field(default_factory=list)  # began again, the kill fell between start and rename
    lost: list[str] = field(default_factory=list)  # label files that vanished
    where: list[str] = field(default_factory=list)  # what was being done when the kill fell


def elsewhere(folder: Path) -> Path:
    """Where a project keeps data, models, losses and checkpoints that does not keep them in its own folder."""
    return folder.with_name(f"{folder.name}.elsewhere")


def given_project(folder: Path, frames: str, data: Path | None = None) -> Path:
    """A project that begins from given structures; everything it writes but restart and results lies elsewhere."""
    there = data or elsewhere(folder)
    changes = {
        "REFERENCE": CHANGES["REFERENCE"],
        "CLUSTER": {"executor": "inline", "training": {"workers": 0}},
        "INITIAL_DATASET_GENERATION": None,
        "ACTIVE_LEARNING": {**CHANGES["ACTIVE_LEARNING"], "initial_train_dataset": "given.xyz"},
        "MISC": {"dataset_dir": f"{there}/data"},
    }
    names = ("model", "loss", "checkpoints")
    write_project(folder, changes, {"GENERAL": {f"{name}_dir": f"{there}/{name}" for name in names}})
    (folder / "counted.py").write_text(REFERENCE)
    (folder / "given.xyz").write_text(frames)
    return folder


def labels(folder: Path) -> set[str]:
    """Frame ids whose label is durable."""
    places = folder / "data" / "labels", elsewhere(folder) / "data" / "labels"
    return {p.stem for place in places for p in place.glob("*/*.json") if p.name != "method.json"}


def begun(folder: Path) -> list[str]:
    """Frame ids whose calculation began, in order."""
    path = folder / "calls.log"
    return (
        [line.split()[1] for line in path.read_text().splitlines() if line.startswith("b ")]
        if path.exists()
        else []
    )


def attempt(
    folder: Path,
    ledger: Ledger,
    *,
    at_write: int | None = None,
    after: float | None = None,
    eager: bool = True,
    error: int | None = None,
    clock: float = 0.0,
) -> int | None:
    """Fork a driver in `folder`; exit code, or None when it was killed.

    at_write: die inside this file operation. after: be killed after so many seconds. eager: a snapshot at every
    chance, so that kills fall behind many of them. error: from `at_write` on every write fails with this errno
    instead. clock: the wall clock jumps by so many seconds at every look.
    """
    before, known = labels(folder), begun(folder)
    trace = folder / "trace"
    child = os.fork()
    if child == 0:
        _drive(folder, Faults(at_write, trace, error), eager, clock)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    ledger.attempts += 1
    killed = os.WIFSIGNALED(status)
    if killed:
        ledger.kills += 1
        ledger.where.append(trace.read_text() if at_write is not None and trace.exists() else "random time")
    new = begun(folder)[len(known) :]
    ledger.repeated += [f for f in new if f in before]
    ledger.twice += [f for f in new if f in known and f not in before]
    ledger.lost += sorted(before - labels(folder))
    return None if killed else os.waitstatus_to_exitcode(status)


def _drive(folder: Path, faults: Faults, eager: bool, clock: float) -> None:
    code = 99
    try:
        os.setsid()
        os.environ["CALLS"] = str(folder / "calls.log")
        os.chdir(folder)
        out = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        from rich.console import Console

        from aims_pax.commands import run
        from aims_pax.engine import event_loop
        from aims_pax.settings import read_settings

        if eager:
            event_loop.SNAPSHOT_SECONDS = 0.0
        settings = read_settings(folder, for_run=True)
        if clock:
            now, looks = time.time, iter(range(10**9))
            time.time = lambda: now() + clock * next(looks)
        faults.install()
        with open(os.devnull, "w") as nowhere:
            try:
                run.run_all(settings, Console(file=nowhere))
            finally:
                faults.at = None
        (folder / "operations").write_text(str(faults.count))
        code = 0
    except AimsPaxError as error:
        os.write(1, f"aims-PAX: {error}\n".encode())  # not print: pytest's capture is not this process's
        code = 1
    except BaseException:
        import traceback

        os.write(1, traceback.format_exc().encode())
    finally:
        os._exit(code)


class Faults:
    """Counts file operations of this process and dies inside the n-th (or makes all fail from there on)."""

    def __init__(self, at: int | None, trace: Path, error: int | None = None) -> None:
        self.at, self.trace, self.count, self.error = at, trace, 0, error
        self.open = builtins.open

    def install(self) -> None:
        for name in ("replace", "rename", "link", "fsync", "unlink"):
            setattr(os, name, self._wrapped(getattr(os, name), name))
        builtins.open = io.open = self._open  # type: ignore[assignment]

    def due(self, what: str) -> bool:
        self.count += 1
        if self.error is not None and self.at is not None and self.count >= self.at:
            if what.startswith("unlink"):
                return False
            raise OSError(self.error, os.strerror(self.error), what.split()[-1])
        if self.count != self.at:
            return False
        with self.open(self.trace, "w") as file:
            file.write(what)
        return True

    def _wrapped(self, function: Any, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.due(f"{name} {args[:2]}"):
                return function(*args, **kwargs)
            try:
                if self.count % 2:
                    function(*args, **kwargs)
            finally:  # also when it fails, as the removal of a file that is not there does
                os.kill(os.getpid(), signal.SIGKILL)

        return call

    def _open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        opened = self.open(file, mode, *args, **kwargs)
        watched = {"w", "a", "x"} & set(mode) and str(file) != os.devnull
        return Half(opened, self, str(file)) if watched else opened


class Half:
    """A file whose fatal write reaches the disk only by half."""

    def __init__(self, file: Any, faults: Faults, name: str) -> None:
        self.__dict__.update(file=file, faults=faults, name_=name)

    def write(self, content: Any) -> int:
        if self.faults.due(f"write {self.name_}"):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.file.write(content)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.file, name, value)

    def __enter__(self) -> Half:
        self.file.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.file.__exit__(*exception)

    def __iter__(self) -> Any:
        return iter(self.file)
