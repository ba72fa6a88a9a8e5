"""`aims-PAX augment` against augment-atoms 0.2.0, side by side on the same starting structures and calculators.

    pip install augment-atoms          # into an environment of its own, beside this package's requirements
    python benchmarks/augment.py [--replicas 60] [--children 15] [--seed 0] [--cases Cu32 MACE]

1. The same algorithm: fed with the same random numbers both grow the same trees, structure by structure; and with β
   and E/N read as its code does, per-tree statistics (children per attempt, relaxation steps, levels, energies) and
   distributions of pair distances agree: two-sample tests whose unit is the tree.
2. Calculator calls per kept structure. 3. Wall time per kept structure with ten trees and a MACE model, one thread,
   the two interleaved.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import contextlib
import io
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.geometry import find_mic

from aims_pax.frames import Frame
from aims_pax.potential import CalculatorPotential, Potential
from aims_pax.samplers import family_trees
from aims_pax.samplers.family_trees import Tree, grow
from aims_pax.samplers.rattle import Rattling

try:
    import augment_atoms
except ImportError:
    sys.exit(
        "skipped: augment-atoms is not installed here; pip install augment-atoms into an environment of its own that "
        "also has this package's requirements, and run this file with its python"
    )

COMMON: dict[str, Any] = {"max_force": 30.0, "min_separation": 0.5, "max_relax_steps": 20}


class Counting:
    """An ASE calculator that counts what it was asked."""

    def __init__(self, calculator: Calculator) -> None:
        self.calculator, self.calls = calculator, 0
        self.implemented_properties = calculator.implemented_properties

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
        from ase.calculators.calculator import all_changes

        self.calls += 1
        self.calculator.calculate(atoms, properties or ["energy", "forces"], all_changes)

    @property
    def results(self) -> dict[str, Any]:
        return dict(self.calculator.results)


@dataclass
class Grown:
    """What one side made of one set of starting structures."""

    # children of each tree, `info` and energy with them
    trees: list[list[Atoms]] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    calls: int = 0
    seconds: float = 0.0

    @property
    def kept(self) -> int:
        return sum(map(len, self.trees))

    def add(self, other: Grown) -> None:
        self.trees += other.trees
        self.attempts += other.attempts
        self.calls += other.calls
        self.seconds += other.seconds


SEED = 0  # --seed: other random numbers on both sides


class Same:
    """augment-atoms' random numbers under the names by which our trees ask for them."""

    def __init__(self, seed: int) -> None:
        self.state = np.random.RandomState(seed)

    def choice(self, n: int, p: np.ndarray) -> int:
        return int(self.state.choice(n, p=p))

    def uniform(self, low: float, high: float) -> float:
        return float(self.state.uniform(low, high))

    def standard_normal(self, shape: tuple[int, int]) -> np.ndarray:
        return self.state.randn(*shape)

    def random(self) -> float:
        return float(self.state.uniform())


def identical(name: str, trees: int, n: int) -> str:
    """Both sides on the same random numbers: how many structures, and how far they are apart. Ends where they part."""
    make, calculator, T, beta, sigma = CASES[name]
    worst, count, own = 0.0, 0, family_trees.seeds.rng
    for k, start in enumerate(shaken(make(), trees)):
        a, same = theirs([start], n, calculator(), T, beta, sigma, k), Same(1000 * (SEED + 1) + k)
        try:
            family_trees.seeds.rng = lambda *_, same=same: same  # type: ignore[assignment]
            b = ours([start], n, CalculatorPotential(calculator), T, beta, sigma, k)
        finally:
            family_trees.seeds.rng = own  # type: ignore[assignment]
        for x, y in zip(a.trees[0], b.trees[0], strict=True):
            apart = (
                find_mic(x.positions - y.positions, x.cell, x.pbc)[0]
                if x.pbc.any()
                else x.positions - y.positions
            )
            worst, count = max(worst, float(abs(apart).max())), count + 1
            if worst > 1e-4 or x.info["level"] != y.info["level"] or a.attempts != b.attempts:
                return f"{name:40s} the trees part at structure {count}"
    return f"{name:40s} {'same random numbers':24s} {count} structures in {trees} trees agree within {worst:.0e} Å"


