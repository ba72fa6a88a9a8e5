"""The user's settings decide which reference runs where."""

import os
from pathlib import Path

import pytest

from aims_pax.errors import SettingsError
from aims_pax.labelling import Labeller
from aims_pax.labelling.aims import AimsReference
from aims_pax.labelling.choose import executor_of, reference_of
from aims_pax.settings import read_settings
from tests import worlds
from tests.projects import write_project


def settings(folder, changes, **systems):
    return read_settings(write_project(folder, changes, **systems))


def aims_project(folder: Path, **cluster):
    folder.mkdir(exist_ok=True)
    (folder / "control.in").write_text(worlds.CONTROL)
    worlds.write_species(folder / "species")
    section = {"species_dir": "species"}
    cluster = {"launch_str": worlds.launch("xtb"), "calc_dir": "calc", "executor": "auto", **cluster}
    changes = {
        "REFERENCE": None,
        "CLUSTER": cluster,
        "INITIAL_DATASET_GENERATION": section,
        "ACTIVE_LEARNING": section,
    }
    return read_settings(write_project(folder, changes))


def test_without_a_reference_section_fhi_aims_runs_in_threads(tmp_path):
    told = aims_project(tmp_path, job_time_limit="01:00:00", max_workers=3)
    reference = reference_of(told)
    assert isinstance(reference, AimsReference)
    assert reference.species_dir == tmp_path / "species"
    assert reference.calc_dir == tmp_path / "calc"
    assert reference.time_limit == 3600
    assert not reference.stress
    executor = executor_of(told, reference)
    assert (executor.kind, executor.capacity) == ("threads", 3)


def test_no_time_limit_is_no_time_limit(tmp_path):
    assert reference_of(aims_project(tmp_path)).time_limit is None


@pytest.mark.parametrize(
    ("factory", "asked", "kind"),
    [
        ("tblite.ase:TBLite", "auto", "threads"),
        ("ase.calculators.emt:EMT", "auto", "threads"),
        ("slow_one:make", "auto", "htex"),
        ("slow_one:make", "threads", "threads"),
        ("tblite.ase:TBLite", "inline", "InlineExecutor"),
    ],
)
def test_auto_gives_threads_to_the_quick_and_processes_to_the_slow(tmp_path, factory, asked, kind):
    (tmp_path / "slow_one.py").write_text("from ase.calculators.emt import EMT as make")
    reference = {"type": "calculator", "factory": factory, "kwargs": {}}
    told = settings(tmp_path, {"REFERENCE": reference, "CLUSTER": {"executor": asked}})
    executor = executor_of(told, reference_of(told))
    assert getattr(executor, "kind", type(executor).__name__) == kind
    if kind == "htex":
        assert executor.capacity == len(os.sched_getaffinity(0))
        assert executor.run_dir == tmp_path / "logs" / "parsl"


def test_what_does_not_run_yet_says_so(tmp_path):
    told = settings(tmp_path, {"CLUSTER": {"executor": "mpi"}})
    with pytest.raises(SettingsError, match="mpi"):
        executor_of(told, reference_of(told))


def test_a_labeller_from_settings_labels(tmp_path):
    told = aims_project(tmp_path)
    with Labeller.from_settings(told, tmp_path / "data") as labeller:
        label = labeller.submit(worlds.water()).result(60)
    assert label.energy == pytest.approx(-156.98, abs=1.0)
    assert (tmp_path / "data" / "labels" / labeller.method / f"{worlds.water().id}.json").is_file()
    assert not (tmp_path / "runinfo").exists()
