"""Whole runs whose MD is biased towards structures about which the members disagree."""

from __future__ import annotations

import signal

import pytest

from aims_pax.dataset import read_extxyz
from tests.projects import command, write_project
from tests.test_run import interrupted


@pytest.mark.slow
def test_an_interrupted_biased_run_ends_as_an_undisturbed_one(tmp_path):
    active = {"max_MD_steps": 60, "bias": {"kind": "hal", "strength": 5.0, "trajectories": "every other"}}
    changes = {"ACTIVE_LEARNING": active, "MD": {"temperatures": [250, 500]}}
    folder, other = (write_project(tmp_path / name, changes) for name in "ab")
    code, output = interrupted(folder, "training visit 2", signal.SIGTERM)
    assert code == 75, output
    for mine in (folder, other):
        done = command(folder=mine)
        assert done.returncode == 0, done.stderr
        assert "the MD is biased towards structures about which the members disagree" in done.stdout
        assert "temperatures of the trajectories: 250, 500, 250 K" in done.stdout
    for name in ("training.xyz", "validation.xyz"):
        assert (folder / "results" / name).read_text() == (other / "results" / name).read_text()
    del active["bias"]
    plain = write_project(tmp_path / "c", changes)
    assert command(folder=plain).returncode == 0
    pairs = zip(*(read_extxyz(f / "results" / "training.xyz") for f in (other, plain)), strict=False)
    assert any(a.frame != b.frame for a, b in pairs)


@pytest.mark.parametrize("command_line", [(), ("check",)])
def test_a_bias_that_one_member_cannot_have_is_refused_before_anything_is_paid(tmp_path, command_line):
    folder = write_project(
        tmp_path,
        {
            "MODEL": {"kind": "tests.models.linear_model:KIND"},  # it has an uncertainty of its own
            "INITIAL_DATASET_GENERATION": {"ensemble_size": 1},
            "ACTIVE_LEARNING": {"ensemble_size": 1, "bias": {"kind": "udd"}},
        },
    )
    done = command(*command_line, folder=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "ACTIVE_LEARNING.bias: needs at least two members, not 1" in done.stderr + done.stdout
    assert not (folder / "data" / "labels").exists()
