"""The target temperatures of now, and those with which earlier structures were labelled."""

import json
from dataclasses import replace

import pytest

from aims_pax.report.load_run import load_run
from aims_pax.report.model_card import gaps
from aims_pax.report.run_verdict import run_verdict
from aims_pax.report.temperatures import (
    drawn_at_other_temperatures,
    earlier_temperatures,
    target_temperatures,
)
from tests.report.folders import recorded

TEMPERATURE = "aimsPAX.MD.temperature"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        ({TEMPERATURE: "300.0", "aimsPAX.MD.temperatures": "None"}, "300.0"),
        ({TEMPERATURE: "300.0", "aimsPAX.MD.temperatures": "[300.0, 500.0]"}, "300.0, 500.0"),
        (
            {"aimsPAX.MD.ice.temperature": "200.0", "aimsPAX.MD.water.temperature": "300.0"},
            "ice: 200.0; water: 300.0",
        ),
    ],
)
def test_target_temperatures(settings, said):
    assert target_temperatures(settings) == said


@pytest.fixture
def changed(tmp_path):
    """The recorded run, whose first structures were labelled while the temperature was 777 K."""
    folder = recorded(tmp_path / "run")
    run = load_run(folder)
    digests = list(dict.fromkeys(s.info["settings"] for s in run.structures if "settings" in s.info))
    stored = folder / "data" / "settings"
    stored.mkdir(exist_ok=True)
    (stored / "before.json").write_text(json.dumps({TEMPERATURE: "777.0"}))
    for digest in digests:
        (stored / f"{digest}.json").write_text(json.dumps(run.settings))
    structures = [
        replace(s, info={**s.info, "settings": "before"}) if k < 3 else s
        for k, s in enumerate(run.structures)
    ]
    first = [s.id for s in structures[:2]]
    return replace(run, structures=tuple(structures), splits={**run.splits, "test": first})


def test_a_changed_temperature_is_said_of_data_and_of_test_frames(changed):
    now = target_temperatures(changed.settings)
    assert earlier_temperatures(changed) == ["777.0"]
    assert drawn_at_other_temperatures(changed) == [
        "2 of 2 test frames drawn while the temperature was 777.0 K."
    ]
    assert f"far from {now} or 777.0 K" in " ".join(gaps(changed))
    assert "while the temperature was 777.0 K" in run_verdict(replace(changed, state="finished")).text


def test_the_same_temperature_in_other_settings_is_no_change(changed):
    settings = {**changed.settings, TEMPERATURE: "777.0"}
    assert "777.0" not in earlier_temperatures(replace(changed, settings=settings))


def test_settings_that_are_lost_are_not_guessed(changed):
    structures = [replace(s, info={**s.info, "settings": "nowhere"}) for s in changed.structures]
    assert earlier_temperatures(replace(changed, structures=tuple(structures))) == []
