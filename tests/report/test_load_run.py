import json
import subprocess
import sys

import pytest

from aims_pax.errors import SettingsError
from aims_pax.report.load_run import load_run


def entries(folder):
    return [json.loads(line) for line in (folder / "restart/journal.jsonl").read_text().splitlines()]


def test_a_finished_run_is_told_completely(folder):
    run = load_run(folder)
    told = entries(folder)
    assert run.state == "finished"
    assert [s.name for s in run.stages] == ["initial", "explore", "converge"]
    assert all(s.stopped for s in run.stages)
    assert run.labelled == len({e["content"]["work"]["frame"] for e in told if e["kind"] == "Labelled"})
    assert sum(run.failures.values()) == sum(e["kind"] == "LabelFailed" for e in told)
    assert set(run.failures) == {"Crashed"}
    assert run.pending == 0
    assert run.calculations == len(list(folder.glob("data/labels/*/*.json"))) - 1  # method.json
    assert len(run.visits) == sum(e["kind"] == "Trained" for e in told)
    assert [t.system for t in run.trajectories] == ["copper", "water"] * 2
    assert [t.step for t in run.trajectories] == [120] * 4
    assert all(t.status == "done" for t in run.trajectories)
    assert len(run.checked) == len(list(folder.glob("analysis/*/step_*.npz"))) > 0
    assert run.method["factory"] == "sometimes:EMT"


def test_nothing_is_touched(folder):
    for name, half in (("restart/journal.jsonl", '{"time":'), ("data/splits.jsonl", '["half')):
        with open(folder / name, "a") as file:
            file.write(half)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}
    load_run(folder)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")} == before


@pytest.mark.parametrize("share", [0.0, 0.13, 0.5, 0.77, 0.999])
def test_files_that_are_being_written_are_read_as_far_as_they_go(folder, share):
    whole = load_run(folder)
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
    run = load_run(folder)
    assert run.labelled <= whole.labelled
    assert len(run.structures) <= len(whole.structures)
    assert sum(len(t.steps) for t in run.trajectories) <= sum(len(t.steps) for t in whole.trajectories)


@pytest.mark.parametrize("missing", ["restart", "data", "losses", "analysis", "results", "logs"])
def test_every_part_may_be_missing(folder, missing):
    import shutil

    shutil.rmtree(folder / missing)
    run = load_run(folder)
    assert (run.labelled == 0) == (missing == "restart")


def test_a_folder_without_a_run_is_one_clear_error(tmp_path):
    with pytest.raises(SettingsError, match=r"no aims-PAX run was begun here.*name that folder"):
        load_run(tmp_path)


def test_torch_is_not_loaded(folder):
    code = (
        "import sys; from aims_pax.report.html_page import write_report; "
        "from aims_pax.report.model_card import write_cards;"
        f"write_report({str(folder)!r}, False); write_cards({str(folder)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
