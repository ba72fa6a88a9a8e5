"""What a run refuses before its first label, `check` refuses too, in the same words."""

import shutil
import sys
from dataclasses import replace

import ase.io
import numpy as np
import pytest

from aims_pax.commands.check import readiness, trial_labels
from aims_pax.commands.check.project import checked_settings
from aims_pax.errors import AimsPaxError, SettingsError
from aims_pax.frames import Frame
from aims_pax.report.tolerant_readers import snapshot
from tests import worlds
from tests.models.mace.tiny import ensemble
from tests.projects import command, write_project
from tests.worlds import water

GIVEN = {"INITIAL_DATASET_GENERATION": None}


def check(folder):
    """What `check` refuses, else None."""
    try:
        trial_labels.check_verdict(checked_settings(folder))
    except AimsPaxError as error:
        return str(error)
    return None


def both(folder, *said):
    """`check` and the run refuse this folder with these words, and nothing was labelled."""
    done = command(folder=folder)
    assert done.returncode in (1, 2), done.stdout
    for refusal in (check(folder) or "", " ".join((done.stderr + done.stdout).split())):
        for words in said:
            assert words in refusal
    assert not list(folder.glob("data/labels/*/[0-9a-f]*.json"))


def labelled(path, frames):
    with open(path, "w") as file:
        for k, frame in enumerate(frames):
            atoms = frame.to_atoms()
            atoms.info["REF_energy"] = -1.0 - 0.01 * k
            atoms.arrays["REF_forces"] = 0.01 * atoms.positions
            ase.io.write(file, atoms, format="extxyz")


def test_atoms_that_overlap(tmp_path):
    frame = worlds.water()
    positions = frame.positions.copy()
    positions[2] = positions[1] + 0.05
    both(
        write_project(tmp_path, systems={"pile": frame.moved(positions)}),
        "geometry pile: ",
        "correct the starting",
    )


def test_a_charged_geometry_that_the_reference_cannot_be_given(tmp_path):
    both(
        write_project(tmp_path, {"MISC": {"charge": 1}}),
        "geometry water: H2O has charge 1, and REFERENCE.factory ase.calculators.emt:EMT has no known argument",
    )


def test_fixed_atoms_at_constant_pressure(tmp_path):
    fixed = np.zeros((4, 3), bool)
    fixed[0] = True
    crystal = worlds.crystal()
    frame = Frame(crystal.numbers, crystal.positions, crystal.cell, True, fixed=fixed)
    md = {"stat_ensemble": "NPT", "barostat": "MTK", "friction": None}
    folder = write_project(tmp_path, {"MD": md}, {"GENERAL": {"compute_stress": True}}, {"cu": frame})
    (folder / "geometries" / "cu.xyz").unlink()
    ase.io.write(folder / "geometries" / "cu.traj", frame.to_atoms())  # keeps constraints
    both(folder, "geometry cu: MD: atoms cannot be fixed at constant pressure")


def test_a_geometry_without_md(tmp_path):
    water = worlds.water()
    systems = {"a": water, "b": water.moved(water.positions * 1.01)}
    folder = write_project(tmp_path, {"MD": None}, systems=systems)
    with open(folder / "aimsPAX.yaml", "a") as file:
        file.write("MD:\n  a: {stat_ensemble: NVT, temperature: 300, friction: 0.01, timestep: 0.5}\n")
    both(folder, "no settings for b; expected a table for each geometry, or one for all")


def test_an_element_that_no_foundation_model_of_materials_knows(tmp_path):
    initial = {"initial_sampling": "mace-mp0", "initial_calculator": None}
    folder = write_project(
        tmp_path, {"INITIAL_DATASET_GENERATION": initial}, systems={"radon": worlds.dimer("Rn", 4.0)}
    )
    (folder / "small").write_bytes(b"a file of this name is never meant by a size")
    assert "initial_foundational_size: small does not know Rn (in geometry radon)" in check(folder)


