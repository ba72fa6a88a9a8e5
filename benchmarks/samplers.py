"""Three samplers against MD alone as the source of the initial dataset, at equal labels: ethanol with GFN1-xTB.

    python benchmarks/samplers.py [--seeds 3] [--folder FOLDER] [--active] [--arms "md alone" trees diffusion]

The arms are benchmarks/ethanol with 40 labels of structures that GFN2-xTB made at 500 K: by MD alone, or half by MD,
three tenths by rattled trees and two tenths along the vibrations; "calm trees" turn down forces above 6 eV/Å instead
of augment-atoms' 30; "trees" and "diffusion": seven tenths by MD and three by rattled trees, or by a diffusion model
of 300 structures of another dynamics with GFN2-xTB at 500 K, which cost no label. The members are converged on their
own parts of them; force errors are those on frames of GFN1-xTB's own dynamics at 500 and at 800 K that no model has
seen, mean over the members. `--active`: then active learning to 60 training points, and the error of the model it
delivers. Runs that are there already (in --folder) are not repeated; the arms take turns.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import contextlib
import copy
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import yaml
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from tblite.ase import TBLite

ETHANOL = Path(__file__).parent / "ethanol"
CHEAP = {"factory": "tblite.ase:TBLite", "kwargs": {"method": "GFN2-xTB", "verbosity": 0}}
ARMS: dict[str, list[dict[str, Any]]] = {
    "md alone": [{"kind": "md", "share": 1.0, "potential": CHEAP}],
    "three samplers": [
        {"kind": "md", "share": 0.5, "potential": CHEAP},
        {"kind": "rattle_tree", "share": 0.3, "beta": 0.5, "sigma_range": [0.05, 0.2]},
        {"kind": "phonons", "share": 0.2},
    ],
}
ARMS["three, calm trees"] = [
    {**one, "max_force": 6.0} if one["kind"] == "rattle_tree" else one for one in ARMS["three samplers"]
]
MOST = {"kind": "md", "share": 0.7, "potential": CHEAP}
ARMS["trees"] = [MOST, {"kind": "rattle_tree", "share": 0.3, "beta": 0.5, "sigma_range": [0.05, 0.2]}]
ARMS["diffusion"] = [MOST, {"kind": "diffusion", "share": 0.3, "data": "cheap.xyz"}]
TEST = {500: 60, 800: 60}  # K: frames
FREE = 300  # structures for the diffusion model
EVERY, EQUILIBRATION = 40, 400  # MD steps of 0.5 fs


def project(folder: Path, arm: str, seed: int) -> None:
    """The folder benchmarks/ethanol with one arm's samplers."""
    folder.mkdir(parents=True)
    shutil.copy(ETHANOL / "geometry.in", folder)
    if arm == "diffusion":
        shutil.copy(free_structures(folder.parent, seed), folder / "cheap.xyz")
    settings = yaml.safe_load((ETHANOL / "aimsPAX.yaml").read_text())
    mace = yaml.safe_load((ETHANOL / "mace.yaml").read_text())
    first = settings["INITIAL_DATASET_GENERATION"]
    del first["initial_sampling"]
    first |= {
        "converge_initial": True,
        "max_convergence_epochs": 150,
        "convergence_patience": 40,
        "margin": 0.001,
    }
    settings["SAMPLERS"] = copy.deepcopy(ARMS[arm])
    settings["MD"]["MD_seed"] = mace["GENERAL"]["seed"] = seed
    settings["CLUSTER"] = {"type": "local", "executor": "inline", "training": {"workers": 0}}
    settings["MISC"]["report"] = False
    for name, content in (("aimsPAX.yaml", settings), ("mace.yaml", mace)):
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))


def run(command: str, folder: Path) -> None:
    """A command of the package, in a folder; ends this program with its message where it fails."""
    entry = {"aims-PAX-initial-ds": "main_initial_ds", "aims-PAX-al": "main_al"}[command]
    code = f"from aims_pax.cli import {entry}; {entry}()"
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        sys.exit(f"{folder}: {command}: {done.stderr or done.stdout}")


def reference() -> TBLite:
    return TBLite(method="GFN1-xTB", accuracy=0.01, verbosity=0)


