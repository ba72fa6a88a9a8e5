"""Rules of selection compared with a force field that is fitted in half a second: many seeds, small error bars.

    python benchmarks/selection_kernel.py --folder FOLDER --jobs POOL:RULE,RULE:N,N:FIRST-LAST …

The learner is a kernel ridge regression of forces in inverse distances (sGDML; Chmiela et al., Nat. Commun. 9, 3887
(2018)), with the 6 permutations of ethanol. Pools and test sets are those of `selection.py` in FOLDER/ethanol; results
are appended to FOLDER/kernel.jsonl, and a table is printed: means, and the geometric mean over the seeds of the error
relative to random frames at the temperature of the run, with its standard error. Rules, in the radial descriptor:

    random; far, det        at once: uniformly; farthest-first, MaxDet
    third-far, third-det    a third at random, then the rule
    2-far, 2-det, 2-top     a third at random; the rest by the rule weighted with the predicted standard deviation of
                            the force (Gaussian process); top: the largest
    2-mid                   the largest between the median and 90 %
    2-comm-far              weighted with the spread of a committee of four, each of two thirds of the first third
    2-error-top             the largest true error, which only an oracle knows
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

from aims_pax.core.selection import farthest_first, largest_first, max_determinant
from aims_pax.frames import Frame
from aims_pax.samplers.descriptors import radial

LENGTH, RIDGE = 6.0, 1e-7  # of the Matérn kernel (1/Å), and relative noise; the best for 32 random frames
HALF = 1000  # frames of the pool that a seed may choose from
KEYS = ("MAE T", "tail T", "MAE hot", "tail hot")


class Ethanol:
    """Inverse distances x (P, D), their derivatives (P, D, 3N), and permutations of D."""

    def __init__(self, start: Any) -> None:
        self.n = n = len(start)
        self.pairs = np.triu_indices(n, 1)
        index = np.zeros((n, n), int)
        index[self.pairs] = np.arange(len(self.pairs[0]))
        index += index.T
        self.permutations = [index[p[self.pairs[0]], p[self.pairs[1]]] for p in self._atoms(start)]

    def _atoms(self, start: Any) -> list[Any]:
        """Permutations of atoms: rotations of the methyl group; its odd ones with a swap of the other hydrogens."""
        d, z = start.get_all_distances(), start.numbers
        hydrogens = {c: np.flatnonzero((z == 1) & (d[c] < 1.25)) for c in np.flatnonzero(z == 6)}
        methyl, methylene = sorted(hydrogens.values(), key=len, reverse=True)
        found = []
        for order in itertools.permutations(range(3)):
            p = np.arange(self.n)
            p[methyl] = methyl[list(order)]
            if np.linalg.det(np.eye(3)[list(order)]) < 0:
                p[methylene] = methylene[::-1]
            found.append(p)
        return found

    def __call__(self, positions: Any) -> tuple[Any, Any]:
        i, j = self.pairs
        d = positions[:, i] - positions[:, j]
        x = 1 / np.linalg.norm(d, axis=-1)
        J = np.zeros((*x.shape, self.n, 3))
        k = np.arange(len(i))
        J[:, k, i], J[:, k, j] = -d * x[..., None] ** 3, d * x[..., None] ** 3
        return x, J.reshape(*x.shape, -1)


class KernelField:
    """Forces of P frames, positions and forces (P, N, 3)."""

    def __init__(self, system: Ethanol, positions: Any, forces: Any) -> None:
        self.system = system
        self.x, self.J = system(positions)
        K = self.covariance(self.x, self.J, self.x, self.J).reshape(forces.size, -1)
        self.L = np.linalg.cholesky((K + K.T) / 2 + RIDGE * np.eye(len(K)))
        solved = np.linalg.solve(self.L.T, np.linalg.solve(self.L, forces.reshape(-1)))
        self.a = np.einsum("bdn,bn->bd", self.J, solved.reshape(len(forces), -1))

    def covariance(self, xa: Any, Ja: Any, xb: Any, Jb: Any) -> Any:
        """(A, 3N, B, 3N): J [ (1 + q) − (5/ℓ²) Δ Δᵀ ] Jᵀ · 5/(3ℓ²) e^−q, mean over permutations; q = √5 |Δ|/ℓ."""
        out = np.zeros((len(xa), Ja.shape[2], len(xb), Jb.shape[2]))
        for i in range(len(xa)):
            for p in self.system.permutations:
                delta, J = xa[i][p] - xb, Ja[i][p]
                q = np.sqrt(5) * np.linalg.norm(delta, axis=1) / LENGTH
                e = 5 / (3 * LENGTH**2) * np.exp(-q)
                out[i] += (e * (1 + q))[None, :, None] * np.einsum("dm,bdn->mbn", J, Jb, optimize=True)
                v = np.einsum("bd,bdn->bn", delta, Jb)
                out[i] -= 5 / LENGTH**2 * np.einsum("b,bm,bn->mbn", e, delta @ J, v)
        return out / len(self.system.permutations)

    def forces(self, positions: Any) -> Any:
        x, J = self.system(positions)
        g = np.zeros(x.shape)
        for p in self.system.permutations:
            delta = x[:, None, p] - self.x
            q = np.sqrt(5) * np.linalg.norm(delta, axis=-1) / LENGTH
            e = 5 / (3 * LENGTH**2) * np.exp(-q)
            along = e * np.einsum("abd,bd->ab", delta, self.a)
            part = (e * (1 + q)) @ self.a - 5 / LENGTH**2 * np.einsum("ab,abd->ad", along, delta)
            g += part[:, np.argsort(p)]
        return np.einsum("adn,ad->an", J, g / len(self.system.permutations)).reshape(positions.shape)

    def deviation(self, positions: Any) -> Any:
        """(P,) the largest predicted standard deviation of the force on an atom."""
        x, J = self.system(positions)
        found = []
        for i in range(len(x)):
            one = (x[i : i + 1], J[i : i + 1])
            K = self.covariance(*one, self.x, self.J).reshape(J.shape[2], -1)
            V = np.linalg.solve(self.L, K.T)
            variance = np.diag(self.covariance(*one, *one)[0, :, 0]) - (V**2).sum(0)
            found.append(variance.reshape(-1, 3).sum(1).max())
        return np.sqrt(np.maximum(found, 0))


class KernelStudy:
    """Pools and test sets of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.system = Ethanol(ase.io.read(folder / "start.xyz"))
        self.tests = {name: self.read(f"test_{name}.xyz")[:2] for name in ("T", "hot")}
        self.pools: dict[str, Any] = {}

    def read(self, name: str) -> tuple[Any, Any, Any]:
        frames = ase.io.read(self.folder / name, ":")
        positions, forces = (np.array([v(a) for a in frames]) for v in (_positions, _forces))
        return positions, forces, [Frame.from_atoms(a) for a in frames]

    def measure(self, pool: str, rule: str, n: int, seed: int) -> dict[str, Any]:
        if pool not in self.pools:
            positions, forces, frames = self.read(f"pool_{pool}.xyz")
            self.pools[pool] = positions, forces, radial(frames)
        half = np.random.default_rng([seed, 1]).permutation(len(self.pools[pool][0]))[:HALF]
        R, F, x = (values[half] for values in self.pools[pool])
        chosen = self.choose(rule, n, R, F, x, np.random.default_rng([seed, 3]))
        assert len(set(map(int, chosen))) == n
        field = KernelField(self.system, R[chosen], F[chosen])
        found = {"pool": pool, "rule": rule, "n": n, "seed": seed}
        for name, (positions, forces) in self.tests.items():
            wrong = 1000 * np.abs(field.forces(positions) - forces)
            found |= {f"MAE {name}": wrong.mean(), f"tail {name}": np.quantile(wrong.max((1, 2)), 0.95)}
        return found

    def choose(self, rule: str, n: int, R: Any, F: Any, x: Any, rng: np.random.Generator) -> list[int]:
        order = rng.permutation(len(R))
        if rule == "random":
            return list(order[:n])
        if rule in ("far", "det"):
            return _by(rule, x, n, None, None)
        first = list(order[: n // 3])
        rest = np.setdiff1d(np.arange(len(R)), first)
        kind = rule.rpartition("-")[2]
        w = None if rule.startswith("third-") else self.weights(rule, first, rest, R, F, rng)
        if kind == "mid":
            low, high = np.quantile(w, [0.5, 0.9])
            w, kind = np.where((w > low) & (w <= high), w, 0), "top"
        return first + [rest[i] for i in _by(kind, x[rest], n - len(first), x[first], w)]

    def weights(self, rule: str, first: Any, rest: Any, R: Any, F: Any, rng: np.random.Generator) -> Any:
        if "comm" in rule:
            parts = [rng.permutation(first)[: max(2, 2 * len(first) // 3)] for _ in range(4)]
            said = np.array([KernelField(self.system, R[p], F[p]).forces(R[rest]) for p in parts])
            return np.sqrt(said.var(0).mean(-1)).max(1)
        field = KernelField(self.system, R[first], F[first])
        if "error" in rule:
            return np.linalg.norm(field.forces(R[rest]) - F[rest], axis=-1).max(1)
        return field.deviation(R[rest])


def _by(rule: str, x: Any, n: int, known: Any, w: Any) -> list[int]:
    if rule == "top":
        return largest_first(x, n, w, known)
    return (farthest_first if rule == "far" else max_determinant)(x, n, known, w)


def _positions(atoms: Any) -> Any:
    return atoms.positions


def _forces(atoms: Any) -> Any:
    return atoms.arrays["REF_forces"]


def kernel_table(path: Path) -> str:
    rows: dict[tuple[int, str, str], dict[int, Any]] = {}
    for line in path.read_text().splitlines():
        r = json.loads(line)
        rows.setdefault((r["n"], r["pool"], r["rule"]), {})[r["seed"]] = r
    out = [
        "| labels | pool | rule | seeds | " + " | ".join([*KEYS, *(f"{k}, relative" for k in KEYS)]) + " |"
    ]
    out.append("|---" * (4 + 2 * len(KEYS)) + "|")
    for (n, pool, rule), each in sorted(rows.items()):
        base = rows.get((n, "T", "random"), {})
        means = [f"{np.mean([r[k] for r in each.values()]):.0f}" for k in KEYS]
        logs = [[np.log(each[s][k] / base[s][k]) for s in each if s in base] for k in KEYS]
        ratios = [f"{np.exp(np.mean(v)):.2f} ± {np.std(v) / np.sqrt(len(v)):.2f}" if v else "" for v in logs]
        out.append(f"| {n} | {pool} | {rule} | {len(each)} | " + " | ".join([*means, *ratios]) + " |")
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--jobs", nargs="+", default=[], metavar="POOL:RULES:NUMBERS:SEEDS")
    given = parser.parse_args()
    study, path = KernelStudy(given.folder / "ethanol"), given.folder / "kernel.jsonl"
    for job in given.jobs:
        pool, rules, numbers, seeds = job.split(":")
        first, last = map(int, seeds.split("-"))
        for seed, n, rule in itertools.product(
            range(first, last + 1), map(int, numbers.split(",")), rules.split(",")
        ):
            with path.open("a") as file:
                file.write(json.dumps(study.measure(pool, rule, n, seed)) + "\n")
    print(kernel_table(path))


if __name__ == "__main__":
    main()
