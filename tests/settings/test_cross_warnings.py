"""Combinations of keys that deserve a warning."""

import pytest

from tests.settings.folders import MACE, PROJECT, read, with_key

ACTIVE = "ACTIVE_LEARNING"
STRESS = with_key(MACE, "GENERAL", "compute_stress: True")


@pytest.mark.parametrize(
    ("stop", "warned"),
    [
        ("c_x: 0", 1),
        ("max_MD_steps: 10000", 0),
        ("max_train_set_size: 9", 0),
        ("desired_acc: 0.02", 0),
        ("max_labels: 9", 0),
    ],
)
def test_active_learning_without_an_end_is_a_warning(tmp_path, stop, warned):
    warnings = read(tmp_path, PROJECT.replace("max_MD_steps: 100", stop)).warnings
    assert len(warnings) == warned
    assert all("nothing stops active learning" in w for w in warnings)


def test_nobody_is_warned_of_a_value_that_he_has_not_written(tmp_path):
    """Every warning names a key that stands in the file it names."""
    npt = PROJECT.replace("NVT", "NPT")
    for project, mace in (
        (npt, STRESS),
        (PROJECT, STRESS),
        (PROJECT, MACE),
        (with_key(npt, "MD", "barostat: MTK"), STRESS),
    ):
        for warning in read(tmp_path, project, mace).warnings:
            place = warning.split(": ")[1].split(".")
            if place[-1].isupper():
                continue  # a section that lacks something
            assert f"{place[-1]}:" in (project if warning.startswith("aimsPAX") else mace), warning


def test_what_is_written_is_warned_of(tmp_path):
    written = with_key(PROJECT.replace("NVT", "NPT"), "MD", "pressure_au: 3.4e-7", "barostat: Berendsen")
    warnings = read(tmp_path, written, with_key(STRESS, "TRAINING", "loss: weighted")).warnings
    said = "MD.pressure_au: 3.4e-07 eV/Å³ is 0.545 bar; aims-PAX takes eV/Å³, 1 bar is 6.24e-7"
    assert any(said in w for w in warnings)
    assert any(
        "MD.barostat: Berendsen needs the compressibility; the default is that of water" in w
        for w in warnings
    )
    assert any("TRAINING.loss: weighted has no stress term" in w for w in warnings)


def test_mtk_reads_the_pressure_of_berendsen_and_npt_its_own(tmp_path):
    npt = PROJECT.replace("NVT", "NPT")
    for barostat, key in (("MTK", "pressure_au"), ("npt", "external_stress")):
        project = with_key(npt, "MD", f"barostat: {barostat}", f"{key}: 1e-6")
        assert any(f"MD.{key}: 1e-06 eV/Å³ is 1.6 bar" in w for w in read(tmp_path, project, STRESS).warnings)


def test_npt_warns_of_a_stress_that_would_not_be_learnt(tmp_path):
    npt = PROJECT.replace("NVT", "NPT")
    said = "NPT depends on the stress, which would hardly be learnt: TRAINING.stress_weight in mace.yaml is 1 with"
    assert any(
        f"MD.stat_ensemble: {said} forces_weight 1000" in w for w in read(tmp_path, npt, STRESS).warnings
    )
    light = read(tmp_path, npt, with_key(STRESS, "TRAINING", "stress_weight: 2")).warnings
    assert any("TRAINING.stress_weight: 2 with forces_weight 1000" in w for w in light)
    heavy = with_key(STRESS, "TRAINING", "stress_weight: 1000")
    assert not any("stress_weight" in w for w in read(tmp_path, npt, heavy).warnings)
    assert not any("stress_weight" in w for w in read(tmp_path, PROJECT, STRESS).warnings)


@pytest.mark.parametrize("loss", ["forces_only", "l1l2energyforces"])
def test_a_loss_that_does_not_train_the_stress_is_said(tmp_path, loss):
    (said,) = read(tmp_path, PROJECT, with_key(STRESS, "TRAINING", f"loss: {loss}")).warnings
    assert f"TRAINING.loss: {loss} has no stress term: stress is predicted but not trained" in said


@pytest.mark.parametrize(
    ("loss", "what"),
    [("huber", "structures"), ("universal", "structures"), ("l1l2energyforces", "the forces")],
)
def test_weights_of_structures_that_a_loss_ignores_are_said(tmp_path, loss, what):
    mace = with_key(MACE, "TRAINING", f"loss: {loss}")
    assert read(tmp_path, PROJECT, mace).warnings == ()
    weights = with_key(mace, "TRAINING", "config_type_weights: {Default: 1.0, liquid: 0.1}")
    (said,) = read(tmp_path, PROJECT, weights).warnings
    assert f"TRAINING.loss: {loss} does not weight {what}" in said
    assert "TRAINING.config_type_weights has no effect" in said
    begun = read(tmp_path, PROJECT, mace + "FOUNDATION:\n  model: small\n").warnings
    assert any("FOUNDATION.differ_by: data has no effect" in line for line in begun)


@pytest.mark.parametrize("pressure", ["6.24e-7", "0", "6.24e-3"])
def test_a_pressure_one_can_mean_is_not_warned_about(tmp_path, pressure):
    project = with_key(
        PROJECT.replace("NVT", "NPT"), "MD", f"pressure_au: {pressure}", "compressibility: 4.57e-5"
    )
    assert not any("pressure_au" in w for w in read(tmp_path, project, STRESS).warnings)


def test_different_md_seeds_are_warned_about(tmp_path):
    maps = "MD:\n  a: {stat_ensemble: NVT, MD_seed: 1}\n  b: {stat_ensemble: NVT}\n"
    warnings = read(tmp_path, PROJECT.replace("MD:\n  stat_ensemble: NVT\n", maps)).warnings
    assert "MD.a.MD_seed: the systems have different seeds; 1 of a is used for all" in warnings[0]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("skip_step_mlff: 200",), "skip_step_mlff: more than max_MD_steps (100)"),
        (("intermediate_epochs_al: 3",), "intermediate_epochs_al: more than epochs_per_worker (2)"),
    ],
)
def test_steps_that_never_come_are_warned_about(tmp_path, keys, said):
    assert said in read(tmp_path, with_key(PROJECT, ACTIVE, *keys)).warnings[0]
