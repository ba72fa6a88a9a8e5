"""A run that trains on copies too, killed inside its writes, ends with the weights of an undisturbed one."""

import random
from pathlib import Path

import pytest
import yaml

from tests.kill.harness import Ledger, attempt, outcome, project
from tests.kill.test_kill import check

pytestmark = pytest.mark.kill
pytest.importorskip("featomic")


def with_copies(folder: Path) -> Path:
    project(folder, "inline")
    settings = yaml.safe_load((folder / "aimsPAX.yaml").read_text())
    settings["AUGMENTATION"] = {"kind": "gpr", "copies": 2, "gate": 1.0}
    settings["ACTIVE_LEARNING"]["max_MD_steps"] = 20
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(settings))
    return folder


def test_killed_in_any_write_it_ends_as_if_nothing_had_been(tmp_path):
    plain, dice = with_copies(tmp_path / "undisturbed"), random.Random(5)
    assert attempt(plain, Ledger()) == 0, (plain / "output.txt").read_text()
    assert list((plain / "data" / "augmentation").glob("*.npy"))
    assert "perturbed copies" in (plain / "output.txt").read_text().replace("\n", " ")
    undisturbed = outcome(plain), int((plain / "operations").read_text())
    folder, ledger, code = with_copies(tmp_path / "killed"), Ledger(), None
    while code is None and ledger.kills < 8:
        code = attempt(folder, ledger, at_write=dice.randint(1, undisturbed[1] // 2))
    code = attempt(folder, ledger) if code is None else code
    assert code == 0, (folder / "output.txt").read_text()
    assert ledger.kills >= 3
    check(folder, ledger, undisturbed, "inline")
