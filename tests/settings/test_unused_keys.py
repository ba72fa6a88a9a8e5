"""A key that can do nothing in the combination it is written in is said so."""

import pytest

from aims_pax.settings.settings import MACE as MACE_SECTIONS
from aims_pax.settings.settings import PROJECT as PROJECT_SECTIONS
from aims_pax.settings.unused_keys import TABLE
from tests.settings.folders import AIMS, GIVEN, MACE, PROJECT, read, with_key

INITIAL, ACTIVE = "INITIAL_DATASET_GENERATION", "ACTIVE_LEARNING"


def test_every_rule_names_existing_keys():
    for rule in TABLE:
        sections = {**MACE_SECTIONS, **PROJECT_SECTIONS, "mace.MISC": MACE_SECTIONS["MISC"]}
        known = sections[rule.section].model_fields
        assert set(rule.keys.split()) <= set(known)


@pytest.mark.parametrize(
    ("section", "key", "why"),
    [
        (INITIAL, "species_dir: s", "the reference is a calculator"),
        (ACTIVE, "species_dir: s", "the reference is a calculator"),
        ("CLUSTER", "launch_str: aims.x", "the reference is a calculator"),
        ("CLUSTER", "job_time_limit: 01:00:00", "cannot be interrupted"),
        ("CLUSTER", "training: {workers: 2}\n  executor: inline", "executor is inline"),
        ("CLUSTER", "dynamics: {workers: 2}\n  executor: inline", "executor is inline"),
        ("CLUSTER", "clean_dirs: False", "the reference is a calculator"),
        ("MISC", "path_to_control: other.in", "the reference is a calculator"),
        (INITIAL, "desired_acc_scale_idg: 5.0", "desired_acc is 0"),
        (INITIAL, "convergence_patience: 5", "converge_initial is False"),
        (INITIAL, "margin: 0.1", "converge_initial is False"),
        (ACTIVE, "analysis_skip: 5", "analysis is False"),
        ("MD", "barostat: npt", "stat_ensemble is NVT"),
        ("MD", "taup: 500", "stat_ensemble is NVT"),
        ("MD", "pfactor: 50", "stat_ensemble is NVT"),
        ("MISC", "energy_key: e", "no file with labels is given"),
    ],
)
def test_keys_of_aimspax_that_do_nothing(tmp_path, section, key, why):
    warnings = read(tmp_path, with_key(PROJECT, section, key)).warnings
    assert len(warnings) == 1
    assert f"{section}.{key.split(':')[0]}: has no effect: " in warnings[0]
    assert why in warnings[0]


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (("stress_weight: 2.0",), "stress_weight"),
        (("virials_weight: 2.0",), "virials_weight"),
        (("scheduler: ExponentialLR", "lr_factor: 0.5"), "lr_factor"),
        (("lr_scheduler_gamma: 0.99",), "lr_scheduler_gamma"),
        (("ema: False", "ema_decay: 0.999"), "ema_decay"),
        (("loss: forces_only", "energy_weight: 2.0"), "energy_weight"),
    ],
)
def test_keys_of_mace_that_do_nothing(tmp_path, keys, named):
    warnings = read(tmp_path, mace=with_key(MACE, "TRAINING", *keys)).warnings
    assert len(warnings) == 1
    assert f"TRAINING.{named}: has no effect: " in warnings[0]


@pytest.mark.parametrize("key", ["interaction: RealAgnosticInteractionBlock", "gate: tanh", "max_L: 2"])
def test_keys_of_the_last_layer_do_nothing_with_one_layer(tmp_path, key):
    (said,) = read(tmp_path, mace=with_key(MACE, "ARCHITECTURE", "num_interactions: 1", key)).warnings
    assert f"ARCHITECTURE.{key.split(':')[0]}: has no effect: num_interactions is 1" in said


def test_weights_are_averaged_only_where_a_stage_converges(tmp_path):
    mace = with_key(MACE, "TRAINING", "swa: True")
    assert read(tmp_path, mace=mace).warnings == ()
    (said,) = read(tmp_path, with_key(PROJECT, ACTIVE, "converge_al: False"), mace).warnings
    assert "TRAINING.swa: has no effect: only convergence uses it" in said


def test_a_key_written_at_its_default_is_not_warned_about(tmp_path):
    mace = with_key(MACE, "TRAINING", "stress_weight: 1.0", "ema: False", "ema_decay: 0.99")
    project = with_key(PROJECT, "MD", "barostat: Berendsen", "taut: 500")
    assert read(tmp_path, project, mace).warnings == ()


@pytest.mark.parametrize(
    "key", ["scaling: no_scaling", "compute_avg_num_neighbors: False", "atomic_energies: reference"]
)
def test_given_models_bring_their_scale_and_energies(tmp_path, key):
    project = GIVEN.replace("num_trajectories: 2", "num_trajectories: 2\n  initial_models: [a, b, c, d]")
    (said,) = read(tmp_path, project, with_key(MACE, "ARCHITECTURE", key)).warnings
    assert f"ARCHITECTURE.{key.split(':')[0]}: has no effect: " in said
    assert "initial_models" in said


