"""Kill it at any instant, start it again: it ends, no finished calculation is repeated, no label is lost.

With the inline executor the data and the weights are, bit for bit, those of an undisturbed run.
"""

import random
from pathlib import Path

import numpy as np
import pytest

from aims_pax.record.arrays import unpack
from tests.kill.harness import REFERENCE, Ledger, attempt, labels
from tests.projects import write_project

CHANGES = {
    "REFERENCE": {"factory": "counted:Counted"},
    "INITIAL_DATASET_GENERATION": {"max_initial_epochs": 4},
    "ACTIVE_LEARNING": {"max_MD_steps": 40, "n_test": 1, "max_convergence_epochs": 4},
}

pytestmark = pytest.mark.kill


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """torch and MACE are imported once, with one thread; every driver is a fork of this process."""
    import torch

    torch.set_num_threads(1)
    import aims_pax.force_field
    import aims_pax.procedures.main  # noqa: F401


def project(folder: Path, executor: str) -> Path:
    write_project(folder, {**CHANGES, "CLUSTER": {"executor": executor, "max_workers": 2}})
    (folder / "counted.py").write_text(REFERENCE)
    return folder


def outcome(folder: Path):
    """What a run leaves: bytes of the datasets, and the arrays of the final weights."""
    sets = {p.name: p.read_bytes() for p in (folder / "results").glob("*.xyz")}
    newest = max((folder / "restart" / "converge").glob("state-*.npy"))
    version = unpack(newest.read_bytes())[1]["version"]
    weights, _ = unpack((folder / "restart" / "converge" / f"weights-{version:06d}.npy").read_bytes())
    return sets, weights


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = project(tmp_path_factory.mktemp("undisturbed"), "inline")
    assert attempt(folder, Ledger()) == 0, (folder / "output.txt").read_text()
    return outcome(folder), int((folder / "operations").read_text())


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


@pytest.mark.parametrize(("executor", "kills"), [("inline", 70), ("threads", 40)])
def test_a_hundred_kills(tmp_path, undisturbed, executor, kills):
    total, twice = 0, 0
    for folder, ledger in sweep(tmp_path, executor, kills, undisturbed[1], seed=1):
        check(folder, ledger, undisturbed, executor)
        total, twice = total + ledger.kills, twice + len(ledger.twice)
    assert total >= kills
    print(f"{executor}: {total} kills, {twice} calculations begun twice")


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "kills"), [("inline", 600), ("threads", 400)])
def test_a_thousand_kills(tmp_path, undisturbed, executor, kills):
    test_a_hundred_kills(tmp_path, undisturbed, executor, kills)
