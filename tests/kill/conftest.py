"""One process with torch and a model, from which every driver is forked; one run that nobody disturbs."""

import pytest

from tests.forked_commands import build_a_tiny_model, load_package
from tests.kill.harness import Ledger, attempt, outcome, project


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """torch and MACE are imported once, with one thread; every driver is a fork of this process."""
    import torch

    torch.set_num_threads(1)
    load_package()
    build_a_tiny_model()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run_once(project(tmp_path_factory.mktemp("undisturbed"), "inline"))


@pytest.fixture(scope="module")
def undisturbed_pretraining(tmp_path_factory):
    return run_once(project(tmp_path_factory.mktemp("pretraining"), "inline", pretraining=True))


def run_once(folder):
    """(outcome, number of file operations) of a run that nobody disturbs."""
    assert attempt(folder, Ledger()) == 0, (folder / "output.txt").read_text()
    return outcome(folder), int((folder / "operations").read_text())
