"""The whole MD test: what is written of it, and the words it is given."""

import json
from dataclasses import replace

import numpy as np

from aims_pax.commands.md_test.run_test import TestBudget, digest_of_test, run_md_test, write_md_test
from aims_pax.commands.md_test.starts import systems_of_frames, with_moving_atoms
from aims_pax.frames import Label, LabelledFrame
from aims_pax.report.md_test import md_test_lines, md_verdict, read_md_test
from aims_pax.settings.md import MDSettings
from tests.commands.md_test.springs import MD, WATER, Springs, frames


def assessed(springs, steps=600, temperature=300.0, **budget):
    systems = systems_of_frames(frames(), lambda name: MD, temperature)
    return run_md_test(springs, systems, TestBudget(steps, starts=3, **budget), {"a.model": "1f"}).found


def test_a_sound_model_is_fit_and_its_page_is_stored(tmp_path):
    found = assessed(Springs(), 2000)
    path = write_md_test(tmp_path, found)
    assert read_md_test(tmp_path) == json.loads(path.read_text()) == json.loads(json.dumps(found))
    assert {p.name for p in (tmp_path / "md_test").iterdir()} == {
        "md_temperature.png", "md_total_energy.png", "md_distances.png",
    }  # fmt: skip
    verdict = md_verdict(found)
    assert verdict.kind == "fit", verdict.text
    assert verdict.text.startswith(
        "Survived 3 trajectories of 1 ps at 300 K with every bond kept, and 3 at 450 K"
    )
    assert "water  " in "\n".join(md_test_lines(found))
    assert not found["shortened"]


def test_a_model_that_breaks_is_unfit_and_a_drifting_one_too():
    broken = md_verdict(assessed(Springs(snaps=0.1), temperature=4000.0))
    assert broken.kind == "unfit"
    assert "ended early, the first (water) because bond O1–H" in broken.text
    drifting = md_verdict(assessed(Springs(swirl=0.1)))
    assert drifting.kind == "unfit"
    assert "drifts by" in drifting.text


def test_a_test_cut_short_by_its_time_says_so():
    found = assessed(Springs(), 5000, seconds=0.0)
    assert found["shortened"]
    assert "(shortened to the time allowed)" in "\n".join(md_test_lines(found))


def test_the_digest_knows_models_frames_settings_and_length_but_not_the_time_allowed():
    systems = systems_of_frames(frames(), lambda name: MD, None)
    one = digest_of_test({"a": "1"}, systems, TestBudget(100))
    assert one == digest_of_test({"a": "1"}, systems, TestBudget(100, seconds=3.0))
    hot = systems_of_frames(frames(), lambda name: MD, 700.0)
    others = [
        digest_of_test({"a": "2"}, systems, TestBudget(100)), digest_of_test({"a": "1"}, systems, TestBudget(200)),
        digest_of_test({"a": "1"}, hot, TestBudget(100)),
        digest_of_test({"a": "1"}, systems_of_frames(frames(3), lambda name: MD, None), TestBudget(100)),
    ]  # fmt: skip
    assert len({one, *others}) == 5


def test_systems_whose_atoms_are_all_fixed_are_not_tested():
    still = replace(WATER, fixed=np.ones(3, bool))
    data = [*frames(), LabelledFrame(still, Label(0.0, np.zeros((3, 3))), {"system": "still"})]
    systems = systems_of_frames(data, lambda name: MD, None)
    found = run_md_test(Springs(), systems, TestBudget(100), {}).found
    assert found["not_tested"] == ["still"]
    assert {law["system"] for law in found["temperature_law"]} == {"water"}
    assert not with_moving_atoms(systems[1:])


def test_a_crystal_with_fixed_atoms_is_tested_at_constant_volume():
    npt = MDSettings(stat_ensemble="NPT", barostat="MTK", temperature=300.0)
    crystal = replace(WATER, cell=np.eye(3) * 9, pbc=True, fixed=np.array([True, False, False]))
    data = [*frames(), LabelledFrame(crystal, Label(0.0, np.zeros((3, 3))), {"system": "crystal"})]
    systems = systems_of_frames(data, lambda name: npt, None)
    found = run_md_test(Springs(), systems, TestBudget(100), {}).found
    assert {t["system"] for t in found["trajectories"]} == {"water", "crystal"}
    assert found["thermostat"] == "Langevin 0.02 fs⁻¹, Langevin 0.02 fs⁻¹ (NVT where atoms are fixed)"


def test_the_number_of_starts_that_is_stored_is_that_of_those_begun():
    [water] = systems_of_frames(frames(), lambda name: MD, None)
    two = [water, replace(water, name="other")]
    found = run_md_test(Springs(), two, TestBudget(20, starts=4, most=8), {}).found
    assert (found["budget"]["starts"], len(found["trajectories"])) == (2, 8)


def test_earlier_or_damaged_files_count_as_none(tmp_path):
    assert read_md_test(tmp_path) == {}
    (tmp_path / "md_test.json").write_text('{"format": 2, "trajectories": []}')
    assert read_md_test(tmp_path) == {}
