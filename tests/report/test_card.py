from dataclasses import replace
from itertools import pairwise

import numpy as np

from aims_pax.report.card import card, data_hash, gaps, write_cards
from aims_pax.report.errors import by_system
from aims_pax.report.words import milli


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
    assert "On test frames, which no decision ever looked at." in text
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
