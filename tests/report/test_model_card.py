import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from aims_pax.report.accuracy import by_system, held_out
from aims_pax.report.calibration import atomic_errors, calibrate
from aims_pax.report.figures.calibration import calibration_figure
from aims_pax.report.formatting import DELIVERED, calibration_sentence, milli
from aims_pax.report.model_card import card, data_hash, gaps, write_cards


def test_every_delivered_model_gets_its_card(folder):
    (path,) = write_cards(folder)
    assert path == folder / "results/tiny_255.md"
    text = path.read_text()
    for title in (
        "Level of theory",
        "Data",
        "Errors",
        "Uncertainty",
        "Conditions",
        "Known gaps",
        "File and versions",
    ):
        assert f"\n## {title}\n" in text
    assert "sometimes:EMT" in text
    assert "mace-torch" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for previous, line in pairwise(rows):
        if line.startswith("| ---"):
            assert line.count("|") == previous.count("|")


def test_errors_on_the_card_are_those_on_test_frames(run):
    text = card(run, "tiny_255.model")
    assert "On test frames, which influenced no decision of the run." in text
    for row in [r for r in by_system(run.predictions) if r.split == "test"]:
        assert f"| {row.group} | test | {row.frames} | {milli(row.energy_mae)} |" in text
    assert "| validation |" not in text.split("## Errors")[1].split("## ")[0]


def test_without_test_frames_the_card_says_so_plainly(run):
    p = {k: np.array(v) for k, v in run.predictions.items()}
    p["split"] = np.where(p["split"] == "test", "valid", p["split"])
    text = card(replace(run, predictions=p), "tiny_255.model")
    assert "**There are no test frames.**" in text
    assert any("No test frames" in gap for gap in gaps(replace(run, predictions=p)))
    assert "Not evaluated" in card(replace(run, predictions={}), "tiny_255.model")


def test_the_hash_knows_the_data_and_their_sets(run):
    first = data_hash(run)
    assert len(first) == 64
    assert data_hash(run) == first
    moved = {**run.splits, "test": {}}
    assert data_hash(replace(run, splits=moved)) != first
    assert data_hash(replace(run, structures=run.structures[1:])) != first
    assert data_hash(replace(run, structures=run.structures[::-1])) == first  # the order does not matter
    assert data_hash(replace(run, structures=())) == ""


def test_gaps_name_what_failed_and_what_is_little(run):
    said = " ".join(gaps(run))
    assert f"{run.failures['Crashed']} frames could not be labelled (Crashed)" in said
    assert "Only 3 test frames" in said
    assert "500" in said
    assert "may not be the last" in " ".join(gaps(replace(run, state="stopped")))


def test_words_from_outside_do_not_break_the_table(run):
    nasty = replace(run, method={"type": "a|b <script>", "factory": "`x` *y*"})
    text = card(nasty, "tiny_255.model")
    assert "| type | a\\|b &lt;script> |" in text


def test_page_and_card_say_the_same_of_the_uncertainty(run):
    """One wording, also where the run's spread is not honest."""
    h = calibrate(*atomic_errors(held_out(run.predictions)[1]))
    said = calibration_sentence(h.rank, h.ratio, DELIVERED)
    assert said
    assert said in card(run, "tiny_255.model").split("## Uncertainty")[1].split("## ")[0]
    assert said in [p.note for p in calibration_figure(run)]
    p = {k: np.array(v) for k, v in run.predictions.items()}
    p["atomic_sd"] = p["atomic_sd"] / 10
    wrong = replace(run, predictions=p)
    (gap,) = (g for g in gaps(wrong) if g.startswith("The spread"))
    assert gap in [p.note for p in calibration_figure(wrong)]


def test_without_a_spread_no_gap_is_empty(run):
    """One member alone: nothing can be said of the uncertainty, and nothing is."""
    p = {k: np.array(v) for k, v in run.predictions.items()}
    p["atomic_sd"] = np.zeros_like(p["atomic_sd"])
    found = gaps(replace(run, predictions=p))
    assert found
    assert all(found)
    assert not any("spread" in gap for gap in found)


