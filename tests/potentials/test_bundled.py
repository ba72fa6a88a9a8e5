"""Foundation models by short names: spelled everywhere, refused with what is missing; CHGNet with a stand-in."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
import types
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.units import GPa

from aims_pax.commands.check.config_file import checked_config_file
from aims_pax.commands.check.project import checked_settings
from aims_pax.commands.check.trial_labels import check_verdict, verdict_of_file
from aims_pax.errors import AimsPaxError, Crashed, SettingsError, SetupError
from aims_pax.frames import Frame
from aims_pax.models.kinds import features_of
from aims_pax.potentials import chgnet as module
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


def test_it_has_no_descriptor_of_mace(tmp_path):
    assert features_of("so3lr", tmp_path, "cpu") is None


# ---------------------------------------------------------------- CHGNet


class StandInModel:
    """Energies −N eV in all, forces that count atoms, a pressure; in the units of the package."""

    is_intensive = True

    def __init__(self):
        self.asked, self.graph_converter = [], Converter()

    @classmethod
    def load(cls, model_name, use_device, verbose):
        print("CHGNet will run on", use_device)
        return cls()

    def parameters(self):
        return ()

    def predict_graph(self, graphs, task, batch_size):
        self.asked.append((len(graphs), task, batch_size))
        said = [
            {"e": np.float32(-1.0), "f": np.full((len(g), 3), len(g), np.float32), "s": 2 * np.eye(3)}
            for g in graphs
        ]
        return said[0] if len(said) == 1 else said


class Converter:
    def set_isolated_atom_response(self, response):
        self.response = response

    def __call__(self, structure):
        if len(structure) == 1 and self.response == "error":
            raise ValueError("Structure has 1 isolated atom(s)")
        return structure


class Structure(list):
    def __init__(self, lattice, species, coords, coords_are_cartesian):
        assert coords_are_cartesian
        super().__init__(species)


@pytest.fixture
def chgnet(monkeypatch):
    """The potential, with a stand-in for the packages chgnet and pymatgen."""
    spec = types.SimpleNamespace
    contents = {"chgnet": {}, "chgnet.model": {"CHGNet": StandInModel}, "pymatgen": {}}
    for name, content in (contents | {"pymatgen.core": {"Structure": Structure}}).items():
        made = types.ModuleType(name)
        made.__dict__.update(content, __spec__=spec(name=name))
        monkeypatch.setitem(sys.modules, name, made)
    module._loaded.cache_clear()
    yield bundled_potential("chgnet", "cpu")
    module._loaded.cache_clear()


def test_chgnet_gives_energies_forces_and_stress_in_our_units_in_batches(chgnet, capsys):
    frames = [worlds.crystal(), worlds.crystal(repeat=2)]
    labels = chgnet.labels(frames)
    assert chgnet.model.asked == [(2, "efs", module.BATCH)]
    for frame, label in zip(frames, labels, strict=True):
        assert label.energy == -len(frame)
        assert (label.forces == len(frame)).all()
        assert label.forces.shape == (len(frame), 3)
        np.testing.assert_allclose(label.stress, 2 * GPa * np.eye(3))
    assert chgnet.labels(frames[:1])[0].energy == -4
    assert capsys.readouterr().out == ""


def test_chgnet_refuses_molecules_and_reports_a_structure_without_a_graph(chgnet):
    with pytest.raises(SettingsError, match="needs a crystal"):
        chgnet.bind([worlds.water()])
    with pytest.raises(SettingsError, match=r"does not know Rn, only H to Bi, Ac to Pu"):
        chgnet.labels([Frame([86], np.zeros((1, 3)), np.eye(3), True)])
    with pytest.raises(Crashed, match=r"chgnet: Cu: .*isolated"):
        chgnet.labels([Frame([29], np.zeros((1, 3)), 30 * np.eye(3), True)])


# ---------------------------------------------------------------- where users and CI find them


@pytest.mark.parametrize("model", BUNDLED.values(), ids=lambda m: m.name)
def test_the_page_has_what_the_table_says(model):
    page = (ROOT / "docs" / "foundation_models.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{model.name}` \| {model.title} \|.*$", page, re.MULTILINE)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:7] == [
        f"`{model.extra}`",
        "crystals" if model.crystals_only else "any",
        model.elements_in_words,
        "yes" if model.electrons else "no",
        model.trained_on,
    ]
    assert cells[7:9] == [f"`{model.distribution}`, {model.size:g} MB", model.licence]
    assert f"https://doi.org/{model.citation}" in cells[9]
    assert f"pip install 'aims-pax[{model.extra}]'" in page
    assert model.citation in (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")


def test_every_extra_exists_and_a_fresh_machine_has_so3lr_in_the_tested_version():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for model in BUNDLED.values():
        assert any(need.startswith(model.distribution) for need in extras[model.extra])
    assert any("so3lr" in need for need in extras["dev"])
    script = (ROOT / "setup.sh").read_text()
    assert re.findall(r'extras="(.*?)"', script)
    assert all("so3lr" in words.split(",") for words in re.findall(r'extras="(.*?)"', script))
    assert "FOUNDATION_TESTS=required" in script
    assert re.search(r"^so3krates-torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
