"""Which frames of a pool to label: rules of selection compared offline, at equal labels.

    python benchmarks/selection.py --folder FOLDER [--system ethanol|glycine] [--jobs POOL:RULE:N:SEED …] [--table]

A pool has 2 000 labelled frames of the MD of a cheap potential (GFN2-xTB; the labels are GFN1-xTB): `T`, eight
trajectories at the temperature of the run, or `ladder`, eight trajectories at 0.8 … 2 times it, or
`warm`, those of them up to 1.4 times. A rule chooses n of a
random half of the pool (its own for every seed); a tenth of the n, at least 2 and drawn at random, is used for
validation. A model with the settings of benchmarks/ethanol/mace.yaml is trained on them from fresh weights with the
rules of convergence. Errors are those of forces (meV/Å) on frames of the reference's own MD: mean at the temperature
of the run and hotter, and the 95th percentile of the largest error of a frame (tail). Rules:

    random                  uniformly
    radial-far              farthest-first, radial descriptor
    far, det                farthest-first, MaxDet, in the features of a model with random weights
    free-far, free-det      the same, in the features of a model that was trained on 64 frames labelled by the cheap
                            potential, which cost nothing
    2-…                     in two steps: a third at random, of which a committee of two is trained; the rest by
                            2-random, 2-far, 2-det, 2-spread, 2-spread-far and 2-spread-det (weighted with the
                            spread), 2-mid (by spread, of the frames between its median and 90 %), 2-error (by the true
                            error, which only an oracle knows), 2-error-far
    half-RULE, third-RULE   so many of them at random, the others by the rule
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from priors import ETHANOL, Bench, dynamics, labelled

from aims_pax.core import convergence
from aims_pax.core.rules import ConvergenceRules
from aims_pax.core.selection import at_random, element_moments, farthest_first, largest_first, max_determinant
from aims_pax.core.uncertainty import atomic_spread
from aims_pax.core.work import KeepBest, Trained
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.mace import Ensemble, MemberData
from aims_pax.samplers.descriptors import radial
from aims_pax.settings import read_settings

POOL, TRAJECTORIES, EVERY = 2000, 8, 16
RUNGS = (0.8, 1.0, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)  # of the ladder, times the temperature
WARM = 5  # the first rungs, up to 1.4 times the temperature
PATIENCE, MARGIN, EPOCHS = 40, 0.001, 150
YOUNG_EPOCHS = 60  # of the committee of the first third


class Study:
    """The pools, models and results of one system."""

    def __init__(self, name: str, folder: Path) -> None:
        self.bench, self.name = Bench(name, folder), name
        self.folder = folder / name
        self.settings = read_settings(ETHANOL).mace
        self.tests = {key: list(map(as_labelled, frames)) for key, frames in self.bench.tests().items()}
        self._pools: dict[str, list[LabelledFrame]] = {}
        self._features: dict[str, np.ndarray] = {}

    def pool(self, kind: str) -> list[LabelledFrame]:
        if kind == "warm":
            return self.pool("ladder")[: WARM * POOL // TRAJECTORIES]
        if kind not in self._pools:
            s = self.bench.system
            rungs = RUNGS if kind == "ladder" else (1.0,) * TRAJECTORIES

            def made() -> list[Any]:
                frames = [
                    f for k, rung in enumerate(rungs)
                    for f in dynamics(
                        self.bench.start(), s.cheap, rung * s.temperature, POOL // TRAJECTORIES, EVERY, s.timestep,
                        3000 + k,
                    )
                ]  # fmt: skip
                return labelled(frames, s.reference)

            self._pools[kind] = list(map(as_labelled, self.bench.made(f"pool_{kind}.xyz", made)))
        return self._pools[kind]

    def model(self, seeds: Sequence[int]) -> Ensemble:
        elements = sorted({int(z) for f in self.tests["T"] for z in f.frame.numbers})
        return Ensemble.build(self.settings, list(seeds), elements)

    def features(self, kind: str, by: str) -> np.ndarray:
        """(P, D) of a whole pool. by: radial, untrained or free."""
        key = f"{kind}/{by}"
        if key not in self._features:
            frames = [f.frame for f in self.pool(kind)]
            if by == "radial":
                self._features[key] = radial(frames)
            else:
                self._features[key] = moments(self.untrained() if by == "untrained" else self.free(), frames)
        return self._features[key]

    def untrained(self) -> Ensemble:
        model = self.model([1])
        train(model, self.pool("T")[:10], self.pool("T")[:2], 1, PATIENCE, lr=0.0)
        return model

    def free(self) -> Ensemble:
        """A model of 64 frames with labels of the cheap potential."""
        s = self.bench.system
        frames = dynamics(self.bench.start(), s.cheap, s.temperature, 64, 50, s.timestep, 77)
        data = [as_labelled(a) for a in labelled(frames, s.cheap)]
        model = self.model([1])
        train(model, data[6:], data[:6], 100, PATIENCE)
        return model

    # ------------------------------------------------------------ one result

    def measure(self, kind: str, rule: str, n: int, seed: int) -> dict[str, Any]:
        began = time.time()
        rng = np.random.default_rng([seed, 1])  # the same half, and the same first third, for all rules
        pool = self.pool(kind)
        half = rng.permutation(len(pool))[: len(pool) // 2]
        chosen = [int(half[i]) for i in self.choose(kind, rule, n, half, seed)]
        assert len(set(chosen)) == n, (rule, len(set(chosen)))
        cut = max(2, n // 10)
        order = np.random.default_rng([seed, 2]).permutation(n)
        data = [pool[chosen[i]] for i in order]
        model = self.model([seed])
        epochs = train(model, data[cut:], data[:cut], EPOCHS, PATIENCE)
        energies = [f.label.energy for f in data]
        return {
            "system": self.name, "pool": kind, "rule": rule, "n": n, "seed": seed, **self.errors(model),
            "epochs": epochs, "seconds": round(time.time() - began),
            "E_mean": round(float(np.mean(energies) - np.mean([f.label.energy for f in self.tests["T"]])), 2),
            "E_max": round(float(np.max(energies) - np.mean([f.label.energy for f in self.tests["T"]])), 2),
        }  # fmt: skip

    def errors(self, model: Ensemble) -> dict[str, float]:
        found = {}
        potential = model.potential()
        for name, frames in self.tests.items():
            labels = potential.labels([f.frame for f in frames])
            each = [1000 * np.abs(p.forces - f.label.forces) for p, f in zip(labels, frames, strict=True)]
            found[f"MAE {name}"] = round(float(np.mean([e.mean() for e in each])), 1)
            found[f"tail {name}"] = round(float(np.quantile([e.max() for e in each], 0.95)))
        return found

    def choose(self, kind: str, rule: str, n: int, half: np.ndarray, seed: int) -> list[int]:
        rng = np.random.default_rng([seed, 3])
        if rule.startswith("2-"):
            first = [int(i) for i in rng.permutation(len(half))[: n // 3]]
            return first + self.second(kind, rule[2:], n - len(first), half, first, seed)
        for share, part in (("half-", 2), ("third-", 3)):
            if rule.startswith(share):
                first = [int(i) for i in rng.permutation(len(half))[: n // part]]
                return first + self.at_once(kind, rule.removeprefix(share), n - len(first), half, first, rng)
        return self.at_once(kind, rule, n, half, [], rng)

    def at_once(
        self, kind: str, rule: str, n: int, half: np.ndarray, known: list[int], rng: np.random.Generator
    ) -> list[int]:
        if rule == "random":
            return at_random(len(half), n, rng)
        by = {"radial": "radial", "free": "free"}.get(rule.partition("-")[0], "untrained")
        x = self.features(kind, by)[half]
        return RULES[rule.rpartition("-")[2]](x, n, x[known] if known else None, None)

    def second(
        self, kind: str, rule: str, n: int, half: np.ndarray, first: list[int], seed: int
    ) -> list[int]:
        pool = [self.pool(kind)[i] for i in half]
        others = np.array([i for i in range(len(half)) if i not in set(first)])
        if rule == "random":
            return [int(others[i]) for i in at_random(len(others), n, np.random.default_rng([seed, 4]))]
        cut = max(1, len(first) // 10)
        data = [pool[i] for i in first]
        young = self.model([seed + 100, seed + 200])
        for member in range(2):
            train(young, data[cut:], data[:cut], YOUNG_EPOCHS, PATIENCE, member)
        frames = [pool[i].frame for i in others]
        x = moments(young, frames)
        known = moments(young, [f.frame for f in data])
        spread, error = spreads(young, [pool[i] for i in others])
        w = error if "error" in rule else spread
        name = rule.rpartition("-")[2]
        if rule == "mid":
            low, high = np.quantile(w, [0.5, 0.9])
            w, name = np.where((w > low) & (w <= high), w, 0.0), "spread"
        weighted = rule not in ("far", "det")
        return [int(others[i]) for i in RULES[name](x, n, known, w if weighted else None)]


RULES: dict[str, Callable[..., list[int]]] = {
    "far": farthest_first,
    "det": max_determinant,
    "spread": lambda x, n, known, w: largest_first(x, n, w, known),
    "error": lambda x, n, known, w: largest_first(x, n, w, known),
}


def as_labelled(atoms: Any) -> LabelledFrame:
    return LabelledFrame(Frame.from_atoms(atoms), Label(atoms.info["REF_energy"], atoms.arrays["REF_forces"]))


def train(
    model: Ensemble, fit: list[LabelledFrame], check: list[LabelledFrame], epochs: int, patience: int,
    member: int = 0, lr: float | None = None,
) -> int:  # fmt: skip
    """Converge a member as a run does (`core.convergence`), from its present weights; returns the best epoch."""
    if lr is not None:
        for m in model.members:
            for group in m.optimiser.param_groups:
                group["lr"] = lr
    rules = ConvergenceRules((member,), patience, MARGIN, epochs)
    state, best = convergence.begin(rules), {}
    data = {member: MemberData(fit, check)}
    while work := convergence.outstanding(state, rules):
        (r,) = model.train(data, work[0].epochs, words=("train", "converge", work[0].visit))
        event = Trained(work[0], len(fit), (r.valid_loss,), (r.force_mae,))
        state, effects = convergence.step(state, event, rules)
        if any(isinstance(e, KeepBest) for e in effects):
            best = dict(model.inference_arrays(member))
    model.set_inference_arrays(member, best)
    model.finish_convergence(data)
    return state.members[0].best_epoch


def moments(model: Ensemble, frames: Sequence[Frame]) -> np.ndarray:
    elements = model.elements
    features = model.potential().atom_features(frames)
    return np.array([element_moments(x, f.numbers, elements) for x, f in zip(features, frames, strict=True)])


def spreads(model: Ensemble, frames: Sequence[LabelledFrame]) -> tuple[np.ndarray, np.ndarray]:
    """(P,) largest spread of an atom (eV/Å), and the largest error of a force of the committee's mean."""
    spread, error = [], []
    for begin in range(0, len(frames), 100):
        part = frames[begin : begin + 100]
        said = model.potential().evaluate([f.frame for f in part])
        pieces = np.split(said.forces.cpu().numpy(), np.cumsum([len(f.frame) for f in part])[:-1], axis=1)
        spread += [atomic_spread(p).max() for p in pieces]
        error += [
            np.linalg.norm(p.mean(0) - f.label.forces, axis=1).max()
            for p, f in zip(pieces, part, strict=True)
        ]
    return np.array(spread), np.array(error)


