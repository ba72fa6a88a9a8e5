"""Does `stop: when_done` end a run where hindsight would have ended it?

    python benchmarks/stop_rule.py --folder FOLDER [--systems ethanol glycol copper] [--seeds 1 2] [--labels 110]
        [--targets 0.2 0.16 0.14 0.12] [--own]

Each run is one of `aims-PAX` with the default rule and settings (systems, references and test frames of
`label_efficiency.py`), of which all snapshots of active learning are kept. It goes on until it has --labels labels.
Afterwards the rule is asked at each snapshot, for every target (eV/Å), whether the run would have ended there; and the
committee of that snapshot predicts the test frames, from the reference's own MD at the temperature of the run: the true
mean of the largest force error of a frame, which is what the rule estimates.

With --own the true error is that of structures of the models' own MD instead, which is where the structures come from
whose errors the rule knows: at each snapshot eight trajectories of OWN_STEPS steps from test frames, five
structures each, labelled for this purpose alone.

Hindsight ends at the first snapshot from which the true error (the median of three snapshots in a row) stays below the
target. The MD without a new region that the rule also wants (`quiet_MD_steps`) is left out: it only delays the end. A
target that is reached neither by the rule nor in hindsight within --labels counts as agreement and is listed as such.
Also printed: how many test frames have an error below the calibrated 90 % bound, while labels arrive and weights
change. Runs that are in FOLDER already are not repeated.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import priors
import torch
from label_efficiency import Efficiency

from aims_pax.commands.check.readiness import untrained_member_seeds
from aims_pax.core.active_learning_state import State
from aims_pax.core.error_calibration import Drift, ErrorCalibration
from aims_pax.core.stop_rule import decide
from aims_pax.core.uncertainty import atomic_sd
from aims_pax.dataset import Dataset
from aims_pax.frames import Frame
from aims_pax.md import MDState, advance
from aims_pax.models.mace import Ensemble
from aims_pax.record.arrays import unpack_arrays
from aims_pax.record.checkpoint import from_plain
from aims_pax.settings import read_settings
from aims_pax.stages.active_learning import MEASURED

CONFIDENCE = 0.9
Pairs = np.ndarray  # (F, 2): spread and error of each frame, eV/Å
OWN_STEPS, OWN_APART, OWN_TRAJECTORIES = 700, 100, 8  # the last five structures of each are taken
KEPT = (  # the command of a run, whose snapshots are frequent and stay
    "import aims_pax.engine.event_loop as loop, aims_pax.record.checkpoint as checkpoint; "
    "loop.SNAPSHOT_SECONDS = 2.0; checkpoint.KEEP = 10**6; from aims_pax.cli import main; main()"
)


@dataclass(frozen=True)
class Moment:
    """A snapshot: labels so far, true and estimated error (eV/Å), the verdict for each target, and the share of test
    frames whose error is below the calibrated bound (NaN before there is one)."""

    labels: int
    error: float
    verdicts: dict[str, str]
    estimate: float
    covered: float


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

    def moments(self, mine: Path, targets: list[float], own: bool = False) -> list[Moment]:
        """What the rule said and what was true, at each snapshot with other weights or labels."""
        settings = read_settings(mine)
        tests = self.tests()["T"]
        frames = [Frame.from_atoms(atoms) for atoms in tests]
        true = [atoms.arrays["REF_forces"] for atoms in tests]
        starts = [MDState.start(f, self.system.temperature, 50 + k) for k, f in enumerate(frames)]
        starts = starts[:: len(frames) // OWN_TRAJECTORIES][:OWN_TRAJECTORIES]
        elements = sorted({int(z) for f in frames for z in f.numbers})
        ensemble = Ensemble.build(settings.mace, untrained_member_seeds(settings), elements, mine)
        measured: dict[int, Pairs] = {}
        found: dict[tuple[int, int], Moment] = {}
        drifts: list[Drift] = []
        known, dataset = ErrorCalibration(), Dataset(mine / "data")
        for path in sorted((mine / "restart" / "explore").glob("state-*.npy")):
            _, meta = unpack_arrays(path.read_bytes())
            version, state = int(meta["version"]), from_plain(State, meta["state"])
            if version not in measured:
                weights, _ = unpack_arrays((path.parent / f"weights-{version:06d}.npy").read_bytes())
                ensemble.restore(weights)
                measured[version] = spreads_and_errors(ensemble, frames, true)
                before, known = known, known.trained(validation(ensemble, dataset, meta), CONFIDENCE)
                if own:
                    visited = self.visited(ensemble, starts, settings.md)
                    measured[version] = spreads_and_errors(ensemble, *visited)
            [(_, stored)] = state.calibrations
            drifts += [before.drift] * (len(stored.pairs) - len(drifts))
            before = known  # labels that follow without a training are predicted by these models
            calibration = by_todays_rule(stored, known, drifts)
            said = {t: decide(calibration, state.n_train, t, CONFIDENCE) for t in targets}
            spreads, errors = measured[version].T
            fitted = calibration.map
            below = [
                fitted is not None and e <= fitted.bound(s) for s, e in zip(spreads, errors, strict=True)
            ]
            labels = int(meta["remarks"]["entries"])
            found[labels, version] = Moment(
                labels, float(errors.mean()), {f"{t:g}": d.verdict for t, d in said.items()}, said[targets[0]].error,
                float(np.mean(below)) if fitted is not None else np.nan,
            )  # fmt: skip
        return list(found.values())

    def visited(self, ensemble: Ensemble, starts: list[MDState], md: Any) -> tuple[list[Frame], list[Any]]:
        """Structures of the models' own MD, and their true forces."""
        moved = advance(starts, ensemble.potential(), OWN_STEPS, [md] * len(starts), observe_every=OWN_APART)
        frames = [
            state.frame() for outcome in moved if outcome.fault is None for state in outcome.observed[-5:]
        ]
        told = priors.labelled([frame.to_atoms() for frame in frames], self.system.reference)
        return frames, [atoms.arrays["REF_forces"] for atoms in told]


