"""The plan as text."""

import math

import pytest

from aims_pax.commands.plan_text import plan_lines


def system(name="water", **changes):
    return {
        "name": name, "formula": "H2O", "atoms": 3, "periodic": [False] * 3, "temperature": 300.0, "ensemble": "NVT",
        "timestep": 0.5, "neighbours": None, **changes,
    }  # fmt: skip


def ahead(**changes):
    """A plan as `commands.plan` makes it, without stages."""
    return {
        "name": "tiny", "systems": [system()], "members": 2, "isolated_atoms": 0, "initial": None,
        "active_learning": None, "convergence": [], "memory_MB": None, "cluster": {"at_once": 1}, "processes": None,
        "reference_calls": [7, 7], "disk_MB": [1.5, 20.0], "models_begin_from": None, "pretraining": None,
        "copies": None, "forecast": None,
        "baseline": None, "comparisons": 0, **changes,
    }  # fmt: skip


ACTIVE = {
    "trajectories": {"water": 3}, "reference_calls": [4, math.inf], "test_structures": 0, "test_structures_at_most": 0,
    "MD_steps": 1234567, "ps": 617.3, "epochs": [2, 30], "epochs_before_exploration": 0,
    "limits": {"max_labels": 40, "max_MD_steps": 1000},
}  # fmt: skip
INITIAL = {
    "sampling": "md 100 %", "steps_of_sampling": [2, 2], "structures_a_step": 6, "reference_calls": [12, 12],
    "MD_steps": [60, 60], "evaluations": {}, "evaluations_in_words": {}, "epochs": [4, None],
    "ends_by": "max_initial_epochs 4", "may_end_by": "desired_acc 0.1",
}  # fmt: skip


def test_a_run_without_stages_is_what_it_labels_and_needs():
    assert plan_lines(ahead()) == [
        "tiny: 1 system, 2 members",
        "  water  H2O · 3 atoms · molecule · NVT 300 K, 0.5 fs",
        "",
        "reference calls in all: 7",
        "this machine: 1 calculation at the same time",
        "disk, estimated: 1.5 … 20 MB",
        "",
        "time and cost: aims-PAX check --try measures and forecasts them for these settings",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"periodic": [True] * 3}, "· periodic ·"),
        ({"periodic": [True, True, False]}, "· slab or wire ·"),
        ({"temperature": (200.0, 500.0)}, "NVT 200 … 500 K"),
        ({"temperatures": (200.0, 500.0, 800.0)}, "NVT 200, 500, 800 K in active learning, 0.5 fs"),
        ({"neighbours": 17.25}, "fs · 17.25 neighbours"),
    ],
)
def test_what_a_system_is(changes, words):
    assert words in plan_lines(ahead(systems=[system(**changes)]))[1]


def test_many_systems_are_cut_and_names_are_as_wide_as_the_longest():
    lines = plan_lines(ahead(systems=[system(f"s{10**k}") for k in range(23)]))
    assert lines[1].startswith(f"  {'s1':24}  H2O")
    assert lines[21:23] == ["  … and 3 more", ""]


def test_active_learning_names_its_limits_and_a_range_without_an_end():
    lines = plan_lines(ahead(active_learning=ACTIVE))
    assert lines[1].endswith("fs · trajectories: 3")
    start = lines.index("active learning")
    assert lines[start + 1 : start + 5] == [
        "  reference calls  4 … no limit",
        "  MD steps         1 234 567 at most (617.3 ps)",
        "  training epochs  2 … 30",
        "  ends by          max_labels 40, max_MD_steps 1000",
    ]
    endless = "\n".join(
        plan_lines(ahead(active_learning={**ACTIVE, "limits": {}, "MD_steps": None, "ps": None}))
    )
    assert "no limit: it runs until it is stopped or the walltime ends" in endless
    assert "MD steps         until another limit\n" in endless