# ---------------------------------------------------------------- results


def table(path: Path) -> str:
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in path.read_text().splitlines():
        r = json.loads(line)
        rows.setdefault((r["system"], r["n"], r["pool"], r["rule"]), []).append(r)
    keys = ("MAE T", "tail T", "MAE hot", "tail hot", "E_max")
    out = [
        "| system | labels | pool | rule | seeds | " + " | ".join(keys) + " |",
        "|---" * (5 + len(keys)) + "|",
    ]
    for (system, n, pool, rule), each in sorted(rows.items()):
        means = [np.mean([r[k] for r in each]) for k in keys]
        values = [
            f"{v:.1f}" if k.startswith(("MAE", "E")) else f"{v:.0f}" for k, v in zip(keys, means, strict=True)
        ]
        out.append(f"| {system} | {n} | {pool} | {rule} | {len(each)} | " + " | ".join(values) + " |")
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--system", default="ethanol")
    parser.add_argument("--jobs", nargs="+", default=[], metavar="POOL:RULE:N:SEED")
    parser.add_argument("--table", action="store_true", help="only print the table of what is measured")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    results = given.folder / "results.jsonl"
    if not given.table:
        study = Study(given.system, given.folder.absolute())
        for job in given.jobs:
            kind, rule, n, seed = job.split(":")
            done = results.exists() and any(
                (r["system"], r["pool"], r["rule"], r["n"], r["seed"])
                == (given.system, kind, rule, int(n), int(seed))
                for r in map(json.loads, results.read_text().splitlines())
            )
            if not done:
                found = study.measure(kind, rule, int(n), int(seed))
                with results.open("a") as file:
                    file.write(json.dumps(found) + "\n")
                print(found, flush=True)
                (given.folder / "TABLE.md").write_text(table(results) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
