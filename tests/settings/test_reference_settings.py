"""Commands that only ask the reference need the settings of the reference only."""

import pytest
import yaml

from aims_pax.errors import SettingsError
from aims_pax.settings import effective, read_reference_settings

AIMS = {
    "MISC": {"path_to_control": "control.in"},
    "CLUSTER": {"type": "local", "launch_str": "mpirun aims.x", "calc_dir": "calc"},
    "ACTIVE_LEARNING": {"species_dir": "species"},
}
EMT = {"REFERENCE": {"type": "calculator", "factory": "ase.calculators.emt:EMT"}}


def read(folder, project, mace=None):
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(project))
    if mace is not None:
        (folder / "mace.yaml").write_text(yaml.safe_dump(mace))
    return read_reference_settings(folder)


def test_a_calculator_needs_one_section(tmp_path):
    settings = read(tmp_path, EMT)
    assert settings.reference.factory == "ase.calculators.emt:EMT"
    assert settings.cluster.type == "local"
    assert not settings.mace.general.compute_stress


@pytest.mark.parametrize("section", ["ACTIVE_LEARNING", "INITIAL_DATASET_GENERATION"])
def test_fhi_aims_needs_how_it_is_launched_and_its_basis(tmp_path, section):
    project = {**AIMS, section: AIMS["ACTIVE_LEARNING"]}
    settings = read(tmp_path, project, {"GENERAL": {"compute_stress": True}})
    assert settings.species_dir == "species"
    assert settings.cluster.launch_str == "mpirun aims.x"
    assert settings.mace.general.compute_stress


@pytest.mark.parametrize(
    ("missing", "said"),
    [("ACTIVE_LEARNING", "ACTIVE_LEARNING.species_dir"), ("CLUSTER", "CLUSTER: this section")],
)
def test_what_fhi_aims_lacks_is_asked_for(tmp_path, missing, said):
    with pytest.raises(SettingsError, match=said) as error:
        read(tmp_path, {k: v for k, v in AIMS.items() if k != missing})
    assert len(str(error.value).splitlines()) == 1


def test_what_is_not_used_may_be_out_of_order(tmp_path):
    project = {**EMT, "MD": {"timestep": "much"}, "INITIAL_DATASET_GENERATION": {"n": 3}, "SAMPLERS": "none"}
    read(tmp_path, project, {"TRAINING": {"lr": "much"}, "ARCHITECTURE": 3})


@pytest.mark.parametrize(
    ("project", "mace", "said"),
    [
        ({"REFERENCE": {"type": "calculator", "factori": "a:b"}}, None, "nearest key: factory"),
        (
            {"REFERENC": EMT["REFERENCE"]},
            None,
            "aimsPAX.yaml:1: REFERENC: unknown section; nearest: REFERENCE",
        ),
        ({**EMT, "CLUSTER": {"type": "lokal"}}, None, "CLUSTER.type"),
        (EMT, {"GENERAL": {"compute_stres": True}}, "nearest key: compute_stress"),
        (EMT, {"GENERAL": 3}, "GENERAL: expected a table"),
    ],
)
def test_mistakes_in_what_is_used_are_told(tmp_path, project, mace, said):
    with pytest.raises(SettingsError, match=said):
        read(tmp_path, project, mace)


def test_a_file_that_was_named_has_to_be_there(tmp_path):
    read(tmp_path, EMT)
    with pytest.raises(SettingsError, match=r"models.yaml: no such file"):
        read_reference_settings(tmp_path, mace_file="models.yaml")


def test_the_settings_that_are_stored_with_labels_hold_what_was_used_and_no_more(tmp_path):
    said = effective(read(tmp_path, AIMS))
    assert set(said["aimsPAX"]) == {"ACTIVE_LEARNING", "CLUSTER", "MISC", "REFERENCE"}
    assert said["aimsPAX"]["ACTIVE_LEARNING"] == {"species_dir": "species"}
    assert set(said["mace"]) == {"GENERAL", "MISC"}


def test_a_basis_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"ACTIVE_LEARNING\.species_dir: expected text, got 3"):
        read(tmp_path, {**AIMS, "ACTIVE_LEARNING": {"species_dir": 3}})


def test_two_folders_of_species_are_refused(tmp_path):
    with pytest.raises(
        SettingsError, match="light in INITIAL_DATASET_GENERATION but species in ACTIVE_LEARNING"
    ):
        read(tmp_path, {**AIMS, "INITIAL_DATASET_GENERATION": {"species_dir": "light"}})


def test_a_calculator_does_not_look_at_the_species(tmp_path):
    assert read(tmp_path, {**EMT, "ACTIVE_LEARNING": {"species_dir": 3}}).species_dir is None
