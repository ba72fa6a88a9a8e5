"""Whole runs whose first structures come from SAMPLERS: in their shares, the same after any interruption."""

from __future__ import annotations

import collections
import random

import pytest
from ase.calculators import emt

from aims_pax.dataset import read_extxyz
from tests.kill.harness import Ledger, attempt
from tests.projects import command, write_project
from tests.sweeps import thinned
from tests.test_run import interrupted
from tests.worlds import EMT, crystal, water

SAMPLERS = [
    {
        "kind": "md", "share": 0.5, "potential": {"factory": EMT["factory"]}, "temperature": 400, "skip_step": 5,
        "filters": ["sanity", {"kind": "duplicates", "threshold": 0.001}, {"kind": "equilibration", "skip": 1}],
    },
    {
        "kind": "rattle_tree", "share": 0.3, "sigma_range": [0.02, 0.1], "similarity_threshold": 0.02,
        "filters": [{"kind": "duplicates", "by": "descriptor", "threshold": 1e-4}],
    },
    {"kind": "phonons", "share": 0.2, "temperature": 200, "filters": [{"kind": "farthest_points", "of": 2}]},
]  # fmt: skip
EMT_POTENTIAL = {"factory": EMT["factory"]}
CHANGES = {
    "SAMPLERS": SAMPLERS,
    "INITIAL_DATASET_GENERATION": {
        "initial_sampling": None,
        "initial_calculator": None,
        "n_points_per_sampling_step_idg": 5,
        "max_initial_epochs": 6,
    },
}


def made(folder):
    """(system, sampler) of every labelled structure, and all ids in order."""
    frames = list(read_extxyz(folder / "data" / "labelled.xyz"))
    return collections.Counter((f.origin["system"], f.origin["sampler"]) for f in frames), [
        f.id for f in frames
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run to its end, over two systems."""
    pytest.importorskip("phonopy")
    folder = tmp_path_factory.mktemp("samplers")
    write_project(folder, CHANGES, systems={"water": water(), "copper": crystal()})
    done = command(folder=folder, name="aims-PAX-initial-ds")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "structures from md 50 %, rattle_tree 30 %, phonons 20 %" in done.stdout
    return folder


def test_every_sampler_makes_its_share_of_every_system(undisturbed):
    counts, ids = made(undisturbed)
    assert len(set(ids)) == len(ids) == 60, "three batches of 2 systems × 2 members × 5 points"
    for system in ("water", "copper"):
        assert counts[system, "md"] == 15
        assert counts[system, "rattle_tree"] == 9
        assert counts[system, "phonons"] == 6


def test_stopped_and_continued_it_makes_the_same_structures(undisturbed, tmp_path):
    write_project(tmp_path, CHANGES, systems={"water": water(), "copper": crystal()})
    for until in ("sampling step 1", "training visit 2"):
        code, output = interrupted(tmp_path, until, name="aims-PAX")
        assert code == 3, output
    done = command(folder=tmp_path, name="aims-PAX-initial-ds")
    assert done.returncode == 0, done.stderr
    assert made(tmp_path) == made(undisturbed)
    for name in ("training", "validation"):
        for path in (undisturbed / "data" / "initial" / name).glob("*.xyz"):
            assert (tmp_path / "data" / "initial" / name / path.name).read_bytes() == path.read_bytes()


def outcome(folder):
    """Bytes of the datasets of the members, and the order in which structures came in."""
    sets = {p.relative_to(folder): p.read_bytes() for p in (folder / "data" / "initial").rglob("*.xyz")}
    return sets, made(folder)


@pytest.mark.parametrize("seed", thinned([1, 2], 2))
def test_killed_at_any_file_operation_again_and_again_it_makes_the_same_dataset(tmp_path, seed):
    pytest.importorskip("phonopy")
    systems, dice = {"water": water(), "copper": crystal()}, random.Random(seed)
    alone = CHANGES | {"ACTIVE_LEARNING": None}
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "killed"
    for place in (undisturbed, folder):
        write_project(place, alone, systems=systems)
    assert attempt(undisturbed, Ledger()) == 0, (undisturbed / "output.txt").read_text()
    operations, ledger, code = int((undisturbed / "operations").read_text()), Ledger(), None
    while code is None and ledger.kills < 5:
        code = attempt(folder, ledger, at_write=dice.randint(1, operations // 4))
        assert code in (None, 0), (folder / "output.txt").read_text()
    code = attempt(folder, ledger) if code is None else code
    assert code == 0, (folder / "output.txt").read_text()
    assert ledger.kills >= 2, ledger.where
    assert ledger.repeated == [], "finished calculations were repeated"
    assert outcome(folder) == outcome(undisturbed)


def test_a_run_samples_with_a_process_of_its_own_labels_and_every_label_is_the_references(tmp_path):
    pytest.importorskip("featomic")
    samplers = [
        {"kind": "md", "potential": "surrogate.gpr", "skip_step": 3},
        {"kind": "gpr", "candidates": 5},
    ]
    first = {**CHANGES["INITIAL_DATASET_GENERATION"], "n_points_per_sampling_step_idg": 3}
    write_project(tmp_path, {"SAMPLERS": samplers, "INITIAL_DATASET_GENERATION": first})
    assert command("check", folder=tmp_path).returncode == 0
    done = command(folder=tmp_path, name="aims-PAX-initial-ds")
    assert done.returncode == 0, done.stderr + done.stdout
    frames = list(read_extxyz(tmp_path / "data" / "labelled.xyz"))
    assert {f.origin["sampler"] for f in frames} == {"md", "gpr"}
    assert {f.origin.get("moved_by", "") for f in frames if f.origin["sampler"] == "md"} == {"rattle", ""}
    assert any("deviation" in f.origin for f in frames)
    for f in frames:
        atoms = f.frame.to_atoms()
        atoms.calc = emt.EMT()
        assert f.label.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert f.origin["source"] == "reference"


def test_free_labels_and_samples_without_a_run_have_no_surrogate(tmp_path):
    free = {"potential": EMT_POTENTIAL, "samplers": [{"kind": "gpr"}]}
    write_project(tmp_path, {"PRETRAINING": free})
    done = command("check", folder=tmp_path)
    said = " ".join((done.stdout + done.stderr).split())
    assert "PRETRAINING.samplers.0: gpr learns from labels, which only a run has" in said
    write_project(tmp_path, {"PRETRAINING": {"potential": "surrogate.gpr"}})
    done = command("check", folder=tmp_path)
    said = " ".join((done.stdout + done.stderr).split())
    assert "PRETRAINING.potential: " in said
    assert "only samplers of SAMPLERS can have it" in said
