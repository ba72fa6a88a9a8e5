"""SAMPLERS as a user writes them: each table checked by its kind, mistakes named with their line."""

from __future__ import annotations

import pytest
import yaml

from aims_pax.commands.check.project import check_as_yaml
from aims_pax.settings import dump
from aims_pax.settings.read import read_settings
from aims_pax.settings.sample import read_sample
from aims_pax.settings.sampler_list import models, potentials, sampler_shares, spelling_of
from aims_pax.settings.samplers import FILTERS, KINDS
from tests.projects import write_project
from tests.settings.folders import MACE, PROJECT, errors, read

THREE = """\
SAMPLERS:
  - {kind: md, share: 0.5, potential: {factory: ase.calculators.emt:EMT, kwargs: {}}, temperature: 500}
  - {kind: rattle_tree, share: 0.3, temperature: 500, beta: 0.4, sigma_range: [0.05, 0.2], filters: sanity}
  - kind: phonons
    share: 0.2
    filters:
      - {kind: duplicates, by: descriptor}
      - farthest_points
"""


def test_each_table_is_read_by_its_own_settings(tmp_path):
    md, trees, phonons = read(tmp_path, PROJECT + THREE).samplers
    assert md.dynamics() == {"temperature": 500.0}
    assert trees.rattling()["beta"] == 0.4
    assert trees.filters[0].settings.min_separation == 0.5
    assert [f.kind for f in phonons.filters] == ["duplicates", "farthest_points"]
    assert phonons.filters[0].settings.by == "descriptor"


ALL = "SAMPLERS:\n" + "".join(f"  - {{kind: {kind}, filters: [{', '.join(FILTERS)}]}}\n" for kind in KINDS)


@pytest.mark.parametrize("samplers", [THREE, ALL])
def test_the_effective_settings_read_back_to_the_same(tmp_path, samplers):
    settings = read(tmp_path / "a", PROJECT + samplers)
    text = dump(settings)
    assert "initial_sampling" not in text
    both = yaml.safe_load(text)
    again = read(tmp_path / "b", *(yaml.safe_dump(both[name]) for name in ("aimsPAX", "mace")))
    assert again.samplers == settings.samplers
    assert again.warnings == settings.warnings
    assert dump(again) == text


WRONG = {
    "- {kind: md, share: 0.5}": "SAMPLERS: the shares sum to 0.5; expected 1",
    "- {kind: md, share: 0.6}\n  - {kind: phonons, share: 0.401}\n  - {kind: aimd, share: 0.1}": "sum to 1.101;",
    "- {kind: md, share: 1}\n  - {kind: phonons}": "leave nothing for the samplers without a share",
    "- {kind: rattle_tre}": "SAMPLERS.0.kind: 'rattle_tre' is not a sampler; nearest: rattle_tree",
    "- {share: 1}": "SAMPLERS.0.kind: mandatory. The sampler: md, aimd, rattle_tree, phonons",
    "- {kind: phonons, temprature: 300}": "SAMPLERS.0.temprature: unknown key; nearest: temperature",
    "- {kind: md, sigma_range: [0.1, 0.2]}": "SAMPLERS.0.sigma_range: unknown key here; it is a key of rattle_tree",
    "- {kind: md, filters: [santy]}": "SAMPLERS.0.filters.0: 'santy' is not a filter; nearest: sanity",
    "- {kind: md, filters: [{kind: duplicates, treshold: 1}]}": "filters.0.treshold: unknown key; nearest: threshold",
    "- {kind: md, filters: [{kind: duplicates, by: nme}]}": "filters.0.by: expected geometry | descriptor",
    "- {kind: md, filters: [3]}": "SAMPLERS.0.filters.0: expected the name of a filter, or a table",
    "- {kind: md, filters: [{kind: finite_clusters, selection_rule: max_min_distance_to_central_molecule}]}": (
        "max_min_distance_to_central_molecule needs distances"
    ),
    "- {kind: aimd, potential: small}": "SAMPLERS.0.potential: aimd uses the reference as its potential",
    "- {kind: md, potential: {factroy: x}}": "SAMPLERS.0.potential: expected ",
    "- {kind: rattle_tree, beta: 2}": "SAMPLERS.0.beta: 2 is not possible",
    "- {kind: mymod:make, temperature: 300}": "SAMPLERS.0.kind: module 'mymod' cannot be found",
    "- {kind: json:make, temperature: 300}": "SAMPLERS.0.temperature: unknown key",
    "- md": "SAMPLERS.0: expected a table such as {kind: md, share: 0.5}",
    "{kind: md}": "SAMPLERS: expected a list of samplers",
}  # fmt: skip


