"""The JSON schemas of both files: every key is in them, what is right is accepted, what editors should mark is not.

`problems` is a small validator of what the schemas use of draft 7, so that no package is needed for it.
"""

import json
import re
from pathlib import Path

import pytest
import yaml

from aims_pax.settings.schema import FILES, first_line, name_of, schema, text
from tests.projects import MACE, PROJECT, changed

ROOT = Path(__file__).parents[2]
TYPES = {
    "object": dict, "array": list, "string": str, "null": type(None), "boolean": bool, "integer": int,
    "number": (int, float),
}  # fmt: skip
KNOWN = {
    "$schema", "title", "description", "default", "type", "enum", "pattern", "anyOf", "properties", "required",
    "additionalProperties", "patternProperties", "items", "minItems", "maxItems", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum",
}  # fmt: skip


def is_a(value, kind):
    if kind in ("integer", "number") and isinstance(value, bool):
        return False
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[kind])


def problems(value, rule, place=()):
    assert set(rule) <= KNOWN, set(rule) - KNOWN
    kinds = rule.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(is_a(value, k) for k in kinds):
        yield place, f"{value!r} is no {kinds}"
        return
    if "enum" in rule and value not in rule["enum"]:
        yield place, f"{value!r} is not one of {rule['enum']}"
    if isinstance(value, str) and "pattern" in rule and not re.search(rule["pattern"], value):
        yield place, f"{value!r} is no {rule['pattern']}"
    if "anyOf" in rule:
        tried = [list(problems(value, option, place)) for option in rule["anyOf"]]
        if all(tried):
            yield place, f"{value!r} is none of {rule['anyOf']}"
    if is_a(value, "number"):
        wrong = [
            value < rule.get("minimum", value), value > rule.get("maximum", value),
            "exclusiveMinimum" in rule and value <= rule["exclusiveMinimum"],
            "exclusiveMaximum" in rule and value >= rule["exclusiveMaximum"],
        ]  # fmt: skip
        if any(wrong):
            yield place, f"{value} is out of range"
    if isinstance(value, list):
        if not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)):
            yield place, f"{len(value)} items"
        for i, item in enumerate(value):
            yield from problems(item, rule.get("items", {}), (*place, i))
    if isinstance(value, dict):
        yield from ((place, f"{name} is missing") for name in rule.get("required", ()) if name not in value)
        for name, inner in value.items():
            matching = [r for p, r in rule.get("patternProperties", {}).items() if re.search(p, name)]
            known = [rule["properties"][name]] if name in rule.get("properties", {}) else []
            other = rule.get("additionalProperties", True)
            if not matching + known and other is False:
                yield (*place, name), "is not known"
            elif not matching + known and other is not True:
                known = [other]
            for one in matching + known:
                yield from problems(inner, one, (*place, name))


def found(file, data):
    return sorted({".".join(map(str, place)) for place, _ in problems(data, schema(file))})


