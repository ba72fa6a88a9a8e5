"""The weights with which the last training begins: those of the beginning of the run, or those of active learning."""

from contextlib import contextmanager

import numpy as np
import pytest
from rich.console import Console

from aims_pax.commands import run as runs
from aims_pax.models.kinds import kind_of_run
from aims_pax.record.checkpoint import Checkpoint
from aims_pax.record.folder import RunFolder
from aims_pax.settings import read_settings
from aims_pax.stages import active_learning, convergence
from tests.projects import command, write_project

SHORT = {
    "INITIAL_DATASET_GENERATION": {"max_initial_epochs": 2},
    "ACTIVE_LEARNING": {"max_MD_steps": 10, "converge_al": False},
}
FREE = {"PRETRAINING": {"potential": {"factory": "ase.calculators.emt:EMT"}, "n_frames": 20, "max_epochs": 3}}


@contextmanager
def explored(folder):
    """A run whose active learning has just ended, as the command has it open."""
    with runs._opened(read_settings(folder), Console(quiet=True)) as run:
        runs._ready_to_explore(run, begun=False)
        active_learning.run_active_learning_stage(run)
        yield run


@pytest.fixture(scope="module", params=["random", "pre-trained", "given"])
def begun(request, tmp_path_factory):
    """(folder of a run after active learning, the arrays that its members began with)."""
    folder = tmp_path_factory.mktemp("begun")
    write_project(folder, SHORT | (FREE if request.param == "pre-trained" else {}))
    assert command(folder=folder).returncode == 0
    if request.param == "given":
        models = sorted(str(p) for p in (folder / "model").glob("*.model"))
        data = {"initial_models": models, "max_MD_steps": 20, "converge_al": False}
        for use, name in (("train", "training"), ("valid", "validation")):
            data[f"initial_{use}_dataset"] = str(folder / "results" / f"{name}.xyz")
        changes = {"INITIAL_DATASET_GENERATION": None, "ACTIVE_LEARNING": data}
        folder = write_project(tmp_path_factory.mktemp("given"), changes)
        done = command(folder=folder, name="aims-PAX-al")
        assert done.returncode == 0, done.stdout
    settings = read_settings(folder)
    kind, seeds = kind_of_run(settings), (1, 2)
    if request.param == "given":
        return folder, kind.from_files([folder / m for m in models], settings, seeds)
    stage = "pretrain" if request.param == "pre-trained" else None
    names = [p.stem for p in sorted((folder / "model").glob("*.model"))]
    with explored(folder) as run:
        seeds = [m.seed for m in run.ensemble.members]
        assert sorted(m.name for m in run.ensemble.members) == names
    ensemble = kind.build(settings, seeds, (1, 8))
    if stage:
        ensemble.restore(Checkpoint(RunFolder(settings), stage).read().weights)
    return folder, ensemble


def weights(ensemble, member):
    return {k: v for k, v in ensemble.member_arrays(member).items() if k.startswith("ema/")}


def began_with(run, training, monkeypatch):
    """(present weights, those with which the last training begins, the state of the stage)."""
    present, seen = weights(run.ensemble, 0), []
    monkeypatch.setattr(
        convergence.ConvergenceEnvironment,
        "drive",
        lambda environment, state, rules: seen.append(weights(run.ensemble, 0)) or state,
    )
    state = convergence.run_convergence(run, run.settings.active_learning, "converge", [0], training=training)
    return present, seen[0], state


def test_fresh_training_begins_with_what_the_member_began_the_run_with(begun, monkeypatch):
    folder, beginning = begun
    with explored(folder) as run:
        present, first, state = began_with(run, "fresh", monkeypatch)
    for name, value in weights(beginning, 0).items():
        assert np.array_equal(first[name], value), name
    trained = any(not np.array_equal(first[name], value) for name, value in present.items())
    assert trained == (run.ensemble.visits > 0)
    assert np.isfinite(state.members[0].before)
    assert state.training == "fresh"


def test_continued_training_begins_with_the_weights_of_active_learning(begun, monkeypatch):
    with explored(begun[0]) as run:
        present, first, state = began_with(run, "continued", monkeypatch)
    assert all(np.array_equal(first[name], value) for name, value in present.items())
    assert state.members[0].before == np.inf


def test_shrink_perturb_begins_halfway(begun, monkeypatch):
    folder, beginning = begun
    with explored(folder) as run:
        present, first, _ = began_with(run, "shrink_perturb", monkeypatch)
    for name, value in weights(beginning, 0).items():
        assert first[name] == pytest.approx((value + present[name]) / 2, abs=1e-6), name