def theirs(
    starts: Sequence[Atoms], n: int, calculator: Calculator, T: float, beta: float, sigma: Any, first: int = 0
) -> Grown:
    """augment-atoms, one tree after another, as its command does. first: number of the first tree."""
    counting, grown = Counting(calculator), Grown()
    began = time.perf_counter()
    for seed, start in enumerate(starts, first):
        config = augment_atoms.Config(
            n_per_structure=n + 1, T=T, beta=beta, sigma_range=tuple(sigma), seed=1000 * (SEED + 1) + seed, units="eV",
            cell_sigma=None, similarity_threshold=0.1, **COMMON,
        )  # fmt: skip
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            made = augment_atoms.generate_structures(start.copy(), counting, [], config)[1:]
        told = said.getvalue().partition("Rejections:")[2]
        grown.trees.append(made)
        grown.attempts.append(len(made) + sum(map(int, re.findall(r"^\s+(\d+) ", told, re.MULTILINE))))
    grown.calls, grown.seconds = counting.calls, time.perf_counter() - began
    return grown


def ours(
    starts: Sequence[Atoms], n: int, potential: Potential, T: float, beta: float, sigma: Any, first: int = 0
) -> Grown:
    """Our trees, side by side, β and E/N as augment-atoms' code reads them."""
    rattling = Rattling(
        temperature=T, beta=beta, sigma_range=tuple(sigma), beta_reading="code", boltzmann="per_atom",
        similarity_threshold=0.1, **COMMON,
    )  # fmt: skip
    trees = [
        Tree(str(k), Frame.from_atoms(start), rattling, seed=7 + SEED)
        for k, start in enumerate(starts, first)
    ]
    counted = CountingPotential(potential)
    began = time.perf_counter()
    for tree, node in grow(trees, n + 1, counted):
        if node is None:
            sys.exit(tree.given_up)
    grown = Grown(calls=counted.frames, seconds=time.perf_counter() - began)
    for tree in trees:
        made = []
        for node in tree.nodes[1:]:
            atoms = node.frame.to_atoms()
            atoms.info |= {**node.origin(), "energy": node.label.energy}
            made.append(atoms)
        grown.trees.append(made)
        grown.attempts.append(len(made) + tree.rejected.total())
    return grown


class CountingPotential:
    def __init__(self, potential: Potential) -> None:
        self.potential, self.frames = potential, 0

    def labels(self, frames: Sequence[Frame]) -> list[Any]:
        self.frames += len(frames)
        return self.potential.labels(frames)

    def bind(self, frames: Sequence[Frame]) -> Any:
        return self.potential.bind(frames)


# ---------------------------------------------------------------- two-sample tests, the tree as the unit


def permutation_p(a: np.ndarray, b: np.ndarray, rounds: int = 5000) -> float:
    """P of a difference of means at least as large when trees change sides. a, b: (trees,) or (trees, bins).

    For several bins: the sum over bins of squared differences over their variances.
    """
    both = np.concatenate([a, b]).reshape(len(a) + len(b), -1).astype(float)
    spread = both.std(0)
    both = both[:, spread > 0] / spread[spread > 0]
    if both.shape[1] == 0:
        return 1.0

    def distance(mask: np.ndarray) -> float:
        return float(np.square(both[mask].mean(0) - both[~mask].mean(0)).sum())

    side = np.arange(len(both)) < len(a)
    observed = distance(side)
    rng = np.random.default_rng(0)
    as_far = sum(distance(rng.permutation(side)) >= observed * (1 - 1e-12) for _ in range(rounds))
    return (1 + as_far) / (1 + rounds)


def histograms(trees: Sequence[Sequence[Atoms]], edges: np.ndarray) -> np.ndarray:
    """(trees, bins): distribution of the pair distances (minimum image) of each tree's children."""
    rows = []
    for made in trees:
        mic = bool(made[0].pbc.any())
        d = np.concatenate([a.get_all_distances(mic=mic)[np.triu_indices(len(a), 1)] for a in made])
        rows.append(np.histogram(d, edges)[0] / len(d))
    return np.array(rows)


