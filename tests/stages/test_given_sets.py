"""The labelled files of a user become the first dataset: which structures, which set, which member."""

from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT

from aims_pax.commands.results import read_test_set
from aims_pax.errors import SettingsError
from aims_pax.settings import read_settings
from aims_pax.stages.given_sets import given_files, given_sets, idle_weights
from aims_pax.systems import geometry_paths, read_systems
from tests.projects import write_project


@pytest.fixture
def run(tmp_path):
    def made(files, **active):
        for name, n in files.items():
            rng, frames = np.random.default_rng(n), []
            for _ in range(n):
                atoms = molecule("H2O")
                atoms.rattle(0.05, rng=rng)
                atoms.calc = EMT()
                atoms.info["REF_energy"], atoms.arrays["REF_forces"] = (
                    atoms.get_potential_energy(),
                    atoms.get_forces(),
                )
                atoms.calc = None
                frames.append(atoms)
            ase.io.write(tmp_path / name, frames, format="extxyz")
        settings = read_settings(
            write_project(tmp_path, {"INITIAL_DATASET_GENERATION": None, "ACTIVE_LEARNING": active})
        )
        members = [SimpleNamespace(name=f"m_{s}", seed=s) for s in (11, 12)]
        ensemble = SimpleNamespace(members=members, elements=(1, 8))
        return SimpleNamespace(
            settings=settings,
            systems=read_systems(geometry_paths(settings.misc.path_to_geometry, settings.folder)),
            ensemble=ensemble,
        )

    return made


def counts(dataset):
    return {(m, s): len(getattr(dataset, s)(m)) for m in range(2) for s in ("train", "valid")}


def test_a_share_of_one_file_is_held_out_for_validation(run):
    sets, files = given_sets(run({"t.xyz": 20}, initial_train_dataset="t.xyz", valid_ratio=0.2))
    assert counts(sets) == {(m, s): n for m in range(2) for s, n in (("train", 16), ("valid", 4))}
    assert [f.name for f in files] == ["t.xyz"]


def test_with_a_validation_file_every_training_structure_trains(run):
    files = {"t.xyz": 5, "v.xyz": 3}
    sets, _ = given_sets(run(files, initial_train_dataset="t.xyz", initial_valid_dataset="v.xyz"))
    assert counts(sets) == {(m, s): n for m in range(2) for s, n in (("train", 5), ("valid", 3))}


def test_each_member_may_have_a_file_of_its_own_by_name_or_seed(run):
    own = {"m_11": "a.xyz", "12": "b.xyz"}
    found = given_files(run({"a.xyz": 4, "b.xyz": 6}, initial_train_dataset=own))
    assert [(f.name, member) for f, member in found] == [("a.xyz", 0), ("b.xyz", 1)]


def test_a_file_for_an_unknown_member_is_refused_with_the_names_there_are(run):
    with pytest.raises(SettingsError, match="no member is called c; there are m_11, m_12"):
        given_files(run({"a.xyz": 4}, initial_train_dataset={"c": "a.xyz", "m_12": "a.xyz"}))


def test_too_few_structures_to_hold_some_out_are_refused(run):
    with pytest.raises(SettingsError, match="too few to hold out valid_ratio"):
        given_sets(run({"t.xyz": 3}, initial_train_dataset="t.xyz", valid_ratio=0.1))


def test_atoms_alone_are_neither_enough_to_train_nor_held_out(run, tmp_path):
    made = run({"t.xyz": 1}, initial_train_dataset="t.xyz", valid_ratio=0.5)
    atoms = []
    for k, (symbol, charge, spin) in enumerate((("H", 0, 2), ("H", -1, 1), ("H", 1, 1), ("O", 0, 3))):
        atom = Atoms(symbol, info={"REF_energy": -10.0 - k, "charge": charge, "spin": spin})
        atom.arrays["REF_forces"] = np.zeros((1, 3))
        atoms.append(atom)
    water = ase.io.read(tmp_path / "t.xyz", ":")
    ase.io.write(tmp_path / "t.xyz", atoms, format="extxyz")
    with pytest.raises(SettingsError, match="no training structures but single atoms or ions for m_11"):
        given_sets(made)
    others = [water[0].copy() for _ in range(4)]
    for k, other in enumerate(others):
        other.rattle(0.01, seed=k)
    ase.io.write(tmp_path / "t.xyz", [*others, *atoms], format="extxyz")
    sets, _ = given_sets(made)
    assert {len(f.frame) for f in sets.valid(0)} == {3}
    assert sum(len(f.frame) == 1 for f in sets.train(0)) == 4


