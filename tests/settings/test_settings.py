"""The effective settings: complete, in the files' own spelling, and readable back."""

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from aims_pax.settings import dump, effective
from aims_pax.settings.settings import MACE as MACE_SECTIONS
from aims_pax.settings.settings import PROJECT as PROJECT_SECTIONS
from aims_pax.settings.settings import as_yaml
from tests.settings.folders import AIMS, GIVEN, MACE, PROJECT, read, with_key

# Every key of the published tables at its default; mandatory keys and a stop criterion filled in.
SEED_PROJECT = """\
INITIAL_DATASET_GENERATION:
  species_dir: species
  n_points_per_sampling_step_idg: 10
  analysis: False
  desired_acc: 0.0
  desired_acc_scale_idg: 10.0
  ensemble_size: 4
  initial_foundational_size: "small"
  initial_sampling: "mace-mp0"
  intermediate_epochs_idg: 5
  max_initial_epochs: 100
  max_initial_set_size: np.inf
  progress_dft_update: 10
  scheduler_initial: True
  skip_step_initial: 25
  valid_ratio: 0.1
  valid_skip: 1
  converge_initial: False
  convergence_patience: 50
  margin: 0.002
  max_convergence_epochs: 500
ACTIVE_LEARNING:
  species_dir: species
  num_trajectories: 1
  analysis: False
  analysis_skip: 50
  c_x: 0.0
  desired_acc: 0.
  ensemble_size: 4
  epochs_per_worker: 2
  freeze_threshold_dataset: np.inf
  intermediate_epochs_al: 1
  margin: 0.002
  max_MD_steps: np.inf
  max_train_set_size: np.inf
  seeds_tags_dict: None
  skip_step_mlff: 25
  uncertainty_type: "max_atomic_sd"
  uncert_not_crossed_limit: 50000
  valid_ratio: 0.1
  valid_skip: 1
  converge_al: True
  converge_best: True
  convergence_patience: 50
  max_convergence_epochs: 500
CLUSTER:
  type: 'slurm'
  project_name: project
  parsl_options:
    nodes_per_block: 1
    init_blocks: 1
    min_blocks: 1
    max_blocks: 1
    label: label
    run_dir: None
    function_dir: None
  slurm_str: |
    #SBATCH --time=01:00:00
    #SBATCH --nodes=1
  worker_str: |
    module load aims
    source env/bin/activate
  launch_str: "srun path/to/aims/aims.XXX.scalapack.mpi.x >> aims.out"
  calc_dir: ./calc
  clean_dirs: True
MD:
  stat_ensemble: NVT
  barostat: Berendsen
  external_stress: 6.24e-7
  friction: 0.001
  MD_seed: 42
  pfactor: 100
  pressure_au: 3.4e-7
  temperature: 300
  thermostat: Langevin
  timestep: 0.5
  ttime: 30
MISC:
  create_restart: True
  dataset_dir: "./data"
  log_dir: "./logs"
  path_to_control: "./control.in"
  path_to_geometry: "./geometry.in"
"""
SEED_MACE = """\
GENERAL:
  name_exp: name
  checkpoints_dir: "./checkpoints"
  compute_stress: False
  default_dtype: "float32"
  loss_dir: "./losses"
  model_dir: "./model"
  seed: 42
ARCHITECTURE:
  atomic_energies: None
  compute_avg_num_neighbors: True
  correlation: 3
  gate: "silu"
  interaction: "RealAgnosticResidualInteractionBlock"
  interaction_first: "RealAgnosticResidualInteractionBlock"
  max_ell: 3
  max_L: 1
  MLP_irreps: "16x0e"
  model: "ScaleShiftMACE"
  num_channels: 128
  num_cutoff_basis: 5
  num_interactions: 2
  num_radial_basis: 8
  r_max: 5.0
  radial_MLP: [64, 64, 64]
  radial_type: "bessel"
  scaling: "rms_forces_scaling"
TRAINING:
  amsgrad: True
  batch_size: 5
  clip_grad: 10.0
  config_type_weights: {"Default": 1.0}
  ema: True
  ema_decay: 0.99
  energy_weight: 1.0
  forces_weight: 1000.0
  loss: "weighted"
  lr: 0.01
  lr_factor: 0.8
  lr_scheduler_gamma: 0.9993
  optimizer: "adam"
  scheduler: "ReduceLROnPlateau"
  scheduler_patience: 5
  stress_weight: 1.0
  swa: False
  valid_batch_size: 5
  virials_weight: 1.0
  weight_decay: 5.e-07
MISC:
  device: "cpu"
  error_table: "PerAtomMAE"
  log_level: "INFO"
"""
MANDATORY = {
    "INITIAL_DATASET_GENERATION": {"species_dir", "n_points_per_sampling_step_idg", "max_initial_epochs"},
    "ACTIVE_LEARNING": {"species_dir", "num_trajectories"},
    "CLUSTER": {
        "project_name", "parsl_options", "slurm_str", "worker_str", "launch_str", "calc_dir",
    },
    "MD": {"stat_ensemble"},
    "MISC": set(),
    "GENERAL": {"name_exp"},
}  # fmt: skip