def statistics(grown: Grown) -> dict[str, np.ndarray]:
    """{what: (trees,)}."""
    size = len(grown.trees[0][0])

    def of(key: str) -> np.ndarray:
        return np.array([np.mean([a.info[key] for a in made]) for made in grown.trees])

    return {
        "kept/attempt": np.array([len(t) / n for t, n in zip(grown.trees, grown.attempts, strict=True)]),
        "relax steps": of("relax_steps"),
        "level": of("level"),
        "log σ": np.array([np.mean([np.log(a.info["sigma"]) for a in made]) for made in grown.trees]),
        "E/N (eV)": of("energy") / size,
    }


# ---------------------------------------------------------------- the cases


def shaken(atoms: Atoms, n: int, noise: float = 0.02) -> list[Atoms]:
    rng = np.random.default_rng(3 + SEED)
    out = []
    for _ in range(n):
        moved = atoms.copy()
        moved.positions += rng.normal(0, noise, moved.positions.shape)
        out.append(moved)
    return out


def cluster() -> Atoms:
    """A trigonal bipyramid of five, near the minimum of the pair potential with σ = 1 Å."""
    d = 2 ** (1 / 6)
    ring = [[d / 3**0.5 * np.cos(t), d / 3**0.5 * np.sin(t), 0] for t in 2 * np.pi * np.arange(3) / 3]
    h = (d * d - d * d / 3) ** 0.5
    return Atoms("Ar5", [*ring, [0, 0, h], [0, 0, -h]])


CASES: dict[str, tuple[Callable[[], Atoms], Callable[[], Calculator], float, float, tuple[float, float]]] = {
    "LJ5 σ 0.01–0.1": (cluster, LennardJones, 300.0, 0.5, (0.01, 0.1)),
    "LJ5 σ 0.07–0.2": (cluster, LennardJones, 300.0, 0.3, (0.07, 0.2)),
    "Cu32 EMT σ 0.05–0.2": (lambda: bulk("Cu", cubic=True) * 2, EMT, 500.0, 0.5, (0.05, 0.2)),
}


def compare(name: str, replicas: int, n: int) -> list[str]:
    make, calculator, T, beta, sigma = CASES[name]
    starts = shaken(make(), replicas)
    a, b = Grown(), Grown()
    for first in range(0, replicas, 10):  # by turns: both feel the same load of the machine
        some = starts[first : first + 10]
        a.add(theirs(some, n, calculator(), T, beta, sigma, first))
        b.add(ours(some, n, CalculatorPotential(calculator), T, beta, sigma, first))
    rows = [
        row(
            name,
            "calls/kept",
            a.calls / a.kept,
            b.calls / b.kept,
            f"{ratio(a.calls, a, b.calls, b):.2f} × fewer",
        )
    ]
    rows.append(
        row(name, "ms/kept", 1e3 * a.seconds / a.kept, 1e3 * b.seconds / b.kept,
            f"{ratio(a.seconds, a, b.seconds, b):.2f} × faster")
    )  # fmt: skip
    mine = statistics(b)
    for what, values in statistics(a).items():
        p = permutation_p(values, mine[what])
        rows.append(row(name, what, values.mean(), mine[what].mean(), f"p = {p:.3f}"))
    edges = np.linspace(0.5, 5.0, 46)
    p = permutation_p(histograms(a.trees, edges), histograms(b.trees, edges))
    rows.append(row(name, "pair distances, 45 bins", None, None, f"p = {p:.3f}"))
    return rows


def ratio(x: float, a: Grown, y: float, b: Grown) -> float:
    return float((x / a.kept) / (y / b.kept))


