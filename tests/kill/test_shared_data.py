"""Kills of runs that begin from given files and write into folders elsewhere, with a stranger at the door.

After each kill a second project that names the same folders is started: it is refused, and changes nothing.
"""

import random

import numpy as np
import pytest

from aims_pax.dataset import Dataset, read_extxyz
from tests.kill.harness import Ledger, attempt, elsewhere, given_project, labels, outcome

pytestmark = pytest.mark.kill
KILLS, OPERATIONS = 24, 300


@pytest.fixture(scope="module")
def given(undisturbed):
    """Text of structures that the same reference has labelled; an empty line in their middle."""
    (sets, _), _ = undisturbed
    text = sets["training.xyz"].decode()
    middle = text.index("\n3\n", len(text) // 2) + 1
    return text[:middle] + "\n\n" + text[middle:]


def stranger(folder, other) -> None:
    """Another project with the same folders: one clear refusal, nothing changed."""
    files = [p for p in elsewhere(folder).rglob("*") if p.is_file()]
    before = {p: p.read_bytes() for p in files}
    code = attempt(other, Ledger())
    said = (other / "output.txt").read_text()
    assert code == 1, said
    assert f"belongs to the run in {folder}" in said.splitlines()[-1]
    after = {p: p.read_bytes() for p in elsewhere(folder).rglob("*") if p.is_file()}
    assert after == before


def test_kills_of_runs_from_given_files_lose_nothing_and_no_stranger_gets_in(tmp_path, given):
    calm, calm_ledger = given_project(tmp_path / "calm", given), Ledger()
    assert attempt(calm, calm_ledger) == 0, (calm / "output.txt").read_text()
    expected, final = outcome(calm)
    dice, total, chain, refused = random.Random(5), 0, 0, 0
    while total < KILLS:
        folder, ledger = given_project(tmp_path / f"run-{chain}", given), Ledger()
        other = given_project(tmp_path / f"other-{chain}", given, elsewhere(folder))
        code = None
        for _ in range(8):
            if code == 0 or total + ledger.kills >= KILLS:
                break
            code = attempt(
                folder, ledger, at_write=dice.randint(1, OPERATIONS), eager=bool(dice.getrandbits(1))
            )
            assert code in (None, 0), (folder / "output.txt").read_text()
            if (elsewhere(folder) / "data" / ".owner.json").exists():
                stranger(folder, other)
                refused += 1
        code = attempt(folder, ledger) if code is None else code
        assert code == 0, (folder / "output.txt").read_text()
        assert ledger.repeated == ledger.lost == []
        sets, weights = outcome(folder)
        assert sets == expected
        assert all(
            np.array_equal(weights[k], final[k], equal_nan=weights[k].dtype.kind == "f") for k in final
        )
        of_methods(folder)
        total, chain = total + ledger.kills, chain + 1
    print(f"{total} kills in {chain} runs, {refused} strangers refused")


def of_methods(folder) -> None:
    """Every frame of the pool is a given one, or its label of that method lies in the store."""
    stored = labels(folder)
    for found in read_extxyz(elsewhere(folder) / "data" / "labelled.xyz"):
        assert found.origin["source"].startswith("given:given.xyz#") or found.id in stored
    data = Dataset(elsewhere(folder) / "data")
    assert all(e.label for e in data.entries)
