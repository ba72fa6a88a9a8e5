"""Working folders for whole runs: tiny models, references that cost microseconds, a minute at most."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ase.io
import yaml

from aims_pax.frames import Frame
from tests import forked_commands
from tests.worlds import EMT, water

ROOT = Path(__file__).parents[1]
ENTRIES = {  # command → function of aims_pax.cli
    "aims-PAX": "main",
    "aims-PAX-initial-ds": "main_initial_ds",
    "aims-PAX-al": "main_al",
    "aims-PAX-recalc": "main_recalc",
    "aims-PAX-atomic-energies": "main_atomic_energies",
    "aims-PAX-test": "main_test",
}

PROJECT: dict[str, Any] = {
    "REFERENCE": EMT,
    "CLUSTER": {"type": "local", "executor": "inline"},
    "INITIAL_DATASET_GENERATION": {
        "initial_sampling": "calculator",
        "initial_calculator": {"factory": "ase.calculators.emt:EMT"},
        "n_points_per_sampling_step_idg": 3,
        "skip_step_initial": 5,
        "ensemble_size": 2,
        "intermediate_epochs_idg": 2,
        "max_initial_epochs": 4,
    },
    "ACTIVE_LEARNING": {
        "num_trajectories": 3,
        "ensemble_size": 2,
        "skip_step_mlff": 5,
        "window_steps": 50,
        "max_MD_steps": 60,
        "epochs_before_exploration": 2,
        "epochs_per_worker": 2,
        "convergence_patience": 3,
        "max_convergence_epochs": 4,
    },
    "MD": {"stat_ensemble": "NVT", "temperature": 300, "friction": 0.01, "timestep": 0.5},
}

MACE: dict[str, Any] = {
    "GENERAL": {"name_exp": "tiny", "seed": 7},
    "ARCHITECTURE": {
        "num_channels": 4,
        "max_L": 0,
        "max_ell": 2,
        "correlation": 1,
        "r_max": 3.5,
        "radial_MLP": [8],
    },
    # nothing here is long enough; without limits `auto` believes that it is
    "TRAINING": {"compile": "never"},
}


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy with nested changes; a value of None removes the key."""
    result = copy.deepcopy(dict(base))
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(result.get(name), Mapping):
            result[name] = changed(result[name], value)
        else:
            result[name] = copy.deepcopy(value)
    return result


def write_project(
    folder: Path,
    changes: Mapping[str, Any] | None = None,
    mace: Mapping[str, Any] | None = None,
    systems: Mapping[str, Frame] | None = None,
) -> Path:
    """aimsPAX.yaml, mace.yaml and geometries; one system is geometry.xyz, several are a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    systems = systems or {"water": water()}
    (folder / "geometries").mkdir(exist_ok=True)
    for name, frame in systems.items():
        ase.io.write(folder / "geometries" / f"{name}.xyz", frame.to_atoms(), format="extxyz")
    project = changed(PROJECT, {"MISC": {"path_to_geometry": "geometries", "report": False, "md_test": 20}})
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(changed(project, changes or {}), sort_keys=False))
    (folder / "mace.yaml").write_text(yaml.safe_dump(changed(MACE, mace or {}), sort_keys=False))
    return folder


def command(
    *words: str, folder: Path, name: str = "aims-PAX", timeout: float | None = None, **kwargs: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command of the package as a user does; returns what it printed and its exit code.

    Without further keywords (of `subprocess.run`) it runs in a fork of a process that has torch loaded already.
    """
    entry = ENTRIES[name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if not kwargs:
        return forked_commands.run(name, entry, words, folder, environment, timeout)
    code = f"import sys; sys.argv[0] = {name!r}; from aims_pax.cli import {entry}; {entry}()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, timeout=timeout, text=True, capture_output=True,
        **{"env": environment, **kwargs},
    )  # fmt: skip
