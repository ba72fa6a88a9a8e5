"""What is planned is what happens: the sums against a real run, and against the stages' own rules step by step."""

import json
from collections import Counter

import pytest

from aims_pax.commands.plan import _calls, _until_full, plan, play_initial_dataset
from aims_pax.commands.plan_text import plan_lines
from aims_pax.core import initial_dataset
from aims_pax.core.rules import ActiveLearningRules, InitialRules
from aims_pax.core.work import Labelled, RunSampler, Sampled, Trained
from aims_pax.errors import SettingsError
from tests.projects import command, write_project
from tests.worlds import cluster, crystal, ethanol, water

INF = float("inf")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A real run of two systems, and its plan from before."""
    folder = write_project(
        tmp_path_factory.mktemp("planned"),
        {
            "INITIAL_DATASET_GENERATION": {"max_initial_epochs": 6, "valid_ratio": 0.3},
            "ACTIVE_LEARNING": {
                "n_test": 2, "analysis": True, "analysis_skip": 20, "num_trajectories": 3, "max_MD_steps": 40,
            },
        },
        {"ARCHITECTURE": {"atomic_energies": "reference"}},
        systems={"ethanol": ethanol(), "water": water()},
    )  # fmt: skip
    ahead = plan(folder)
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr
    entries = [json.loads(line) for line in (folder / "restart" / "journal.jsonl").read_text().splitlines()]
    return folder, ahead, entries


def test_the_initial_dataset_asks_for_exactly_what_was_planned(ran):
    folder, ahead, entries = ran
    kinds = Counter(e["kind"] for e in entries if e["stage"] == "initial")
    first = ahead["initial"]
    assert first["reference_calls"] == [kinds["Labelled"]] * 2
    assert first["steps_of_sampling"] == [kinds["Sampled"]] * 2
    assert first["epochs"] == [6, 6]
    asked = sum(len(e["content"]["frames"]) for e in entries if e["kind"] == "Sampled")
    assert first["MD_steps"] == [asked * 5] * 2
    sets = Counter(
        json.loads(line)[1] for line in (folder / "data" / "splits.jsonl").read_text().splitlines()[:asked]
    )
    assert (first["training"], first["validation"]) == ([sets["train"]] * 2, [sets["valid"]] * 2)


def test_active_learning_stays_within_its_range(ran):
    _, ahead, entries = ran
    explore = [e for e in entries if e["stage"] == "explore"]
    active = ahead["active_learning"]
    least, most = active["reference_calls"]
    assert least <= sum(e["kind"] == "Labelled" for e in explore) <= most
    last = {
        e["content"]["work"]["trajectory"]: e["content"]["step"] for e in explore if e["kind"] == "Advanced"
    }
    assert sum(last.values()) == active["MD_steps"] == 120
    assert active["trajectories"] == {"ethanol": 2, "water": 1}
    assert active["ps"] == pytest.approx(0.06)
    epochs = sum(e["content"]["work"]["epochs"] for e in explore if e["kind"] == "Trained")
    assert epochs <= active["epochs"][1]


def test_all_calculations_are_counted_isolated_atoms_too(ran):
    folder, ahead, _ = ran
    labels = [p for p in (folder / "data" / "labels").glob("*/*.json") if p.name != "method.json"]
    assert ahead["isolated_atoms"] == 3
    least, most = ahead["reference_calls"]
    assert least <= len(labels) <= most
    assert (
        least == 3 + ahead["initial"]["reference_calls"][0] + ahead["active_learning"]["reference_calls"][0]
    )


def test_convergence_is_no_longer_than_planned(ran):
    _, ahead, entries = ran
    (planned,) = ahead["convergence"]
    trained = [e["content"]["work"] for e in entries if e["stage"] == "converge" and e["kind"] == "Trained"]
    assert len({w["member"] for w in trained}) == planned["members"] == 1
    assert sum(w["epochs"] for w in trained) <= planned["most_epochs"]


def test_disk_is_estimated_within_a_factor_of_three(ran):
    folder, ahead, _ = ran
    data = sum(p.stat().st_size for p in (folder / "data").rglob("*") if p.is_file())
    results = sum(p.stat().st_size for p in (folder / "results").rglob("*.xyz"))
    least, most = (1e6 * v for v in ahead["disk_MB"])
    assert most > (data + results) / 3
    assert least < 3 * (data + results) + 3e6


@pytest.mark.parametrize(
    "rules",
    [
        InitialRules(2, ("a",), 3, 2, 0.1, max_epochs=7),
        InitialRules(3, ("a", "b"), 2, 5, 0.3, max_train=40),
        InitialRules(1, ("a", "b", "c"), 1, 1, 0.0, max_epochs=3),
        InitialRules(4, ("a",), 1, 5, 0.5, desired_acc=0.1, max_epochs=50),
    ],
)
@pytest.mark.parametrize("mae", [0.0, INF])
def test_answering_together_is_answering_one_by_one(rules, mae):
    state, labels = initial_dataset.begin(rules), 0
    while work := initial_dataset.outstanding(state, rules):
        if isinstance(work[0], RunSampler):
            k = work[0].per_system
            frames = [(s, f"{s}{state.visit}-{i}") for i in range(k) for s in rules.systems]
            event = Sampled(work[0], tuple(frames))
        elif hasattr(work[0], "frame"):
            event, labels = Labelled(work[0]), labels + 1
        else:
            event = Trained(work[0], 1, (mae,) * rules.members, (mae,) * rules.members)
        state, _ = initial_dataset.step(state, event, rules)
    found = play_initial_dataset(rules, mae)
    assert (found.labels, found.visits, found.epochs) == (labels, state.visit, state.epochs)
    assert found.reason == state.stopped


def test_a_stage_without_an_end_has_none():
    rules = InitialRules(2, ("a",), 1, 1, 0.1, desired_acc=0.1)
    assert play_initial_dataset(rules, INF) is None
    assert play_initial_dataset(rules, 0.0).labels >= 10


WINDOWS = {"acquisition": "window", "window": 50, "per_window": 3}


def explore(**changes):
    rules = {"skip_step": 10, "c_x": 0.0, "valid_ratio": 0.1, "epochs_per_worker": 2, "epochs_per_visit": 1}
    return ActiveLearningRules(**{**rules, **changes})


@pytest.mark.parametrize(
    ("rules", "max_train", "expected"),
    [
        ({"max_steps": 100}, INF, (0, 4 * 10 - 10)),
        ({"max_steps": 100, "max_labels": 7}, INF, (0, 7)),
        ({"max_labels": 7}, INF, (7, 7)),
        ({"max_steps": 1000, "quiet_limit": 250}, INF, (16, 390)),
        ({"max_steps": 100, "analysis_skip": 25}, INF, (0, 30 + 16)),
        ({"max_steps": 100, "n_test": 5}, INF, (0, 30 + 5)),
        ({"max_steps": 100, "n_test": 50}, INF, (0, 40)),  # one label a check
        ({"max_steps": 100, **WINDOWS}, INF, (0, 2 * 3)),
        ({"max_steps": 100, "n_test": 5, **WINDOWS}, INF, (0, 2 * 3 + 5)),
        ({"max_steps": 1000, "n_test": 5, "audit_share": 0.5, **WINDOWS}, INF, (0, 20 * 3 + 62)),
        ({}, 25, (6, 6 + 3)),  # the first validates none, the second one: 5 more for training need 6 labels
        ({"desired_acc": 0.01}, 25, (0, 9)),
        ({"max_labels": 7, "quiet_wanted": 2000}, INF, (0, 7)),  # stop: when_done
        ({}, INF, (0, INF)),
        ({"max_steps": 10_000}, 20, (0, 0)),  # full from the beginning
        ({"max_steps": 10_000, "n_test": 2}, 20, (0, 2)),
    ],
)
def test_the_range_of_active_learning_follows_from_the_limits(rules, max_train, expected):
    assert _calls(explore(**rules), 4, (20, 20), max_train) == expected


def test_the_split_is_that_of_the_core():
    rules = explore(valid_ratio=0.25)
    added = valid = 0
    for missing in range(1, 40):
        while added - valid < missing:
            valid += valid < rules.valid_ratio * added
            added += 1
        assert _until_full(rules, missing) == added


def test_samplers_are_told_with_their_shares_and_their_steps(tmp_path):
    samplers = [
        {"kind": "md", "share": 0.5, "potential": {"factory": "ase.calculators.emt:EMT"}},
        {"kind": "aimd", "share": 0.25, "skip_step": 4},
        {"kind": "rattle_tree", "share": 0.25},
    ]
    first = {"initial_sampling": None, "initial_calculator": None}
    ahead = plan(write_project(tmp_path, {"SAMPLERS": samplers, "INITIAL_DATASET_GENERATION": first}))[
        "initial"
    ]
    assert ahead["sampling"] == "md 50 %, aimd 25 %, rattle_tree 25 %"
    # two sampling steps of 3 structures for 2 members: 6 by MD, 5 steps each, 3 by MD with the reference, 4 steps each
    assert ahead["MD_steps"] == [6 * 5 + 3 * 4] * 2
    assert ahead["reference_calls"] == [12 + 3 * 3 + 1] * 2, "and the starting structure once"
    assert "initial dataset (md 50 %, aimd 25 %, rattle_tree 25 %)" in "\n".join(plan_lines(plan(tmp_path)))


def test_what_filters_throw_away_and_what_trees_and_phonons_ask_for_is_counted(tmp_path):
    samplers = [
        {"kind": "md", "share": 0.5, "potential": {"factory": "ase.calculators.emt:EMT"},
         "filters": ["sanity", {"kind": "equilibration", "skip": 7}, {"kind": "farthest_points", "of": 2}]},
        {"kind": "aimd", "share": 0.25, "skip_step": 4, "filters": [{"kind": "equilibration", "skip": 2}]},
        {"kind": "rattle_tree", "share": 0.25},
    ]  # fmt: skip
    first = {"initial_sampling": None, "initial_calculator": None}
    project = {"INITIAL_DATASET_GENERATION": first, "SAMPLERS": samplers}
    ahead = plan(write_project(tmp_path, project))["initial"]
    # 12 structures: 6 by MD are 7 + 2 · 6 made, 3 by MD with the reference 2 + 3
    assert ahead["MD_steps"] == [(7 + 2 * 6) * 5 + (2 + 3) * 4] * 2
    assert ahead["reference_calls"] == [9 + 5 * 4 + 1] * 2
    assert ahead["evaluations"] == {"rattle_tree_at_least": [3 + 1] * 2}
    assert "  evaluations      at least 4 of rattle_tree" in plan_lines(plan(tmp_path))
    project["SAMPLERS"] = [samplers[0], {"kind": "phonons"}]
    ahead = plan(write_project(tmp_path, project))
    assert ahead["initial"]["evaluations"] == {"phonon_displacements_at_most": 6 * 3}
    assert "  evaluations      of phonons at most 18 displacements, and a relaxation" in plan_lines(ahead)


def test_plain_sampling_asks_for_no_other_evaluations(tmp_path):
    ahead = plan(write_project(tmp_path))
    assert ahead["initial"]["evaluations"] == {}
    assert not any("evaluations" in line for line in plan_lines(ahead))


def test_every_shape_of_system_and_a_cluster_are_told(tmp_path):
    folder = write_project(
        tmp_path,
        {
            "REFERENCE": {"kwargs": {}},
            "MISC": {"save_trajectories": 10},
            "INITIAL_DATASET_GENERATION": {"initial_sampling": "aimd", "initial_calculator": None},
            "ACTIVE_LEARNING": {"num_trajectories": 5, "max_MD_steps": None, "max_train_set_size": 50},
        },
        systems={"copper": crystal("Cu"), "water": water(), "argon": cluster("Al")},
    )
    ahead = plan(folder)
    first = ahead["initial"]
    # two sampling steps of 3 structures a member and system, 5 MD steps each; the starting structures once
    assert first["MD_steps"] == [2 * 3 * 2 * 3 * 5] * 2
    assert first["reference_calls"] == [180 + 3] * 2, "as counted in the label store of such a run"
    assert [s["periodic"] for s in ahead["systems"]] == [[False] * 3, [True] * 3, [False] * 3]
    assert ahead["active_learning"]["MD_steps"] is None
    text = "\n".join(plan_lines(ahead))
    for words in (
        "300 K",
        "copper",
        "Cu4",
        "periodic",
        "max_train_set_size 50",
        "estimated",
        "until another limit",
    ):
        assert words in text
    json.dumps(ahead, allow_nan=False)


def test_settings_that_are_not_in_order_are_refused_as_by_check(tmp_path):
    folder = write_project(tmp_path, {"MD": {"timestep": -1}})
    with pytest.raises(SettingsError, match="timestep"):
        plan(folder)


@pytest.mark.parametrize(
    ("section", "n"),
    [
        ({"executor": "inline"}, 1),
        ({"executor": "threads"}, 3),
        ({"executor": "threads", "max_workers": 5}, 5),
    ],
)
def test_how_many_calculations_run_at_the_same_time_is_a_number(tmp_path, monkeypatch, section, n):
    monkeypatch.setattr("aims_pax.labelling.factory.cores", lambda: 3)
    ahead = plan(write_project(tmp_path, {"CLUSTER": {"type": "local", **section}}))
    assert ahead["cluster"]["at_once"] == n
    assert f"this machine: {n} calculation" in "\n".join(plan_lines(ahead))
    assert plan_lines(ahead)[0] == "tiny: 1 system, 2 members"


@pytest.mark.parametrize(
    ("section", "cores", "expected"),
    [
        ({}, 16, "members train in 2 processes while trajectories move in 3 processes"),
        ({}, 2, "members train in 2 processes while trajectories move in 2 processes"),
        ({"training": {"workers": 1}, "dynamics": {"workers": 2}}, 8,
         "members train in 1 process while trajectories move in 2 processes"),
        ({}, 1, "training and dynamics take turns: trajectories move in 1 process"),
        ({"executor": "inline"}, 16, "training and dynamics take turns: trajectories move in 1 process"),
    ],
)  # fmt: skip
def test_how_members_and_trajectories_share_the_cores_is_said(
    tmp_path, monkeypatch, section, cores, expected
):
    """As `parallel.training` and `parallel.dynamics` will share them: 2 members, 3 trajectories."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    folder = write_project(tmp_path, {"CLUSTER": {"type": "local", "executor": "threads", **section}})
    assert f"on this machine {expected}" in plan_lines(plan(folder))


def test_without_active_learning_nothing_moves_and_the_disk_has_a_limit(tmp_path):
    changes = {"ACTIVE_LEARNING": None, "MISC": {"save_trajectories": 10}}
    ahead = plan(write_project(tmp_path, changes))
    assert ahead["processes"] is None
    assert not any("take turns" in line for line in plan_lines(ahead))
    assert None not in ahead["disk_MB"]


def test_more_test_frames_than_looks_are_not_promised(tmp_path):
    """3 trajectories of 60 steps, looked at each 5 steps: 36 looks."""
    few = plan(write_project(tmp_path / "few", {"ACTIVE_LEARNING": {"n_test": 20}}))
    assert "(up to 20 of them for testing)" in "\n".join(plan_lines(few))
    many = plan(write_project(tmp_path / "many", {"ACTIVE_LEARNING": {"n_test": 50}}))
    assert "(at most 36 of them for testing: n_test 50 cannot be reached)" in "\n".join(plan_lines(many))
