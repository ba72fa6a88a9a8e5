"""What must hold between keys."""

import re

import pytest

from tests.settings.folders import AIMS, GIVEN, MACE, PROJECT, errors, read, with_key

INITIAL, ACTIVE = "INITIAL_DATASET_GENERATION", "ACTIVE_LEARNING"
STRESS = with_key(MACE, "GENERAL", "compute_stress: True")
SLURM = """\
CLUSTER:
  type: slurm
  calc_dir: ./calc
  project_name: p
  parsl_options: {nodes_per_block: 1, init_blocks: 1, min_blocks: 1, max_blocks: 2, label: x}
  slurm_str: |
    #SBATCH --time=1
    #SBATCH --nodes=1
  worker_str: module load x
"""


def test_the_initial_dataset_needs_something_that_stops_it(tmp_path):
    said = errors(tmp_path, PROJECT.replace("  max_initial_epochs: 5\n", ""))
    assert said == [
        "aimsPAX.yaml:1: INITIAL_DATASET_GENERATION: nothing stops this stage; expected at least one of "
        "desired_acc, max_initial_epochs, max_initial_set_size"
    ]


@pytest.mark.parametrize("stop", ["desired_acc: 0.02", "max_initial_epochs: 5", "max_initial_set_size: 20"])
def test_any_of_the_three_stops_it(tmp_path, stop):
    assert read(tmp_path, PROJECT.replace("max_initial_epochs: 5", stop)).initial_dataset is not None


@pytest.mark.parametrize("where", [INITIAL, ACTIVE])
def test_different_ensemble_sizes_are_an_error(tmp_path, where):
    said = errors(tmp_path, with_key(PROJECT, where, "ensemble_size: 3"))
    assert len(said) == 1
    assert f"{where}.ensemble_size: " in said[0]
    assert said[0].endswith("expected the same")


def test_the_same_ensemble_size_twice_is_fine(tmp_path):
    project = with_key(with_key(PROJECT, INITIAL, "ensemble_size: 3"), ACTIVE, "ensemble_size: 3")
    assert read(tmp_path, project).ensemble_size == 3


def test_different_species_dirs_are_an_error(tmp_path):
    project = AIMS + "ACTIVE_LEARNING:\n  num_trajectories: 1\n  max_MD_steps: 50\n  species_dir: other\n"
    assert (
        "species in INITIAL_DATASET_GENERATION but other in ACTIVE_LEARNING" in errors(tmp_path, project)[0]
    )


def test_one_model_has_no_uncertainty(tmp_path):
    assert "expected at least 2" in errors(tmp_path, with_key(PROJECT, ACTIVE, "ensemble_size: 1"))[0]


def test_a_bias_needs_two_members(tmp_path):
    project = PROJECT + "MODEL: {kind: tests.models.linear_model:KIND}\n"
    project = with_key(with_key(project, INITIAL, "ensemble_size: 1"), ACTIVE, "ensemble_size: 1")
    assert read(tmp_path, project).active_learning.bias is None
    (said,) = errors(tmp_path, with_key(project, ACTIVE, "bias: {kind: hal}"))
    assert (
        "ACTIVE_LEARNING.bias: needs at least two members, not 1: it follows the spread of their energies"
        in said
    )
    assert "A model's own uncertainty is one of forces" in said


@pytest.mark.parametrize(
    ("bias", "said"),
    [
        ("{kind: hall}", "bias.kind: expected hal | udd, got text 'hall'; nearest: hal"),
        (
            "{kind: hal, strength: 0}",
            "bias.strength: 0 is not possible; expected more than 0 and at most 100",
        ),
        ("{kind: udd, trajectories: some}", "bias.trajectories: expected all | every other, got text 'some'"),
        ("{kind: udd, max_forces: 1}", "bias.max_forces: unknown key; nearest key: max_force"),
        ("hal", "bias: "),
    ],
)
def test_mistakes_in_the_bias_are_named(tmp_path, bias, said):
    assert f"ACTIVE_LEARNING.{said}" in errors(tmp_path, with_key(PROJECT, ACTIVE, f"bias: {bias}"))[0]


@pytest.mark.parametrize("key", ["species_dir", "launch_str", "calc_dir"])
def test_fhi_aims_needs_its_keys(tmp_path, key):
    text = "".join(line + "\n" for line in AIMS.splitlines() if f" {key}:" not in line)
    said = errors(tmp_path, text)
    assert len(said) == 1
    assert f".{key}: mandatory, as the reference is FHI-aims" in said[0]