@pytest.mark.parametrize(
    "path", sorted((ROOT / "example").glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_every_example_is_accepted(path):
    if path.name in FILES:
        assert list(problems(yaml.safe_load(path.read_text()), schema(path.name))) == []


def test_every_key_is_there_with_its_prose_unit_and_range():
    for file, sections in FILES.items():
        tables = schema(file)["properties"]
        assert list(tables) == [*sections, *(["SAMPLERS"] if sections is FILES["aimsPAX.yaml"] else [])]
        for name, model in sections.items():
            assert set(model.model_fields) <= set(tables[name]["properties"])
            for key, field in model.model_fields.items():
                assert field.description.strip() in tables[name]["properties"][key]["description"]
    timestep = schema("aimsPAX.yaml")["properties"]["MD"]["properties"]["timestep"]
    assert timestep["exclusiveMinimum"] == 0
    assert timestep["maximum"] == 100
    assert timestep["default"] == 0.5
    assert "more than 0 and at most 100 fs" in timestep["description"]


GOOD = [
    {"MD": {"stat_ensemble": "nvt"}},
    {"MD": {"stat_ensemble": "NPT", "barostat": "MTK_full", "temperature": [300, 500]}},
    {"MD": {"water": {"stat_ensemble": "NVT"}, "copper": {"stat_ensemble": "NPT"}}},
    {"ACTIVE_LEARNING": {"max_MD_steps": "np.inf", "converge_al": "yes", "seeds_tags_dict": "None"}},
    {"ACTIVE_LEARNING": {"max_MD_steps": float("inf"), "initial_models": "one.model"}},
    {"ACTIVE_LEARNING": {"initial_models": ["a.model", "b.model"], "parallel": True, "intermol_x": 1}},
    {"MISC": {"max_walltime": "1-00:00:00", "path_to_geometry": ["a.in", "b.in"]}},
    {"MISC": None},
    {"REFERENCE": {"type": "aims", "factory": None, "retries": [{"charge_mix_param": 0.02}]}},
    {"SAMPLERS": [{"kind": "md", "potential": "small"}, {"kind": "my.module:Sampler", "kwargs": {"a": 1}}]},
    {
        "SAMPLERS": [
            {"kind": "rattle_tree", "share": 0.5, "potential": {"factory": "a:b"}, "filters": ["sanity"]},
            {"kind": "phonons", "freq_max_THz": None, "filters": [{"kind": "farthest_points", "of": 3}]},
        ]
    },
    {"CLUSTER": {"type": "local", "training": {"devices": ["cuda:0"], "workers": None}}},
]


@pytest.mark.parametrize("change", GOOD, ids=str)
def test_what_we_accept_editors_accept(change):
    base = changed(PROJECT, dict.fromkeys(k for k in change if k == "MD"))  # another MD, not a part of it
    assert (
        found("aimsPAX.yaml", {**changed(base, change), **{k: v for k, v in change.items() if v is None}})
        == []
    )


BAD = [
    ({"MD": {"stat_ensemble": "NVE"}}, "MD.stat_ensemble"),
    ({"MD": {"timestep": 0}}, "MD.timestep"),
    ({"MD": {"temperature": [300]}}, "MD.temperature"),
    ({"MD": {"tempreature": 300}}, "MD.tempreature"),
    ({"ACTIVE_LEARNING": {"num_trajectories": 2.5}}, "ACTIVE_LEARNING.num_trajectories"),
    ({"MD": {"stat_ensemble": None}}, "MD"),
    ({"ACTIVE_LEARNING": {"converge_al": "maybe"}}, "ACTIVE_LEARNING.converge_al"),
    ({"CLUSTER": {"parsl_options": {"label": "x"}}}, "CLUSTER.parsl_options"),
    ({"ACTIVE_LERNING": {}}, "ACTIVE_LERNING"),
    ({"SAMPLERS": []}, "SAMPLERS"),
    ({"SAMPLERS": [{"kind": "mdd"}]}, "SAMPLERS.0"),
    ({"SAMPLERS": [{"kind": "md", "beta": 1}]}, "SAMPLERS.0"),
    ({"SAMPLERS": [{"kind": "md", "filters": [{"kind": "duplicates", "of": 3}]}]}, "SAMPLERS.0"),
    ({"MISC": {"save_trajectories": 0}}, "MISC.save_trajectories"),
]


@pytest.mark.parametrize(("change", "place"), BAD, ids=str)
def test_what_is_wrong_is_marked_where_it_stands(change, place):
    assert place in found("aimsPAX.yaml", changed(PROJECT, change))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"GENERAL": {"name_exp": None}}, "GENERAL"),
        ({"ARCHITECTURE": {"radial_MLP": [0]}}, "ARCHITECTURE.radial_MLP.0"),
        ({"ARCHITECTURE": {"gate": "relu"}}, "ARCHITECTURE.gate"),
        ({"TRAINING": {"config_type_weights": {"Default": "much"}}}, "TRAINING.config_type_weights.Default"),
    ],
    ids=str,
)
def test_the_models_file_too(change, place):
    assert (
        found("mace.yaml", changed(MACE, {"ARCHITECTURE": {"gate": "None", "atomic_energies": {"H": -13.6}}}))
        == []
    )
    assert place in found("mace.yaml", changed(MACE, change))


def test_it_is_json_and_lies_beside_the_settings():
    assert json.loads(text("mace.yaml")) == schema("mace.yaml")
    assert first_line("mace.yaml") == f"# yaml-language-server: $schema={name_of('mace.yaml')}"
