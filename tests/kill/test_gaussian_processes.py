"""Runs that use a process of their labels, killed inside their writes, end with the weights of undisturbed ones."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kill.harness import Ledger, attempt, outcome, project
from tests.kill.test_kill import check

pytestmark = pytest.mark.kill
pytest.importorskip("featomic")


def with_copies(folder: Path) -> Path:
    return changed_project(folder, AUGMENTATION={"kind": "gpr", "copies": 2, "gate": 1.0})


def with_surrogates(folder: Path) -> Path:
    samplers = [
        {"kind": "md", "share": 0.5, "potential": "surrogate.gpr", "skip_step": 3},
        {"kind": "gpr", "share": 0.5, "candidates": 4},
    ]
    return changed_project(
        folder,
        SAMPLERS=samplers,
        initial={"initial_sampling": None, "initial_calculator": None, "max_initial_epochs": 6},
    )


def changed_project(folder: Path, initial: dict[str, Any] | None = None, **sections: Any) -> Path:
    project(folder, "inline")
    settings = yaml.safe_load((folder / "aimsPAX.yaml").read_text()) | sections
    settings["ACTIVE_LEARNING"]["max_MD_steps"] = 20
    first = {**settings["INITIAL_DATASET_GENERATION"], **(initial or {})}
    settings["INITIAL_DATASET_GENERATION"] = {k: v for k, v in first.items() if v is not None}
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.mark.parametrize(
    ("prepared", "words"),
    [(with_copies, "copies of"), (with_surrogates, "surrogate: Gaussian process of")],
)
def test_killed_in_any_write_it_ends_as_if_nothing_had_been(tmp_path, prepared, words):
    plain, dice = prepared(tmp_path / "undisturbed"), random.Random(5)
    assert attempt(plain, Ledger()) == 0, (plain / "output.txt").read_text()
    assert words in "".join(p.read_text() for p in (plain / "logs").glob("*.log"))
    undisturbed = outcome(plain), int((plain / "operations").read_text())
    folder, ledger, code = prepared(tmp_path / "killed"), Ledger(), None
    while code is None and ledger.kills < 8:
        code = attempt(folder, ledger, at_write=dice.randint(1, undisturbed[1] // 2))
    code = attempt(folder, ledger) if code is None else code
    assert code == 0, (folder / "output.txt").read_text()
    assert ledger.kills >= 3
    check(folder, ledger, undisturbed, "inline")
