"""`move that folder away to begin this stage again`: our own advice is followed, for every stage."""

import shutil

import pytest

from aims_pax.dataset import Dataset
from aims_pax.report.load_run import load_run
from aims_pax.report.tolerant_readers import snapshot
from tests.projects import command, write_project
from tests.sweeps import thinned
from tests.worlds import water

CHANGES = {
    "INITIAL_DATASET_GENERATION": {"converge_initial": True, "max_convergence_epochs": 2},
    "ACTIVE_LEARNING": {"max_MD_steps": 60, "n_test": 1, "max_convergence_epochs": 2},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = write_project(tmp_path_factory.mktemp("run"), CHANGES)
    done = command(folder=folder, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    "stages",
    thinned(
        [
            ["initial", "explore"],
            ["initial"],
            ["explore"],
            ["converge-initial"],
            ["initial", "converge"],
            ["converge"],
        ],
        3,
    ),
    ids="+".join,
)
def test_a_stage_whose_snapshots_were_moved_away_begins_again_and_the_run_ends(finished, tmp_path, stages):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    labels = sorted(p.name for p in (folder / "data" / "labels").rglob("*.json"))
    for stage in stages:
        shutil.move(folder / "restart" / stage, tmp_path / stage)
    done = command(folder=folder, timeout=120)
    assert done.returncode == 0, done.stderr
    state, data = snapshot(folder / "restart" / "explore")[0], Dataset(folder / "data")
    members = range(2)
    assert state["n_train"] == max(len(data.train(m)) for m in members), (
        "the state counts what the dataset holds"
    )
    run = load_run(folder)
    assert run.state == "finished"
    assert run.member_train == state["n_train"]
    assert not {f.id for f in data.union("train")} & {f.id for f in data.union("valid")}
    if stages != ["explore"]:
        return
    assert sorted(p.name for p in (folder / "data" / "labels").rglob("*.json")) == labels, (
        "no label is paid twice"
    )
    before = snapshot(tmp_path / "explore")[0]
    for key in ("n_train", "n_asked", "n_added", "checks"):
        assert state[key] == before[key], key


@pytest.mark.parametrize("lost", ["dataset_dir", "splits.jsonl"])
def test_a_finished_run_without_its_data_is_not_continued_on_what_is_left(finished, tmp_path, lost):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    project = (folder / "aimsPAX.yaml").read_text().replace("max_MD_steps: 60", "max_MD_steps: 90")
    if lost == "dataset_dir":
        project = project.replace("MISC:\n", "MISC:\n  dataset_dir: elsewhere\n")
    else:
        (folder / "data" / lost).unlink()
    (folder / "aimsPAX.yaml").write_text(project)
    delivered = (folder / "results" / "training.xyz").read_text()
    for words, code in ((("check",), 2), ((), 1)):  # `check` says it too
        done = command(*words, folder=folder, timeout=120)
        assert done.returncode == code
        assert "dataset entries, found 0; restore the removed files (or MISC.dataset_dir" in done.stderr
    assert (folder / "results" / "training.xyz").read_text() == delivered


def test_the_error_gives_that_advice(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for path in (folder / "restart" / "explore").glob("state-*.npy"):
        path.write_bytes(path.read_bytes()[:-20])
    done = command(folder=folder, timeout=120)
    assert done.returncode == 1
    assert "move that folder away to begin this stage again" in done.stderr.replace("\n", " ")
    shutil.move(folder / "restart" / "explore", tmp_path / "explore")
    again = command(folder=folder, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "entries of an earlier attempt moved" in again.stdout.replace("\n", " ")


@pytest.mark.slow
def test_training_on_given_data_begins_again_too(finished, tmp_path):
    for name in ("training", "validation"):
        shutil.copy(finished / "results" / f"{name}.xyz", tmp_path / f"{name}.xyz")
    al = {"initial_train_dataset": "training.xyz", "initial_valid_dataset": "validation.xyz", "max_MD_steps": 40,
          "max_convergence_epochs": 2}  # fmt: skip
    folder = write_project(tmp_path, {"INITIAL_DATASET_GENERATION": None, "ACTIVE_LEARNING": al})
    assert command(folder=folder, timeout=120).returncode == 0
    for k, stages in enumerate((["explore"], ["train-given", "explore"], ["train-given"])):
        for stage in stages:
            shutil.move(folder / "restart" / stage, tmp_path / f"{k}-{stage}")
        done = command(folder=folder, timeout=120)
        assert done.returncode == 0, done.stderr
        data = Dataset(folder / "data")
        assert snapshot(folder / "restart" / "explore")[0]["n_train"] == len(data.train(0))


def test_without_restarts_a_run_ends_and_can_be_repeated(tmp_path):
    """MISC.create_restart: False, in every stage."""
    folder = write_project(tmp_path, {**CHANGES, "MISC": {"create_restart": False, "report": True}})
    for _ in range(2):
        done = command(folder=folder, timeout=120)
        assert done.returncode == 0, done.stderr
        assert not list((folder / "restart").rglob("state-*.npy"))
        data, run = Dataset(folder / "data"), load_run(folder)
        assert run.state == "finished"
        assert all(s.stopped for s in run.stages)
        assert [t.system for t in run.trajectories] == ["water"] * 3
        assert run.member_train == max(len(data.train(m)) for m in (0, 1))
        (folder / "restart" / "delivered.json").unlink()
    (card,) = (folder / "results").glob("*.md")
    assert "may not be the last" not in card.read_text()


@pytest.mark.parametrize(("name", "code", "words"), [
    ("aims-PAX-initial-ds", 0, ""), ("aims-PAX-al", 2, "MISC.create_restart is False"),
])  # fmt: skip
def test_without_restarts_the_halves_end_or_say_why_they_cannot(tmp_path, name, code, words):
    folder = write_project(tmp_path, {"MISC": {"create_restart": False}})
    if code:
        assert command(folder=folder, name="aims-PAX-initial-ds", timeout=120).returncode == 0
    done = command(folder=folder, name=name, timeout=120)
    assert done.returncode == code, done.stderr
    assert words in done.stderr


@pytest.mark.parametrize("changes", thinned([
    {"ACTIVE_LEARNING": {"converge_al": False}}, {"ACTIVE_LEARNING": {"converge_best": False}},
    {"ACTIVE_LEARNING": {"analysis": True, "analysis_skip": 10, "n_test": 1}},
], 3), ids=str)  # fmt: skip
def test_without_restarts_other_keys_work_too(tmp_path, changes):
    al = {**CHANGES["ACTIVE_LEARNING"], **changes["ACTIVE_LEARNING"], "max_MD_steps": 30}
    folder = write_project(
        tmp_path, {"MISC": {"create_restart": False}, "ACTIVE_LEARNING": al}, systems={"w": water()}
    )
    done = command(folder=folder, timeout=120)
    assert done.returncode == 0, done.stderr