def test_fhi_aims_needs_a_cluster_section(tmp_path):
    start, end = AIMS.index("CLUSTER"), AIMS.index("MD:")
    assert (
        "CLUSTER: this section is mandatory when the reference is FHI-aims"
        in errors(tmp_path, AIMS[:start] + AIMS[end:])[0]
    )


def test_a_calculator_needs_no_fhi_aims_keys(tmp_path):
    settings = read(tmp_path)
    assert settings.initial_dataset.species_dir is None
    assert (settings.cluster.type, settings.cluster.calc_dir) == ("local", "./calc")


def test_a_calculator_needs_its_factory(tmp_path):
    said = errors(tmp_path, PROJECT.replace("factory: ase.calculators.emt:EMT", "type: calculator"))
    assert "REFERENCE.factory: mandatory, as the type is calculator" in said[0]


def test_slurm_needs_its_keys_and_a_calculator_with_them_is_slurm(tmp_path):
    assert read(tmp_path, PROJECT + SLURM).cluster.parsl_options.max_blocks == 2
    unsaid = SLURM.replace("  type: slurm\n", "")
    assert read(tmp_path, PROJECT + unsaid).cluster.type == "slurm"
    said = errors(tmp_path, PROJECT + "CLUSTER:\n  type: slurm\n")
    keys = [line.split(": ")[1] for line in said]
    assert keys == [
        f"CLUSTER.{k}" for k in ("calc_dir", "parsl_options", "project_name", "slurm_str", "worker_str")
    ]


@pytest.mark.parametrize(
    ("written", "joined"),
    [
        (">\n    module load a\n    export B=1", True),
        (">-\n    module load a\n\n    ", False),
        ("module load a\n    export B=1", True),
        ('"module load a\n    export B=1"', True),
        ("|\n    module load a\n    export B=1", False),
        ("|\n    module load a", False),
        (">\n    module load a;\n    export B=1", False),
        ("module load a", False),
    ],
)
def test_commands_that_yaml_joins_to_one_are_warned_of(tmp_path, written, joined):
    cluster = SLURM.replace("worker_str: module load x", f"worker_str: {written}")
    found = [w for w in read(tmp_path, PROJECT + cluster).warnings if "worker_str" in w]
    assert len(found) == joined
    assert all("its lines are joined to one command; begin the text with |" in w for w in found)


def test_the_header_of_another_scheduler_is_one_clear_error(tmp_path):
    text = PROJECT + SLURM.replace("  slurm_str: |\n", "  sge_str: |\n").replace(
        "#SBATCH --time=1:00:00", "#$ -q a"
    )
    said = errors(tmp_path, text.replace("    #SBATCH", "    #"))
    (line,) = [s for s in said if "slurm_str" in s]
    assert "mandatory, as the type is slurm. sge_str is set: to use it, set type: sge" in line


def test_a_header_that_yaml_takes_for_comments_is_said(tmp_path):
    said = errors(tmp_path, (PROJECT + SLURM).replace("slurm_str: |", "slurm_str:"))
    (line,) = [s for s in said if "slurm_str" in s]
    assert "mandatory, as the type is slurm. It is empty: without | behind the colon, lines that" in line


def test_a_scheduler_that_gives_slots_is_asked_for_them_in_its_header_alone(tmp_path):
    text = (PROJECT + SLURM).replace("type: slurm", "type: sge").replace("slurm_str: |", "sge_str: |")
    text = re.sub(r"#SBATCH.*", "#$ -l h_rt=3600", text)
    text = re.sub(r"nodes_per_block: \d+", "nodes_per_block: 2", text)
    (said,) = errors(tmp_path, text)
    assert "sge_str: Grid Engine takes the number of nodes only from these lines" in said
    assert (
        read(tmp_path, text.replace("nodes_per_block: 2", "nodes_per_block: 1")).cluster.scheduler.name
        == "sge"
    )


