"""One process with torch loaded, from which every driver is forked; one run that nobody disturbs."""

import importlib

import pytest

from tests.kill.harness import Ledger, attempt, outcome, project


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """torch and MACE are imported once, with one thread; every driver is a fork of this process."""
    import torch

    torch.set_num_threads(1)
    for name in ("aims_pax.commands.run", "aims_pax.models.mace.ensemble", "aims_pax.models.mace.training"):
        importlib.import_module(name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = project(tmp_path_factory.mktemp("undisturbed"), "inline")
    assert attempt(folder, Ledger()) == 0, (folder / "output.txt").read_text()
    return outcome(folder), int((folder / "operations").read_text())
