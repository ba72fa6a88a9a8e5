"""What runs begin from, at equal paid labels: random weights, free labels, a foundation model, a baseline.

    python benchmarks/priors.py [--systems ethanol glycine copper] [--seeds 3] [--arms …] --folder FOLDER

Each arm is a run of `aims-PAX` in a folder of its own, with two members of 16 channels, and is
measured by the file that it delivers, loaded with `aims_pax.calculator`. Paid labels are all labels of the reference:
training, validation, and for active learning those of the initial dataset. The systems:

    ethanol   reference GFN1-xTB, cheap potential GFN2-xTB, 500 K, hot set 900 K
    glycine   the same; its conformers have hydrogen bonds
    copper    31 atoms around a vacancy, reference EMT, cheap potential Morse (Girifalco, Weizer 1959), 600 and 1000 K

The arms: `scratch` (random frames of the cheap potential's MD, random weights), `scratch, active` (the same model,
active learning), `pretrained` (learnt free labels of the cheap potential first), `pretrained, active`, `fine-tuned` (a
foundation model that this script trains on other molecules, or clusters, with the cheap potential), `delta` (reference
minus the cheap potential). Errors are those of forces (meV/Å) on frames of the reference's own MD: mean at the
temperature of the run, mean on the hot set, and the 95th percentile of the largest error of a frame of the hot set;
then how many of 4 trajectories of 10 ps at 1.5 × T keep every bond. Runs that are in FOLDER already are not repeated.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import copy
import json
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import yaml
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.cluster import Octahedron
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS

ROOT = Path(__file__).parents[1]
ETHANOL = ROOT / "benchmarks" / "ethanol"
MORSE = {"epsilon": 0.3429, "r0": 2.866, "rho0": 3.894, "rcut1": 2.0, "rcut2": 2.6}  # Cu
N_TEST, EVERY, EQUILIBRATION = 120, 100, 800  # frames; MD steps between them, and before the first
SURVIVAL_PS, TRAJECTORIES = 10.0, 4


def xtb(method: str) -> dict[str, Any]:
    return {"factory": "tblite.ase:TBLite", "kwargs": {"method": method, "accuracy": 0.01, "verbosity": 0}}


@dataclass(frozen=True)
class Benchmark:
    """A system: its geometry, temperatures (K), reference and cheap potential as {factory, kwargs}."""

    geometry: Callable[[], Atoms]
    others: Callable[[], list[Atoms]]
    temperature: float
    hot: float
    reference: dict[str, Any]
    cheap: dict[str, Any]
    timestep: float = 0.5
    free: tuple[int, int] = (400, 200)  # structures and epochs of pre-training
    # frames; MD steps between them, and before the first
    tests: tuple[int, int, int] = (
        N_TEST,
        EVERY,
        EQUILIBRATION,
    )


def glycine() -> Atoms:
    """The neutral conformer with a hydrogen bond from O–H to N; roughly, it is relaxed before use."""
    places = [
        ("N", 1.95, 0.03, 0.10), ("C", 0.72, 0.76, -0.05), ("C", -0.53, -0.11, 0.01), ("O", -1.64, 0.36, 0.05),
        ("O", -0.29, -1.43, 0.00), ("H", 2.00, -0.60, -0.69), ("H", 2.73, 0.68, 0.00), ("H", 0.66, 1.52, 0.74),
        ("H", 0.70, 1.29, -1.01), ("H", 0.69, -1.52, 0.04),
    ]  # fmt: skip
    return Atoms([p[0] for p in places], [p[1:] for p in places])


def vacancy() -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    del atoms[0]
    return atoms


def small_molecules() -> list[Atoms]:
    names = ("CH4", "C2H6", "CH3OH", "H2O", "CH3OCH3", "H3CNH2", "NH3", "HCOOH", "H2CO", "CH3CHO", "CH3CONH2")
    return [molecule(name) for name in names]


def small_metals() -> list[Atoms]:
    slab = fcc111("Cu", (2, 2, 4), vacuum=6.0)
    slab.pbc = True
    return [
        Octahedron("Cu", 3),
        Octahedron("Cu", 4, 1),
        slab,
        bulk("Cu", "fcc", a=3.7, cubic=True) * (2, 1, 1),
    ]


MORSE_CU = {"factory": "ase.calculators.morse:MorsePotential", "kwargs": MORSE}
SYSTEMS = {
    "ethanol": Benchmark(lambda: molecule("CH3CH2OH"), small_molecules, 500, 900, xtb("GFN1-xTB"), xtb("GFN2-xTB")),
    "glycine": Benchmark(glycine, small_molecules, 500, 900, xtb("GFN1-xTB"), xtb("GFN2-xTB")),
    "copper": Benchmark(
        vacancy, small_metals, 600, 1000, {"factory": "ase.calculators.emt:EMT", "kwargs": {}}, MORSE_CU, 2.0,
        (100, 40),
    ),
}  # fmt: skip
ARMS: dict[str, tuple[str, tuple[int, ...]]] = {  # arm → (what the members begin from, paid labels)
    "scratch": ("nothing", (8, 22, 64)),
    "scratch, active": ("nothing", (64,)),
    "pretrained": ("free labels", (8, 22)),
    "pretrained, active": ("free labels", (22,)),
    "fine-tuned": ("foundation", (8, 22)),
    "delta": ("baseline", (8, 22)),
}


def calculator(spec: dict[str, Any]) -> Any:
    if "tblite" in spec["factory"]:
        from tblite.ase import TBLite

        return TBLite(**spec["kwargs"])
    return EMT() if "emt" in spec["factory"] else MorsePotential(**spec["kwargs"])


def dynamics(
    atoms: Atoms,
    spec: dict[str, Any],
    temperature: float,
    n: int,
    every: int,
    timestep: float,
    seed: int,
    before: int = EQUILIBRATION,
) -> list[Atoms]:
    """Frames of Langevin dynamics."""
    atoms = atoms.copy()
    atoms.calc = calculator(spec)
    rng = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    md = Langevin(
        atoms, timestep * units.fs, temperature_K=temperature, friction=0.01 / units.fs, rng=rng, fixcm=False
    )
    md.run(before)
    frames = []
    for _ in range(n):
        md.run(every)
        frames.append(atoms.copy())
    return frames


def labelled(frames: Sequence[Atoms], spec: dict[str, Any]) -> list[Atoms]:
    for frame in frames:
        frame.calc = calculator(spec)
        energy, forces = frame.get_potential_energy(), frame.get_forces()
        frame.calc = None
        frame.info["REF_energy"], frame.arrays["REF_forces"] = energy, forces
    return list(frames)


class Bench:
    """The runs of one system in one folder."""

    def __init__(
        self, name: str, folder: Path, processes: int = 0, free_temperatures: Sequence[float] = ()
    ) -> None:
        self.name, self.system, self.folder, self.processes = name, SYSTEMS[name], folder / name, processes
        self.free_temperatures = [round(f * self.system.temperature) for f in free_temperatures]
        self.folder.mkdir(parents=True, exist_ok=True)

    # ------------------------------------------------------------ made once

    def made(self, name: str, make: Callable[[], list[Atoms]]) -> list[Atoms]:
        path = self.folder / name
        if not path.exists():
            ase.io.write(path.with_suffix(".part"), make(), format="extxyz")
            path.with_suffix(".part").replace(path)
        return list(ase.io.read(path, index=":", format="extxyz"))

    def start(self) -> Atoms:
        def relaxed() -> list[Atoms]:
            atoms = self.system.geometry()
            atoms.calc = calculator(self.system.reference)
            BFGS(atoms, logfile=None).run(fmax=0.02, steps=300)
            atoms.calc = None
            return [atoms]

        return self.made("start.xyz", relaxed)[0]

    def tests(self) -> dict[str, list[Atoms]]:
        s = self.system
        n, every, before = s.tests

        def frames(temperature: float) -> list[Atoms]:
            return [
                f for k in range(4)
                for f in dynamics(
                    self.start(), s.reference, temperature, n // 4, every, s.timestep, 7000 + k, before
                )
            ]  # fmt: skip

        return {
            name: self.made(f"test_{name}.xyz", lambda t=t: labelled(frames(t), s.reference))  # type: ignore[misc]
            for name, t in (("T", s.temperature), ("hot", s.hot))
        }

    def random_frames(self, n: int, seed: int) -> list[Atoms]:
        """n frames of the cheap potential's MD, spread over the same length of time for every n."""
        s, every = self.system, max(10, int(3200 / self.system.timestep) // n)

        def made() -> list[Atoms]:
            frames = dynamics(self.start(), s.cheap, s.temperature, n, every, s.timestep, 100 * seed)
            return labelled(frames, s.reference)

        return self.made(f"random_{n}_{seed}.xyz", made)

    def foundation(self) -> Path:
        """A model trained with aims-PAX on other structures, labelled by the cheap potential."""
        mine = self.folder / "foundation"
        found = sorted((mine / "results").glob("*.model"))
        if found:
            return found[0]
        s, frames = self.system, []
        for k, atoms in enumerate(s.others()):
            for t in (s.temperature, s.hot):
                frames += dynamics(
                    atoms, s.cheap, t, 25, 20, s.timestep, 500 + 10 * k + int(t > s.temperature)
                )
        labelled(frames, s.cheap)
        order = np.random.default_rng(0).permutation(len(frames))
        cut = len(frames) // 10
        settings = self.settings(1)
        settings["REFERENCE"] = {"type": "calculator", **s.cheap}
        settings["ACTIVE_LEARNING"] |= {"ensemble_size": 2, **GIVEN, "max_convergence_epochs": 150}
        settings["MISC"]["check_given_data"] = 0
        write(mine, settings, self.mace(1), {
            "start.xyz": [max(s.others(), key=lambda atoms: len(set(atoms.numbers)))],  # it knows all elements
            "train.xyz": [frames[i] for i in order[cut:]],
            "valid.xyz": [frames[i] for i in order[:cut]],
        })  # fmt: skip
        run("aims-PAX-al", mine)
        return next((mine / "results").glob("*.model"))

    # ------------------------------------------------------------ runs

    def settings(self, seed: int) -> dict[str, Any]:
        s = self.system
        settings = yaml.safe_load((ETHANOL / "aimsPAX.yaml").read_text())
        settings["REFERENCE"] = {"type": "calculator", **s.reference}
        settings["MD"] |= {"temperature": s.temperature, "timestep": s.timestep, "MD_seed": seed}
        settings["CLUSTER"] = {"type": "local", "executor": "inline"}
        if self.processes:
            settings["CLUSTER"] |= {"executor": "threads", "max_workers": 1, "dynamics": {"workers": 1}}
            settings["CLUSTER"]["training"] = {"workers": self.processes}
        settings["MISC"] = {"path_to_geometry": "start.xyz", "report": False}
        settings["ACTIVE_LEARNING"] |= {"convergence_patience": 40, "max_convergence_epochs": 150}
        settings.pop("INITIAL_DATASET_GENERATION")
        return settings

    def mace(self, seed: int) -> dict[str, Any]:
        mace = yaml.safe_load((ETHANOL / "mace.yaml").read_text())
        mace["GENERAL"] = {"name_exp": self.name, "seed": seed}
        return mace

    def project(self, mine: Path, arm: str, n: int, seed: int) -> str:
        """Write the folder of a run; returns its command."""
        s, settings, mace = self.system, self.settings(seed), self.mace(seed)
        begins = ARMS[arm][0]
        if begins != "nothing":
            mace["TRAINING"].pop("lr")  # the recipe's
        if begins == "free labels":
            settings["PRETRAINING"] = {"potential": s.cheap, "n_frames": s.free[0], "max_epochs": s.free[1]}
            if self.free_temperatures:
                settings["PRETRAINING"]["temperature"] = self.free_temperatures
        if begins == "foundation":
            mace["FOUNDATION"] = {"model": str(self.foundation())}
            mace.pop("ARCHITECTURE")
        if begins == "baseline":
            settings["REFERENCE"]["baseline"] = s.cheap
        files = {"start.xyz": [self.start()]}
        if "active" in arm:
            settings["INITIAL_DATASET_GENERATION"] = self.first_labels(n)
            settings["ACTIVE_LEARNING"] |= {"max_labels": n - self.n_first(n)}
            settings["ACTIVE_LEARNING"].pop("max_train_set_size", None)
            write(mine, settings, mace, files)
            return "aims-PAX"
        frames = self.random_frames(n, seed)
        order, cut = np.random.default_rng(seed).permutation(n), max(2, n // 10)
        settings["ACTIVE_LEARNING"] |= GIVEN
        files |= {
            "train.xyz": [frames[i] for i in order[cut:]],
            "valid.xyz": [frames[i] for i in order[:cut]],
        }
        settings["MISC"]["check_given_data"] = 0
        write(mine, settings, mace, files)
        return "aims-PAX-al"

    def n_first(self, n: int) -> int:
        return 40 if n >= 60 else max(4, n // 2)

    def first_labels(self, n: int) -> dict[str, Any]:
        shared, first = n < 60, self.n_first(n)
        return {
            "initial_sampling": "calculator",
            "initial_calculator": self.system.cheap,
            "ensemble_size": 2,
            "skip_step_initial": 40,
            "n_points_per_sampling_step_idg": first if shared else first // 4,
            "distinct_model_sets": not shared,
            "intermediate_epochs_idg": 10,
            "max_initial_epochs": 10 if shared else 20,
        }

    def folder_of(self, arm: str, n: int, seed: int) -> Path:
        return self.folder / f"{arm.replace(', ', '_')}_{n}_{seed}"

    def is_measured(self, arm: str, n: int, seed: int) -> bool:
        return (self.folder_of(arm, n, seed) / "measured.json").exists()

    def measure(self, arm: str, n: int, seed: int, survival: bool = True) -> dict[str, Any]:
        mine = self.folder_of(arm, n, seed)
        path = mine / "measured.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        if not found:
            shutil.rmtree(mine, ignore_errors=True)
            command = self.project(mine, arm, n, seed)
            began, before = time.time(), self.folder / f"free_{seed}"
            if ARMS[arm][0] == "free labels" and before.exists():
                shutil.copytree(before, mine, dirs_exist_ok=True)
            run(command, mine)
            if ARMS[arm][0] == "free labels" and not before.exists():
                self.keep_pretraining(mine, before)
            found = {
                "labels": self.paid(mine) if "active" in arm else n,
                "seconds": round(time.time() - began),
                **self.errors(mine),
            }
            path.write_text(json.dumps(found))
        if survival and "survived" not in found:
            found["survived"] = self.survival(mine)
            path.write_text(json.dumps(found))
        return dict(found)

    def keep_pretraining(self, mine: Path, before: Path) -> None:
        """Pre-training is the same in all runs of a seed: the next ones begin with its snapshots and free labels."""
        part = before.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        for name in ("restart/pretrain", "restart/pretrain-sample", "data/pretraining"):
            shutil.copytree(mine / name, part / name)
        part.rename(before)

    def prepare(self, seeds: Sequence[int], arms: Sequence[str]) -> None:
        """Make what several runs need, so that they can run at the same time."""
        self.tests()
        for seed in seeds:
            for n in sorted({n for arm in arms for n in ARMS[arm][1] if "active" not in arm}):
                self.random_frames(n, seed)
        if any(ARMS[arm][0] == "foundation" for arm in arms):
            self.foundation()

    def paid(self, mine: Path) -> int:
        return len([p for p in mine.glob("data/labels/*/*.json") if p.name != "method.json"])

    def errors(self, mine: Path) -> dict[str, float]:
        import aims_pax

        calculator = aims_pax.calculator(mine / "results")
        found = {}
        for name, frames in self.tests().items():
            each = []
            for frame in frames:
                atoms = frame.copy()
                atoms.calc = calculator
                each.append(1000 * np.abs(atoms.get_forces() - frame.arrays["REF_forces"]))
            found[f"MAE {name}"] = round(float(np.mean([e.mean() for e in each])), 1)
            found[f"tail {name}"] = round(float(np.quantile([e.max() for e in each], 0.95)))
        return found

    def survival(self, mine: Path) -> int:
        """Trajectories of 10 ps at 1.5 × T with the best member in which no bond of the start breaks or forms."""
        from ase.neighborlist import natural_cutoffs, neighbor_list

        import aims_pax

        calculator = aims_pax.calculator(next((mine / "results").glob("*.model")))
        s, alive = self.system, 0
        start = self.start()
        reach = np.array(natural_cutoffs(start, mult=1.6))
        bonds = set(zip(*neighbor_list("ij", start, np.array(natural_cutoffs(start)) * 1.15), strict=True))
        for k in range(TRAJECTORIES):
            atoms = start.copy()
            atoms.calc = calculator
            rng = np.random.default_rng(40 + k)
            MaxwellBoltzmannDistribution(atoms, temperature_K=1.5 * s.temperature, rng=rng)
            md = Langevin(
                atoms, s.timestep * units.fs, temperature_K=1.5 * s.temperature, friction=0.01 / units.fs, rng=rng,
                fixcm=False,
            )  # fmt: skip
            for _ in range(20):
                md.run(int(1000 * SURVIVAL_PS / s.timestep / 20))
                near = set(zip(*neighbor_list("ij", atoms, reach), strict=True))
                d = atoms.get_all_distances(mic=True) + 10 * np.eye(len(atoms))
                whole = np.isfinite(d).all() and d.min() > 0.6 and (self.name == "copper" or bonds <= near)
                if not whole:
                    break
            alive += bool(whole)
        return alive


GIVEN = {"initial_train_dataset": "train.xyz", "initial_valid_dataset": "valid.xyz", "max_train_set_size": 1}


def write(
    folder: Path, settings: dict[str, Any], mace: dict[str, Any], files: dict[str, list[Atoms]]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("aimsPAX.yaml", settings), ("mace.yaml", mace)):
        (folder / name).write_text(yaml.safe_dump(copy.deepcopy(content), sort_keys=False))
    for name, frames in files.items():
        ase.io.write(folder / name, frames, format="extxyz")


def run(command: str, folder: Path) -> None:
    """A command of the package, in a folder; ends this program with its message where it fails."""
    entry = {"aims-PAX": "main", "aims-PAX-al": "main_al", "aims-PAX-initial-ds": "main_initial_ds"}[command]
    code = f"from aims_pax.cli import {entry}; {entry}()"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with open(folder / "out.log", "w") as out:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
    if done.returncode:
        sys.exit(
            f"{folder}: {command} ended with {done.returncode}: {(folder / 'out.log').read_text()[-600:]}"
        )


STYLE = {  # arm → colour, marker, name in the picture
    "scratch": ("#555555", "o", "random weights"),
    "scratch, active": ("#555555", "^", "random weights, active learning"),
    "fine-tuned": ("#0072b2", "o", "model of other structures, fine-tuned"),
    "pretrained": ("#d55e00", "o", "pre-trained on free labels"),
    "pretrained, active": ("#d55e00", "^", "pre-trained, active learning"),
    "delta": ("#009e73", "o", "difference to a baseline"),
}


def plot(rows: dict[tuple[str, str, int], list[dict[str, Any]]], path: Path) -> None:
    """Force MAE at the temperature of the run against paid labels; medians, and all seeds as faint points."""
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for name, _, _ in rows))
    fig, axes = plt.subplots(1, len(names), figsize=(0.6 + 3.9 * len(names), 3.6), squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        for arm, (colour, marker, label) in STYLE.items():
            found = sorted(
                (n, [f["MAE T"] for f in each]) for (s, a, n), each in rows.items() if (s, a) == (name, arm)
            )
            if not found:
                continue
            for n, values in found:
                ax.plot([n] * len(values), values, marker, color=colour, alpha=0.25, ms=5, mec="none")
            middle = [float(np.median(values)) for _, values in found]
            line = "-" if marker == "o" else "none"
            ax.plot([n for n, _ in found], middle, marker, ls=line, color=colour, ms=6, lw=1.6, label=label)
        ax.set(
            xscale="log",
            yscale="log",
            title=f"{name}, {SYSTEMS[name].temperature} K",
            xlabel="labels of the reference",
        )
        ax.xaxis.set_major_locator(plt.FixedLocator([8, 22, 64]))
        ax.xaxis.set_major_formatter(plt.ScalarFormatter())
        ax.xaxis.set_minor_locator(plt.NullLocator())
        low, high = ax.get_ylim()
        ticks = [t for t in (2, 3, 5, 10, 20, 30, 50, 100, 200, 300) if low <= t <= high]
        ax.yaxis.set_major_locator(plt.FixedLocator(ticks))
        ax.yaxis.set_major_formatter(plt.ScalarFormatter())
        ax.yaxis.set_minor_locator(plt.NullLocator())
        ax.grid(color="#e6e6e6", lw=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("force MAE (meV/Å)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="lower center", ncol=3, frameon=False, fontsize=9)
    fig.tight_layout(rect=(0, 0.13, 1, 1))
    fig.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--prepare", action="store_true", help="make structures and foundation models alone")
    parser.add_argument("--processes", type=int, default=0, help="for training, beside that of the run")
    parser.add_argument(
        "--free-temperatures", type=float, nargs="+", default=[],
        help="of structures with free labels, times that of the run; another folder for each choice",
    )  # fmt: skip
    parser.add_argument("--without-survival", action="store_true", help="no long MD; a later call adds it")
    parser.add_argument("--measured", action="store_true", help="only what is in the folder already: no runs")
    parser.add_argument("--plot", type=Path, help="a picture of errors against paid labels")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for name in given.systems:
        bench = Bench(name, given.folder.absolute(), given.processes, given.free_temperatures)
        if given.prepare:
            bench.prepare(given.seeds, given.arms)
            continue
        for seed in given.seeds:
            for arm in given.arms:
                for n in ARMS[arm][1]:
                    if given.measured and not bench.is_measured(arm, n, seed):
                        continue
                    found = bench.measure(arm, n, seed, not given.without_survival)
                    rows.setdefault((name, arm, n), []).append(found)
                    print(f"{name} · {arm} · {n} labels · seed {seed}: {found}", flush=True)
    if given.prepare:
        return
    if given.plot:
        plot(rows, given.plot)
    keys = ("MAE T", "MAE hot", "tail hot", "survived", "labels", "seconds")
    print("| system | begins from | paid labels | " + " | ".join(keys) + " |")
    print("|---" * (3 + len(keys)) + "|")
    for (name, arm, n), each in rows.items():
        middle = [np.median([f.get(k, np.nan) for f in each]) for k in keys]
        print(f"| {name} | {arm} | {n} | " + " | ".join(f"{v:g}" for v in middle) + " |")


if __name__ == "__main__":
    main()