def test_an_element_that_the_given_model_does_not_know(tmp_path):
    ensemble([1]).save(0, tmp_path / "own.model")
    initial = {
        "initial_sampling": "mace-mp0",
        "initial_calculator": None,
        "initial_foundational_size": "own.model",
    }
    folder = write_project(
        tmp_path, {"INITIAL_DATASET_GENERATION": initial}, systems={"ar": worlds.dimer("Kr", 4.0)}
    )
    assert "own.model does not know Kr (in geometry ar)" in check(folder)


def test_phonons_without_their_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "phonopy", None)
    replaced = {"initial_sampling": None, "initial_calculator": None}
    sampler = {"kind": "phonons", "potential": {"factory": "ase.calculators.emt:EMT"}}
    folder = write_project(tmp_path, {"INITIAL_DATASET_GENERATION": replaced, "SAMPLERS": [sampler]})
    assert "SAMPLERS.0: phonons need phonopy: pip install 'aims-pax[crystals]'" in check(folder)


@pytest.mark.parametrize(
    ("sections", "place"),
    [
        ({"AUGMENTATION": {"kind": "gpr"}}, "AUGMENTATION: "),
        ({"SAMPLERS": [{"kind": "gpr"}]}, "SAMPLERS.0: "),
        ({"SAMPLERS": [{"kind": "md", "potential": "surrogate.gpr"}]}, "SAMPLERS.0: "),
    ],
)
def test_gaussian_processes_without_their_package(tmp_path, monkeypatch, sections, place):
    first = {"initial_sampling": None, "initial_calculator": None} if "SAMPLERS" in sections else {}
    folder = write_project(tmp_path, {**sections, "INITIAL_DATASET_GENERATION": first})
    monkeypatch.setitem(sys.modules, "featomic", None)
    found = check(folder)
    assert place in found
    assert "featomic" in found
    assert "pip install 'aims-pax[gpr]'" in found


def test_given_data_that_cannot_train_every_member(tmp_path):
    folder = write_project(tmp_path, {**GIVEN, "ACTIVE_LEARNING": {"initial_train_dataset": "train.xyz"}})
    labelled(folder / "train.xyz", worlds.rattled(worlds.water(), 1))
    both(folder, "1 structures are too few to hold out valid_ratio of them")


def test_a_member_that_is_not_there(tmp_path):
    data = {"initial_train_dataset": {"nobody": "train.xyz", "no_one": "train.xyz"}}
    folder = write_project(tmp_path, {**GIVEN, "ACTIVE_LEARNING": data})
    labelled(folder / "train.xyz", worlds.rattled(worlds.water(), 20))
    both(folder, "initial_train_dataset: no member is called nobody")