@pytest.mark.parametrize(
    ("wanted", "most", "words"),
    [(0, 9, "no limit"), (5, 9, "no limit (up to 5 of them for testing)"),
     (10, 9, "no limit (at most 9 of them for testing: n_test 10 cannot be reached)")],
)  # fmt: skip
def test_test_structures_are_promised_as_far_as_they_can_be_reached(wanted, most, words):
    lines = plan_lines(
        ahead(active_learning={**ACTIVE, "test_structures": wanted, "test_structures_at_most": most})
    )
    assert f"  reference calls  4 … {words}" in lines


def test_the_initial_dataset_says_when_it_ends_and_what_else_its_samplers_ask_for():
    first = {
        **INITIAL,
        "evaluations": {"tree": [4, 9], "new": 5},
        "evaluations_in_words": {"tree": "{} of rattle_tree"},
    }
    lines = plan_lines(ahead(initial=first))
    assert "initial dataset (md 100 %)" in lines
    assert "  sampling steps   2, each at most 6 structures" in lines
    assert "  training epochs  4 … no limit" in lines
    assert "  evaluations      4 … 9 of rattle_tree; new: 5" in lines
    assert "  ends by          max_initial_epochs 4; earlier at desired_acc 0.1" in lines
    only = plan_lines(ahead(initial={**INITIAL, "ends_by": None}))
    assert "  ends by          desired_acc 0.1" in only


def test_clusters_memory_and_convergence_have_their_lines():
    cluster = {"blocks": [0, 4], "nodes_a_block": 2, "jobs_a_block": 3, "at_once": 12}
    converged = [{"after": "active learning", "members": n, "most_epochs": 500} for n in (1, 4)]
    memory = {"members": 12.0, "training": 300.5, "moving": 80.0}
    lines = plan_lines(ahead(cluster=cluster, convergence=converged, memory_MB=memory, isolated_atoms=2))
    assert "cluster: 0 … 4 blocks of 2 nodes × 3 jobs: at most 12 calculations at the same time" in lines
    assert "convergence after active learning: one member, at most 500 epochs" in lines
    assert "convergence after active learning: 4 members, at most 500 epochs each" in lines
    assert "isolated atoms: 2 reference calls" in lines
    (line,) = [line for line in lines if line.startswith("memory")]
    assert line.endswith("members 12 MB, a training batch 300.5 MB, MD of all trajectories 80 MB")


@pytest.mark.parametrize(
    ("training", "dynamics", "said"),
    [
        (2, 1, "members train in 2 processes while trajectories move in 1 process"),
        (0, 3, "training and dynamics take turns: trajectories move in 3 processes"),
    ],
)
def test_who_shares_the_cores(training, dynamics, said):
    lines = plan_lines(ahead(processes={"training": training, "dynamics": dynamics}))
    assert f"on this machine {said}" in lines


def test_what_members_begin_from_and_what_is_free_stand_before_the_stages():
    free = {"free_labels": 200, "potential": "so3lr", "MD_steps": 5000, "most_epochs": 40}
    lines = plan_lines(ahead(models_begin_from="own.model", pretraining=free, isolated_atoms=3))
    assert "models begin from own.model: no reference call" in lines
    assert "isolated atoms: 3 reference calls" in lines
    at = lines.index("pre-training (free): 200 labels from so3lr")
    assert lines[at + 1 : at + 3] == [
        "  MD steps         5000",
        "  training epochs  at most 40 of each member",
    ]


def test_labels_that_compare_given_data_are_named_beside_the_others():
    assert (
        "reference calls in all: 7, and at most 8 that compare given data with it (MISC.check_given_data)"
        in (plan_lines(ahead(comparisons=8)))
    )


def test_evaluations_of_a_baseline_are_no_reference_calls():
    base = {"baseline": "GFN2-xTB", "evaluations_for_labels": [10, 20], "evaluations_in_MD": None}
    (line,) = [text for text in plan_lines(ahead(baseline=base)) if "baseline" in text]
    assert line == (
        "baseline GFN2-xTB: no reference calls; evaluations for labels 10 … 20, in MD of active learning without limit"
    )
