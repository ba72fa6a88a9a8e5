"""The MD test in words."""

import pytest

from aims_pax.report.html_page import page
from aims_pax.report.md_test import (
    closer_pairs,
    distance_rows,
    drift_rows,
    md_test_lines,
    md_verdict,
    reference_rows,
    survival_rows,
)
from tests.report.md_tests import md_results

BROKEN = "bond O1–H2 broke (1.7 Å; the longest in the labelled frames is 1.1 Å) at 0.2 ps"


def test_a_sound_model_is_fit():
    verdict = md_verdict(md_results())
    assert verdict.kind == "fit"
    assert verdict.text == (
        "Survived 2 trajectories of 1 ps at 300 K with every bond kept, and 2 at 450 K; its energy is conserved and "
        "its temperature follows the canonical law. Rare events appear only in longer tests (aims-PAX test --md --ps "
        "50)."
    )


def test_what_breaks_at_the_temperature_of_the_run_is_unfit_and_what_breaks_above_is_limited():
    verdict = md_verdict(md_results({300: ["", BROKEN], 450: ["", ""]}))
    assert verdict.kind == "unfit"
    assert f"1 of 2 trajectories at 300 K ended early, the first (water) because {BROKEN}." in verdict.text
    verdict = md_verdict(md_results({300: ["", ""], 450: [BROKEN, BROKEN]}))
    assert verdict.kind == "limited"
    assert "at 450 K 2 of 2 ended early" in verdict.text


def test_a_drift_is_one_beyond_its_error_and_a_limit():
    def drift(mean, error):
        return [{"system": "water", "trajectories": 2, "mean": mean, "error": error, "largest": mean}]

    assert md_verdict(md_results(drift=drift(5.0, 1.0))).kind == "unfit"
    assert "drifts by 5.0 meV/atom/ps" in md_verdict(md_results(drift=drift(5.0, 1.0))).text
    unsure = md_verdict(md_results(drift=drift(5.0, 4.0)))
    assert unsure.kind == "fit"
    assert "too short to see a drift of its energy, and its temperature follows" in unsure.text
    assert "too short to see a drift" in md_verdict(md_results(drift=[])).text
    assert md_verdict(md_results(drift=drift(0.5, 0.01))).kind == "fit"
    assert md_verdict(md_results(drift=drift(-5.0, None))).kind == "unfit"


@pytest.mark.parametrize(("agrees", "kind"), [(True, "fit"), (None, "fit"), (False, "unfit")])
def test_the_temperature_law_counts_where_it_could_be_tested(agrees, kind):
    found = md_results()
    found["temperature_law"][0]["agrees"] = agrees
    verdict = md_verdict(found)
    assert verdict.kind == kind
    assert ("the test is too short for its temperature" in verdict.text) is (agrees is None)
    if agrees is None:
        found["drift"] = []
        text = "the test is too short to see a drift of its energy, and too short for its temperature"
        assert text in md_verdict(found).text


def test_distances_below_those_of_the_data_limit_the_model():
    found = md_results()
    found["distances"][0]["md_hot"] = 0.7
    assert closer_pairs(found) == [("H–O at 1.5 T", 0.7, 0.9)]
    verdict = md_verdict(found)
    assert verdict.kind == "limited"
    assert "H–O at 1.5 T came to 0.70 Å, closer than in any labelled frame (0.90 Å)" in verdict.text
    found["distances"][0]["md"] = 0.75
    assert closer_pairs(found) == [("H–O", 0.7, 0.9)]
    assert distance_rows(found)[1][0][-1] == "closer than in the data"


def test_a_fault_at_constant_energy_is_unfit():
    found = md_results()
    found["constant_energy"][0]["fault"] = "temperature 9 000 K at step 3"
    assert "ended early at constant energy (temperature 9 000 K" in md_verdict(found).text


def test_tables_have_a_row_for_each_system_and_temperature():
    found = md_results({300: ["", BROKEN], 450: ["", ""]})
    head, rows = survival_rows(found)
    assert [r[1:4] for r in rows] == [["300", "1 of 2", "1.2"], ["450", "2 of 2", "2"]]
    assert rows[0][4:] == ["303 ± 9", "140 ± 8, 141", BROKEN]
    assert rows[1][4:] == ["—", "—", ""]
    assert len(head) == len(rows[0])
    assert drift_rows(found)[1] == [["water", "2", "0.5", "0.020 ± 0.010", "0.11"]]
    assert any(line.split()[:2] == ["water", "300"] for line in md_test_lines(found))


def test_checks_against_the_reference_are_listed_with_their_labels():
    checks = {
        "labels": 20, "calculated": 15, "failed": 1,
        "errors": [{"system": "water", "temperature": 300, "frames": 12, "force_mae": 0.02, "force_max": 0.2,
                    "energy_mae": 0.001}],
        "frequencies": [{"system": "water", "model": [1.0, 2.0, 3.0], "mae": 5.04, "largest": 9.0,
                         "largest_at": 1600.0, "residual_force": 0.01}],
        "equation_of_state": [
            {"system": "copper", "volume": [1.0] * 7, "rms": 0.001, "V0_model": 11.5, "V0_reference": 11.6,
             "B_model": 130.0, "B_reference": 134.0},
            {"system": "far", "volume": [1.0] * 7, "rms": 0.001, "V0_model": None, "V0_reference": 11.6,
             "B_model": None, "B_reference": 134.0},
        ],
    }  # fmt: skip
    rows = dict(reference_rows(md_results(reference=checks)))
    assert rows["water: harmonic frequencies at the model's minimum, 3 modes"].startswith(
        "MAE 5.0 cm⁻¹, largest 9.0"
    )
    assert rows["copper: equation of state, 7 volumes"] == (
        "V₀ 11.50 against 11.60 Å³/atom, B₀ 130.0 against 134.0 GPa (model against reference); energies differ by 1.00 "
        "meV/atom (rms)"
    )
    assert "V₀ none in the range against 11.60 Å³/atom" in rows["far: equation of state, 7 volumes"]
    assert rows["labels for these checks, apart from those of the run"] == (
        "20 (15 calculated now, the others were in the store, 1 failed)"
    )
    assert reference_rows(md_results()) == []


def test_the_page_of_a_run_has_the_section_only_with_results(run):
    from dataclasses import replace

    assert "Is it fit for MD?" not in page(run)[0]
    text, panels, _ = page(replace(run, md_test=md_results()))
    assert "Is it fit for MD?" in text
    assert "Survived 2 trajectories of 1 ps" in text
    assert {"md_temperature", "md_total_energy", "md_distances"} <= {p.name for p in panels}
