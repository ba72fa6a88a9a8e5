"""augment-atoms' configuration, read strictly."""

from __future__ import annotations

import doctest

import pytest
import yaml

from aims_pax.errors import SettingsError
from aims_pax.settings.augment import CallSpec, as_calculator, read_augment

DOCUMENTED = """\
data:
  input: input.xyz
  output: output.xyz
config:
  n_per_structure: 10
  T: 300  # units are Kelvin
  beta: 0.5
  sigma_range: [0.01, 0.1]  # units are Å
  seed: 42
  cell_sigma: null  # units are Å
  units: eV
  max_force: 30  # units are (energy / Å)
  min_separation: 0.5
  max_relax_steps: 20
  similarity_threshold: 0.1
model:
  calculator: +lennard_jones()
"""


def read(tmp_path, changes=None, text=DOCUMENTED):
    document = yaml.safe_load(text)
    for section, keys in (changes or {}).items():
        for key, value in keys.items():
            if value is ...:
                del document[section][key]
            else:
                document[section][key] = value
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document) if changes else text, encoding="utf-8")
    return read_augment(path)


def test_the_documents_own_configuration_is_read(tmp_path):
    settings = read(tmp_path)
    assert (settings.data.input, settings.data.output) == ("input.xyz", "output.xyz")
    c = settings.config
    assert (c.n_per_structure, c.T, c.beta, c.sigma_range, c.seed) == (10, 300.0, 0.5, (0.01, 0.1), 42)
    assert settings.model.calculator == CallSpec("lennard_jones")
    assert settings.warnings == ()


def test_defaults_are_the_documented_ones(tmp_path):
    optional = (
        "cell_sigma",
        "units",
        "max_force",
        "min_separation",
        "max_relax_steps",
        "similarity_threshold",
    )
    short = read(tmp_path, {"config": dict.fromkeys(optional, ...)})
    assert short.config == read(tmp_path).config
    assert (short.config.beta_reading, short.config.boltzmann) == ("document", "per_atom")


@pytest.mark.parametrize("missing", ["n_per_structure", "T", "beta", "sigma_range", "seed"])
def test_mandatory_keys_are_named(tmp_path, missing):
    with pytest.raises(SettingsError, match=rf"config\.yaml:\d+: config.{missing}: mandatory"):
        read(tmp_path, {"config": {missing: ...}})


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("config", "tempature", 300, "unknown key"),
        ("config", "sigma_rang", [0.1, 0.2], "unknown key; nearest: sigma_range"),
        ("config", "output", "a.xyz", "it belongs to data"),
        ("config", "beta", 1.5, "1.5 is not possible"),
        ("config", "sigma_range", [0.2, 0.1], r"expected \[smallest, largest\]"),
        ("config", "sigma_range", 0.2, "expected two numbers"),
        ("config", "sigma_range", [0, 0.1], "0 Å is not possible"),
        ("config", "units", "Hartree", r"expected eV \| kcal/mol"),
        ("config", "T", -1, "not possible"),
        ("config", "n_per_structure", 0, "not possible"),
        ("config", "max_attempts", 0, "not possible"),
        ("config", "boltzmann", "per atom", r"per_atom \| total"),
        ("model", "calculator", "+lennard_jone()", r"nearest: \+lennard_jones"),
        ("model", "calculator", "+emt()", r"built in: .*your own: \+my_file.my_function"),
        ("model", "calculator", None, "expected "),
        ("model", "calculator", "+my_file.f(x)", "expected a call"),
        ("model", "calculator", {"factory": "a:b", "kwarg": {}}, "unknown key kwarg"),
        ("model", "calculator", {"path": "x"}, "expected "),
    ],
)
def test_mistakes_are_named_with_what_to_write(tmp_path, section, key, value, said):
    with pytest.raises(SettingsError, match=rf"config.yaml:\d+: {section}.{key}: .*{said}"):
        read(tmp_path, {section: {key: value}})


def test_all_mistakes_come_at_once(tmp_path):
    text = DOCUMENTED.replace("beta: 0.5", "beta: 7").replace("model:", "modle:") + "extra: {}\n"
    with pytest.raises(SettingsError) as told:
        read(tmp_path, text=text)
    lines = str(told.value).splitlines()
    assert len(lines) == 4
    for said in (
        "config.beta: 7",
        "modle: unknown section; nearest: model",
        "extra: ",
        "model: this section is",
    ):
        assert any(said in line for line in lines), said


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("'+lennard_jones()'", CallSpec("lennard_jones")),
        (
            "{+graph_pes_calculator: {path: a/model.pt}}",
            CallSpec("graph_pes_calculator", kwargs={"path": "a/model.pt"}),
        ),
        ("'+my_file.my_function()'", CallSpec("my_file:my_function")),
        ("{+my_file.f: {a: 1, b: [2, x]}}", CallSpec("my_file:f", kwargs={"a": 1, "b": [2, "x"]})),
        ("{+my_file.f: 3}", CallSpec("my_file:f", args=(3,))),
        ("{+pkg.sub.f: {}}", CallSpec("pkg.sub:f")),
        ("'+my_file.f(1, b=\"x\")'", CallSpec("my_file:f", args=(1,), kwargs={"b": "x"})),
        ("+my_file.calculator", CallSpec("my_file:calculator", called=False)),
        ("{+my_file.f: {inner: +g.h()}}", CallSpec("my_file:f", kwargs={"inner": CallSpec("g:h")})),
        ("{factory: 'a.b:C', kwargs: {x: 1}}", CallSpec("a.b:C", kwargs={"x": 1})),
        ("{factory: 'a.b:C'}", CallSpec("a.b:C")),
        ("medium", "medium"),
        ("models/mine.model", "models/mine.model"),
    ],
)
def test_every_spelling_of_a_calculator(tmp_path, written, meant):
    text = DOCUMENTED.replace("+lennard_jones()", written)
    assert read(tmp_path, text=text).model.calculator == meant
    assert as_calculator(yaml.safe_load(written)) == meant


def test_a_sigma_that_changes_nothing_is_warned_about(tmp_path):
    told = read(tmp_path, {"config": {"sigma_range": [0.01, 0.05]}}).warnings
    assert len(told) == 1
    assert "config.sigma_range: atoms move by 0.08 Å on average" in told[0]
    assert read(tmp_path, {"config": {"sigma_range": [0.01, 0.07]}}).warnings == ()


def test_a_value_in_other_units_is_warned_about(tmp_path):
    told = read(tmp_path, {"config": {"min_separation": 8, "T": 1e6}}).warnings
    assert len(told) == 2
    assert "config.T: " in "".join(told)
    assert (
        "config.min_separation: 8 Å is outside the usual 0 … 5; aims-PAX takes Å, did you mean 0.08"
        in "".join(told)
    )


def test_its_examples_are_true():
    from aims_pax.settings import augment

    result = doctest.testmod(augment)
    assert result.attempted > 0
    assert result.failed == 0