@pytest.mark.parametrize(
    ("source", "rank", "warned"),
    [("least squares", 1, True), ("least squares", 3, False), ("given", 1, False)],
)
def test_energies_of_atoms_that_follow_from_nothing_are_warned_of(folder, source, rank, warned):
    from aims_pax.report.load_run import load_run

    energies = {"Cu": -1.0, "H": -2.0, "O": -3.0}
    said = {"source": source, "rank": rank, "energies": energies}
    (folder / "results/atomic_energies.json").write_text(json.dumps(said))
    run = load_run(folder)
    text = card(run, "tiny_255.model")
    assert ("one composition does not fix 3 elements" in text) == warned
    assert any("atomisation" in gap for gap in gaps(run)) == warned


def test_a_run_that_drew_fewer_test_frames_than_asked_says_so(run):
    n = len(run.splits["test"])
    asked = replace(run, settings={**run.settings, "aimsPAX.ACTIVE_LEARNING.n_test": str(n + 5)})
    assert any(gap.startswith(f"{n} of the {n + 5} test frames") for gap in gaps(asked))
    reached = replace(run, settings={**run.settings, "aimsPAX.ACTIVE_LEARNING.n_test": str(n)})
    assert not any("n_test asks for" in gap for gap in gaps(reached))


def test_which_epoch_was_kept_is_said(run):
    text = card(run, "tiny_255.model")
    assert "the last epoch that was clearly better on the validation frames than the best before" in text


def test_conditions_of_geometries_with_settings_of_their_own_are_named_by_geometry(run):
    each = {
        "aimsPAX.MD.ice.stat_ensemble": "NPT",
        "aimsPAX.MD.ice.temperature": "200.0",
        "aimsPAX.MD.ice.temperatures": "None",
        "aimsPAX.MD.ice.timestep": "0.5",
        "aimsPAX.MD.v1.2.stat_ensemble": "NVT",
        "aimsPAX.MD.v1.2.temperature": "300.0",
        "aimsPAX.MD.v1.2.temperatures": "[300.0, 600.0]",
        "aimsPAX.MD.v1.2.timestep": "0.5",
    }
    shared = {k: v for k, v in run.settings.items() if not k.startswith("aimsPAX.MD.")}
    text = card(replace(run, settings=shared | each), "m.model")
    assert "| ensemble | ice: NPT; v1.2: NVT |" in text
    assert "| target temperature (K) | ice: 200.0; v1.2: 300.0, 600.0 |" in text
    assert "| time step (fs) | 0.5 |" in text
    assert "at temperatures far from ice: 200.0; v1.2: 300.0, 600.0 K" in text


def test_charge_and_multiplicity_of_the_frames_are_named(run):
    assert "multiplicity" not in card(run, "m.model").split("## Errors")[0]
    cation = {"charge": "1.0", "spin": "2", "system": "cation"}
    others = [replace(s, info={**s.info, **cation}) for s in run.structures[:3]]
    text = card(replace(run, structures=(*run.structures, *others)), "m.model")
    assert "cation: charge 1.0, multiplicity 2; copper: not stated; water: not stated." in text


@pytest.mark.parametrize("kind", ["mace", "gp"])
def test_what_is_read_from_the_model_but_is_no_key_is_no_setting(folder, kind):
    from aims_pax.report.load_run import load_run

    read = {"num_channels": 8, "hidden_irreps": "8x0e", "parameters": 123}
    entry = {"kind": kind, "title": kind, "packages": [], "architecture": read, "begun_from": "theirs.model"}
    known = {"format": 1, "models": {"tiny_255.model": entry}}
    (folder / "results/models.json").write_text(json.dumps(known))
    text = card(load_run(folder), "tiny_255.model").split("## Architecture and training")[1]
    properties, settings = text.split("| setting | value |")[:2]
    assert "| begun from | theirs.model |" in properties
    assert "| hidden irreps | 8x0e |" in properties
    assert "| parameters | 123 |" in properties
    assert ("| ARCHITECTURE.num_channels | 8 |" in settings) == (kind == "mace")
    assert ("| num channels | 8 |" in properties) == (kind != "mace")
    assert "hidden_irreps" not in text
