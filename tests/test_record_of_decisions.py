"""What a run decided is what its journal, its report and its status say, whatever its settings are now."""

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from aims_pax.commands.run import run_all
from aims_pax.commands.status import status, status_lines
from aims_pax.core import active_learning
from aims_pax.dataset import Dataset
from aims_pax.report.label_counts import ACTIVE, INITIAL, by_stage, frames, frames_line, labels_line
from aims_pax.report.load_run import load_run
from aims_pax.report.run_verdict import run_verdict
from aims_pax.report.tolerant_readers import snapshot
from aims_pax.settings import read_settings
from tests.projects import command, write_project
from tests.sweeps import thinned
from tests.worlds import water


def run(folder, monkeypatch, changes, systems):
    """A whole run in this process; returns [(trajectory, step, δ)] of every check, from the states of the core."""
    checks = []
    real = active_learning.step

    def watched(state, event, rules):
        after = real(state, event, rules)
        if after[0].checks > state.checks:
            i = event.work.trajectory
            δ = active_learning.threshold_of(state, state.trajectories[i].system, rules)
            checks.append((i, event.step, δ))
        return after

    monkeypatch.setattr(active_learning, "step", watched)
    write_project(folder, changes, systems=systems)
    run_all(read_settings(folder), Console(file=io.StringIO()))
    monkeypatch.setattr(active_learning, "step", real)
    return checks


@pytest.mark.parametrize(
    ("sharing", "freeze"), thinned([("shared", "inf"), ("per_system", "inf"), ("shared", 9)], 3)
)
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
    record = load_run(tmp_path)
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


FAILING = """
from ase.calculators.emt import EMT as Real
class EMT(Real):
    def calculate(self, atoms=None, *args, **kwargs):
        if round(1e6 * atoms.positions[0, 0]) % 5 == 0:
            raise RuntimeError("one in five fails")
        super().calculate(atoms, *args, **kwargs)
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A run with failures, test frames, analysis and a budget that ends it; it is stopped and continued in between."""
    folder = tmp_path_factory.mktemp("counted")
    (folder / "failing.py").write_text(FAILING)
    al = {
        "max_labels": 6,
        "n_test": 1,
        "analysis": True,
        "analysis_skip": 15,
        "max_MD_steps": 800,
        "desired_acc": 1e-6,
    }
    changes = {"REFERENCE": {"factory": "failing:EMT"}, "ACTIVE_LEARNING": al, "MISC": {"report": True}}
    first = command(folder=write_project(folder, changes))
    assert first.returncode == 0, first.stderr
    al["max_labels"] = 11
    done = command(folder=write_project(folder, changes))
    assert done.returncode == 0, done.stderr
    return folder, first, done


def test_the_sums_of_labels_and_frames_are_those_of_the_core_and_of_the_dataset(counted):
    folder, first, done = counted
    run, state = load_run(folder), snapshot(folder / "restart" / "explore")[0]
    stages = by_stage(run)
    assert set(stages) == {INITIAL, ACTIVE}
    assert stages[ACTIVE].asked == state["n_asked"] == 11, "the budget counts what was asked for"
    assert stages[ACTIVE].failed > 0
    assert sum(n.asked for n in stages.values()) == len(run.calls)
    assert sum(n.labelled for n in stages.values()) == run.labelled
    assert sum(n.failed for n in stages.values()) == sum(run.failures.values())
    data = Dataset(folder / "data")
    sets = {s: {e.frame for e in data.entries if e.split == s} for s in ("train", "valid", "test")}
    assert frames(run) == {**{s: len(ids) for s, ids in sets.items()}, "given": 0}
    assert sum(map(len, sets.values())) == len(set.union(*sets.values())), "no frame is in two sets"
    in_sets = set.union(*sets.values())
    analysed = [c for c in run.calls if c.outcome == "labelled" and c.frame not in in_sets]
    assert len(in_sets) + len(analysed) == run.labelled
    paid = len(list((folder / "data" / "labels").rglob("*.json"))) - 1  # method.json
    assert run.calculations == paid == run.labelled


def test_the_committee_of_the_last_training_was_measured_on_the_validation_structures(counted):
    folder, *_ = counted
    state = snapshot(folder / "restart" / "explore")[0]
    ((_, calibration),) = state["calibrations"]
    measured = {frame: (spread, error) for frame, spread, error in calibration["validation"]}
    assert set(measured) <= {f.id for f in Dataset(folder / "data").union("valid")}
    assert measured
    assert all(spread > 0 and error > 0 for spread, error in measured.values())
    assert calibration["drift"]["error"] != 0


def test_log_live_view_status_card_and_report_say_the_same_numbers(counted):
    folder, first, done = counted
    run = load_run(folder)
    n = by_stage(run)
    said = labels_line(run)
    assert said.startswith(
        f"{run.labelled} labels: {n[INITIAL].labelled} initial dataset + {n[ACTIVE].labelled} active"
    )
    assert "(11 of max_labels 11 asked for)" in said
    for text in (done.stdout.replace("\n", " "), next((folder / "results").glob("*.md")).read_text()):
        assert said in text
    assert frames_line(run) in done.stdout.replace("\n", " ")
    now = status(folder)
    assert (now["labels"]["done"], now["labels"]["asked_of_budget"]) == (run.labelled, 11)
    summary = json.loads((folder / "report" / "summary.json").read_text())
    assert summary["labels"] == run.labelled
    assert summary["labels_by_stage"] == now["labels"]["by_stage"]
    tiles = re.findall(
        r"<b>(\S+)\s*(?:<small>([^<]*)</small>)?</b><span>([^<]*)</span>",
        (folder / "report.html").read_text(),
    )
    assert tiles[0][:2] == (str(run.labelled), "labels")
    assert tiles[1][:2] == ("11", "of 11")
    assert not any(re.search(r"of \d+ labels", " ".join(t)) for t in tiles)
    restarted = re.search(r"(\d+) calculated since this start", done.stdout.replace("\n", " "))
    before = re.search(r"(\d+) calculated since this start", first.stdout.replace("\n", " "))
    assert int(restarted[1]) + int(before[1]) == run.labelled


def test_a_missed_goal_is_the_first_thing_and_the_last_that_is_said(counted):
    folder, _, done = counted
    said = run_verdict(load_run(folder))
    assert said.kind == "missed"
    assert re.match(
        r"Goal not reached: force MAE \d+ meV/Å on \d+ validation frames?; desired_acc is 0.001", said.text
    )
    assert "raise ACTIVE_LEARNING.max_labels, then run the same command" in said.text
    last = done.stdout.rstrip().replace("\n", " ")
    assert last.endswith(said.text)
    assert said.text in next((folder / "results").glob("*.md")).read_text().split("## ")[0]
    page = (folder / "report.html").read_text()
    assert said.text in page
    assert page.index(said.text) < page.index("class=tiles")
    assert said.text in " ".join(" ".join(status_lines(status(folder))).split())
