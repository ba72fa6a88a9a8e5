"""What a run costs beside models and reference when it has 10 000 labels: restart, `status`, and labels per second.

    python benchmarks/bookkeeping.py [--against CHECKOUT] [--frames 10000] [--rounds 5]

restart: reading the dataset. status: its first look in a new process, and the next looks of `--watch` while a run
adds frames. labels: a calculator that answers at once, through the labeller, with each executor; their files are on
the disk of --scratch. With --against, the package in another checkout does the same work in turn, each in a process of
its own.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator
from rich.console import Console
from rich.table import Table

from aims_pax.frames import Frame, Label, LabelledFrame

METHOD = "0123456789ab"
WORK = ("restart", "status", "watch", "inline", "threads", "htex")
CODE = {1: "H", 6: "C", 8: "O"}


def labelled(n: int, seed: int = 0) -> Iterator[LabelledFrame]:
    """n frames of 21 atoms, every second one periodic with stress."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        cell = rng.normal(0, 0.1, (3, 3)) + 12 * np.eye(3) if i % 2 else np.zeros((3, 3))
        frame = Frame(rng.choice(list(CODE), 21), rng.normal(0, 4, (21, 3)), cell, np.full(3, bool(i % 2)))
        stress = rng.normal(0, 0.01, (3, 3)) if i % 2 else None
        label = Label(
            -5000.0 + rng.normal(), rng.normal(0, 1, (21, 3)), None if stress is None else stress + stress.T
        )
        where = {"system": "aspirin", "stage": "active learning", "trajectory": i % 8, "step": 10 * i}
        yield LabelledFrame(frame, label, {**where, "method": METHOD, "source": "reference"})


class AtOnce(Calculator):
    """Answers at once."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        p = atoms.positions - atoms.positions.mean(0)
        self.results = {"energy": float((p**2).sum()), "forces": -2 * p}


class FolderOfRun:
    """A working folder as a run leaves it: dataset, labels, journal, settings. It can grow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.time = time.time() - 5e5
        for name in ("data/labels/" + METHOD, "restart"):
            (folder / name).mkdir(parents=True)
        content = {
            "format": 1,
            "settings": {"mace.GENERAL.name_exp": "bench"},
            "geometries": {"aspirin": "0"},
        }
        (folder / "restart/settings.json").write_text(json.dumps(content))

    def grow(self, frames: list[LabelledFrame]) -> None:
        """Add these frames, each after two certain checks of its trajectory."""
        from aims_pax.labelled_data import to_extxyz

        lines, splits = [], []
        for k, frame in enumerate(frames):
            i, step = int(frame.origin["trajectory"]), int(frame.origin["step"])
            for back, name in ((20, "x"), (10, "y"), (0, "")):
                lines.append(
                    self._advanced(i, step - back, frame.id + name, "certain" if name else "uncertain")
                )
            lines.append(self._entry("Labelled", {"work": {"frame": frame.id}}))
            splits.append([frame.id, "valid" if k % 5 == 0 else "train", k % 4, METHOD])
            self._store(frame)
        for path, text in (
            ("data/labelled.xyz", to_extxyz(frames)),
            ("data/splits.jsonl", "".join(json.dumps(s) + "\n" for s in splits)),
            ("restart/journal.jsonl", "".join(lines)),
        ):
            with open(self.folder / path, "a") as file:
                file.write(text)

    def _entry(self, kind: str, content: dict, **more: object) -> str:
        self.time += 10.0
        entry = {"time": self.time, "stage": "explore", "kind": kind, "content": content, **more}
        return json.dumps(entry) + "\n"

    def _advanced(self, i: int, step: int, frame: str, decision: str) -> str:
        work = {"trajectory": i, "start": step - 10, "end": step, "life": 0}
        content = {"work": work, "step": step, "frame": frame, "uncertainty": [0.1, 0.2, 0.3], "fault": None}
        check = {"trajectory": i, "step": step, "uncertainty": 0.3, "threshold": 0.25, "decision": decision}
        return self._entry("Advanced", content, check=check)

    def _store(self, frame: LabelledFrame) -> None:
        record = {
            "format": 1, "frame_id": frame.id, "method": METHOD, "energy": frame.label.energy,
            "forces": frame.label.forces.tolist(), "stress": None, "checksum": "0" * 16, "raw_forces": True,
            "seconds": 12.5, "host": "node17", "version": "0", "when": self.time,
        }  # fmt: skip
        (self.folder / f"data/labels/{METHOD}/{frame.id}.json").write_text(json.dumps(record))


