"""Foundation models by short names: spelled everywhere, refused with what is missing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.build import molecule
from ase.constraints import FixInternals

from aims_pax.commands.check.config_file import checked_config_file
from aims_pax.commands.check.project import checked_settings
from aims_pax.commands.check.trial_labels import check_verdict, verdict_of_file
from aims_pax.errors import AimsPaxError, SettingsError, SetupError
from aims_pax.frames import Label
from aims_pax.models.kinds import features_of
from aims_pax.potentials import bundled
from aims_pax.potentials.bundled import bundled_potential
from aims_pax.potentials.factory import make_potential
from aims_pax.potentials.named import LoadedPotential, Potentials
from aims_pax.settings.augment import as_calculator
from aims_pax.settings.bundled_models import BUNDLED
from aims_pax.settings.read import read_settings
from tests import worlds
from tests.projects import ROOT, write_project

INITIAL = "INITIAL_DATASET_GENERATION"
NONE = {"initial_sampling": None, "initial_calculator": None}


@pytest.fixture
def missing(monkeypatch):
    """Packages that are not installed here."""
    for model in BUNDLED.values():
        monkeypatch.setitem(sys.modules, model.module, None)


@pytest.fixture
def present(monkeypatch):
    """As if all packages were installed; nothing is imported from them."""
    monkeypatch.setattr("aims_pax.settings.bundled_models.find_spec", lambda name: object())


def refused(folder):
    """What `check` says about a folder, or None."""
    try:
        check_verdict(checked_settings(folder))
    except AimsPaxError as error:
        return str(error)
    return None


# ---------------------------------------------------------------- spellings


@pytest.mark.parametrize("name", BUNDLED)
def test_a_short_name_and_its_factory_are_the_same_potential(name):
    assert as_calculator(name) == name
    assert as_calculator({"factory": name}) == name
    assert as_calculator({"factory": BUNDLED[name].calculator}) == name
    call = as_calculator({"factory": name, "kwargs": {"device": "cpu"}})
    assert (call.target, call.kwargs) == (BUNDLED[name].calculator, {"device": "cpu"})


def test_the_reference_and_the_calculator_of_the_first_structures_take_a_short_name(tmp_path):
    changes = {
        "REFERENCE": {"type": "calculator", "factory": "so3lr"},
        INITIAL: {"initial_calculator": {"factory": "chgnet"}},
    }
    settings = read_settings(write_project(tmp_path, changes))
    assert settings.reference.factory == BUNDLED["so3lr"].calculator
    assert settings.initial_dataset.initial_calculator.factory == BUNDLED["chgnet"].calculator


def test_a_misspelt_name_finds_the_near_one(tmp_path, present):
    folder = write_project(tmp_path, {INITIAL: NONE, "SAMPLERS": [{"kind": "md", "potential": "so3rl"}]})
    assert "nearest: so3lr" in refused(folder)
    folder = write_project(tmp_path, {INITIAL: {"initial_sampling": "so3rl"}})
    assert "nearest: so3lr" in refused(folder)


def test_the_key_of_mace_s_sizes_says_where_a_short_name_belongs(tmp_path):
    initial = {
        "initial_sampling": "mace-mp0",
        "initial_calculator": None,
        "initial_foundational_size": "so3lr",
    }
    assert "write initial_sampling: so3lr" in refused(write_project(tmp_path, {INITIAL: initial}))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", BUNDLED)
def test_without_its_package_every_way_to_load_it_names_the_extra(name, missing, tmp_path):
    said = rf"{name} needs the package .*: pip install 'aims-pax\[{name}\]'"
    for load in (
        lambda: bundled_potential(name),
        lambda: make_potential(name, tmp_path, "SAMPLERS.0.potential"),
        lambda: Potentials(tmp_path).of(name, "SAMPLERS.0.potential"),
        lambda: LoadedPotential.load(name, tmp_path),
        lambda: Potentials(tmp_path).of({"factory": name}, "SAMPLERS.0.potential"),
    ):
        with pytest.raises(SetupError, match=said):
            load()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({INITIAL: {**NONE, "initial_sampling": "so3lr"}}, f"{INITIAL}.initial_sampling"),
        ({INITIAL: NONE, "SAMPLERS": [{"kind": "md", "potential": "so3lr"}]}, "SAMPLERS.0.potential"),
        ({INITIAL: {"initial_calculator": {"factory": "so3lr"}}}, f"{INITIAL}.initial_calculator.factory"),
        ({"REFERENCE": {"factory": "so3lr"}}, "REFERENCE.factory"),
    ],
)
def test_check_names_the_missing_extra_and_the_key(changes, place, missing, tmp_path):
    said = refused(write_project(tmp_path, changes))
    assert f"{place}: so3lr needs the package so3krates-torch: pip install 'aims-pax[so3lr]'" in said


@pytest.mark.parametrize(
    ("name", "frame", "said"),
    [
        ("so3lr", worlds.crystal(), "so3lr does not know Cu, only H, C, N, O, F, P, S, Cl (geometry it)"),
        ("chgnet", worlds.water(), "chgnet needs a crystal, periodic in three directions (geometry it)"),
        ("chgnet", worlds.slab(), "chgnet needs a crystal, periodic in three directions (geometry it)"),
    ],
)
@pytest.mark.parametrize("key", ["initial_sampling", "SAMPLERS"])
def test_check_refuses_what_a_model_cannot_evaluate(key, name, frame, said, present, tmp_path):
    changes = {INITIAL: {**NONE, "initial_sampling": name}}
    if key == "SAMPLERS":
        changes = {INITIAL: NONE, "SAMPLERS": [{"kind": "md", "potential": name}]}
    assert said in refused(write_project(tmp_path, changes, systems={"it": frame}))


def changed_example(example, tmp_path, monkeypatch, **changes):
    shutil.copytree(ROOT / "example" / example, tmp_path / example)
    monkeypatch.chdir(tmp_path / example)
    document = yaml.safe_load(Path("config.yaml").read_text()) | changes
    Path("config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return Path("config.yaml")


def test_check_of_the_other_commands_says_the_same(tmp_path, monkeypatch, present):
    config = changed_example("augment", tmp_path, monkeypatch, model={"calculator": "so3lr"})
    with pytest.raises(SettingsError, match=r"config.yaml:\d+: .*so3lr does not know Cu"):
        checked_config_file(config)
    config = changed_example("crystal", tmp_path, monkeypatch, calculator={"factory": "chgnet"})
    found = checked_config_file(config)
    assert "no potential was tried" in verdict_of_file(found).text


def test_check_of_the_other_commands_names_the_missing_extra(tmp_path, monkeypatch, missing):
    config = changed_example("crystal", tmp_path, monkeypatch, calculator="chgnet")
    with pytest.raises(
        SettingsError, match=r"config.yaml:\d+: calculator: chgnet needs the package chgnet: pip"
    ):
        checked_config_file(config)


class EnergyOfCharge:
    """A potential whose energy is charge + 10·multiplicity, and that refuses fixed atoms."""

    def labels(self, frames):
        assert all(frame.fixed is None for frame in frames)
        return [Label(f.charge + 10 * f.spin, np.zeros((len(f), 3))) for f in frames]


@pytest.mark.parametrize("spin", ["spin", "total_spin", "multiplicity"])
def test_the_calculator_sees_another_charge_and_spin_and_no_constraints(spin, monkeypatch):
    monkeypatch.setattr(bundled, "bundled_potential", lambda *call: EnergyOfCharge())
    atoms = molecule("H2O")
    atoms.info.update({"charge": 0, spin: 1})
    atoms.set_constraint(FixInternals(bonds=[[1.0, [0, 1]]]))  # no constraint on x, y or z
    atoms.calc = bundled.BundledCalculator("so3lr")
    assert atoms.get_potential_energy() == 10
    atoms.info["charge"] = 1
    assert atoms.get_potential_energy() == 11
    atoms.info[spin] = 2
    assert atoms.get_potential_energy() == 21


def test_it_has_no_descriptor_of_mace(tmp_path):
    assert features_of("so3lr", tmp_path, "cpu") is None
