"""What gpu.py and gpu_speed.py share: the record of results, models and structures."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import bulk, molecule

from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.md import MDState
from aims_pax.models.mace import Ensemble
from aims_pax.models.mace.build import build_model
from aims_pax.models.mace.statistics import Statistics
from aims_pax.settings.mace import (
    ArchitectureSettings,
    GeneralSettings,
    MaceMiscSettings,
    MaceSettings,
    TrainingSettings,
)
from aims_pax.settings.md import MDSettings

ELEMENTS = (1, 6, 8)
SEEDS = (1, 2, 3, 4)
LANGEVIN = MDSettings(
    stat_ensemble="NVT", thermostat="Langevin", temperature=300.0, timestep=0.5, friction=0.01
)
NVE = MDSettings(  # friction too small to change anything: no thermostat
    stat_ensemble="NVT", thermostat="Langevin", temperature=300.0, timestep=0.5, friction=1e-14
)


@dataclass
class Bench:
    """What is measured where, and the results so far."""

    device: str
    small: bool
    out: Path
    results: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    until: float = 0.0
    name: str = ""

    def left(self) -> float:
        return self.until - time.monotonic()

    def note(self, what: str, **values: Any) -> None:
        """One row of results, printed and written at once."""
        self.results.setdefault(self.name, []).append({"what": what, **values})
        text = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
        print(f"[{self.name}] {what:44s} {text}", flush=True)
        self.write()

    def attempt(self, what: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """work(*arguments); a failure is printed with its traceback and noted, and None is returned."""
        if self.left() < 0:
            self.note(what, left_out="no time left")
            return None
        try:
            return work(*arguments)
        except Exception as error:  # whatever a device makes fail is a result here
            traceback.print_exc()
            self.note(what, failed=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
            if self.device.startswith("cuda"):
                torch.cuda.empty_cache()
            return None

    def write(self) -> None:
        (self.out / "gpu.json").write_text(json.dumps(self.results, indent=1))

    def synchronise(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        self.synchronise()
        began = time.perf_counter()
        work()
        self.synchronise()
        return time.perf_counter() - began


# ---------------------------------------------------------------- models and structures


def settings(device: str, dtype: str, channels: int, **misc: Any) -> MaceSettings:
    return MaceSettings(
        general=GeneralSettings(name_exp="gpu", default_dtype=dtype),
        architecture=ArchitectureSettings(num_channels=channels),
        training=TrainingSettings(),
        misc=MaceMiscSettings(device=device, inference="torch", **misc),
    )


@cache
def weights(channels: int, seed: int) -> list[torch.Tensor]:
    """Initial weights in single precision; the same in any precision and on any device."""
    model = build_model(settings("cpu", "float32", channels), ELEMENTS, seed)
    return [p.detach() for p in model.parameters() if p.requires_grad]


@cache
def ensemble(device: str, dtype: str, channels: int, members: int = 4, **misc: Any) -> Ensemble:
    built = Ensemble.build(settings(device, dtype, channels, **misc), SEEDS[:members], ELEMENTS)
    for member in built.members:
        member.set_weights(weights(channels, member.seed))
        member.freeze(Statistics(np.array([-13.6, -1030.0, -2042.0]), 30.0, 20.0, 0.1, "given", 3))
    return built


def ethanol() -> Frame:
    return Frame.from_atoms(molecule("CH3CH2OH"))


def cell() -> Frame:
    """64 atoms, 9.2 Å."""
    atoms = bulk("Si", cubic=True).repeat(2)
    atoms.numbers[:] = np.where(np.arange(64) % 2, 8, 6)
    atoms.set_cell(0.85 * atoms.cell, scale_atoms=True)
    return Frame.from_atoms(atoms)


def large(repeat: int = 5) -> Frame:
    """500 atoms, 18 Å."""
    atoms = bulk("Cu", cubic=True, a=3.6).repeat(repeat)
    atoms.numbers[:] = np.array(ELEMENTS)[np.arange(len(atoms)) % 3]
    return Frame.from_atoms(atoms)


def shaken(frame: Frame, n: int, noise: float = 0.04) -> list[Frame]:
    rng = np.random.default_rng(0)
    return [frame.moved(frame.positions + rng.normal(0, noise, frame.positions.shape)) for _ in range(n)]


def started(frame: Frame, n: int) -> list[MDState]:
    return [MDState.start(f, 300.0, k) for k, f in enumerate(shaken(frame, n))]


def systems(b: Bench) -> dict[str, Frame]:
    return {"ethanol": ethanol(), "64 atoms": cell(), "500 atoms": large(2 if b.small else 5)}


def channels(b: Bench) -> int:
    return 16 if b.small else 128


def labelled(frame: Frame, n: int, noise: float = 0.05) -> list[LabelledFrame]:
    """Shaken structures with random labels: the time does not depend on them."""
    rng = np.random.default_rng(1)
    return [
        LabelledFrame(f, Label(float(rng.normal()), rng.normal(size=(len(f), 3))))
        for f in shaken(frame, n, noise)
    ]


def cueq_missing(device: str) -> str | None:
    if not device.startswith("cuda"):
        return "needs a GPU"
    names = [n for n in ("cuequivariance_torch", "cuequivariance_ops_torch") if find_spec(n) is None]
    return f"{' and '.join(names)} not installed" if names else None


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference; NaN counts."""
    return float((a.detach().cpu().double() - b.detach().cpu().double()).abs().max())
