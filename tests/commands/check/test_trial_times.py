"""`check --try` forecasts time and cost, stores it, and the report compares."""

import json
import shutil

from aims_pax.commands.check.trial_times import try_times
from aims_pax.settings import read_settings
from tests.projects import command, write_project

KIND = {"MODEL": {"kind": "tests.models.linear_model:COMMITTEE"}}
FILES = ("aimsPAX.yaml", "mace.yaml")


def test_times_are_measured_and_the_forecast_is_stored(tmp_path):
    settings = read_settings(write_project(tmp_path, KIND))
    lines = try_times(tmp_path, settings, {"REFERENCE": 0.5}, None, FILES)
    assert lines[0].startswith("measured: one label 0.5 s (3 atoms), one epoch of one member ")
    stored = json.loads((tmp_path / "logs" / "forecast.json").read_text())
    assert stored["timings"]["label"] == 0.5
    assert any(line.startswith("  in all") for line in lines)


def test_the_user_says_the_time_of_a_label_that_cannot_be_tried_and_stored_ones_count(tmp_path):
    settings = read_settings(write_project(tmp_path, KIND))
    assert "time of a label not known" in try_times(tmp_path, settings, {}, None, FILES)[0]
    assert "one label 60 min 00 s" in try_times(tmp_path, settings, {}, 3600.0, FILES)[0].replace(
        "1 h 00 min", "60 min 00 s"
    )
    folder = tmp_path / "data" / "labels" / "method"
    folder.mkdir(parents=True)
    for k, seconds in enumerate((7.0, 8.0, 90.0)):
        (folder / f"f{k}.json").write_text(
            json.dumps({"energy": 0, "seconds": seconds, "host": "h", "when": 1.0})
        )
    assert "one label 8 s" in try_times(tmp_path, settings, {}, None, FILES)[0]


def test_the_command_prints_it_and_a_label_time_alone_is_refused(tmp_path):
    write_project(tmp_path)
    done = command("check", "--try", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "forecast, 10 … 90 % (median):" in done.stderr
    assert "labels" in done.stderr
    refused = command("check", "--label-time", "5", folder=tmp_path)
    assert refused.returncode == 2
    assert "--label-time: expected a positive number, with --try, got 5" in refused.stderr
    planned = command("plan", folder=tmp_path)
    assert "measured: one label" in planned.stdout
    shutil.rmtree(tmp_path / "logs")
    assert "aims-PAX check --try measures and forecasts them" in command("plan", folder=tmp_path).stdout