def test_a_calculation_must_fit_into_a_block(tmp_path):
    limited = with_key(PROJECT + SLURM, "CLUSTER", 'job_time_limit: "00:50:00"')
    for time in ("60", "60:00", "1:00:00", "0-1", "0-01:00", "0-01:00:00"):
        text = limited.replace("--time=1", f"--time={time}")
        assert read(tmp_path, text).cluster.job_time_limit == 3000
        longer = text.replace("00:50:00", "00:59:00")
        assert "3540 s do not fit into a block of 3600 s" in errors(tmp_path, longer)[0]
    wrong = limited.replace("--time=1", "--time=tomorrow")
    assert "slurm_str: cannot be read: 'tomorrow' is not a time of Slurm" in errors(tmp_path, wrong)[0]


def test_blocks_must_be_in_order(tmp_path):
    wrong = SLURM.replace("init_blocks: 1", "init_blocks: 3")
    assert (
        "init_blocks: 3 is not between min_blocks 1 and max_blocks 2" in errors(tmp_path, PROJECT + wrong)[0]
    )
    wrong = SLURM.replace("min_blocks: 1", "min_blocks: 5")
    assert "min_blocks: 5 is more than max_blocks 2" in errors(tmp_path, PROJECT + wrong)[0]


def test_a_sampling_calculator_must_be_given(tmp_path):
    said = errors(tmp_path, with_key(PROJECT, INITIAL, "initial_sampling: calculator"))
    assert "initial_calculator: mandatory, as initial_sampling is calculator" in said[0]
    project = with_key(
        PROJECT,
        INITIAL,
        "initial_sampling: calculator",
        "initial_calculator: {factory: ase.calculators.emt:EMT}",
    )
    assert read(tmp_path, project).initial_dataset.initial_calculator.kwargs == {}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("seeds_tags_dict: {a: 1, b: 2}", "2 seeds for ensemble_size 4; expected 4"),
        ("seeds_tags_dict: {a: 1, b: 2, c: 1, d: 3}", "seed 1 is given to two members"),
        ("seeds_tags_dict: {a: 1, b: 2, c: -1, d: 3}", "-1 is not possible"),
        ("initial_models: [a.model]", "1 models for ensemble_size 4"),
        ("initial_models: [a.model, b.model, c.model, a.model]", "one model is named twice"),
        ("initial_train_dataset: {a: 1.xyz}", "1 files for ensemble_size 4"),
    ],
)
def test_members_are_counted(tmp_path, key, said):
    assert said in errors(tmp_path, with_key(PROJECT, ACTIVE, key))[0]


@pytest.mark.parametrize("key", ["initial_train_dataset", "initial_valid_dataset"])
def test_given_data_and_an_initial_dataset_exclude_each_other(tmp_path, key):
    said = errors(tmp_path, with_key(PROJECT, ACTIVE, f"{key}: a.xyz"))
    assert said == [
        f"aimsPAX.yaml:5: ACTIVE_LEARNING.{key}: names given data, which replace "
        f"INITIAL_DATASET_GENERATION: delete the section INITIAL_DATASET_GENERATION, or remove {key}"
    ]
    assert getattr(read(tmp_path, with_key(GIVEN, ACTIVE, f"{key}: a.xyz")).active_learning, key) == "a.xyz"


def test_beside_given_data_the_samplers_are_named_too(tmp_path):
    both = with_key(PROJECT, ACTIVE, "initial_train_dataset: a.xyz", "initial_valid_dataset: b.xyz")
    (said,) = errors(tmp_path, both + "SAMPLERS:\n  - {kind: rattle_tree}\n")
    assert said.endswith(
        "delete the sections INITIAL_DATASET_GENERATION and SAMPLERS, or remove initial_train_dataset and "
        "initial_valid_dataset"
    )


def test_npt_needs_stress(tmp_path):
    npt = PROJECT.replace("NVT", "NPT")
    assert "MD.stat_ensemble: NPT needs stress" in errors(tmp_path, npt)[0]
    assert read(tmp_path, npt, STRESS).md.stat_ensemble == "NPT"


def test_a_radial_basis_without_derivative_is_refused(tmp_path):
    mace = with_key(MACE, "ARCHITECTURE", "radial_type: chebyshev")
    (said,) = [line for line in errors(tmp_path, PROJECT, mace) if "radial_type" in line]
    assert "chebyshev has no derivative in MACE" in said


def test_members_cannot_differ_by_weights_that_the_loss_ignores(tmp_path):
    mace = with_key(MACE, "TRAINING", "loss: universal") + "FOUNDATION:\n  model: small\n  differ_by: data\n"
    (said,) = [line for line in errors(tmp_path, PROJECT, mace) if "differ_by" in line]
    assert "members would stay alike; add readout" in said