@pytest.mark.parametrize("written", WRONG)
def test_a_mistake_is_named_with_its_line(tmp_path, written):
    inline = written.startswith("{")
    text = f"{PROJECT}SAMPLERS: {written}\n" if inline else f"{PROJECT}SAMPLERS:\n  {written}\n"
    found = errors(tmp_path, text)
    assert any(WRONG[written] in line for line in found), found
    assert all(line.startswith("aimsPAX.yaml:") for line in found)
    if not inline and len(written.splitlines()) == 1 and "sum" not in WRONG[written]:
        assert found[0].startswith(f"aimsPAX.yaml:{len(PROJECT.splitlines()) + 2}:")


def test_shares_may_be_a_little_off_and_are_made_to_sum_to_one(tmp_path):
    entries = [
        {"kind": kind, "share": share}
        for kind, share in (("md", 0.333), ("phonons", 0.333), ("aimd", 0.3333))
    ]
    text = yaml.safe_dump({"SAMPLERS": entries})
    found = sampler_shares(read(tmp_path, PROJECT + text).samplers)
    assert sum(found) == pytest.approx(1, abs=1e-12)


def test_samplers_without_a_share_divide_the_rest(tmp_path):
    text = "SAMPLERS:\n  - {kind: md, share: 0.4}\n  - {kind: phonons}\n  - {kind: aimd}\n"
    assert sampler_shares(read(tmp_path, PROJECT + text).samplers) == pytest.approx([0.4, 0.3, 0.3])


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
            "selection_rule closest_to_central_molecule",
        ),
        (
            "{kind: finite_clusters, selection_rule: max_min_distance_to_central_molecule, distances: [4.0], "
            "n_molecules: [2]}",
            "n_molecules",
            "selection_rule max_min_distance_to_central_molecule",
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


def test_all_spellings_of_a_potential_are_taken_and_those_without_share_the_first(tmp_path):
    spelled = ["mace-mp0", "small", "my.model", "+lennard_jones()", {"factory": "a:b", "kwargs": {"c": 1}}]
    entries = [{"kind": "phonons"}] + [{"kind": "md", "potential": s} for s in spelled]
    samplers = read(tmp_path, PROJECT + yaml.safe_dump({"SAMPLERS": entries})).samplers
    assert [spelling_of(samplers, s) for s in samplers] == ["mace-mp0", *spelled]
    assert [name for _, name in models(samplers)] == ["small", "my.model"]
    assert [(target, kwargs) for _, target, kwargs in potentials(samplers)] == [("a:b", {"c": 1})]
    alone = read(tmp_path, PROJECT + "SAMPLERS:\n  - {kind: md}\n").samplers
    assert spelling_of(alone, alone[0]) == "small"


@pytest.mark.parametrize(
    ("potential", "said"),
    [
        (
            {"factory": "ase.calculators.emt:EMTT"},
            "SAMPLERS.0.potential.factory: factory 'ase.calculators.emt:EMTT'",
        ),
        ({"factory": "ase.build:molecule"}, "SAMPLERS.0.potential.kwargs: 'ase.build:molecule': missing"),
        ("smal", "SAMPLERS.0.potential: 'smal' is neither a model file nor one of"),
    ],
)
def test_check_looks_at_the_potentials(tmp_path, potential, said):
    changes = {
        "INITIAL_DATASET_GENERATION": {"initial_sampling": None, "initial_calculator": None},
        "SAMPLERS": [{"kind": "md", "potential": {"factory": "ase.calculators.emt:EMT"}}],
    }
    write_project(tmp_path, changes)
    check_as_yaml(tmp_path)
    write_project(tmp_path, {**changes, "SAMPLERS": [{"kind": "md", "potential": potential}]})
    with pytest.raises(Exception, match="SAMPLERS") as caught:
        check_as_yaml(tmp_path)
    assert said in str(caught.value)
    read_settings(tmp_path)  # reading alone imports nothing


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