# ---------------------------------------------------------------- one measurement, in a process of its own


def measure(what: str, folder: Path, frames: int) -> float:
    """Seconds (restart, status, watch) or labels per second (inline, threads, htex)."""
    if what in ("restart", "status", "watch"):
        return {"restart": restart, "status": first_look, "watch": next_looks}[what](folder)
    return rate(what, folder, frames)


def restart(folder: Path) -> float:

    from aims_pax.dataset import Dataset

    began = time.process_time()
    Dataset(folder / "data")
    return time.process_time() - began


def first_look(folder: Path) -> float:
    from aims_pax.commands.status import status, status_lines

    began = time.process_time()
    status_lines(status(folder))
    return time.process_time() - began


def next_looks(folder: Path) -> float:
    """Median of five looks, before each of which the run has added four labels."""
    from aims_pax.commands.status import status, status_lines

    more: dict = {}
    if "seen" in inspect.signature(status).parameters:
        from aims_pax.report.seen_files import SeenFiles

        more = {"seen": SeenFiles(folder / "restart")}
    growing = object.__new__(FolderOfRun)
    growing.folder, growing.time = folder, time.time() - 1e5
    spent = []
    status(folder, **more)
    for k in range(5):
        growing.grow(list(labelled(4, seed=int(time.time() * 1e3) + k)))
        began = time.process_time()
        status_lines(status(folder, **more))
        spent.append(time.process_time() - began)
    return statistics.median(spent)


def rate(kind: str, folder: Path, n: int) -> float:
    """Labels per second of wall time through the labeller, a calculator that answers at once."""
    from aims_pax.labelling.executors.inline import InlineExecutor
    from aims_pax.labelling.labeller import Labeller
    from aims_pax.labelling.references.ase_calculator import CalculatorReference

    reference = CalculatorReference("bookkeeping:AtOnce", folder=Path(__file__).parent)
    if kind == "inline":
        executor = InlineExecutor()
    else:
        from aims_pax.labelling.executors.parsl_local import ParslExecutor

        executor = ParslExecutor(kind, 2, folder / "parsl")
    rng = np.random.default_rng(int(time.time() * 1e3))
    grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3)[:21] * 2.5
    frames = [Frame(np.full(21, 18), grid + rng.normal(0, 0.1, (21, 3))) for _ in range(n)]
    with Labeller(reference, folder / "data", executor) as labeller:
        labeller.submit(frames[0]).result()  # workers have started
        began = time.perf_counter()
        for future in [labeller.submit(frame) for frame in frames[1:]]:
            future.result()
        return (n - 1) / (time.perf_counter() - began)


# ---------------------------------------------------------------- side by side


def once(checkout: Path, what: str, folder: Path, frames: int) -> float:
    """The measurement in a new process, with the package of this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--measure", what, "--folder", str(folder), "--frames", str(frames)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=checkout)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of the package")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--labels", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=WORK, default=WORK)
    parser.add_argument("--scratch", type=Path, help="a folder on the disk to be measured")
    parser.add_argument("--measure", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(measure(arguments.measure, arguments.folder, arguments.frames))
        return
    checkouts = [Path(__file__).parents[1], *([arguments.against.resolve()] if arguments.against else [])]
    found: dict[tuple[str, Path], list[float]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        base = Path(scratch) / "run"
        FolderOfRun(base).grow(list(labelled(arguments.frames)))
        for turn in range(arguments.rounds):
            for what in arguments.only:
                for checkout in checkouts[:: 1 if turn % 2 else -1]:
                    mine = Path(scratch) / f"{checkouts.index(checkout)}-{what}"
                    if what in WORK[:3]:
                        if not mine.exists():
                            shutil.copytree(base, mine)
                        value = once(checkout, what, mine, arguments.frames)
                    else:
                        value = once(checkout, what, mine, arguments.labels)
                    found.setdefault((what, checkout), []).append(value)
    table = Table("work", *(f"{c}" for c in checkouts))
    for what in arguments.only:
        unit = "CPU s" if what in WORK[:3] else "labels/s"
        values = [found[what, c] for c in checkouts]
        cells = [f"{statistics.median(v):.3g} {unit} ({min(v):.3g}…{max(v):.3g})" for v in values]
        table.add_row(what, *cells)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
