"""MACE as one kind of model among others: which of its modules answers, and with what of the settings."""

import numpy as np
import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.models.mace.inference import Committee
from aims_pax.models.mace.kind import FORMS, KIND
from aims_pax.settings import read_settings
from tests.models.mace.tiny import ELEMENTS, water
from tests.projects import write_project

MOLECULE = water(1)[0].frame


@pytest.fixture
def files(member_files):
    return member_files


def test_it_builds_what_mace_yaml_asks_for(tmp_path):
    settings = read_settings(write_project(tmp_path, mace={"ARCHITECTURE": {"r_max": 4.25}}))
    made = KIND.build(settings, (7,), (1, 8))
    assert [(m.name, m.seed) for m in made.members] == [("tiny_7", 7)]
    assert (made.trained, tuple(made.elements)) == (False, (1, 8))
    assert float(made.members[0].model.r_max) == KIND.cutoff(settings) == 4.25


def test_what_is_written_in_mace_yaml_and_is_otherwise_in_a_given_model_is_listed(tmp_path, files):
    changes = {"ACTIVE_LEARNING": {"initial_models": [str(f) for f in files], "ensemble_size": 2}}
    changes["INITIAL_DATASET_GENERATION"] = None
    own = {"num_channels": 4, "max_L": 1, "max_ell": 2, "correlation": 2, "r_max": 3.5, "radial_MLP": [16]}
    settings = read_settings(write_project(tmp_path, changes, {"ARCHITECTURE": own}))
    given = KIND.from_files(files, settings, (1, 2))
    assert KIND.contradictions(given, settings) == [
        f"ARCHITECTURE.num_channels: 4 in mace.yaml, 8 in {path}" for path in files
    ]


def test_atomic_energies_of_mace_yaml_that_are_not_those_of_a_given_model_are_listed(tmp_path, files):
    changes = {"ACTIVE_LEARNING": {"initial_models": [str(f) for f in files], "ensemble_size": 2}}
    changes["INITIAL_DATASET_GENERATION"] = None
    none = dict.fromkeys(("num_channels", "max_L", "max_ell", "correlation", "r_max", "radial_MLP"))
    theirs = {"H": -3.0, "C": -6.0, "O": -9.0, "Cu": -12.0}

    def said(energies):
        written = {"ARCHITECTURE": none | {"atomic_energies": energies}}
        settings = read_settings(write_project(tmp_path, changes, written))
        return KIND.contradictions(KIND.from_files(files, settings, (1, 2)), settings)

    assert not [line for line in said(theirs) if str(files[0]) in line]
    found = said(theirs | {"Cu": -11.5})
    assert f"ARCHITECTURE.atomic_energies of Cu: -11.5 eV in mace.yaml, -12 eV in {files[0]}" in found
    assert f"ARCHITECTURE.atomic_energies of Cu: -11.5 eV in mace.yaml, -12.1 eV in {files[1]}" in found
    assert not said("reference")


def test_one_file_is_one_member_and_several_are_a_committee(files):
    one, both = (KIND.load(paths, "cpu", "float64") for paths in (files[:1], files))
    assert (one.members, both.members) == (1, 2)
    assert isinstance(both, Committee)
    np.testing.assert_allclose(
        one.evaluate([MOLECULE]).forces[0], both.evaluate([MOLECULE]).forces[0], rtol=0, atol=1e-9
    )
    assert KIND.elements_of(files[0]) == ELEMENTS


def test_one_file_is_taken_as_a_foundation_model_whose_head_must_be_clear(files, tmp_path):
    several = torch.load(files[0], weights_only=False)
    several.heads = ["pbe", "scan"]
    torch.save(several, tmp_path / "several.model")
    with pytest.raises(
        SettingsError, match="has the heads pbe, scan and none named default; use a model with one"
    ):
        KIND.load([tmp_path / "several.model"], "cpu", "float64")


def test_a_committee_of_different_elements_is_refused(files, tmp_path):
    other = torch.load(files[1], weights_only=False)
    other.atomic_numbers = torch.tensor([1, 6, 8, 47])
    torch.save(other, tmp_path / "other.model")
    with pytest.raises(SettingsError, match="differ in elements or r_max"):
        KIND.load([files[0], tmp_path / "other.model"], "cpu", "float64")


def test_only_a_name_or_a_calculator_with_descriptors_gives_features(files):
    assert KIND.atom_features({"factory": "ase.calculators.emt:EMT"}, files[0].parent, "cpu") is None

    class Own:
        def get_descriptors(self, atoms, invariants_only):
            assert invariants_only
            return atoms.numbers[:, None] * np.ones((1, 5))

    own = KIND.atom_features(Own(), files[0].parent, "cpu")
    np.testing.assert_array_equal(own([MOLECULE])[0, :, 0], MOLECULE.numbers)
    named = KIND.atom_features("0.model", files[0].parent, "cpu")
    assert named([MOLECULE, MOLECULE]).shape == (2, 3, 16)


def test_every_form_of_a_file_has_an_ending_of_its_own():
    assert KIND.forms == tuple(FORMS)
    assert KIND.form_suffix("lammps") == "-lammps.pt"
    assert len({KIND.form_suffix(form) for form in KIND.forms}) == len(KIND.forms)


def test_energies_that_single_precision_resolves_need_no_note(files):
    assert KIND.precision_note(files, "float32", -2000.0) == ""
    assert KIND.precision_note(files, "float64", -80_000.0) == "", "files in double precision"
    said = KIND.precision_note(files, "float32", -80_000.0)
    assert said.startswith("energies reach -80,000 eV, which single precision resolves only to 0.0078 eV")
