"""Kill it at any instant, start it again: it ends, no finished calculation is repeated, no label is lost.

With the inline executor the data and the weights are, bit for bit, those of an undisturbed run.
"""

import random
from pathlib import Path

import numpy as np
import pytest

from tests.kill.harness import Ledger, attempt, begun, labels, outcome, project

pytestmark = pytest.mark.kill
INSTANTS = range(46, 456)  # file operations of pre-training, with a snapshot after every event


def sweep(tmp_path: Path, executor: str, kills: int, operations: int, seed: int):
    """Chains of kills, several a run, until so many have fallen; yields folder and ledger of each finished run."""
    dice, total, chain = random.Random(seed), 0, 0
    while total < kills:
        folder, ledger = project(tmp_path / f"{executor}-{chain}", executor), Ledger()
        code = None
        for k in range(8):
            if code == 0 or total + ledger.kills >= kills:
                break
            if (chain + k) % 3 == 2:
                code = attempt(folder, ledger, after=dice.uniform(0.05, 1.5), eager=bool(dice.getrandbits(1)))
            else:
                code = attempt(
                    folder, ledger, at_write=dice.randint(1, operations), eager=bool(dice.getrandbits(1))
                )
            assert code in (None, 0), (folder / "output.txt").read_text()
        code = attempt(folder, ledger) if code is None else code
        assert code == 0, (folder / "output.txt").read_text()
        total, chain = total + ledger.kills, chain + 1
        yield folder, ledger


def check(folder: Path, ledger: Ledger, undisturbed, executor: str) -> None:
    assert ledger.repeated == [], "finished calculations were repeated"
    assert ledger.lost == [], "labels were lost"
    assert len(ledger.twice) <= ledger.kills * (1 if executor == "inline" else 3)
    used = {line.split('"')[1] for line in (folder / "data" / "splits.jsonl").read_text().splitlines()}
    assert used <= labels(folder)
    if executor == "inline":
        (sets, weights), _ = undisturbed
        again, final = outcome(folder)
        assert again == sets
        assert weights.keys() == final.keys()
        different = [
            k
            for k in weights
            if not np.array_equal(weights[k], final[k], equal_nan=weights[k].dtype.kind == "f")
        ]
        assert different == []


@pytest.mark.parametrize(("executor", "kills"), [("inline", 60), ("threads", 40)])
def test_a_hundred_kills(tmp_path, undisturbed, executor, kills):
    total, twice = 0, 0
    for folder, ledger in sweep(tmp_path, executor, kills, undisturbed[1], seed=1):
        check(folder, ledger, undisturbed, executor)
        total, twice = total + ledger.kills, twice + len(ledger.twice)
    assert total >= kills
    print(f"{executor}: {total} kills, {twice} calculations begun twice")


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_labels_that_a_power_failure_took_are_computed_again(tmp_path, undisturbed, share):
    """Those of instant calculators are not flushed: the newest may be missing or incomplete after it."""
    folder = project(tmp_path / "run", "inline")
    assert attempt(folder, Ledger(), at_write=int(share * undisturbed[1])) is None
    stored = [p for p in (folder / "data" / "labels").glob("*/*.json") if p.name != "method.json"]
    missing, torn, empty = sorted(stored, key=lambda p: p.stat().st_mtime_ns)[-3:]
    missing.unlink()
    torn.write_bytes(torn.read_bytes()[:100])
    empty.write_bytes(b"")
    assert attempt(folder, Ledger()) == 0, (folder / "output.txt").read_text()
    assert outcome(folder)[0] == undisturbed[0][0]
    assert all(np.array_equal(a, b) for a, b in same_names(outcome(folder)[1], undisturbed[0][1]))


def same_names(one, other):
    """The entries of two tables with the same names, in pairs."""
    assert one.keys() == other.keys()
    return [(one[k], other[k]) for k in one if one[k].dtype.kind != "f" or np.isfinite(one[k]).all()]


def kill_in_pretraining(tmp_path: Path, undisturbed, instants) -> None:
    """Kill at these file operations, one run each; every other run is killed a second time at random."""
    dice = random.Random(2)
    for n in instants:
        folder, ledger = project(tmp_path / f"pretraining-{n}", "inline", pretraining=True), Ledger()
        assert attempt(folder, ledger, at_write=n, eager=True) is None
        assert begun(folder) == [], "the kill fell before the first label of the reference"
        code = attempt(folder, ledger, at_write=dice.randint(1, n)) if n % 2 else None
        code = attempt(folder, ledger) if code is None else code
        assert code == 0, (folder / "output.txt").read_text()
        check(folder, ledger, undisturbed, "inline")


def test_pretraining_continues_wherever_it_was_killed(tmp_path, undisturbed_pretraining):
    kill_in_pretraining(tmp_path, undisturbed_pretraining, INSTANTS[5::55])


@pytest.mark.slow
def test_pretraining_continues_after_a_kill_at_every_file_operation(tmp_path, undisturbed_pretraining):
    kill_in_pretraining(tmp_path, undisturbed_pretraining, INSTANTS)


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "kills"), [("inline", 600), ("threads", 400)])
def test_a_thousand_kills(tmp_path, undisturbed, executor, kills):
    test_a_hundred_kills(tmp_path, undisturbed, executor, kills)
