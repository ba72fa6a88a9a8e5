"""What happens to drivers on a cluster, and what must hold afterwards, whichever scheduler it has.

A story takes a driver through its life and returns what was seen; a check looks at it afterwards.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.commands.pause_resume_stop import request
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.schedulers.base import Phase, Refused
from aims_pax.schedulers.registry import known_schedulers
from tests import worlds
from tests.batch.driver import Driver, frames
from tests.batch.machine import processes

PATIENCE = 600  # s for what takes two minutes on a quiet machine
Story = Callable[[Driver], dict[str, Any]]


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for it; a scheduler that does not answer just now is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(Refused, subprocess.SubprocessError):
            if condition():
                return
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def running(driver: Driver, n: int = 2) -> None:
    """Until so many calculations have begun, and one goes on."""
    begun(driver, n)
    deadline = time.monotonic() + PATIENCE
    while not driver.working():
        assert time.monotonic() < deadline, driver.log()
        time.sleep(0.1)


def begun(driver: Driver, n: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(driver.begun()) < n:
        assert time.monotonic() < deadline, driver.log()
        time.sleep(0.1)


# stories ---------------------------------------------------------------------------------------------------


def jobs(driver: Driver) -> dict[str, Phase]:
    """The jobs of a driver, as soon as the scheduler says it."""
    found: dict[str, Phase] = {}
    until(lambda: found.update(driver.jobs()) or True, 60)
    return found


def cancel_the_block(driver: Driver) -> None:
    """Somebody ends the block of a driver while two calculations run in it."""
    running(driver)
    driver.hit = driver.working().keys() & set(driver.begun())
    blocks = jobs(driver)
    assert blocks
    until(lambda: known_schedulers()[driver.plan["scheduler"]].cancel(blocks) is None)


def kill_a_worker(driver: Driver) -> None:
    running(driver)
    frame = next(f for f in driver.begun() if f in driver.working())
    driver.hit = {frame}
    os.kill(driver.working()[frame], signal.SIGKILL)


def kill_the_driver(driver: Driver) -> None:
    running(driver)
    driver.kill()


def kill_the_driver_and_start_it_again(driver: Driver) -> None:
    kill_the_driver(driver)
    driver.hit = {*driver.begun(), *driver.working()}
    driver.start()


def stopped_and_started(number: int | None) -> Story:
    """A driver is stopped by a signal, or by its walltime, while one block runs and another waits; the next starts."""

    def story(driver: Driver) -> dict[str, Any]:
        running(driver, 2)
        until(lambda: len(driver.jobs()) == 2)
        before, at_work = jobs(driver), set(driver.working())
        began = time.monotonic()
        if number is not None:
            driver.process.send_signal(number)
        code = driver.process.wait(PATIENCE)
        took, after = time.monotonic() - began, jobs(driver)
        driver.plan["walltime"] = None  # the next one lives until the end
        (driver.folder / "plan.json").write_text(json.dumps(driver.plan))
        driver.start()
        return {"code": code, "took": took, "before": before, "after": after, "at work": at_work}

    return story


def cancelled(driver: Driver) -> dict[str, Any]:
    """aims-PAX stop --cancel while it works."""
    running(driver, 2)
    driver.process.terminate()
    return {"code": driver.process.wait(PATIENCE), "jobs": jobs(driver)}


def interrupted_then_cancelled(driver: Driver) -> dict[str, Any]:
    """Ctrl-C; aims-PAX stop --cancel later."""
    running(driver, 2)
    driver.process.send_signal(signal.SIGINT)
    code, there = driver.process.wait(PATIENCE), jobs(driver)
    listed = (driver.folder / "restart" / "tasks").exists()
    said = request(driver.folder, "cancel")
    return {"code": code, "jobs": there, "listed": listed, "said": said}


# checks ----------------------------------------------------------------------------------------------------


def check_taken_over(driver: Driver, seen: dict[str, Any], soon: bool = True) -> None:
    """The next driver took over two running calculations and a queued block."""
    assert seen["code"] == 75, driver.log()
    assert set(seen["before"].values()) == set(seen["after"].values()) == {Phase.WAITING, Phase.RUNNING}
    assert len(seen["before"]) == 2
    assert seen["before"] == seen["after"]  # the same jobs: none was cancelled, none asked for again
    if soon:
        assert seen["took"] < 15
    until(lambda: (driver.folder / "result.json").exists())
    result = whole(driver)
    log = driver.log()
    assert log.count("of an earlier run taken over") == 2
    assert log.count("submitted (block") == 2, "both by the first driver"
    assert len(seen["at work"]) == 2
    # at least these two: on a busy machine one may end, and the next begin, before the signal arrives
    assert result["calls"]["harvested"] + result["calls"]["reused"] >= 2
    assert Counter(driver.begun()) == dict.fromkeys(driver.ids.values(), 1), "no calculation was begun twice"
    tidy(driver)


def check_cancelled_afterwards(driver: Driver, seen: dict[str, Any]) -> None:
    """What a stopped run had left was ended by aims-PAX stop --cancel."""
    assert seen["code"] == 3
    assert list(seen["jobs"].values()) == [Phase.RUNNING]
    assert not seen["listed"], "the user has stopped it: nothing new is begun"
    title = known_schedulers()[driver.plan["scheduler"]].title
    assert (
        seen["said"] == f"cancelled: {title} job {next(iter(seen['jobs']))}; their finished labels are stored"
    )
    until(lambda: driver.jobs() == {})
    assert left(driver.folder) == []
    assert [line for line in processes().values() if f"{driver.folder}/" in line] == []
    assert not (driver.folder / "restart" / "runs.json").exists()


def check_stored_and_left(driver: Driver) -> None:
    """Workers whose driver was killed finished, stored their labels and left; the next driver computes the rest."""
    until(lambda: len(driver.begun()) >= 2 and not driver.jobs())
    assert driver.labels() == set(driver.begun())  # all that had begun, and no more
    assert len(driver.labels()) < 4
    assert left(driver.folder) == []
    driver.start()
    whole(driver)
    assert set(Counter(driver.begun()).values()) == {1}
    tidy(driver)


def check_harvested(driver: Driver) -> None:
    """A driver that was killed and started again took what the old workers finished."""
    until(lambda: (driver.folder / "result.json").exists())
    result = whole(driver)
    assert len(driver.hit) >= 2
    # what the old workers finished before the new driver looked is found in the store instead
    assert result["calls"]["harvested"] + result["calls"]["reused"] == len(driver.hit)
    assert set(Counter(driver.begun()).values()) == {1}  # nothing was begun twice
    tidy(driver)


def check_replaced(driver: Driver, words: tuple[str, ...]) -> None:
    """A block that ended too early was replaced as soon as the scheduler said so. words: of the scheduler, for it."""
    whole(driver)
    log = driver.log()
    assert log.count("submitted (block") > 1
    # as soon as the scheduler says so, not when heartbeats have stayed away for a minute
    ended = next(line for line in log.splitlines() if any(line.endswith(word) for word in words))
    again = next(line for line in log.splitlines() if "computed again" in line)
    assert (when(again) - when(ended)).total_seconds() < 20
    tidy(driver)


def check_no_work_cut_off(driver: Driver) -> None:
    """Blocks took no work that they could not finish before their walltime."""
    whole(driver)
    assert set(Counter(driver.begun()).values()) == {1}
    assert len(driver.log().split("submitted (block")) > 2  # more than one block
    tidy(driver)


def check_worker_killed(driver: Driver) -> None:
    whole(driver)
    assert {f for f, n in Counter(driver.begun()).items() if n > 1} == driver.hit
    assert "computed again" in driver.log()
    tidy(driver)


def whole(driver: Driver) -> dict:
    """The result of a run that must have labelled everything, each label equal to a recomputation."""
    result = driver.result(PATIENCE)
    assert result["error"] is None, driver.log()
    assert result["failures"] == {}
    truth = CalculatorReference(worlds.EMT["factory"])
    expected = frames(driver.plan["frames"])
    assert set(result["labels"]) == {f.id for f in expected}
    for frame in expected:
        exact = truth.label(frame)
        energy, forces = result["labels"][frame.id]
        assert abs(energy - exact.energy) < 1e-6
        np.testing.assert_allclose(forces, exact.forces, atol=1e-6)
    return result


def left(folder: Path) -> list[str]:
    """Processes that know this folder, a few seconds after the driver's end."""
    for _ in range(100):
        found = [line for line in processes().values() if f"{folder}/" in line and "pytest" not in line]
        if not found:
            return []
        time.sleep(0.2)
    return found


def tidy(driver: Driver) -> None:
    until(lambda: driver.jobs() == {})  # a cancelled job shows as COMPLETING for a while
    assert left(driver.folder) == []
    assert list((driver.folder / "data").rglob("*.claim")) == []
    assert [p.name for p in (driver.folder / "restart").iterdir()] == []


def when(line: str) -> datetime:
    return datetime.fromisoformat(line[:19])
