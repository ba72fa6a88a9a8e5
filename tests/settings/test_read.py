"""Both files are read at once and everything wrong in them is said at once, with file, line and key."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aims_pax.errors import SettingsError
from aims_pax.settings import effective, read_settings, unsupported
from aims_pax.settings.settings import MACE as MACE_SECTIONS
from aims_pax.settings.settings import PROJECT as PROJECT_SECTIONS
from aims_pax.settings.settings import as_yaml
from tests.settings.folders import AIMS, GIVEN, MACE, PROJECT, errors, read, with_key, write


def test_a_minimal_pair_of_files_is_enough(tmp_path):
    settings = read(tmp_path)
    assert settings.active_learning.max_MD_steps == 100
    assert settings.cluster.type == "local"
    assert settings.mace.general.name_exp == "tiny"
    assert settings.warnings == ()
    assert settings.folder == tmp_path


def test_all_errors_of_both_files_come_at_once(tmp_path):
    project = with_key(PROJECT, "MD", "timestep: 0", "tempreture: 300").replace(
        "num_trajectories: 2", "num_trajectories: 0.5"
    )
    mace = with_key(MACE, "TRAINING", "lr: fast", "optimizer: sgd")
    said = errors(tmp_path, project, mace)
    assert said == [
        "aimsPAX.yaml:5: ACTIVE_LEARNING.num_trajectories: expected a whole number, got 0.5",
        "aimsPAX.yaml:8: MD.timestep: 0 fs is not possible; expected more than 0 and at most 100 fs",
        "aimsPAX.yaml:9: MD.tempreture: unknown key; nearest key: temperature",
        "mace.yaml:4: TRAINING.lr: expected a number, got text 'fast'",
        "mace.yaml:5: TRAINING.optimizer: expected adam | adamw, got text 'sgd'",
    ]  # fmt: skip


def test_syntax_errors_of_one_file_do_not_hide_the_other(tmp_path):
    said = errors(tmp_path, "MD: [", with_key(MACE, "TRAINING", "lr: -1"))
    assert said[0].startswith("aimsPAX.yaml:1: [ or { is opened")
    assert said[1] == "    MD: ["
    assert said[2].startswith("mace.yaml:4: TRAINING.lr: -1 is not possible")


def test_a_file_with_a_name_nearby_is_named(tmp_path):
    (tmp_path / "aimsPAX.yml").write_text("A: 1")
    with pytest.raises(SettingsError, match=r"aimsPAX.yaml: no such file; nearest: .*aimsPAX.yml"):
        read_settings(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(SettingsError) as caught:
        read_settings(tmp_path)
    assert [line.split(" (")[0] for line in str(caught.value).splitlines()] == [
        "aimsPAX.yaml: no such file",
        "mace.yaml: no such file",
        "    there is no run in this folder; aims-PAX init writes files to start from",
    ]


def test_files_may_have_other_names_and_places(tmp_path):
    write(tmp_path / "here")
    (tmp_path / "here" / "mace.yaml").rename(tmp_path / "model.yaml")
    settings = read_settings(tmp_path / "here", mace_file=str(tmp_path / "model.yaml"))
    assert settings.mace.general.name_exp == "tiny"
    assert settings.path("a/b") == tmp_path / "here" / "a" / "b"


@pytest.mark.parametrize(
    ("section", "key", "said"),
    [
        ("MD", "temperatur: 3", "MD.temperatur: unknown key; nearest key: temperature"),
        ("MD", "max_MD_steps: 3", "MD.max_MD_steps: unknown key here; it belongs to ACTIVE_LEARNING"),
        ("MD", "r_max: 3", "MD.r_max: unknown key here; it belongs to ARCHITECTURE of mace.yaml"),
        ("MD", "num_trajectorys: 3", "unknown key; nearest key: num_trajectories in ACTIVE_LEARNING"),
        ("MISC", "qqqq: 3", "MISC.qqqq: unknown key; known: create_restart, dataset_dir"),
        ("MISC", "1: 3", "MISC.1: unknown key"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(tmp_path, section, key, said):
    found = errors(tmp_path, with_key(PROJECT, section, key))
    assert len(found) == 1
    assert said in found[0]


def test_a_key_within_a_table_of_a_section_is_named_whole(tmp_path):
    found = errors(
        tmp_path, with_key(PROJECT, "INITIAL_DATASET_GENERATION", "initial_calculator: {factry: a:b}")
    )
    assert "aimsPAX.yaml:2: INITIAL_DATASET_GENERATION.initial_calculator.factory: mandatory." in found[0]
    assert found[1].endswith("initial_calculator.factry: unknown key; nearest key: factory")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("GENERAL:\n  name_exp: a\n", "GENERAL: unknown section here; it belongs to mace.yaml"),
        ("ACTIV_LEARNING:\n  a: 1\n", "ACTIV_LEARNING: unknown section; nearest: ACTIVE_LEARNING"),
        ("timestep: 1\n", "timestep: is not a section; it belongs under MD"),
        ("MISC: 3\n", "MISC: expected a table, got 3"),
        ("XYZ: 3\n", "XYZ: unknown section; expected INITIAL_DATASET_GENERATION,"),
    ],
)
def test_sections_are_checked_like_keys(tmp_path, extra, said):
    assert said in errors(tmp_path, PROJECT + extra)[0]


def test_mandatory_keys_and_sections_are_asked_for(tmp_path):
    said = errors(tmp_path, "MISC:\n", "TRAINING:\n")
    assert any("MD: this section is mandatory. It needs: stat_ensemble" in line for line in said)
    assert any("GENERAL: this section is mandatory. It needs: name_exp" in line for line in said)
    said = errors(tmp_path, PROJECT.replace("  num_trajectories: 2\n", ""))
    assert said[0].startswith(
        "aimsPAX.yaml:4: ACTIVE_LEARNING.num_trajectories: mandatory, as there is active learning. Number of"
    )


NO_LABELS = (
    GIVEN[: GIVEN.index("REFERENCE")].replace(
        "  num_trajectories: 2\n  max_MD_steps: 100\n", "  max_labels: 0\n  initial_train_dataset: t.xyz\n"
    )
    + "REFERENCE: {type: given}\n"
)


def test_without_labels_trajectories_cluster_and_reference_are_not_needed(tmp_path):
    settings = read(tmp_path, NO_LABELS)
    assert (settings.reference.type, settings.active_learning.num_trajectories) == ("given", 1)
    assert settings.cluster.type == "local"
    assert (
        "CLUSTER: mandatory for FHI-aims; as nothing is labelled (max_labels: 0), write REFERENCE"
        in "".join(errors(tmp_path, NO_LABELS.replace("REFERENCE: {type: given}\n", "")))
    )


def test_keys_of_labels_and_of_active_learning_are_said_to_have_no_effect(tmp_path):
    project = NO_LABELS.replace("max_labels: 0", "max_labels: 0\n  c_x: 0.2").replace(
        "given}", "given, factory: a:b}"
    )
    said = "\n".join(read(tmp_path, project).warnings)
    assert "ACTIVE_LEARNING.c_x: has no effect: there is no active learning" in said
    assert "REFERENCE.factory: has no effect: REFERENCE.type is given" in said


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("max_labels: 0", "max_labels: 5\n  num_trajectories: 2", "type is given, so nothing can be labelled"),
        ("type: given}", "type: given}\nMISC: {check_given_data: 2}", "labelled: set 0, or remove it"),
        ("max_labels: 0", "max_labels: 0\n  n_test: 3", "use MISC.test_set"),
        ("initial_train_dataset: t.xyz", "initial_models: [a.model]", "the models have nothing to learn"),
    ],
)  # fmt: skip
def test_what_needs_labels_is_refused_where_there_are_none(tmp_path, before, after, said):
    found = errors(tmp_path, NO_LABELS.replace(before, after))
    assert any(said in line for line in found)


@pytest.mark.parametrize("empty", ["MISC:\n", "MISC: {}\n", "MISC: ~\n"])
def test_an_empty_section_is_all_defaults(tmp_path, empty):
    assert read(tmp_path, PROJECT + empty) == read(tmp_path)


def test_an_absent_stage_is_none(tmp_path):
    start = PROJECT.index("ACTIVE_LEARNING")
    assert read(tmp_path, PROJECT[:start] + PROJECT[PROJECT.index("MD:") :]).active_learning is None
    settings = read(tmp_path, PROJECT[start:])
    assert settings.initial_dataset is None
    assert settings.ensemble_size == 4
    assert "finished initial dataset" in settings.warnings[0]


@pytest.mark.parametrize(
    ("section", "written", "key", "value"),
    [
        ("MD", "seed: 7", "MD_seed", 7),
        ("MD", "externalstress: 1.0e-3", "external_stress", 1e-3),
    ],
)
def test_other_spellings_become_ours(tmp_path, section, written, key, value):
    assert getattr(read(tmp_path, with_key(PROJECT, section, written)).md, key) == value


def test_a_wrong_value_under_another_spelling_has_its_line(tmp_path):
    assert errors(tmp_path, with_key(PROJECT, "MD", "seed: -1"))[0].startswith(
        "aimsPAX.yaml:8: MD.MD_seed: -1"
    )


def test_both_spellings_at_once_are_refused(tmp_path):
    assert (
        "is another spelling of MD_seed"
        in errors(tmp_path, with_key(PROJECT, "MD", "seed: 1", "MD_seed: 2"))[0]
    )


@pytest.mark.parametrize("words", [("nvt", "langevin"), ("Nvt", "LANGEVIN"), ("NVT", "Langevin")])
def test_ensembles_may_be_written_in_any_case(tmp_path, words):
    ensemble, thermostat = words
    settings = read(tmp_path, PROJECT.replace("NVT", ensemble) + "MISC: {}\n")
    assert settings.md.stat_ensemble == "NVT"
    assert read(tmp_path, with_key(PROJECT, "MD", f"thermostat: {thermostat}")).md.thermostat == "Langevin"


def test_dead_keys_of_old_files_are_warned_about(tmp_path):
    project = with_key(
        PROJECT, "ACTIVE_LEARNING", "aims_lib_path: null", "parallel: True", "intermol_forces_weight: 100"
    )
    mace = with_key(MACE, "MISC", "keep_checkpoints: False", "restart_latest: False")
    settings = read(tmp_path, with_key(project, "MISC", "mol_idxs: null"), mace)
    assert [w.split(": ", 1)[1] for w in settings.warnings] == [
        "ACTIVE_LEARNING.aims_lib_path: has no effect; remove it",
        "ACTIVE_LEARNING.parallel: has no effect; remove it",
        "ACTIVE_LEARNING.intermol_forces_weight: has no effect; remove it",
        "MISC.mol_idxs: has no effect; remove it",
        "MISC.keep_checkpoints: has no effect; remove it",
        "MISC.restart_latest: has no effect; remove it",
    ]


def test_implausible_values_are_warned_about_with_their_line(tmp_path):
    settings = read(tmp_path, with_key(PROJECT, "MD", "timestep: 0.0005"))
    assert settings.warnings == (
        "aimsPAX.yaml:8: MD.timestep: 0.0005 fs is 2000 times smaller than usual; aims-PAX takes fs, "
        "did you mean 0.5 (0.0005 ps)?",
    )


def test_a_factory_alone_means_a_calculator(tmp_path):
    assert read(tmp_path).reference.type == "calculator"
    assert read(tmp_path, AIMS).reference.type == "aims"


def test_md_may_be_one_table_for_each_system(tmp_path):
    maps = "MD:\n  a: {stat_ensemble: NVT, timestep: 1.0}\n  b: {stat_ensemble: nvt, seed: 42}\n"
    settings = read(tmp_path, PROJECT.replace("MD:\n  stat_ensemble: NVT\n", maps))
    assert settings.md_of("a").timestep == 1.0
    assert settings.md_of("b").timestep == 0.5
    assert settings.md == settings.md_of("a")
    with pytest.raises(KeyError):
        settings.md_of("c")


def test_one_table_serves_every_system(tmp_path):
    settings = read(tmp_path)
    assert settings.md_of("anything") is settings.md


def test_errors_in_a_map_name_the_system(tmp_path):
    maps = "MD:\n  a: {stat_ensemble: NVT}\n  b:\n    stat_ensemble: NVT\n    timestep: 0\n"
    said = errors(tmp_path, PROJECT.replace("MD:\n  stat_ensemble: NVT\n", maps))
    assert said[0].startswith("aimsPAX.yaml:11: MD.b.timestep: 0 fs")


def test_stress_promotes_the_weighted_loss_and_says_so(tmp_path):
    mace = with_key(MACE, "GENERAL", "compute_stress: True")
    settings = read(tmp_path, mace=mace)
    assert settings.mace.training.loss == "stress"
    assert settings.warnings == (), "the default was not written by anybody"
    settings = read(tmp_path, mace=with_key(mace, "TRAINING", "loss: weighted"))
    assert settings.mace.training.loss == "stress"
    assert "weighted has no stress term; the loss stress is used" in settings.warnings[0]


@pytest.mark.parametrize(
    ("project", "said"),
    [
        (with_key(PROJECT, "CLUSTER", "executor: mpi"), "CLUSTER.executor: mpi"),
    ],
)
def test_what_this_release_cannot_run_is_refused_for_a_run_only(tmp_path, project, said):
    mace = with_key(MACE, "GENERAL", "compute_stress: True")
    assert any(said in text for text in unsupported(read(tmp_path, project, mace)))
    assert said in errors(tmp_path, project, mace, for_run=True)[0]


def test_every_ensemble_can_run(tmp_path):
    mace = with_key(MACE, "GENERAL", "compute_stress: True")
    for words in ("NPT\n  barostat: MTK", "NPT\n  barostat: npt", "NPT", "NVT\n  thermostat: SVR"):
        project = PROJECT.replace("stat_ensemble: NVT", f"stat_ensemble: {words}")
        assert unsupported(read(tmp_path, project, mace)) == []


def test_reading_for_a_run_accepts_what_runs(tmp_path):
    assert read_settings(write(tmp_path), for_run=True) == read(tmp_path)


def test_importing_the_settings_is_light():
    code = "import sys, aims_pax.settings; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "mace", "ase", "parsl", "scipy", "matplotlib"} & set(told.split())


NAMES = "MD MISC CLUSTER REFERENCE GENERAL ACTIVE_LEARNING timestep seed type factory a"
WORDS = (
    "1 0 -1 1e-3 1e300 1e999 300 4 inf -inf .nan yes None NVT npt slurm local aimd 'x' '' ~ 2025-01-01 [] {}"
)
KEYS = st.sampled_from(NAMES.split())
VALUES = st.recursive(
    st.sampled_from(WORDS.split()),
    lambda inner: (
        st.dictionaries(KEYS, inner, max_size=3).map(
            lambda d: "{" + ", ".join(f"{k}: {v}" for k, v in d.items()) + "}"
        )
        | st.lists(inner, max_size=3).map(lambda v: "[" + ", ".join(v) + "]")
    ),
    max_leaves=6,
)
EVERY_KEY = [
    (file, name, key)
    for file, sections in (("aimsPAX", PROJECT_SECTIONS), ("mace", MACE_SECTIONS))
    for name, model in sections.items()
    for key in model.model_fields
]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES, min_size=1), st.dictionaries(KEYS, VALUES, min_size=1))
def test_whatever_is_in_the_files_only_a_settings_error_comes(tmp_path_factory, project, mace):
    folder = tmp_path_factory.getbasetemp()
    write(folder, *("".join(f"{k}: {v}\n" for k, v in d.items()) for d in (project, mace)))
    with pytest.raises(SettingsError):
        read_settings(folder)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EVERY_KEY), VALUES), min_size=1, max_size=4))
def test_any_value_of_any_key_is_refused_with_its_line_or_survives_printing(tmp_path_factory, changes):
    folder = tmp_path_factory.getbasetemp()
    texts = {"aimsPAX": PROJECT, "mace": MACE}
    for (file, section, key), value in changes:
        texts[file] = with_key(texts[file], section, f"{key}: {value}")
    try:
        first = read(folder, texts["aimsPAX"], texts["mace"])
    except SettingsError as refused:
        said = str(refused).splitlines()
    else:
        said = []
        printed = effective(first)
        assert read(folder, as_yaml(printed["aimsPAX"]), as_yaml(printed["mace"])) == first
    assert all(line.startswith(("aimsPAX.yaml:", "mace.yaml:")) for line in said)
