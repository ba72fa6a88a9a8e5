"""Twenty kills of what computes: worker processes, programs, and drivers together with their workers.

Each kill falls on a calculation that is going on: what is to die is stopped first, and looked at. Afterwards every
label is there, and nothing was computed again but what was killed in the middle.
"""

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from aims_pax.labelling.references.ase_calculator import CalculatorReference
from tests import worlds
from tests.batch.driver import Driver, frames
from tests.batch.machine import processes

pytestmark = pytest.mark.kill

WORKERS, PROGRAMS, TOGETHER = 8, 7, 5
PATIENCE = 180  # s for what takes one on a quiet machine


class Victims:
    """A driver whose calculations are killed, each at most once, and what was counted."""

    def __init__(self, folder: Path, executor: str, kills: int) -> None:
        self.driver = Driver(folder, executor=executor, frames=kills + 4, seconds=1.5, limit=PATIENCE)
        self.folder = folder
        self.kills: list[str] = []  # frames whose calculation a kill fell on
        self.lost: set[str] = set()

    def programs(self) -> dict[str, int]:
        """Frame → process of the program that computes it."""
        return {frame: pid for frame, pid in self.driver.called() if str(self.folder) in _line(pid)}

    def wait_for_a_label(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.driver.labels():
            assert time.monotonic() < deadline, self.driver.log()
            time.sleep(0.1)

    def kill_one(self, *, program: bool = False, driver: bool = False) -> None:
        """Kill a worker, or a program's process group, in the middle of a calculation (and the driver)."""
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self.driver.process.poll() is None, self.driver.log()
            assert time.monotonic() < deadline, self.driver.log()
            time.sleep(0.02)
            computing, owners = self.programs(), {} if program else self.driver.working()
            for frame in computing if program else owners:
                if frame in self.kills or frame not in computing or frame in self.driver.labels():
                    continue
                pid = computing[frame] if program else owners[frame]
                if self._killed(frame, pid, computing[frame], program, driver):
                    self.kills.append(frame)
                    return

    def _killed(self, frame: str, pid: int, program: int, group: bool, driver: bool) -> bool:
        """Stop, look whether the calculation is in its middle, kill; else let it go on."""
        before = self.driver.labels()
        targets = [(os.killpg, os.getpgid(pid)) if group else (os.kill, pid)]
        targets += [(os.kill, self.driver.process.pid)] if driver else []
        try:
            for send, target in targets:
                send(target, signal.SIGSTOP)
            there = _line(pid) and _line(program) and frame not in self.driver.labels()
            there = bool(there) and (group or self.driver.working().get(frame) == pid)
            for send, target in targets:
                send(target, signal.SIGKILL if there else signal.SIGCONT)
        except ProcessLookupError:
            return False
        if there and driver:
            assert self.driver.process.wait(PATIENCE) == -signal.SIGKILL
        self.lost |= before - self.driver.labels()
        return there

    def check(self, failed: int = 0) -> str:
        """Nothing lost, nothing repeated, every label right, nothing left running. A line of counts."""
        result = self.driver.result(PATIENCE)
        assert result["error"] is None, self.driver.log()
        assert len(result["failures"]) == failed
        times = Counter(self.driver.begun())
        repeated = {f: n for f, n in times.items() if n > 1 + self.kills.count(f)}
        again = sum(n - 1 for n in times.values())
        self.lost |= set(self.driver.ids.values()) - self.driver.labels() - set(result["failures"])
        assert self.lost == set(), "labels were lost"
        assert repeated == {}, "finished calculations were repeated"
        truth = CalculatorReference(worlds.EMT["factory"])
        for frame in frames(len(self.driver.ids)):
            if frame.id in result["labels"]:
                energy, forces = result["labels"][frame.id]
                exact = truth.label(frame)
                assert abs(energy - exact.energy) < 1e-6
                np.testing.assert_allclose(forces, exact.forces, atol=1e-6)
        deadline = time.monotonic() + PATIENCE
        while left := [line for line in processes().values() if f"{self.folder}/" in line]:
            assert time.monotonic() < deadline, left
            time.sleep(0.2)
        return (
            f"{len(self.kills)} kills, {len(result['labels'])} labels, {len(self.lost)} lost, {len(repeated)} finished "
            f"calculations repeated, {again} killed calculations computed again"
        )


def _line(pid: int) -> str:
    """The command line of a process; empty when there is none, or a zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def test_workers_killed_cost_their_calculations_and_no_more(tmp_path):
    it = Victims(tmp_path / "workers", "htex", WORKERS)
    for _ in range(WORKERS):
        it.kill_one()
    print(f"\nworker processes: {it.check()}")
    assert len(set(it.kills)) == WORKERS
    assert it.driver.log().count("computed again") == WORKERS


def test_programs_killed_fail_their_frames_and_a_later_run_computes_them(tmp_path):
    it = Victims(tmp_path / "programs", "threads", PROGRAMS)
    it.wait_for_a_label()  # a reference of which nothing but failures is known ends the run
    for _ in range(PROGRAMS):
        it.kill_one(program=True)
    first = it.check(failed=PROGRAMS)
    failures = it.driver.result()["failures"]
    assert set(failures) == set(it.kills)
    assert {kind for kind, _ in failures.values()} == {"Crashed"}
    assert all("SIGKILL" in reason for _, reason in failures.values())
    it.driver.start()
    print(f"\nprocess groups of aims.x: {first}; after a restart: {it.check()}")
    assert len(set(it.kills)) == PROGRAMS


def test_drivers_killed_with_their_workers_are_started_again_and_pay_nothing_twice(tmp_path):
    it = Victims(tmp_path / "together", "htex", TOGETHER)
    for _ in range(TOGETHER):
        it.kill_one(driver=True)
        it.driver.start()
    print(f"\ndriver and worker together: {it.check()}")
    assert len(set(it.kills)) == TOGETHER
