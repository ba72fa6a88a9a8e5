"""Complete runs, `aims-PAX` with the stand-in aims.x, from settings to results: how they begin, what must hold."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import ase.io
import numpy as np

from aims_pax.dataset import read_extxyz
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from tests import worlds
from tests.batch.folders import write_aims_project
from tests.batch.sites import Site
from tests.batch.stories import PATIENCE
from tests.projects import command

TRUTH = CalculatorReference(worlds.EMT["factory"])


def agrees(label, frame, stress: bool) -> None:
    """To 1e-6 eV, 1e-6 eV/Å and 1e-6 eV/Å³ after the way through control.in, Slurm and the reader."""
    exact = TRUTH.label(frame)
    assert abs(label.energy - exact.energy) < 1e-6
    np.testing.assert_allclose(label.forces, exact.forces, atol=1e-6)
    if stress:
        np.testing.assert_allclose(label.stress, exact.stress, atol=1e-6)


def check_datasets(folder) -> int:
    """Every label of the final datasets equals a recomputation."""
    n = 0
    for name in ("training.xyz", "validation.xyz"):
        for labelled in read_extxyz(folder / "results" / name, "REF_energy", "REF_forces", "REF_stress"):
            agrees(labelled.label, labelled.frame, labelled.frame.periodic)
            n += 1
    return n


FAULTS = "unconverged+unconverged-goodbye+crash+segfault+truncated+nan+stars+no-forces+wrong-atoms+huge-force"
CLASSES = {
    "unconverged": "NotConverged", "unconverged-goodbye": "NotConverged", "crash": "Crashed",
    "segfault": "Crashed", "truncated": "Truncated", "nan": "NotFinite", "stars": "NotFinite",
    "no-forces": "WrongShape", "wrong-atoms": "WrongShape", "huge-force": "Unphysical", "hang": "TimedOut",
}  # fmt: skip


def healthy(folder: Path, site: Site):
    """A molecule and a crystal with stress."""
    write_aims_project(
        folder,
        site,
        worlds.launch("emt"),
        systems={"copper": worlds.crystal(), "water": worlds.water()},
        mace={"GENERAL": {"compute_stress": True}},
    )
    return folder, command(folder=folder)


def failing(folder: Path, site: Site):
    """A run whose reference fails for 30 % of all geometries, in every way."""
    launch = worlds.launch("emt", f"{FAULTS}+hang:0.3", faults_told=folder / "faults")
    write_aims_project(folder, site, launch, job_time_limit=20, systems={"water": worlds.water()})
    return folder, command(folder=folder)


def killed(folder: Path, site: Site):
    """A run whose driver is killed while its workers compute, and started again."""
    count = folder.with_name("count")
    write_aims_project(
        folder, site, worlds.launch("emt", seconds=3, count=count), systems={"water": worlds.water()}
    )
    code = "import sys; sys.argv[0] = 'aims-PAX'; from aims_pax.cli import main; main()"
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while not count.exists() or len(count.read_text().splitlines()) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    return folder, command(folder=folder)


def check_healthy(folder: Path, told: subprocess.CompletedProcess[str]) -> None:
    """Everything is in the results."""
    assert told.returncode == 0, told.stdout + told.stderr
    assert check_datasets(folder) > 15
    formulas = Counter(
        a.get_chemical_formula() for a in ase.io.read(folder / "results" / "training.xyz", ":")
    )
    assert set(formulas) == {"Cu4", "H2O"}
    assert list((folder / "results").glob("*.model"))


def check_failing(folder: Path, told: subprocess.CompletedProcess[str]) -> None:
    """It ended well."""
    assert told.returncode == 0, told.stdout + told.stderr
    assert check_datasets(folder) > 5  # of about 17 calculations


def check_quarantine(folder: Path, told: subprocess.CompletedProcess[str]) -> None:
    """The quarantine lists every failure."""
    lines = [line.split() for line in (folder / "faults").read_text().splitlines()]
    expected = {frame: CLASSES[fault] for frame, fault in lines if fault != "none"}
    entries = [json.loads(line) for line in (folder / "data" / "quarantine.jsonl").read_text().splitlines()]
    assert {e["frame"]: e["class"] for e in entries} == expected
    assert expected  # a share of the geometries, and which these are is not quite the same in each run
    frames = ase.io.read(folder / "data" / "quarantine.xyz", ":")
    assert [(a.info["frame_id"], a.info["failure"]) for a in frames] == [
        (e["frame"], e["class"]) for e in entries
    ]
    for entry in entries:
        assert f"/{entry['frame']}." in entry["folder"]
    labelled = {p.stem for p in (folder / "data" / "labels").rglob("*.json")}
    assert not labelled & set(expected)


def check_killed(folder: Path, told: subprocess.CompletedProcess[str]) -> None:
    """It continued and paid nothing twice."""
    assert told.returncode == 0, told.stdout + told.stderr
    begun = Counter(line.split()[0] for line in folder.with_name("count").read_text().splitlines())
    assert set(begun.values()) == {1}
    assert check_datasets(folder) > 10
