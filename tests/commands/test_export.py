"""Exports are proven: each file is loaded again and says what its model says; a file that does not is removed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from aims_pax.commands.export import export, frames_for, largest_differences
from aims_pax.errors import SettingsError, SetupError
from aims_pax.frames import Label
from aims_pax.models.mace import export as exports
from aims_pax.models.mace.build import load_model
from tests.models.mace import tiny
from tests.projects import write_project
from tests.worlds import crystal, water


def shown(folder, *words, **kwargs):
    console = Console(record=True, width=200)
    paths = export(folder, *words, console=console, **kwargs)
    return paths, console.export_text()


def test_each_delivered_model_is_exported_and_proven(trained, tmp_path):
    paths, text = shown(trained, [], "ase", tmp_path)
    assert len(paths) == 2
    assert all(p.is_file() and p.parent == tmp_path for p in paths)
    assert text.count("4 frames of") == 2
    assert "forces" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths), "nothing else is left"


@pytest.mark.parametrize("form", ["ase", "torchscript", "lammps"])
def test_what_was_exported_agrees_with_mace_itself(trained, tmp_path, form):
    """The comparison is no tautology: MACE's own calculator on the source file says the same."""
    from aims_pax.potential import calculate

    source = sorted((trained / "results").glob("*.model"))[0]
    (path,), _ = shown(trained, [source], form, tmp_path / "one.pt")
    frames, _ = frames_for(trained, source, tiny.ELEMENTS)
    assert {f.periodic for f in frames} == {True, False}
    said = exports.exported_labels(form, path, frames)
    with exports._hushed():
        from mace.calculators import MACECalculator

        calculator = MACECalculator(model_paths=str(source), device="cpu", default_dtype="float64")
        truth = [calculate(f, calculator) for f in frames]
    assert max(v for v, _ in largest_differences(truth, said).values()) < 1e-8
    assert max(np.abs(t.forces).max() for t in truth) > 0.01, "there is something to compare"


@pytest.mark.parametrize(
    ("name", "word"),
    [("my model.pt", '"{}"'), ("a#b$.pt", '"{}"'), ('a"b c.pt', "'{}'"), ("plain.pt", "{}")],
)
def test_the_path_in_the_hint_is_one_word_of_lammps(trained, tmp_path, name, word):
    source = sorted((trained / "results").glob("*.model"))[0]
    target = tmp_path / name
    found = exports.exported(source, "lammps", target, frames_for(trained, source, tiny.ELEMENTS)[0])
    assert f"    pair_coeff * * {word.format(target)} " in found.use


