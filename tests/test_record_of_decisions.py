"""What a run decided is what its journal, its report and its status say, whatever its settings are now."""

import io

import numpy as np
import pytest
from rich.console import Console

from aims_pax.core import explore
from aims_pax.procedures import main
from aims_pax.procedures.status import status
from aims_pax.report.gather import gather
from aims_pax.settings import read_settings
from tests.projects import write_project
from tests.worlds import water


def run(folder, monkeypatch, changes, systems):
    """A whole run in this process; returns [(trajectory, step, δ)] of every check, from the states of the core."""
    checks = []
    real = explore.step

    def watched(state, event, rules):
        after = real(state, event, rules)
        if after[0].checks > state.checks:
            i = event.work.trajectory
            δ = explore.threshold_of(state, state.trajectories[i].system, rules)
            checks.append((i, event.step, δ))
        return after

    monkeypatch.setattr(explore, "step", watched)
    write_project(folder, changes, systems=systems)
    main.run_all(read_settings(folder), Console(file=io.StringIO()))
    monkeypatch.setattr(explore, "step", real)
    return checks


@pytest.mark.parametrize(("sharing", "freeze"), [("shared", "inf"), ("per_system", "inf"), ("shared", 9)])
def test_report_and_core_agree_on_the_threshold_of_every_check(tmp_path, monkeypatch, sharing, freeze):
    """c_x is changed between two runs; the threshold may be frozen or of each geometry."""
    start = water()
    systems = {"water": start, "bent": start.moved(start.positions + 0.03 * np.eye(3))}
    al = {
        "num_trajectories": 2, "max_MD_steps": 120, "threshold": sharing, "freeze_threshold_dataset": float(freeze),
        "converge_al": False, "analysis": True, "analysis_skip": 7,
    }  # fmt: skip
    checks = run(tmp_path, monkeypatch, {"ACTIVE_LEARNING": al}, systems)
    later = {**al, "c_x": 0.5, "max_MD_steps": 200, "skip_step_mlff": 10}
    checks += run(tmp_path, monkeypatch, {"ACTIVE_LEARNING": later}, systems)
    record = gather(tmp_path)
    found = {
        (t.index, s): δ
        for t in record.trajectories
        for s, δ in zip(t.steps.tolist(), t.threshold, strict=True)
    }
    assert len(checks) == len(found) > 50
    assert sum(np.isfinite(δ) for *_, δ in checks) > 25
    assert {(i, step): δ for i, step, δ in checks} == found
    last = {t.index: t.threshold[-1] for t in record.trajectories}
    assert {t["index"]: t["threshold"] for t in status(tmp_path)["trajectories"]} == {
        i: pytest.approx(δ, abs=1e-6) for i, δ in last.items()
    }
