"""SAMPLERS as a user writes them: each table checked by its kind, mistakes named with their line."""

from __future__ import annotations

import pytest

from aims_pax.settings.sample import read_sample
from tests.settings.folders import MACE, PROJECT, THREE, errors, read


def test_beside_initial_sampling_it_says_what_to_delete(tmp_path):
    where = "INITIAL_DATASET_GENERATION:\n  initial_sampling: mace-mp0\n  initial_foundational_size: small\n"
    (found,) = errors(tmp_path, PROJECT.replace("INITIAL_DATASET_GENERATION:\n", where) + THREE)
    assert "INITIAL_DATASET_GENERATION.initial_sampling" in found
    assert "delete initial_sampling, initial_foundational_size" in found


def test_without_an_initial_dataset_it_says_so(tmp_path):
    text = PROJECT.split("ACTIVE_LEARNING")[1]
    (found,) = errors(tmp_path, f"ACTIVE_LEARNING{text}{THREE}")
    assert "make structures for INITIAL_DATASET_GENERATION, which is missing" in found


def test_a_ramp_of_active_learning_is_no_temperature_of_a_sampler(tmp_path):
    ramp = "  stat_ensemble: NVT\n  temperature: [100, 500]\n"
    found = errors(tmp_path, PROJECT.replace("  stat_ensemble: NVT\n", ramp) + THREE)
    assert [line.split(": ")[1] for line in found] == ["SAMPLERS.2.temperature"]


def test_systems_at_different_temperatures_leave_none_for_trees_and_phonons(tmp_path):
    md = "MD:\n  a: {stat_ensemble: NVT, temperature: 200}\n  b: {stat_ensemble: NVT, temperature: 300}\n"
    found = errors(tmp_path, PROJECT.replace("MD:\n  stat_ensemble: NVT\n", md) + THREE)
    assert [line.split(": ")[1] for line in found] == ["SAMPLERS.2.temperature"]


def test_one_that_is_misspelt_is_found(tmp_path):
    (found,) = errors(tmp_path, PROJECT + THREE.replace("SAMPLERS", "SAMPLER"))
    assert "nearest: SAMPLERS" in found


def test_an_odd_value_is_warned_about(tmp_path):
    warnings = read(tmp_path, PROJECT + THREE.replace("temperature: 500,", "temperature: 5,")).warnings
    assert any("SAMPLERS.1.temperature" in w and "60 times smaller" in w for w in warnings)


@pytest.mark.parametrize(
    ("written", "key", "why"),
    [
        ("{kind: duplicates, descriptor: mace}", "descriptor", "by is geometry"),
        (
            "{kind: finite_clusters, distances: [4.0]}",
            "distances",
            "selection_rule is closest_to_central_molecule",
        ),
        (
            "{kind: finite_clusters, selection_rule: max_min_distance_to_central_molecule, distances: [4.0], "
            "n_molecules: [2]}",
            "n_molecules",
            "selection_rule is max_min_distance_to_central_molecule",
        ),
    ],
)
def test_keys_of_a_filter_that_have_no_effect_are_warned_about(tmp_path, written, key, why):
    text = f"{PROJECT}SAMPLERS:\n  - {{kind: md, filters: [{written}]}}\n"
    (said,) = (w for w in read(tmp_path, text).warnings if "no effect" in w)
    assert f"SAMPLERS.0.filters.0.{key}: has no effect" in said
    assert why in said


def test_a_seed_that_another_replaces_is_warned_about(tmp_path):
    (said,) = read_text(tmp_path, SAMPLE + "MD: {MD_seed: 3}\n").warnings
    assert "MD.MD_seed: has no effect here; the top-level key seed " in said


SAMPLE = "path_to_geometry: a.xyz\noutput: b.xyz\nn_per_geometry: 3\nSAMPLERS:\n  - {kind: md}\n"


def read_text(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    return read_sample(tmp_path / "config.yaml")


def test_the_configuration_of_sample_has_defaults_for_all_but_the_files_and_the_number(tmp_path):
    found = read_text(tmp_path, SAMPLE)
    assert (found.keys.seed, found.keys.skip_step, found.md.temperature, found.md.stat_ensemble) == (
        42,
        25,
        300,
        "NVT",
    )
    found = read_text(tmp_path, SAMPLE + "MD: {temperature: 400, timestep: 1}\n")
    assert (found.md.temperature, found.md.timestep) == (400, 1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (SAMPLE.replace("n_per_geometry: 3\n", ""), "n_per_geometry: mandatory. Structures per geometry"),
        (SAMPLE.replace("output", "ouput"), "ouput: unknown key; nearest: output"),
        (SAMPLE.replace("SAMPLERS", "SAMPLER"), "SAMPLER: unknown key; nearest: SAMPLERS"),
        (SAMPLE.replace("kind: md", "kind: mdd"), "SAMPLERS.0.kind: 'mdd' is not a sampler; nearest: md"),
        (SAMPLE + "MD: {temprature: 3}\n", "MD.temprature: unknown key; nearest: temperature"),
        (SAMPLE + "MD: {temperature: [1, 2]}\n", "MD.temperature: expected one temperature"),
        (SAMPLE + "MD: fast\n", "MD: "),
    ],
)
def test_mistakes_of_a_configuration_of_sample_are_named(tmp_path, changed, said):
    with pytest.raises(Exception, match=r"config\.yaml") as caught:
        read_text(tmp_path, changed)
    assert type(caught.value).__name__ == "SettingsError"
    assert said in str(caught.value)


def test_the_models_settings_stay_untouched(tmp_path):
    assert read(tmp_path, PROJECT + THREE, MACE).mace == read(tmp_path, PROJECT, MACE).mace
