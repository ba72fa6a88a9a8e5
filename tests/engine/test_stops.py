"""Whole commands that wait for a slow reference hear whoever asks them to end; all run side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import pytest
import yaml

from tests import worlds
from tests.projects import ENTRIES, command, write_project

SLOW = """
import time, pathlib
from ase.calculators.emt import EMT

class Slow(EMT):
    def calculate(self, *given):
        pathlib.Path("begun").touch()
        time.sleep(600)
"""
FACTORY = {"type": "calculator", "factory": "slow:Slow"}
AIMD = {"INITIAL_DATASET_GENERATION": {"initial_sampling": "aimd", "initial_calculator": None}}
LOCAL = {"INITIAL_DATASET_GENERATION": {"initial_calculator": {"factory": "slow:Slow"}}}


def with_aims(folder: Path, executor: str) -> None:
    """FHI-aims for a reference: a program of ten minutes that says when it begins."""
    path = folder / "aimsPAX.yaml"
    project = yaml.safe_load(path.read_text())
    project["REFERENCE"] = {"type": "aims"}
    launch = worlds.launch("emt", seconds=600, count=folder / "begun")
    project["CLUSTER"] = {"type": "local", "executor": executor, "launch_str": f"{launch} >> aims.out"}
    project["CLUSTER"]["calc_dir"] = "calc"
    for section in ("INITIAL_DATASET_GENERATION", "ACTIVE_LEARNING"):
        project[section]["species_dir"] = "species"
    path.write_text(yaml.safe_dump(project))
    (folder / "control.in").write_text(worlds.CONTROL)
    worlds.write_species(folder / "species")


# name: (settings, executor of FHI-aims or None, command, signal, exit code)
CASES = {
    "ab initio MD, threads": (AIMD, "threads", ["aims-PAX"], signal.SIGTERM, 75),
    "ab initio MD, inline": (AIMD, "inline", ["aims-PAX"], signal.SIGHUP, 75),
    "a calculator that samples": (LOCAL, None, ["aims-PAX"], signal.SIGTERM, 75),
    "recalculation, inline": ({"REFERENCE": FACTORY}, None, ["aims-PAX-recalc", "data.xyz"], signal.SIGTERM, 75),
    "atomic energies": ({}, "inline", ["aims-PAX-atomic-energies", "H"], signal.SIGINT, 3),
    "aims-PAX stop": (AIMD, "threads", ["aims-PAX"], None, 3),
    "walltime": ({**AIMD, "REFERENCE": FACTORY, "MISC": {"max_walltime": 25}}, None, ["aims-PAX"], None, 75),
}  # fmt: skip


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Name → (exit code, seconds from the request to the end, folder)."""
    started = {}
    for name, (changes, executor, words, _, _) in CASES.items():
        folder = write_project(tmp_path_factory.mktemp("run") / "a", changes)
        (folder / "slow.py").write_text(SLOW)
        ase.io.write(folder / "data.xyz", worlds.water().to_atoms(), format="extxyz")
        if executor:
            with_aims(folder, executor)
        entry = ENTRIES[words[0]]
        code = f"import sys; sys.argv[0] = {words[0]!r}; from aims_pax.cli import {entry}; {entry}()"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        log = open(folder / "out", "w")  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words[1:]], cwd=folder, env=environment, stdout=log, stderr=log
        )
        log.close()
        started[name] = folder, process
    found = {}
    for name, (folder, process) in started.items():
        deadline = time.monotonic() + 240
        while not (folder / "begun").exists() and process.poll() is None:
            assert time.monotonic() < deadline, (name, (folder / "out").read_text())
            time.sleep(0.05)
        asked = time.monotonic()
        number = CASES[name][3]
        if number is not None:
            process.send_signal(number)
        elif name == "aims-PAX stop":
            stop = command("stop", str(folder), folder=folder)
            asked = time.monotonic()
            assert stop.returncode == 0, stop.stderr
        code = process.wait(60)
        found[name] = code, time.monotonic() - asked, folder
    yield found
    for _, process in started.values():
        process.kill()


@pytest.mark.parametrize("name", CASES)
def test_a_command_that_waits_for_the_reference_ends_when_it_is_asked_to(ends, name):
    code, seconds, folder = ends[name]
    assert code == CASES[name][4], (folder / "out").read_text()
    if name != "walltime":
        assert seconds < 30  # 2 s on a quiet machine; the calculation takes 600 s
    assert not (folder / "restart" / "lock").exists()
    assert list(folder.rglob("*.claim")) == []


def test_under_nohup_a_closed_terminal_does_not_end_a_run():
    from aims_pax.engine.interrupts import InterruptMonitor

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        watch = InterruptMonitor()
        with watch.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            watch.raise_if_stopped()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
