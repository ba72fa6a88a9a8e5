"""Runs with a baseline are killed inside their writes, those of the baseline's labels included."""

import json
import random
import shutil
from pathlib import Path

import pytest
import yaml

from tests.kill.harness import Ledger, attempt, labels, project
from tests.kill.test_kill import check, outcome

pytestmark = pytest.mark.kill


def with_baseline(folder: Path) -> Path:
    project(folder, "inline")
    settings = yaml.safe_load((folder / "aimsPAX.yaml").read_text())
    settings["REFERENCE"]["baseline"] = {"factory": "cheap_baseline:Cheap"}
    settings["ACTIVE_LEARNING"]["max_MD_steps"] = 20
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(settings))
    shutil.copy(Path(__file__).parents[1] / "cheap_baseline.py", folder)
    return folder


def test_killed_in_any_write_it_ends_as_if_nothing_had_been(tmp_path):
    plain, dice = with_baseline(tmp_path / "undisturbed"), random.Random(3)
    assert attempt(plain, Ledger()) == 0, (plain / "output.txt").read_text()
    undisturbed = outcome(plain), int((plain / "operations").read_text())
    folder, ledger, code = with_baseline(tmp_path / "killed"), Ledger(), None
    while code is None and ledger.kills < 8:
        code = attempt(folder, ledger, at_write=dice.randint(1, undisturbed[1] // 2))
    code = attempt(folder, ledger) if code is None else code
    assert code == 0, (folder / "output.txt").read_text()
    assert ledger.kills >= 3
    check(folder, ledger, undisturbed, "inline")
    stored = [
        p for p in (folder / "data" / "baseline" / "labels").glob("*/*.json") if p.name != "method.json"
    ]
    assert {p.stem for p in stored} >= labels(folder)
    assert all(json.loads(p.read_text())["checksum"] for p in stored)