def mace(trees: int, n: int, rounds: int, sigma: tuple[float, float]) -> list[str]:
    """A small MACE model trained on EMT-labelled ethanol: theirs through MACECalculator, ours in one batch."""
    from aims_pax.models.mace import foundation
    from aims_pax.models.mace.mace_import import quiet

    with quiet():
        from mace.calculators import MACECalculator

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.model"
        trained(path)
        calculator = MACECalculator(model_paths=str(path), device="cpu", default_dtype="float32")
        potential = foundation.load_foundation_model(str(path))
        starts = shaken(molecule("CH3CH2OH"), trees)
        warm = starts[0].copy()
        calculator.calculate(warm, ["energy", "forces"], [])
        potential.labels([Frame.from_atoms(warm)])
        sides: list[list[Grown]] = [[], []]
        for k in range(rounds):
            sides[0].append(theirs(starts, n, calculator, 500.0, 0.5, sigma, k * trees))
            sides[1].append(ours(starts, n, potential, 500.0, 0.5, sigma, k * trees))
    name = f"MACE ethanol σ {sigma[0]:g}–{sigma[1]:g}, {trees} trees"
    each = [ratio(a.seconds, a, b.seconds, b) for a, b in zip(*sides, strict=True)]
    kept = trees * n * rounds
    (ta, tb), (ca, cb) = (
        [sum(getattr(g, what) for g in side) / kept for side in sides] for what in ("seconds", "calls")
    )
    return [
        row(name, "calls/kept", ca, cb, f"{ca / cb:.2f} × fewer"),
        row(name, "ms/kept, one thread", 1e3 * ta, 1e3 * tb,
            f"{ta / tb:.2f} × faster; rounds {', '.join(f'{x:.1f}' for x in each)}"),
    ]  # fmt: skip


def trained(path: Path) -> None:
    """A 32-channel model that knows ethanol well enough to hold it together, written to `path`."""
    from aims_pax.frames import LabelledFrame
    from aims_pax.models.mace import Ensemble, MemberData
    from aims_pax.potential import calculate
    from aims_pax.settings import mace as settings

    frames = [Frame.from_atoms(a) for a in shaken(molecule("CH3CH2OH"), 30, 0.08)]
    data = [LabelledFrame(f, calculate(f, EMT())) for f in frames]
    made = settings.MaceSettings(
        general=settings.GeneralSettings(name_exp="bench"),
        architecture=settings.ArchitectureSettings(num_channels=32, r_max=4.0, max_L=1),
        training=settings.TrainingSettings(lr=0.01),
        misc=settings.MaceMiscSettings(),
    )
    ensemble = Ensemble.build(made, [1], (1, 6, 8))
    ensemble.train([MemberData(data[:25], data[25:])], 40)
    ensemble.save(0, path)


def row(case: str, what: str, theirs: float | None, ours: float | None, said: str) -> str:
    numbers = [" " * 9 if x is None else f"{x:9.3f}" for x in (theirs, ours)]
    return f"{case:40s} {what:24s} {numbers[0]} {numbers[1]}   {said}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicas", type=int, default=60, help="trees of each Lennard-Jones and EMT case")
    parser.add_argument("--children", type=int, default=15, help="children of each tree")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved repetitions of the MACE case")
    parser.add_argument("--seed", type=int, default=0, help="other random numbers on both sides")
    parser.add_argument(
        "--cases", nargs="*", default=["LJ5", "Cu32", "MACE"], help="what their names begin with"
    )
    global SEED
    given = parser.parse_args()
    SEED = given.seed
    warnings.filterwarnings("ignore")
    print(f"{'case':40s} {'per tree':24s} {'theirs':>9s} {'ours':>9s}", flush=True)
    for name in CASES:
        if not name.startswith(tuple(given.cases)):
            continue
        print(identical(name, 20, given.children), flush=True)
        fewer = 3 if "Cu32" in name else 1
        print("\n".join(compare(name, given.replicas // fewer, given.children)), flush=True)
    for sigma in ((0.01, 0.1), (0.05, 0.2)) if "MACE" in given.cases else ():
        print("\n".join(mace(10, 10, given.rounds, sigma)), flush=True)


if __name__ == "__main__":
    main()