def validation(
    ensemble: Ensemble, dataset: Dataset, meta: dict[str, Any]
) -> tuple[tuple[str, float, float], ...]:
    """(frame, spread, error) of the newest validation structures of a snapshot, as active learning measures them."""
    entries = dataset.entries[: int(meta["remarks"]["entries"])]
    newest = list(dict.fromkeys(e.frame for e in entries if e.split == "valid"))[-MEASURED:]
    labelled = [dataset.frames[frame] for frame in newest]
    pairs = spreads_and_errors(
        ensemble, [one.frame for one in labelled], [one.label.forces for one in labelled]
    )
    return tuple((frame, float(s), float(e)) for frame, (s, e) in zip(newest, pairs, strict=True))


def by_todays_rule(
    stored: ErrorCalibration, known: ErrorCalibration, drifts: list[Drift]
) -> ErrorCalibration:
    """A calibration, judged today. known: what is known of the models now. drifts: of the models at each pair."""
    pairs = tuple(replace(p, drift=d) for p, d in zip(stored.pairs, drifts, strict=True))
    return replace(stored, pairs=pairs, drift=known.drift, validation=known.validation).fitted(CONFIDENCE)


def spreads_and_errors(ensemble: Ensemble, frames: list[Frame], true: list[Any]) -> Pairs:
    """(F, 2): largest spread of an atom and largest error of a component of the committee's mean, eV/Å."""
    bound = ensemble.potential().bind(frames)
    positions = torch.from_numpy(np.concatenate([f.positions for f in frames]))
    cells = torch.from_numpy(np.stack([f.cell for f in frames]))
    forces = bound(positions, cells).forces.detach().double().numpy()  # (M, atoms of all frames, 3)
    each = np.split(forces, np.cumsum([len(f) for f in frames])[:-1], axis=1)
    return np.array(
        [(atomic_sd(f).max(), np.abs(f.mean(0) - t).max()) for f, t in zip(each, true, strict=True)]
    )


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
    parser.add_argument("--own", action="store_true", help="true errors along the models' own MD")
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    print("| system, seed | target | labels in hindsight | by the rule | true error there | verdict |")
    print("|---|---|---|---|---|---|")
    for name in given.systems:
        bench = Stopping(name, given.folder.absolute())
        for seed in given.seeds:
            mine = bench.run(given.labels, seed)
            moments = bench.moments(mine, given.targets, given.own)
            rows = [[m.labels, m.error, m.estimate, m.covered, *m.verdicts.values()] for m in moments]
            (mine / f"moments{'_own' if given.own else ''}.json").write_text(json.dumps(rows))
            for target in given.targets:
                best, rule = hindsight(moments, target), stopped(moments, target)
                said = f"{rule[0]} | {1000 * rule[1]:.0f} | {rule[2]}" if rule else "not ended | | open"
                print(
                    f"| {name} {seed} | {1000 * target:.0f} | {best or 'not reached'} | {said} |", flush=True
                )
            covered = [m.covered for m in moments if np.isfinite(m.covered)]
            share = f"{100 * np.mean(covered):.0f} % of the test frames below the bound"
            print(f"{name} {seed}: {share}, {len(covered)} snapshots")


if __name__ == "__main__":
    main()
