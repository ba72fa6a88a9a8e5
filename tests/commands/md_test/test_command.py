"""`aims-PAX test --md`: models by path or the folder of a run, and what it refuses."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from aims_pax.commands.md_test.command import MDTestOptions, _budget, assess_in_md
from aims_pax.commands.md_test.starts import choose_starts, systems_of_frames
from aims_pax.errors import SettingsError
from tests.commands.md_test.springs import MD, frames

FILES = ("aimsPAX.yaml", "mace.yaml")


def assessed(words, **options):
    console = Console(record=True, width=200)
    found = assess_in_md(words, MDTestOptions(ps=0.02, starts=1, **options), console, FILES)
    return found, console.export_text()


def test_a_model_by_its_path_is_tested_on_a_dataset(trained, tmp_path):
    model = sorted((trained / "results").glob("*.model"))[0]
    data = trained / "results" / "test.xyz"
    found, text = assessed([model, data], temperature=50.0, output=tmp_path / "out")
    assert list(found["models"]) == [model.name]
    assert {t["system"] for t in found["trajectories"]} == {"C2H6O", "Cu4"} or len(found["trajectories"]) == 4
    assert json.loads((tmp_path / "out" / "md_test.json").read_text())["digest"] == found["digest"]
    assert (tmp_path / "out" / "md_test" / "md_temperature.png").stat().st_size > 1000
    assert f"MD test of {model.name}: 0.02 ps from 1 labelled frame of 2 systems, at T and 1.5 T" in text


def test_as_many_starts_as_written_are_begun_and_else_as_many_as_many_systems_allow():
    [water] = systems_of_frames(frames(60), lambda name: MD, None)
    for n, asked, each in ((1, 50, 50), (20, 4, 4), (20, None, 1), (9, None, 3), (1, None, 4)):
        tested = [replace(water, name=f"s{k}") for k in range(n)]
        budget = _budget(MDTestOptions(starts=asked), tested)
        starts = choose_starts(tested, budget.starts, budget.most)
        assert (budget.starts, len(starts)) == (each, 2 * n * each)


def test_a_delivered_model_finds_the_frames_of_its_run_and_both_models_are_a_committee(trained, tmp_path):
    models = sorted((trained / "results").glob("*.model"))
    found, _ = assessed(models, temperature=50.0, output=tmp_path)
    assert list(found["models"]) == [m.name for m in models]


def test_what_is_missing_is_said(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = sorted((trained / "results").glob("*.model"))[0]
    data = trained / "results" / "test.xyz"
    alone = tmp_path / "alone.model"
    alone.write_bytes(model.read_bytes())
    for words, options, text in (
        (
            [alone],
            {"temperature": 300.0},
            "no labelled structures to start from: it is not among the results of a run",
        ),
        ([alone, data], {}, "--temperature: at which temperature"),
        ([data], {}, "expected models before the dataset"),
        ([alone, tmp_path / "no.xyz"], {}, "no.xyz"),
        ([], {}, "no models of a run in it"),
        ([alone, data], {"temperature": -1.0}, "--temperature: expected a positive number, got -1"),
        ([alone, data], {"temperature": 300.0, "reference": "errors"}, "no run was found"),
        (
            [alone, data],
            {"temperature": 300.0, "output": tmp_path / "x.npz"},
            "expected a folder for the MD test",
        ),
    ):
        with pytest.raises(SettingsError, match=text):
            assessed(words, **options)
