"""The MD test of a potential: starts, thermal trajectories, trajectories at constant energy, and their summary."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aims_pax.commands.md_test.starts import TestedSystem, choose_starts, starts_of_each, with_moving_atoms
from aims_pax.commands.md_test.summary import summary_of_trajectories
from aims_pax.commands.md_test.trajectories import (
    FRICTION,
    Followed,
    TestStart,
    at_constant_energy,
    continue_all,
    follow,
)
from aims_pax.md.propagate import never_stop
from aims_pax.models.base import ModelPotential
from aims_pax.record.files import write_bytes, write_text
from aims_pax.report.figures.md_test import md_test_figure
from aims_pax.report.md_test import FILE

CONSTANT = 0.5  # steps at constant energy, as a share of the thermal ones
PICTURES = "md_test"  # folder of the figures, beside the file


@dataclass(frozen=True)
class TestBudget:
    """How much MD. steps: of each thermal trajectory. starts: labelled frames of each system. most: trajectories.

    seconds: after which trajectories are ended together, None: never.
    """

    __test__ = False

    steps: int
    starts: int = 4
    most: int = 64
    seconds: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class MDTest:
    """found: plain values for the file. thermal, constant: the trajectories."""

    found: dict[str, Any]
    thermal: list[Followed]
    constant: list[Followed]


def run_md_test(
    potential: ModelPotential,
    systems: Sequence[TestedSystem],
    budget: TestBudget,
    models: Mapping[str, str],
    stop: Callable[[], bool] = never_stop,
) -> MDTest:
    """Test a potential. models: {file: SHA-256}. Raises Abandoned when `stop` returns True."""
    began = time.monotonic()
    starts = choose_starts(systems, budget.starts, budget.most, budget.seed)
    each = starts_of_each(len(with_moving_atoms(systems)), budget.starts, budget.most)
    thermal_part = 1 / (1 + CONSTANT / 2)  # half of the trajectories continue at constant energy
    until = None if budget.seconds is None else began + budget.seconds * thermal_part
    thermal = follow(starts, potential, budget.steps, stop, until)
    lowest = {s.system: s.temperature for s in reversed(starts)}
    cool = [f for f in thermal if f.survived and f.start.temperature == lowest[f.start.system]]
    until = None if budget.seconds is None else began + budget.seconds
    wanted = max(2, round(CONSTANT * budget.steps))
    constant = continue_all(at_constant_energy(cool), potential, wanted, stop, until)
    done = [(f, budget.steps) for f in thermal] + [(f, wanted) for f in constant]
    found = {
        "format": 1,
        "digest": digest_of_test(models, systems, budget),
        "models": dict(models),
        "budget": asdict(budget) | {"starts": each},
        "shortened": any(f.survived and f.state.step < steps for f, steps in done),
        "wall_s": round(time.monotonic() - began, 3),
        "thermostat": _thermostat(starts, systems),
        "not_tested": [s.name for s in systems if s.name not in lowest],
        **summary_of_trajectories(thermal, constant, systems),
    }
    return MDTest(found, thermal, constant)


def _thermostat(starts: Sequence[TestStart], systems: Sequence[TestedSystem]) -> str:
    """`Langevin 0.02 fs⁻¹ (NVT where atoms are fixed), NPT MTK`: those of all trajectories."""
    at_pressure = {s.name for s in systems if str(s.md.stat_ensemble).upper() == "NPT"}
    words = set()
    for s in starts:
        if s.md.stat_ensemble == "NPT":
            words.add(f"NPT {s.md.barostat}")
        else:
            fixed = s.frame.fixed is not None and s.frame.periodic and s.system in at_pressure
            words.add(f"Langevin {s.md.friction:g} fs⁻¹" + (" (NVT where atoms are fixed)" if fixed else ""))
    return ", ".join(sorted(words))


def digest_of_test(models: Mapping[str, str], systems: Sequence[TestedSystem], budget: TestBudget) -> str:
    """Hash of everything that decides the result: models, frames, MD settings, length; not the time allowed."""
    digest = hashlib.sha256()
    length = {k: v for k, v in asdict(budget).items() if k != "seconds"}
    for word in (sorted(models.values()), length, FRICTION):
        digest.update(f"{word}\n".encode())
    for s in systems:
        digest.update(f"{s.name} {s.md.model_dump()} {[f.id for f in s.frames]}\n".encode())
    return digest.hexdigest()


def write_md_test(folder: Path, found: Mapping[str, Any], pictures: bool = True) -> Path:
    """Write `md_test.json` and, with `pictures`, its figures into `md_test/`; returns the file's path."""
    path = folder / FILE
    write_text(path, json.dumps(found, indent=1) + "\n")
    for one in md_test_figure(found, png=True) if pictures else ():
        write_bytes(folder / PICTURES / f"{one.name}.png", one.png)
    return path