def test_a_file_that_says_something_else_is_removed_and_told(trained, tmp_path, monkeypatch):
    def scaled(form, path, frames):
        return [Label(a.energy, 1.0001 * a.forces, a.stress) for a in real(form, path, frames)]

    real = exports.exported_labels
    monkeypatch.setattr(exports, "exported_labels", scaled)
    with pytest.raises(SetupError, match="differs from the model: forces by"):
        shown(trained, [], "ase", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nan_is_no_agreement(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(
        exports,
        "exported_labels",
        lambda form, path, frames: [Label(0.0, np.full((len(f), 3), np.nan)) for f in frames],
    )
    with pytest.raises(SetupError, match="differs from the model"):
        shown(trained, [], "ase", tmp_path)


def test_mliap_succeeds_with_proof_or_says_in_one_line_why_not(trained, tmp_path):
    source = sorted((trained / "results").glob("*.model"))[0]
    said = "--format lammps works without it"
    try:
        shown(trained, [source], "mliap", tmp_path)
    except SetupError as error:
        said = str(error)
        if list(tmp_path.iterdir()):
            raise
    assert "\n" not in said
    assert said.endswith("--format lammps works without it")


def test_the_sums_of_ml_iap_are_those_of_forces(trained):
    """MACE's ML-IAP object around the model as it is (without the conversion to cuequivariance)."""
    with exports._hushed():
        from mace.calculators.lammps_mliap_mace import LAMMPS_MLIAP_MACE

        model, elements = load_model(sorted((trained / "results").glob("*.model"))[0])
        frames, _ = frames_for(trained, trained / "results" / "x.model", elements)
        truth = exports.model_labels(model, frames)
        with exports.default_dtype(torch.float64):
            model = model.double()
            model.lammps_mliap = True
            answer = exports.mliap_answer(LAMMPS_MLIAP_MACE(model))
            said = [answer(f) for f in frames]
    assert max(v for v, _ in largest_differences(truth, said).values()) < 1e-8


def test_without_data_the_geometries_are_shaken_and_without_those_some_are_made(tmp_path):
    folder = write_project(tmp_path, systems={"water": water(), "copper": crystal("Cu")})
    frames, where = frames_for(folder, folder / "a.model", (1, 8, 29))
    assert where == "its geometries with random displacements"
    assert {f.formula for f in frames} == {"H2O", "Cu4"}
    assert len({f.id for f in frames}) == len(frames) >= 5
    frames, _ = frames_for(tmp_path / "nowhere", folder / "a.model", (1, 8))
    assert {int(z) for f in frames for z in f.numbers} == {1, 8}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (([], "lamps", None), "nearest: lammps"),
        (([], "ase", "one.pt"), "a file, but there are 2 models"),
    ],
)
def test_wrong_use_is_told(trained, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.pt").touch()
    models, form, output = words
    with pytest.raises(SettingsError, match=said):
        shown(trained, models, form, output and Path(output))


def test_a_folder_stands_for_the_models_it_delivered(trained, tmp_path, monkeypatch):
    run = tmp_path / "runs" / "a"
    shutil.copytree(trained / "results", run / "results")
    monkeypatch.chdir(tmp_path)
    names = sorted(p.stem for p in (run / "results").glob("*.model"))
    shown(tmp_path, [Path("runs/a")], "ase", None)
    assert sorted(p.stem for p in (run / "export").iterdir()) == names
    assert not (tmp_path / "export").exists()
    shown(tmp_path, [Path("runs/a")], "ase", Path("here"))
    assert sorted(p.stem for p in (tmp_path / "here").iterdir()) == names
    with pytest.raises(SettingsError, match="runs/a: a folder; give one folder only, or model files"):
        shown(tmp_path, [Path("runs/a"), Path("runs/a/results/x.model")], "ase", None)
    with pytest.raises(SettingsError, match="no models in runs/results"):
        shown(tmp_path, [Path("runs")], "ase", None)


def test_missing_models_and_the_model_itself_as_target(trained, tmp_path):
    with pytest.raises(SettingsError, match="has not written any"):
        shown(tmp_path, [], "ase", None)
    with pytest.raises(SettingsError, match=r"a\.model: no such file"):
        shown(tmp_path, [tmp_path / "a.model"], "ase", None)
    source = sorted((trained / "results").glob("*.model"))[0]
    before = source.read_bytes()
    with pytest.raises(SettingsError, match="is the model itself"):
        shown(trained, [source], "ase", source)
    assert source.read_bytes() == before


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["beside ours", "in place of ours", "no record", "broken record"])
def test_a_model_that_is_merely_found_is_not_opened(trained, tmp_path, how):
    """Opening a pickle runs what is in it."""
    shutil.copytree(trained / "results", tmp_path / "results")
    results, mark = tmp_path / "results", tmp_path / "the code ran"
    path = results / "evil.model" if how == "beside ours" else sorted(results.glob("*.model"))[0]
    torch.save(Evil(mark), path)
    if how == "no record":
        (results / "models.json").unlink()
    if how == "broken record":
        (results / "models.json").write_text('{"format": 1, "models": [1]}')
    for call in (lambda: shown(tmp_path, [], "ase", None), lambda: shown(tmp_path, [tmp_path], "ase", None)):
        with pytest.raises(SettingsError, match=r"runs the code in it; if you trust the file, name it"):
            call()
    assert not mark.exists()
    assert not (tmp_path / "export").exists()
    with pytest.raises(SettingsError, match="expected a MACE model"):
        shown(tmp_path, [path], "ase", None)
    assert mark.exists(), "who names a file has it opened"


def test_report_card_and_status_open_no_model(tmp_path):
    from aims_pax.commands.status import status
    from aims_pax.report.html_page import write_report
    from aims_pax.report.model_card import write_cards
    from tests.report.folders import recorded

    folder, mark = recorded(tmp_path / "run"), tmp_path / "the code ran"
    for name in ("results/tiny_255.model", "model/tiny_255.model", "results/predictions.npz"):
        (folder / name).parent.mkdir(exist_ok=True)
        torch.save(Evil(mark), folder / name)
    write_report(folder, pictures=False)
    write_cards(folder)
    status(folder)
    assert not mark.exists()