def python(value):
    """What the table's spelling means: None, inf, and 5.e-07 as YAML 1.1 leaves them."""
    if isinstance(value, dict):
        return {k: python(v) for k, v in value.items()}
    known = {"None": None, "np.inf": math.inf}
    if isinstance(value, str) and value in known:
        return known[value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def reread(folder, text):
    both = yaml.safe_load(text)
    return read(folder, *(as_yaml(both[k]) for k in ("aimsPAX", "mace")))


def test_the_published_defaults_written_out_are_accepted_and_printed_the_same(tmp_path):
    settings = read(tmp_path, SEED_PROJECT, SEED_MACE)
    printed = yaml.safe_load(dump(settings))
    for file, seed in (("aimsPAX", SEED_PROJECT), ("mace", SEED_MACE)):
        for section, keys in python(yaml.safe_load(seed)).items():
            for key, value in keys.items():
                told = printed[file][section][key]
                told = {k: told[k] for k in value} if isinstance(value, dict) and told else told
                assert told == value, f"{section}.{key}"
    assert [w for w in settings.warnings if "nothing stops active learning" not in w] == []


def test_leaving_the_published_defaults_out_prints_the_same(tmp_path):
    both = []
    for seed in (SEED_PROJECT, SEED_MACE):
        sections = python(yaml.safe_load(seed))
        kept = {s: {k: v for k, v in t.items() if k in MANDATORY.get(s, ())} for s, t in sections.items()}
        both.append(yaml.safe_dump(kept))
    assert dump(read(tmp_path / "short", *both)) == dump(read(tmp_path / "long", SEED_PROJECT, SEED_MACE))


def test_every_key_is_printed_where_the_files_have_it(tmp_path):
    project = SEED_PROJECT + "AUGMENTATION: {kind: gpr}\n"
    printed = effective(read(tmp_path, project, SEED_MACE + "FOUNDATION:\n  model: own.model\n"))
    free = effective(read(tmp_path, SEED_PROJECT + "PRETRAINING:\n  potential: {factory: a:b}\n", SEED_MACE))
    printed["aimsPAX"]["PRETRAINING"] = free["aimsPAX"]["PRETRAINING"]  # instead of FOUNDATION
    printed["mace"]["ARCHITECTURE"] = free["mace"]["ARCHITECTURE"]  # of which FOUNDATION decides
    for file, sections in (("aimsPAX", PROJECT_SECTIONS), ("mace", MACE_SECTIONS)):
        assert set(printed[file]) == set(sections)
        for section, model in sections.items():
            assert list(printed[file][section]) == list(model.model_fields)


def test_infinity_is_printed_as_yaml_and_several_lines_as_a_block(tmp_path):
    text = dump(read(tmp_path, SEED_PROJECT, SEED_MACE))
    assert "max_MD_steps: .inf" in text
    assert "    slurm_str: |\n      #SBATCH --time=01:00:00\n" in text
    assert "!!" not in text
    assert "&" not in text


EXAMPLES = {
    "calculator": (PROJECT, MACE),
    "aims": (AIMS, MACE),
    "seed": (SEED_PROJECT, SEED_MACE),
    "copies": (PROJECT + "AUGMENTATION: {kind: gpr, sigma: 0.05, until_labels: 60}\n", MACE),
    "npt with stress": (
        PROJECT.replace("NVT", "npt"),
        with_key(MACE, "GENERAL", "compute_stress: True"),
    ),
    "md of systems": (
        PROJECT.replace(
            "MD:\n  stat_ensemble: NVT\n", "MD:\n  a: {stat_ensemble: NVT}\n  '1': {stat_ensemble: NVT}\n"
        ),
        MACE,
    ),
    "everything else": (
        with_key(
            GIVEN + "CLUSTER: {type: local, job_time_limit: 01:30:00}\n",
            "ACTIVE_LEARNING",
            "seeds_tags_dict: {a: 1, b: 2, 3: 5, '1e-3': 4}",
            "initial_models: [a, b, c, 'None']",
            "initial_train_dataset: {a: x, b: y, c: z, d: 'yes'}",
        ).replace(
            "factory: ase",
            "kwargs: {a: [1, {b: 1e-3}], c: 'np.inf', d: .inf, e: null, f: 'no'}\n  factory: ase",
        )
        + "MISC:\n  path_to_geometry: [a.xyz, b.xyz]\n",
        with_key(MACE, "ARCHITECTURE", "atomic_energies: {1: -13.6, O: -2000}", "gate: None"),
    ),
    "energies in order": (PROJECT, with_key(MACE, "ARCHITECTURE", "atomic_energies: [-1, -2.5]")),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_printed_reads_back_to_equal_settings(tmp_path, name):
    first = read(tmp_path, *EXAMPLES[name])
    again = reread(tmp_path, dump(first))
    assert again == first
    assert dump(again) == dump(first)


def test_a_time_may_be_written_as_on_a_clock(tmp_path):
    assert read(tmp_path, *EXAMPLES["everything else"]).cluster.job_time_limit == 5400.0


def test_paths_stay_as_written_and_resolve_against_the_folder(tmp_path):
    settings = read(tmp_path)
    assert settings.misc.dataset_dir == "./data"
    assert settings.path(settings.misc.dataset_dir) == tmp_path / "data"
    assert settings.path("/absolute").as_posix() == "/absolute"


def test_settings_of_other_folders_with_the_same_content_are_equal(tmp_path):
    assert read(tmp_path / "a") == read(tmp_path / "b")


TEXTS = st.text(min_size=1, max_size=15).filter(lambda t: t.strip() and "\0" not in t)
NAMES = TEXTS.filter(lambda t: t.isprintable() and not set(t) & set("/\\") and t[0] != ".")


@settings(deadline=None)
@given(
    st.dictionaries(TEXTS, TEXTS | st.floats(allow_nan=False) | st.integers() | st.booleans() | st.none()),
    NAMES,
)
def test_any_keyword_arguments_and_names_survive(tmp_path_factory, kwargs, name):
    folder = tmp_path_factory.getbasetemp()
    project = yaml.safe_load(PROJECT)
    project["REFERENCE"]["kwargs"] = kwargs
    first = read(folder, as_yaml(project), as_yaml({"GENERAL": {"name_exp": name}}))
    assert first.reference.kwargs == kwargs
    assert first.mace.general.name_exp == name
    assert reread(folder, dump(first)) == first