def dynamics_of(calculator: TBLite, temperature: int, count: int, seed: int) -> list[Atoms]:
    """Frames of Langevin dynamics, with the forces as array F."""
    atoms = ase.io.read(ETHANOL / "geometry.in", format="aims")
    atoms.calc = calculator
    rng = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    dynamics = Langevin(
        atoms, 0.5 * units.fs, temperature_K=temperature, friction=0.01 / units.fs, rng=rng, fixcm=False
    )
    dynamics.run(EQUILIBRATION)
    frames = []
    for _ in range(count):
        dynamics.run(EVERY)
        frame = atoms.copy()
        frame.arrays["F"] = atoms.get_forces()
        frames.append(frame)
    return frames


def test_set(temperature: int, folder: Path) -> list[Atoms]:
    """Frames of the reference's own dynamics; made once."""
    path = folder / f"test_{temperature}.xyz"
    if not path.exists():
        frames = dynamics_of(reference(), temperature, TEST[temperature], 2024 + temperature)
        ase.io.write(path, frames, format="extxyz")
    return list(ase.io.read(path, index=":"))


def free_structures(folder: Path, seed: int) -> Path:
    """What the diffusion model learns: structures of the cheap method, without labels; made once for each seed."""
    path = folder / f"cheap_{seed}.xyz"
    if not path.exists():
        cheap = TBLite(method="GFN2-xTB", verbosity=0)
        frames = dynamics_of(cheap, 500, FREE, 3000 + seed)
        ase.io.write(path, [Atoms(f.numbers, f.positions) for f in frames], format="extxyz")
    return path


def force_mae(models: Sequence[Path], frames: Sequence[Atoms]) -> float:
    """meV/Å, mean over the models."""
    with contextlib.redirect_stdout(io.StringIO()):
        from mace.calculators import MACECalculator

    errors = []
    for path in models:
        calculator = MACECalculator(model_paths=str(path), device="cpu", default_dtype="float32")
        for atoms in frames:
            calculator.calculate(atoms, ["energy", "forces"], [])
            errors.append(np.abs(calculator.results["forces"] - atoms.arrays["F"]).mean())
    return 1000 * float(np.mean(errors))


def labels(folder: Path) -> int:
    return len([p for p in folder.glob("data/labels/*/*.json") if p.name != "method.json"])


def measured(folder: Path, arm: str, seed: int, active: bool) -> dict[str, float]:
    """One run of one arm, as far as it is not there yet."""
    mine = folder / f"{arm.replace(' ', '_')}_{seed}"
    path = mine / "measured.json"
    found: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    tests = {f"{T} K": test_set(T, folder) for T in TEST}
    if "labels" not in found:
        shutil.rmtree(mine, ignore_errors=True)
        project(mine, arm, seed)
        began = time.time()
        run("aims-PAX-initial-ds", mine)
        models = sorted((mine / "model").glob("*.model"))
        found = {"labels": labels(mine), "seconds": time.time() - began}
        found |= {f"initial, {name}": force_mae(models, frames) for name, frames in tests.items()}
        path.write_text(json.dumps(found))
    if active and "labels in all" not in found:
        run("aims-PAX-al", mine)
        (model,) = (mine / "results").glob("*.model")
        found["labels in all"] = labels(mine)
        found |= {
            f"after active learning, {name}": force_mae([model], frames) for name, frames in tests.items()
        }
        path.write_text(json.dumps(found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where the runs are kept")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--active", action="store_true", help="active learning after the initial dataset")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        results: dict[str, list[dict[str, float]]] = {arm: [] for arm in given.arms}
        for seed in range(1, given.seeds + 1):
            for arm in given.arms:
                results[arm].append(measured(folder, arm, seed, given.active))
                print(f"{arm}, seed {seed}: {results[arm][-1]}", flush=True)
    for what in results[given.arms[0]][0]:
        for arm, found in results.items():
            values = [f[what] for f in found]
            each = ", ".join(f"{v:.1f}" for v in values)
            span = f"{min(values):.1f} … {max(values):.1f}"
            print(f"{what:32s} {arm:16s} median {np.median(values):7.1f}   {span}   ({each})")


if __name__ == "__main__":
    main()
