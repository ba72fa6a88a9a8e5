"""Which weights should move the atoms? The run in benchmarks/ethanol with each choice, over seeds and label budgets.

    python benchmarks/choices.py --seeds 1 2 3 --budgets 30 60

mean     every member at every step, their mean force (`md_force: mean`)
member   trajectory i is driven by member i mod M, all members at uncertainty checks only (`md_force: member`)
raw      as mean, but MD sees the raw weights and not their moving average (validation and the model delivered keep
         the average)

Each run is all of benchmarks/ethanol on one core; budgets are values of max_train_set_size. The error is that of the
delivered model on GFN1-xTB's own dynamics, which no model has seen. Processor seconds, so other load matters little.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ETHANOL = Path(__file__).parent / "ethanol"
EVALUATE = Path(__file__).parents[1] / "example" / "quickstart" / "evaluate.py"
CHOICES = ("mean", "member", "raw")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--budgets", type=int, nargs="+", default=[30, 60])
    parser.add_argument("--choices", nargs="+", default=list(CHOICES), choices=CHOICES)
    parser.add_argument("--one", choices=CHOICES, help=argparse.SUPPRESS)  # a run in its own process
    given = parser.parse_args()
    if given.one:
        run_here(given.one)
        return
    rows: dict[tuple[str, int], list[dict[str, float]]] = {}
    for seed, budget, choice in itertools.product(given.seeds, given.budgets, given.choices):
        row = one(choice, seed, budget)
        rows.setdefault((choice, budget), []).append(row)
        print(choice, budget, seed, json.dumps(row), flush=True)
    print(
        "\n| weights in MD | labels | force MAE meV/Å | exploration, CPU s | MD, CPU ms a trajectory-step |"
    )
    print("|---|---|---|---|---|")
    for (choice, _), runs in sorted(rows.items(), key=lambda item: item[0][::-1]):
        cells = [_median(runs, key) for key in ("labels", "mae", "exploration", "step_ms")]
        spread = " / ".join(f"{run['mae']:.1f}" for run in runs)
        print(f"| {choice} | {cells[0]:.0f} | {cells[1]:.1f} ({spread}) | {cells[2]:.0f} | {cells[3]:.2f} |")


def one(choice: str, seed: int, budget: int) -> dict[str, float]:
    """A whole run in a new folder: labels, force MAE in meV/Å, CPU s of exploration, CPU ms a trajectory-step."""
    folder = Path(tempfile.mkdtemp(prefix="choices-"))
    try:
        shutil.copytree(ETHANOL, folder, dirs_exist_ok=True)
        shutil.copy(EVALUATE, folder)
        _edit(folder / "mace.yaml", r"seed: \d+", f"seed: {seed}")
        force = "member" if choice == "member" else "mean"
        _edit(
            folder / "aimsPAX.yaml",
            r"max_train_set_size: \d+",
            f"max_train_set_size: {budget}\n  md_force: {force}",
        )
        _edit(folder / "aimsPAX.yaml", r"MD:\n", f"MD:\n  MD_seed: {seed}\n")
        _edit(folder / "aimsPAX.yaml", r"  type: local", "  type: local\n  training: {workers: 0}")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "--one", choice]
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        evaluate = [sys.executable, "evaluate.py"]
        subprocess.run(evaluate, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        told = json.loads((folder / "results" / "evaluation.json").read_text())
        times = json.loads((folder / "times.json").read_text())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "labels": told["reference_calculations"],
        "mae": told["force_mae_meV_A"],
        "exploration": times["exploration"],
        "step_ms": 1000 * times["moving"] / max(1, times["steps"]),
    }


def run_here(choice: str) -> None:
    """The run in the working folder, with processor time taken where the story tells it."""
    import time

    from aims_pax.cli import main as command
    from aims_pax.md import propagate
    from aims_pax.models.mace.member import Member
    from aims_pax.stages import active_learning

    spent = {"exploration": 0.0, "moving": 0.0, "steps": 0}
    whole, advance = active_learning.run_active_learning_stage, propagate.advance

    def timed_run(*args, **kwargs):  # type: ignore[no-untyped-def]
        begin = time.process_time()
        try:
            return whole(*args, **kwargs)
        finally:
            spent["exploration"] += time.process_time() - begin

    def timed_advance(states, *args, **kwargs):  # type: ignore[no-untyped-def]
        states, begin = list(states), time.process_time()
        moved = advance(states, *args, **kwargs)
        spent["moving"] += time.process_time() - begin
        spent["steps"] += sum(new.step - old.step for new, old in zip(states_of(moved), states, strict=True))
        return moved

    def states_of(moved):  # type: ignore[no-untyped-def]
        return [getattr(m, "state", m) for m in moved]

    active_learning.run_active_learning_stage = timed_run
    for module in list(sys.modules.values()):
        if getattr(module, "advance", None) is advance and module.__name__.startswith("aims_pax."):
            module.advance = timed_advance
    if choice == "raw":
        _raw_weights(Member)
    sys.argv = ["aims-PAX"]
    try:
        command()
    finally:
        Path("times.json").write_text(json.dumps(spent))


def _raw_weights(member: type) -> None:
    """MD gets copies of the raw weights: the average is laid aside while they are made."""
    frozen_copy, refresh = member.frozen_copy, member.refresh  # type: ignore[attr-defined]

    def with_raw(method):  # type: ignore[no-untyped-def]
        def patched(self, *args):  # type: ignore[no-untyped-def]
            averaged = self.average.shadow
            self.average.shadow = [w.detach().clone() for w in self.weights]
            try:
                return method(self, *args)
            finally:
                self.average.shadow = averaged

        return patched

    member.frozen_copy, member.refresh = with_raw(frozen_copy), with_raw(refresh)  # type: ignore[attr-defined]


def _edit(path: Path, pattern: str, text: str) -> None:
    before = path.read_text()
    after, count = re.subn(pattern, text, before, count=1)
    if count != 1:
        raise SystemExit(f"{path}: no {pattern!r} to replace; the file has changed, change this script too")
    path.write_text(after)


def _median(runs: list[dict[str, float]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


if __name__ == "__main__":
    main()