@pytest.mark.parametrize("loss", ["universal", "weighted"])
def test_a_weight_of_a_structure_that_the_loss_ignores_is_said(run, loss, tmp_path):
    made = run({"t.xyz": 20}, initial_train_dataset="t.xyz")
    frames = ase.io.read(tmp_path / "t.xyz", ":")
    frames[3].info["config_weight"] = 0.1
    ase.io.write(tmp_path / "t.xyz", frames, format="extxyz")
    made.settings = made.settings.with_training(loss=loss)
    files = [file for file, _ in given_files(made)]
    said = [
        "t.xyz: config_weight, set for 1 structures, has no effect: TRAINING.loss: universal does not weight structures"
    ]
    assert idle_weights(made.settings, files) == (said if loss == "universal" else [])


@pytest.mark.parametrize("misc", [{"charge": 1, "spin": 2}, {"charge": {"water": 1}, "spin": {"water": 2}}])
def test_structures_that_state_no_charge_have_that_of_the_settings(run, misc, tmp_path):
    run({"t.xyz": 4}, initial_train_dataset="t.xyz")
    stated = ase.io.read(tmp_path / "t.xyz", ":")
    stated[1].info |= {"charge": -1}
    stated[2].info |= {"charge": 1}
    atom = molecule("O")
    atom.info["REF_energy"], atom.arrays["REF_forces"] = -2000.0, np.zeros((1, 3))
    ase.io.write(tmp_path / "t.xyz", [*stated, atom], format="extxyz")
    active = {"initial_train_dataset": "t.xyz"}
    changes = {
        "INITIAL_DATASET_GENERATION": None,
        "ACTIVE_LEARNING": active,
        "MISC": misc | {"test_set": "t.xyz"},
    }
    settings = read_settings(write_project(tmp_path, changes))
    systems = read_systems(geometry_paths(settings.misc.path_to_geometry, settings.folder))
    members = [SimpleNamespace(name="m", seed=1)]

    class Anything(SimpleNamespace):
        def check_frames(self, frames): ...

        def check_frame(self, frame): ...

    ensemble = Anything(members=members, elements=(1, 8))
    ((file, _),) = given_files(SimpleNamespace(settings=settings, systems=systems, ensemble=ensemble))
    expected = [(1, 2), (-1, None), (1, 2), (1, 2), (None, None)]
    for frames in (file.frames, read_test_set(settings, ensemble)):
        assert [(f.frame.charge, f.frame.spin) for f in frames] == expected


def test_a_structure_of_no_geometry_needs_a_charge_where_each_geometry_has_its_own(run, tmp_path):
    made = run({"t.xyz": 2}, initial_train_dataset="t.xyz")
    path = tmp_path / "t.xyz"
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*text, "1\n", 'Properties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-9 pbc="T T T" ',
                             'Lattice="2 0 0 0 2 0 0 0 2"\n', "O 0 0 0 0 0 0\n"]))  # fmt: skip
    changes = {"INITIAL_DATASET_GENERATION": None, "ACTIVE_LEARNING": {"initial_train_dataset": "t.xyz"}}
    made.settings = read_settings(write_project(tmp_path, changes | {"MISC": {"charge": {"water": 1}}}))
    with pytest.raises(SettingsError, match=r"t\.xyz, .*3.*\(O\) has neither a charge nor a geometry name"):
        given_files(made)


def both_used(sets):
    return {f.id for f in sets.union("train")} & {f.id for f in sets.union("valid")}


def test_a_structure_that_a_file_holds_twice_is_not_for_training_and_validation(run, tmp_path):
    made = run({"t.xyz": 25}, initial_train_dataset="t.xyz", valid_ratio=0.1)
    alone, _ = given_sets(made)
    (tmp_path / "t.xyz").write_text(2 * (tmp_path / "t.xyz").read_text())
    sets, _ = given_sets(made)
    assert not both_used(sets)
    assert counts(sets) == counts(alone)


def test_what_validates_one_member_trains_no_other_when_their_files_share_structures(run, tmp_path):
    made = run(
        {"one.xyz": 30, "two.xyz": 7},
        initial_train_dataset={"11": "one.xyz", "12": "two.xyz"},
        valid_ratio=0.1,
    )
    shared = ase.io.read(tmp_path / "one.xyz", "7:", format="extxyz")
    own = ase.io.read(tmp_path / "two.xyz", ":", format="extxyz")
    ase.io.write(tmp_path / "two.xyz", [*shared, *own], format="extxyz")
    sets, _ = given_sets(made)
    assert not both_used(sets)
    assert {f.id for f in sets.train(0)} & {f.id for f in sets.train(1)}
    assert all(n > 0 for n in counts(sets).values())