def test_a_ramp_needs_an_end(tmp_path):
    ramp = with_key(PROJECT, "MD", "temperature: [300, 600]")
    assert read(tmp_path, ramp).md.temperature == (300.0, 600.0)
    endless = ramp.replace("max_MD_steps: 100", "max_MD_steps: inf")
    assert "set ACTIVE_LEARNING.max_MD_steps" in errors(tmp_path, endless)[0]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("loss: stress",), "stress needs models with stress"),
        (("loss: virials",), "virials needs models with stress"),
        (("energy_weight: 0", "forces_weight: 0"), "all weights of the loss are 0"),
        (("loss: forces_only", "forces_weight: 0"), "all weights of the loss are 0"),
        (("config_type_weights: {Default: 0}",), "all weights are 0"),
    ],
)
def test_a_loss_must_be_able_to_learn(tmp_path, keys, said):
    assert said in errors(tmp_path, mace=with_key(MACE, "TRAINING", *keys))[0]


def test_features_have_no_higher_degree_than_directions(tmp_path):
    mace = with_key(MACE, "ARCHITECTURE", "max_ell: 1", "max_L: 2")
    assert "ARCHITECTURE.max_L: 2 is larger than max_ell 1" in errors(tmp_path, mace=mace)[0]


def test_a_file_without_any_stage_is_refused(tmp_path):
    assert (
        "neither INITIAL_DATASET_GENERATION nor ACTIVE_LEARNING"
        in errors(tmp_path, PROJECT[PROJECT.index("MD:") :])[0]
    )


def test_rules_are_silent_about_sections_that_could_not_be_read(tmp_path):
    project = with_key(PROJECT.replace("NVT", "NPT"), ACTIVE, "ensemble_size: two")
    said = errors(tmp_path, project, with_key(MACE, "GENERAL", "compute_stress: maybe"))
    assert len(said) == 2


@pytest.mark.parametrize(("key", "value"), [("threshold", "calibrated"), ("stop", "when_done")])
def test_what_compares_with_a_target_needs_one(tmp_path, key, value):
    (said,) = errors(tmp_path, with_key(PROJECT, ACTIVE, f"{key}: {value}"))
    assert f"{ACTIVE}.{key}: {value} needs an error to compare with: set {ACTIVE}.target_error (eV/Å)" in said
    both = with_key(with_key(PROJECT, ACTIVE, f"{key}: {value}"), ACTIVE, "target_error: 0.1")
    assert getattr(read(tmp_path, both).active_learning, key) == value


@pytest.mark.parametrize(("labels", "refused"), [("6", True), ("9", True), ("10", False), (".inf", False)])
def test_more_test_structures_than_labels_are_refused(tmp_path, labels, refused):
    text = PROJECT.replace("ACTIVE_LEARNING:\n", f"ACTIVE_LEARNING:\n  max_labels: {labels}\n  n_test: 10\n")
    assert text != PROJECT
    if not refused:
        assert read(tmp_path, text).active_learning.n_test == 10
        return
    (said,) = errors(tmp_path, text)
    assert f"ACTIVE_LEARNING.n_test: 10 test structures, but max_labels is {labels}: they count in it" in said


@pytest.mark.parametrize(("more", "refused"), [("n_test: 0", True), ("n_test: 5", False)])
def test_the_stop_rule_needs_structures_drawn_at_random(tmp_path, more, refused):
    keys = ("stop: when_done", "target_error: 0.1", "audit_share: 0", more)
    text = PROJECT
    for key in keys:
        text = with_key(text, ACTIVE, key)
    if not refused:
        assert read(tmp_path, text).active_learning.audit_share == 0
        return
    (said,) = errors(tmp_path, text)
    assert (
        "when_done measures the error on at least 5 structures drawn at random; set audit_share, or n_test"
        in said
    )


def test_a_sampler_that_does_no_dynamics_needs_no_temperature(tmp_path):
    """With a ramp gpr demanded a temperature, which it refuses with moves: rattle."""
    ramp = with_key(PROJECT, "MD", "temperature: [300, 600]") + "SAMPLERS:\n  - {kind: gpr, moves: rattle}\n"
    assert read(tmp_path, ramp).samplers[0].temperature is None
    (said,) = errors(tmp_path, ramp.replace("rattle", "md"))
    assert "SAMPLERS.0.temperature: mandatory, as MD.temperature is the ramp" in said
