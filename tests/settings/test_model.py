"""MODEL: which family the models belong to, and what models of every family are asked for."""

import pytest
import yaml

from aims_pax.settings import dump, effective, read_settings
from tests.settings.folders import MACE, PROJECT, errors, read, with_key, write

OWN = with_key(PROJECT, "MODEL", "kind: mine:KIND", "kwargs: {noise: 0.1}")


def test_without_the_section_models_are_mace_s(tmp_path):
    model = read(tmp_path).model
    assert (model.kind, dict(model.kwargs), model.is_mace) == ("mace", {}, True)
    assert (model.name, model.seed, model.dtype, model.device) == ("tiny", 42, "float32", "cpu")
    assert (model.compute_stress, model.log_level, model.memory_limit) == (False, "INFO", None)


def test_the_name_alone_is_short_for_the_table(tmp_path):
    short, whole = PROJECT + "MODEL: gp\n", with_key(PROJECT, "MODEL", "kind: gp")
    assert read(tmp_path / "a", short).model == read(tmp_path / "b", whole).model
    assert read(tmp_path / "a", short).model.kind == "gp"


def test_it_is_printed_and_reads_back(tmp_path):
    settings = read(tmp_path / "a", OWN)
    assert effective(settings)["aimsPAX"]["MODEL"] == {"kind": "mine:KIND", "kwargs": {"noise": 0.1}}
    again = {name: yaml.safe_dump(part) for name, part in yaml.safe_load(dump(settings)).items()}
    write(tmp_path / "b", again["aimsPAX"], again["mace"])
    assert read_settings(tmp_path / "b").model == settings.model


def test_mistakes_in_it_are_named_with_their_line(tmp_path):
    (said,) = errors(tmp_path, with_key(PROJECT, "MODEL", "kin: gp"))
    assert said == "aimsPAX.yaml:12: MODEL.kin: unknown key; nearest key: kind"
    (said,) = errors(tmp_path, PROJECT + "MODEL: [gp]\n")
    assert "MODEL: expected a table, got ['gp']" in said
    (said,) = errors(tmp_path, PROJECT + "MODELS: gp\n")
    assert "unknown section; nearest: MODEL" in said


def test_one_member_is_enough_for_kinds_that_tell_their_uncertainty_but_not_for_mace(tmp_path):
    one = OWN
    for section in ("INITIAL_DATASET_GENERATION", "ACTIVE_LEARNING"):
        one = with_key(one, section, "ensemble_size: 1")
    settings = read(tmp_path / "own", one)
    assert settings.ensemble_size == 1
    assert not [w for w in settings.warnings if "ensemble_size" in w]
    said = errors(tmp_path / "mace", one.replace("mine:KIND", "mace").replace("  kwargs: {noise: 0.1}\n", ""))
    assert any(
        "ACTIVE_LEARNING.ensemble_size: 1 is not possible; expected at least 2" in line for line in said
    )


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("ARCHITECTURE", "r_max", "4.0"), ("TRAINING", "lr", "0.005"), ("MISC", "inference", "torch")],
)
def test_keys_of_mace_alone_have_no_effect_on_others(tmp_path, section, key, value):
    mace = with_key(MACE, section, f"{key}: {value}")
    found = [w for w in read(tmp_path / "own", OWN, mace).warnings if key in w]
    assert len(found) == 1
    assert found[0].startswith("mace.yaml:")
    assert found[0].endswith(f"{section}.{key}: has no effect: MODEL.kind is not mace")
    assert not [w for w in read(tmp_path / "mace", PROJECT, mace).warnings if "MODEL.kind" in w]


def test_what_mace_cannot_do_is_no_matter_to_others(tmp_path):
    mace = (
        MACE + "ARCHITECTURE: {max_L: 3, max_ell: 2, atomic_energies: reference}\nMISC: {inference: native}\n"
    )
    assert errors(tmp_path / "mace", PROJECT, mace)
    settings = read(tmp_path / "own", OWN, mace)
    assert settings.model.atomic_energies is None


def test_device_and_energies_of_atoms_are_changed_in_a_copy(tmp_path):
    settings = read(tmp_path)
    assert settings.on_device("cuda").model.device == "cuda"
    assert settings.with_atomic_energies({"H": -13.6}).model.atomic_energies == {"H": -13.6}
    assert (settings.model.device, settings.model.atomic_energies) == ("cpu", None)