def test_other_sampling_makes_the_foundation_size_idle(tmp_path):
    project = with_key(PROJECT, INITIAL, "initial_sampling: aimd", "initial_foundational_size: large")
    assert "only initial_sampling: mace-mp0 uses it" in read(tmp_path, project).warnings[0]
    project = with_key(PROJECT, INITIAL, "initial_calculator: {factory: ase.calculators.emt:EMT}")
    assert "only initial_sampling: calculator uses it" in read(tmp_path, project).warnings[0]


def test_keys_of_convergence_are_idle_without_it(tmp_path):
    project = with_key(
        PROJECT, ACTIVE, "converge_al: False", "converge_best: False", "max_convergence_epochs: 3"
    )
    assert len(read(tmp_path, project).warnings) == 2


@pytest.mark.parametrize(
    ("barostat", "idle"),
    [
        ("npt", "taut: 3000"),
        ("Berendsen", "ttime: 50"),
        ("MTK", "ttime: 50"),
        ("isotropic-MTK", "compressibility: 1.0e-5"),
    ],
)
def test_each_barostat_has_its_own_keys(tmp_path, barostat, idle):
    project = with_key(PROJECT.replace("NVT", "NPT"), "MD", f"barostat: {barostat}", idle, "friction: 0.01")
    warnings = read(tmp_path, project, with_key(MACE, "GENERAL", "compute_stress: True")).warnings
    idle_keys = [w.split(": ")[1] for w in warnings if "has no effect" in w]
    assert idle_keys == [f"MD.{idle.split(':')[0]}", "MD.friction"]


def test_each_thermostat_has_its_own_keys(tmp_path):
    project = with_key(PROJECT, "MD", "thermostat: SVR", "taut: 300", "friction: 0.01")
    assert [w.split(": ")[1] for w in read(tmp_path, project).warnings] == ["MD.friction"]
    project = with_key(PROJECT, "MD", "taut: 300", "friction: 0.01")
    assert [w.split(": ")[1] for w in read(tmp_path, project).warnings] == ["MD.taut"]


def test_slurm_keys_are_idle_on_this_machine_and_a_factory_with_fhi_aims(tmp_path):
    project = with_key(AIMS, "CLUSTER", "project_name: p") + "REFERENCE: {type: aims, factory: a:b}\n"
    named = [w.split(": ")[1] for w in read(tmp_path, project).warnings]
    assert named == ["CLUSTER.project_name", "REFERENCE.factory"]


def test_in_a_map_the_system_is_named(tmp_path):
    maps = "MD:\n  a: {stat_ensemble: NVT, taut: 400}\n  b: {stat_ensemble: NVT}\n"
    warnings = read(tmp_path, PROJECT.replace("MD:\n  stat_ensemble: NVT\n", maps)).warnings
    assert warnings == ("aimsPAX.yaml:8: MD.a.taut: has no effect: the thermostat is Langevin",)


SAMPLED = with_key(PROJECT, "MD", "taut: 50.0")


def test_keys_of_a_sampler_that_its_dynamics_does_not_use_are_said(tmp_path):
    samplers = "SAMPLERS:\n  - {kind: md, stat_ensemble: NPT, friction: 0.02}\n"
    warnings = read(tmp_path, PROJECT + samplers).warnings
    assert any("SAMPLERS.0.friction: has no effect: stat_ensemble is NPT" in w for w in warnings)
    assert not any(
        "has no effect" in w for w in read(tmp_path, PROJECT + "SAMPLERS: [{kind: md}]\n").warnings
    )


def test_a_key_of_md_that_only_a_sampler_uses_has_an_effect(tmp_path):
    assert any("MD.taut: has no effect" in w for w in read(tmp_path, SAMPLED).warnings)
    samplers = "SAMPLERS: [{kind: md, thermostat: SVR}]\n"
    assert not any("MD.taut" in w for w in read(tmp_path, SAMPLED + samplers).warnings)


@pytest.mark.parametrize(
    ("profiles", "unused"),
    [("dynamics: {workers: 8}", ["dynamics"]), ("training: {workers: 2}", ["training"]),
     ("training: {devices: ['cuda:1']}", [])],
)  # fmt: skip
def test_processes_that_a_gpu_has_no_use_for_are_warned_of(tmp_path, profiles, unused):
    warnings = read(
        tmp_path, with_key(PROJECT, "CLUSTER", profiles), with_key(MACE, "MISC", "device: cuda")
    ).warnings
    assert [w.partition(": has no effect")[0].rpartition(".")[2] for w in warnings] == unused
    assert all("on a GPU" in w for w in warnings)


def test_on_blocks_the_time_limit_of_a_calculator_decides_when_they_take_no_more_work(tmp_path):
    header = (
        "type: slurm\n  calc_dir: c\n  worker_str: x\n  project_name: y\n  slurm_str: '#SBATCH --time=600'"
    )
    options = "parsl_options: {nodes_per_block: 1, init_blocks: 1, min_blocks: 0, max_blocks: 1, label: l}"
    given = with_key(PROJECT, "CLUSTER", f"{header}\n  {options}\n  job_time_limit: 600")
    assert not [w for w in read(tmp_path, given).warnings if "job_time_limit" in w]
