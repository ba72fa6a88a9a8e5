import pytest

from aims_pax.settings import effective
from tests.settings.folders import GIVEN, MACE, PROJECT, errors, read, with_key

FINE = MACE + "FOUNDATION:\n  model: own.model\n"


def test_without_the_section_nothing_changes(tmp_path):
    settings = read(tmp_path)
    assert settings.mace.foundation is None
    assert settings.model.foundation is None
    assert "FOUNDATION" not in effective(settings)["mace"]
    assert settings.mace.training.lr == 0.01


def test_the_recipe_sets_what_the_user_does_not_write(tmp_path):
    settings = read(tmp_path, mace=FINE + "TRAINING:\n  lr: 0.004\n")
    training = settings.mace.training
    assert (training.lr, training.weight_decay, training.ema_decay, training.clip_grad) == (
        0.004,
        0,
        0.999,
        1,
    )
    stored = effective(settings)["mace"]
    assert stored["TRAINING"]["ema_decay"] == 0.999
    assert stored["FOUNDATION"]["recipe"] == "naive"
    assert not settings.warnings


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("medium-mpa-0", "medium-mpa-0"),
        ("./models/small", "./models/small"),
        ("package.module:make", {"factory": "package.module:make", "kwargs": {}}),
        (
            "{factory: 'package.module:make', kwargs: {size: 2}}",
            {"factory": "package.module:make", "kwargs": {"size": 2}},
        ),
    ],
)
def test_the_model_is_a_name_a_path_or_a_callable(written, expected, tmp_path):
    foundation = read(tmp_path, mace=MACE + f"FOUNDATION:\n  model: {written}\n").mace.foundation
    assert foundation.model == expected
    assert foundation.published == (written == "medium-mpa-0")
    assert foundation.factory == (tuple(expected.values()) if isinstance(expected, dict) else None)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("model: {kwargs: {}}", "expected a name, a path, or {factory: package.module:callable"),
        ("model: {factory: make}", "expected 'package.module:callable', got 'make'"),
        ("model: own.model\n  recipe: lora", "expected naive | frozen | replay"),
        ("model: own.model\n  differ_by: []", "their spread is 0"),
        ("model: own.model\n  differ_by: [seed]", "expected data | readout"),
        ("model: own.model\n  recipe: replay", "replay_data: mandatory, as the recipe is replay"),
        ("head: pbe", "model: mandatory"),
        ("model: own.model\n  heads: pbe", "unknown key; nearest key: head"),
    ],
)
def test_what_cannot_be_is_refused_with_key_and_expectation(line, text, tmp_path):
    found = errors(tmp_path, mace=MACE + f"FOUNDATION:\n  {line}\n")
    assert any("FOUNDATION" in one and text in one for one in found), found


def test_models_cannot_begin_from_two_things(tmp_path):
    project = GIVEN.replace(
        "num_trajectories: 2", "num_trajectories: 2\n  ensemble_size: 2\n  initial_models: [a, b]"
    )
    (found,) = errors(tmp_path, project, FINE)
    assert "initial_models of ACTIVE_LEARNING also name what the members begin from" in found


def test_keys_of_the_section_without_effect_are_named(tmp_path):
    said = read(tmp_path, mace=FINE + "  replay_data: a.xyz\nARCHITECTURE:\n  scaling: no_scaling\n").warnings
    assert any("replay_data has no effect: only recipe: replay" in line.replace(":", "", 1) or
               "only recipe: replay uses it" in line for line in said), said  # fmt: skip
    assert any("those of the foundation model" in line for line in said), said


def test_both_ways_are_one_list_and_one_way_needs_no_list(tmp_path):
    assert read(tmp_path, mace=FINE).mace.foundation.differ_by == ("data", "readout")
    assert read(tmp_path, mace=FINE + "  differ_by: Data\n").mace.foundation.differ_by == ("data",)


FREE = "PRETRAINING:\n  potential: {factory: a.b:C}\n"


def test_members_begin_from_a_model_or_from_free_labels(tmp_path):
    (found,) = errors(tmp_path, PROJECT + FREE, FINE)
    assert (
        "PRETRAINING: the members begin from FOUNDATION of mace.yaml; remove one of the two sections" in found
    )


def test_given_models_are_not_replaced_by_members_of_free_labels(tmp_path):
    project = GIVEN.replace("num_trajectories: 2", "num_trajectories: 2\n  initial_models: [a, b, c, d]")
    (found,) = errors(tmp_path, project + FREE)
    assert "PRETRAINING: would train members from random weights in place of initial_models" in found


def test_a_temperature_of_pretraining_is_not_dropped_next_to_its_samplers(tmp_path):
    samplers = "  samplers: [{kind: md}]\n"
    (found,) = errors(tmp_path, PROJECT + FREE + samplers + "  temperature: 500\n")
    assert "PRETRAINING.temperature: samplers set their own temperatures: write it there, or remove" in found
    assert read(tmp_path, PROJECT + FREE + samplers).pretraining.samplers


def test_trajectories_of_pretraining_next_to_its_samplers_are_said_to_have_no_effect(tmp_path):
    project = PROJECT + FREE + "  num_trajectories: 8\n"
    assert not read(tmp_path, project).warnings
    (warning,) = read(tmp_path, project + "  samplers: [{kind: md}]\n").warnings
    assert "PRETRAINING.num_trajectories: has no effect: samplers have their own" in warning


def test_a_difference_is_not_learnt_from_a_model_of_whole_energies(tmp_path):
    (found,) = errors(tmp_path, PROJECT + "  baseline: {factory: a.b:D}\n", FINE)
    assert (
        "REFERENCE.baseline: members that learn a difference cannot begin from a model of whole energies"
        in found
    )


def test_free_labels_of_the_baseline_itself_would_be_zero(tmp_path):
    baseline = "  baseline: {factory: a.b:C, kwargs: {}}\n"
    (found,) = errors(tmp_path, PROJECT + baseline + FREE, MACE)
    assert "PRETRAINING.potential: is also REFERENCE.baseline: their difference is zero" in found
    other = FREE.replace("a.b:C", "a.b:E")
    assert read(tmp_path, PROJECT + baseline + other, MACE).pretraining is not None


def test_of_the_architecture_only_written_keys_are_settings_of_the_run(tmp_path):
    assert effective(read(tmp_path, GIVEN, FINE))["mace"]["ARCHITECTURE"] == {}
    written = effective(read(tmp_path, GIVEN, FINE + "ARCHITECTURE:\n  r_max: 4.0\n"))
    assert written["mace"]["ARCHITECTURE"] == {"r_max": 4.0}


def test_a_ramp_of_active_learning_is_no_temperature_of_pretraining(tmp_path):
    ramp = with_key(PROJECT, "MD", "temperature: [300, 600]")
    (found,) = errors(tmp_path, ramp + FREE)
    assert "PRETRAINING.temperature: mandatory, as MD.temperature is the ramp [300.0, 600.0]" in found
    (found,) = errors(tmp_path, ramp + FREE + "  samplers: [{kind: phonons}]\n")
    assert "PRETRAINING.samplers.0.temperature: mandatory, as MD.temperature is the ramp" in found
    for own in ("  temperature: [300, 600]\n", "  samplers: [{kind: md, temperature: 400}]\n"):
        assert read(tmp_path, ramp + FREE + own).pretraining is not None