def test_nothing_to_start_from(tmp_path):
    both(write_project(tmp_path, GIVEN), "nothing to start from")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder in which active learning has begun."""
    folder = write_project(tmp_path_factory.mktemp("begun"), {"ACTIVE_LEARNING": {"max_MD_steps": 10}})
    assert command(folder=folder).returncode == 0
    return folder


@pytest.mark.parametrize(
    ("changes", "mace", "said"),
    [
        (
            {"REFERENCE": {"kwargs": {"asap_cutoff": True}}},
            {},
            "labels of two reference methods must not be mixed",
        ),
        ({}, {"GENERAL": {"seed": 8}}, "the members are named after their seeds"),
        ({}, {"ARCHITECTURE": {"r_max": 4.0}}, "the weights in restart/ belong to the old architecture"),
        ({"ACTIVE_LEARNING": {"num_trajectories": 1}}, {}, "started trajectories cannot be removed"),
        ({"MISC": {"charge": 0}}, {}, "geometry water: the structure under this name has changed"),
    ],
)
def test_a_begun_folder_with_settings_that_the_run_refuses(begun, changes, mace, said):
    base = {"ACTIVE_LEARNING": {"max_MD_steps": 10, **changes.get("ACTIVE_LEARNING", {})}}
    before = (begun / "restart" / "settings.json").read_bytes()
    write_project(begun, {**changes, **base}, mace)
    refusal = check(begun)
    assert refusal is not None
    assert said in refusal
    done = command(folder=begun)
    assert done.returncode == 1
    assert said in done.stderr
    assert (begun / "restart" / "settings.json").read_bytes() == before
    write_project(begun, {"ACTIVE_LEARNING": {"max_MD_steps": 10}})
    assert check(begun) is None


@pytest.mark.parametrize(
    ("names", "trajectories", "said"),
    [
        (["h2o"], 3, "geometry water: trajectories of it have started, so it cannot be removed or renamed"),
        (
            ["alpha", "water"],
            3,
            "3 of the 3 have started with other geometries than alpha; raise it to 4 or more",
        ),
        (
            ["alpha", "water", "zeta"],
            4,
            "3 of the 4 have started with other geometries than alpha, zeta; raise it",
        ),
        (["alpha", "water", "zeta"], 5, None),
    ],
)
def test_geometries_are_added_to_a_begun_folder_and_never_taken_from_its_trajectories(
    begun, tmp_path, names, trajectories, said
):
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    shutil.rmtree(folder / "geometries")
    changes = {"ACTIVE_LEARNING": {"max_MD_steps": 20, "num_trajectories": trajectories}}
    write_project(folder, changes, systems={name: water() for name in names})
    refusal = check(folder)
    assert (refusal is None) == (said is None), refusal
    done = command(folder=folder, timeout=120)
    assert done.returncode == (0 if said is None else 1), done.stderr
    if said is not None:
        assert said in refusal
        assert said in done.stderr
        return
    systems = [t["system"] for t in snapshot(folder / "restart" / "explore")[0]["trajectories"]]
    assert systems == ["water", "water", "water", "alpha", "zeta"]


def test_a_folder_in_order_stays_untouched(tmp_path):
    folder = write_project(tmp_path)
    before = sorted(p.name for p in folder.rglob("*"))
    assert check(folder) is None
    assert sorted(p.name for p in folder.rglob("*")) == before


def test_models_that_do_not_know_the_elements(tmp_path):
    ensemble([1]).save(0, tmp_path / "own.model")
    data = {"initial_models": ["own.model", "own2.model"]}
    ensemble([2]).save(0, tmp_path / "own2.model")
    folder = write_project(
        tmp_path, {**GIVEN, "ACTIVE_LEARNING": data}, systems={"kr": worlds.dimer("Kr", 4.0)}
    )
    with pytest.raises(SettingsError, match="the models do not know Kr"):
        trial_labels.check_verdict(checked_settings(folder))


def test_a_geometry_whose_atoms_are_all_fixed(tmp_path):
    frame = replace(worlds.water(), fixed=np.ones((3, 3), bool))
    both(
        write_project(tmp_path, systems={"frozen": frame}),
        "frozen: all atoms are fixed, so that none can move",
    )


def test_a_potential_of_pre_training_with_other_contents_under_its_name_is_refused(tmp_path):
    """Free labels of two methods were mixed where the module of the potential changed in between."""
    from aims_pax.record.folder import RunFolder
    from aims_pax.record.restart_compatibility import compare_with_last_run
    from aims_pax.settings.geometries import read_geometries

    (tmp_path / "cheap.py").write_text("from ase.calculators.emt import EMT\n")
    folder = write_project(tmp_path, {"PRETRAINING": {"potential": {"factory": "cheap:EMT"}}})
    settings = checked_settings(folder)
    systems = read_geometries(settings)
    compare_with_last_run(RunFolder(settings), readiness.begun_settings(settings, systems), "abc", {})
    compare_with_last_run(RunFolder(settings), readiness.begun_settings(settings, systems), "abc", {})
    (folder / "cheap.py").write_text("from ase.calculators.lj import LennardJones as EMT\n")
    with pytest.raises(AimsPaxError, match=r"contents\.cheap\.py: .*old contents of this file"):
        compare_with_last_run(RunFolder(settings), readiness.begun_settings(settings, systems), "abc", {})
