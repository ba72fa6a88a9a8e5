"""The list SAMPLERS as a user writes it: each table checked by its kind, mistakes named with their line."""

from __future__ import annotations

import pytest
import yaml

from aims_pax.commands.check.project import check_as_yaml
from aims_pax.settings import dump
from aims_pax.settings.read import read_settings
from aims_pax.settings.sampler_list import (
    calls,
    models,
    potential_place,
    potentials,
    sampler_shares,
    samplers_as_written,
    samplers_in_words,
    spelling_of,
)
from aims_pax.settings.samplers import FILTERS, KINDS
from tests.projects import write_project
from tests.settings.folders import PROJECT, THREE, errors, read

NEEDED = {"diffusion": "data: start.xyz, "}  # keys without which a kind is refused
ALL = "SAMPLERS:\n" + "".join(
    f"  - {{kind: {kind}, {NEEDED.get(kind, '')}filters: [{', '.join(FILTERS)}]}}\n" for kind in KINDS
)


def test_each_table_is_read_by_its_own_settings(tmp_path):
    md, trees, phonons = read(tmp_path, PROJECT + THREE).samplers
    assert md.dynamics() == {"temperature": 500.0}
    assert trees.rattling()["beta"] == 0.4
    assert trees.filters[0].settings.min_separation == 0.5
    assert [f.kind for f in phonons.filters] == ["duplicates", "farthest_points"]
    assert phonons.filters[0].settings.by == "descriptor"


@pytest.mark.parametrize("samplers", [THREE, ALL])
def test_the_effective_settings_read_back_to_the_same(tmp_path, samplers):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "start.xyz").write_text("1\n\nH 0 0 0\n")
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
    "- {kind: phonons, freq_min_THz: 5, freq_max_THz: 5}": "expected freq_min_THz (5) below freq_max_THz (5)",
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


def test_keys_of_a_sampler_that_another_key_makes_idle_are_warned_of(tmp_path):
    entries = [
        {"kind": "phonons", "selected_modes": [1], "freq_max_THz": 20, "relaxed": False, "fmax": 0.01},
        {"kind": "rattle_tree", "cell_sigma_reading": "code"},
        {"kind": "md", "filters": [{"kind": "finite_clusters", "distances": [3]}]},
    ]
    warnings = read(tmp_path, PROJECT + yaml.safe_dump({"SAMPLERS": entries})).warnings
    idle = {w.partition(": has no effect")[0].partition("SAMPLERS.")[2] for w in warnings if "no effect" in w}
    assert idle == {"0.freq_max_THz", "0.fmax", "1.cell_sigma_reading", "2.filters.0.distances"}


def test_samplers_without_a_share_divide_the_rest(tmp_path):
    text = "SAMPLERS:\n  - {kind: md, share: 0.4}\n  - {kind: phonons}\n  - {kind: aimd}\n"
    assert sampler_shares(read(tmp_path, PROJECT + text).samplers) == pytest.approx([0.4, 0.3, 0.3])


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


def samplers(folder, *entries):
    return read(folder, PROJECT + yaml.safe_dump({"SAMPLERS": list(entries)})).samplers


def test_shares_are_read_aloud_in_percent(tmp_path):
    found = samplers(
        tmp_path, {"kind": "md", "share": 0.125}, {"kind": "phonons"}, {"kind": "aimd", "share": 0.5}
    )
    assert samplers_in_words(found) == "md 12.5 %, phonons 37.5 %, aimd 50 %"


def test_an_error_in_a_potential_names_the_sampler_that_wrote_it(tmp_path):
    emt = {"factory": "ase.calculators.emt:EMT", "kwargs": {}}
    found = samplers(tmp_path, {"kind": "md"}, {"kind": "phonons", "potential": emt}, {"kind": "rattle_tree"})
    assert [potential_place(found, k) for k in range(3)] == ["SAMPLERS.1.potential"] * 3
    alone = samplers(tmp_path, {"kind": "phonons"}, {"kind": "md"})
    assert potential_place(alone, 1) == "SAMPLERS.1.potential"


def test_only_calls_are_calls(tmp_path):
    written = ["mace-mp0", "my.model", "+lennard_jones()", {"factory": "a:b", "kwargs": {"c": 1}}]
    found = calls(samplers(tmp_path, *({"kind": "md", "potential": s} for s in written)))
    assert [place[1] for place, _ in found] == [2, 3]
    assert (found[1][1].target, dict(found[1][1].kwargs)) == ("a:b", {"c": 1})


def test_the_complete_list_has_every_key_of_its_kinds_in_the_form_of_yaml(tmp_path):
    found = samplers(tmp_path, {"kind": "rattle_tree", "sigma_range": [0.05, 0.2], "filters": ["sanity"]})
    (written,) = samplers_as_written(found)
    assert list(written)[:2] == ["kind", "share"]
    assert list(written)[-1] == "filters"
    assert written["sigma_range"] == [0.05, 0.2]
    assert written["filters"] == [{"kind": "sanity", "min_separation": 0.5, "max_force": float("inf")}]
    assert yaml.safe_load(yaml.safe_dump(written)) == written
