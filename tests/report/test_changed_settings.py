"""Which settings differ from their defaults."""

import pytest

from aims_pax.record.provenance import flat_settings
from aims_pax.report.changed_settings import defaults, differing
from aims_pax.settings import effective
from tests.settings.folders import MACE, PROJECT, read


def test_only_what_somebody_chose_is_shown_as_a_setting():
    usual = defaults()
    assert usual["aimsPAX.ACTIVE_LEARNING.c_x"] == "0.0"
    same = {"aimsPAX.ACTIVE_LEARNING.c_x": "0.0", "aimsPAX.MISC.test_set": "None", "mace.MISC.device": "cuda"}
    assert differing(same) == []
    assert differing({"aimsPAX.ACTIVE_LEARNING.c_x": "0.1"}) == [("ACTIVE_LEARNING.c_x", "0.1", "0.0")]


def test_of_samplers_only_what_was_chosen_is_shown(tmp_path):
    written = """SAMPLERS:
  - {kind: md, share: 0.5, temperature: 500, filters: [sanity, {kind: duplicates, by: descriptor}]}
  - {kind: rattle_tree, beta: 0.5}
"""
    settings = read(tmp_path, PROJECT + written)
    written = {
        k: v for k, v in flat_settings(effective(settings)).items() if k.startswith("aimsPAX.SAMPLERS")
    }
    shown = {key: (value, usual) for key, value, usual in differing(written)}
    assert shown == {
        "SAMPLERS.0.kind": ("md", "—"),
        "SAMPLERS.0.share": ("0.5", "None"),
        "SAMPLERS.0.temperature": ("500.0", "None"),
        "SAMPLERS.0.filters.0.kind": ("sanity", "—"),
        "SAMPLERS.0.filters.1.kind": ("duplicates", "—"),
        "SAMPLERS.0.filters.1.by": ("descriptor", "geometry"),
        "SAMPLERS.1.kind": ("rattle_tree", "—"),
    }


def test_settings_of_the_recorded_run_that_were_not_written_are_not_shown(run):
    shown = {key for key, _, _ in differing(run.settings)}
    assert {"MD.temperature", "ACTIVE_LEARNING.n_test", "ARCHITECTURE.num_channels"} <= shown
    assert not {"TRAINING.lr", "ACTIVE_LEARNING.valid_ratio", "CLUSTER.parsl_options"} & shown


TWO_TABLES = PROJECT.replace(
    "  stat_ensemble: NVT\n", "  one: {stat_ensemble: NVT}\n  v1.2: {stat_ensemble: NVT, timestep: 1}\n"
)
FREE = "PRETRAINING:\n  potential: ase.calculators.emt:EMT()\n  samplers: [{kind: md, share: 1}]\n"
OF_MACE = MACE + "FOUNDATION:\n  model: some.model\n"


@pytest.mark.parametrize(
    ("project", "mace", "unwritten"),
    [
        (PROJECT, MACE, "CLUSTER.type"),
        (PROJECT, MACE, "REFERENCE.type"),
        (PROJECT, OF_MACE, "TRAINING.lr"),
        (PROJECT, OF_MACE, "TRAINING.ema_decay"),
        (PROJECT, OF_MACE, "ARCHITECTURE"),
        (PROJECT, MACE + "  compute_stress: True\n", "TRAINING.loss"),
        (TWO_TABLES, MACE, "MD.one.timestep"),
        (TWO_TABLES, MACE, "MD.v1.2.friction"),
        (PROJECT + FREE, MACE, "TRAINING.lr"),
        (PROJECT + FREE, MACE, "PRETRAINING.samplers.0.filters"),
    ],
)
def test_a_default_that_depends_on_other_settings_is_not_shown_as_a_choice(
    tmp_path, project, mace, unwritten
):
    flat = flat_settings(effective(read(tmp_path, project, mace)))
    assert any(key.removeprefix("aimsPAX.").removeprefix("mace.") == unwritten for key in flat)
    shown = {key: value for key, value, _ in differing(flat)}
    assert unwritten not in shown, shown
    assert shown["GENERAL.name_exp"] == "tiny"
    assert shown.get("MD.v1.2.timestep", "1.0") == "1.0"


def test_a_choice_against_such_a_default_is_shown_with_it(tmp_path):
    flat = flat_settings(effective(read(tmp_path, PROJECT, OF_MACE + "TRAINING:\n  lr: 0.01\n")))
    assert ("TRAINING.lr", "0.01", "0.002") in differing(flat)
    cluster = {"aimsPAX.REFERENCE.type": "calculator", "aimsPAX.CLUSTER.type": "local"}
    assert ("CLUSTER.type", "local", "slurm") not in differing(cluster)
    batch = cluster | {"aimsPAX.CLUSTER.worker_str": "module load x"}
    assert ("CLUSTER.type", "local", "slurm") in differing(batch)
    assert ("CLUSTER.type", "slurm", "local") in differing(cluster | {"aimsPAX.CLUSTER.type": "slurm"})
