"""Does `stop: when_done` end a run where hindsight would have ended it?

    python benchmarks/stop_rule.py --folder FOLDER [--systems ethanol glycol copper] [--seeds 1 2] [--labels 110]
        [--targets 0.2 0.16 0.14 0.12]

Each run is one of `aims-PAX` with the default rule and settings (systems, references and test frames of
`label_efficiency.py`), of which all snapshots of active learning are kept. It goes on until it has --labels labels.
Afterwards the rule is asked at each snapshot, for every target (eV/Å), whether the run would have ended there; and the
committee of that snapshot predicts the test frames, from the reference's own MD at the temperature of the run: the true
mean of the largest force error of a frame, which is what the rule estimates.

Hindsight ends at the first snapshot from which the true error (the median of three snapshots in a row) stays below the
target. The MD without a new region that the rule also wants (`quiet_MD_steps`) is left out: it can only delay the end.
A target that is reached neither by the rule nor in hindsight within --labels counts as agreement and is listed as
such. Runs that are in FOLDER already are not repeated.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import priors
from label_efficiency import Efficiency

from aims_pax.core.active_learning_state import State
from aims_pax.core.stop_rule import decide
from aims_pax.frames import Frame
from aims_pax.models.mace import Ensemble
from aims_pax.record.arrays import unpack_arrays
from aims_pax.record.checkpoint import from_plain
from aims_pax.settings import read_settings

CONFIDENCE = 0.9
KEPT = (  # the command of a run, whose snapshots are frequent and stay
    "import aims_pax.engine.event_loop as loop, aims_pax.record.checkpoint as checkpoint; "
    "loop.SNAPSHOT_SECONDS = 2.0; checkpoint.KEEP = 10**6; from aims_pax.cli import main; main()"
)


@dataclass(frozen=True)
class Moment:
    """A snapshot: labels so far, true error (eV/Å) and, for each target, verdict and estimated error."""

    labels: int
    error: float
    verdicts: dict[str, str]
    estimate: float


class Stopping(Efficiency):
    def folder_of(self, arm: str, n: int, seed: int) -> Path:
        return self.folder / f"stop_{n}_{seed}"

    def settings(self, seed: int) -> dict[str, Any]:
        settings = super().settings(seed)
        settings["ACTIVE_LEARNING"] |= {"target_error": 0.01, "converge_al": False, "converge_best": False}
        return settings

    def run(self, n: int, seed: int) -> Path:
        mine = self.folder_of("", n, seed)
        if (mine / "ended").exists():
            return mine
        self.project(mine, "default", n, seed)
        path = os.pathsep.join([str(priors.ROOT), os.environ.get("PYTHONPATH", "")])
        with open(mine / "out.log", "w") as out:
            done = subprocess.run(
                [sys.executable, "-c", KEPT], cwd=mine, stdout=out, stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        if done.returncode:
            sys.exit(f"{mine}: {(mine / 'out.log').read_text()[-600:]}")
        (mine / "ended").touch()
        return mine

    def moments(self, mine: Path, targets: list[float]) -> list[Moment]:
        """What the rule said and what was true, at each snapshot with other weights or labels."""
        settings = read_settings(mine)
        tests = self.tests()["T"]
        frames = [Frame.from_atoms(atoms) for atoms in tests]
        true = [atoms.arrays["REF_forces"] for atoms in tests]
        elements = sorted({int(z) for f in frames for z in f.numbers})
        models = sorted((mine / "model").glob("*.model"))
        seeds = [int(model.stem.rsplit("_", 1)[1]) for model in models]
        ensemble = Ensemble.build(settings.mace, seeds, elements, mine)
        errors: dict[int, float] = {}
        found: dict[tuple[int, int], Moment] = {}
        for path in sorted((mine / "restart" / "explore").glob("state-*.npy")):
            _, meta = unpack_arrays(path.read_bytes())
            version, state = int(meta["version"]), from_plain(State, meta["state"])
            if version not in errors:
                weights, _ = unpack_arrays((path.parent / f"weights-{version:06d}.npy").read_bytes())
                ensemble.restore(weights)
                errors[version] = self.error_of(ensemble, frames, true)
            [(_, calibration)] = state.calibrations
            said = {t: decide(calibration, state.n_train, t, CONFIDENCE) for t in targets}
            labels = int(meta["remarks"]["entries"])
            found[labels, version] = Moment(
                labels,
                errors[version],
                {f"{t:g}": d.verdict for t, d in said.items()},
                said[targets[0]].error,
            )
        return list(found.values())

    @staticmethod
    def error_of(ensemble: Ensemble, frames: list[Frame], true: list[Any]) -> float:
        import torch

        bound = ensemble.potential().bind(frames)
        positions = torch.from_numpy(np.concatenate([f.positions for f in frames]))
        cells = torch.from_numpy(np.stack([f.cell for f in frames]))
        forces = bound(positions, cells).forces.detach().double().numpy().mean(0)  # (atoms of all frames, 3)
        ends = np.cumsum([len(f) for f in frames])[:-1]
        pairs = zip(np.split(forces, ends), true, strict=True)
        return float(np.mean([np.abs(mine - theirs).max() for mine, theirs in pairs]))


def hindsight(moments: list[Moment], target: float) -> int | None:
    """Labels from which the true error stays below the target."""
    errors = np.array([m.error for m in moments])
    smooth = np.array([np.median(errors[max(0, k - 1) : k + 2]) for k in range(len(errors))])
    above = np.flatnonzero(smooth > target)
    first = 0 if not len(above) else int(above[-1]) + 1
    return moments[first].labels if first < len(moments) else None


def stopped(moments: list[Moment], target: float) -> tuple[int, float, str] | None:
    """(labels, true error, verdict) where the rule would have ended the run."""
    key = f"{target:g}"
    return next(((m.labels, m.error, m.verdicts[key]) for m in moments if m.verdicts[key] != "open"), None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", default=["ethanol", "glycol", "copper"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--labels", type=int, default=110)
    parser.add_argument("--targets", type=float, nargs="+", default=[0.2, 0.16, 0.14, 0.12])
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    print("| system, seed | target | labels in hindsight | by the rule | true error there | verdict |")
    print("|---|---|---|---|---|---|")
    for name in given.systems:
        bench = Stopping(name, given.folder.absolute())
        for seed in given.seeds:
            mine = bench.run(given.labels, seed)
            moments = bench.moments(mine, given.targets)
            rows = [[m.labels, m.error, m.estimate, *m.verdicts.values()] for m in moments]
            (mine / "moments.json").write_text(json.dumps(rows))
            for target in given.targets:
                best, rule = hindsight(moments, target), stopped(moments, target)
                said = f"{rule[0]} | {1000 * rule[1]:.0f} | {rule[2]}" if rule else "not ended | | open"
                print(
                    f"| {name} {seed} | {1000 * target:.0f} | {best or 'not reached'} | {said} |", flush=True
                )


if __name__ == "__main__":
    main()
