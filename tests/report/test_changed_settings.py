"""Which settings differ from their defaults."""

from aims_pax.record.provenance import flat_settings
from aims_pax.report.changed_settings import defaults, differing
from aims_pax.settings import effective
from tests.settings.folders import PROJECT, read


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
