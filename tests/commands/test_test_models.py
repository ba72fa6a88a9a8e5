"""Testing models on a labelled dataset: the numbers are those of plain arithmetic on MACE's own predictions."""

import numpy as np
import pytest
from rich.console import Console

from aims_pax.commands.test_models import _labelled, evaluate_models
from aims_pax.dataset import write_extxyz
from aims_pax.errors import SettingsError
from aims_pax.models.mace import export as exports
from aims_pax.report.calibration import atomic_errors, calibrate
from tests.models.mace import tiny

KEYS = ("REF_energy", "REF_forces", "REF_stress")


def assessed(models, data, output, **changes):
    console = Console(record=True, width=200)
    words = {"keys": KEYS, "device": "cpu", "dtype": "float64", **changes}
    arrays = evaluate_models(models, data, output, *words.values(), console)
    return arrays, console.export_text()


def row(text, name):
    """The numbers of the first line of a table that begins with a name."""
    line = next(line for line in text.splitlines() if line.split()[:1] == [name])
    return [float(v) for v in line.split()[1:]]


def test_errors_by_system_and_element_are_those_of_maces_calculator(trained, tmp_path):
    from aims_pax.potential import calculate

    model = sorted((trained / "results").glob("*.model"))[0]
    _, text = assessed([model], trained / "results" / "test.xyz", tmp_path / "t.npz")
    data = [*tiny.ethanol(3), *tiny.copper(3)]
    with exports._hushed():
        from mace.calculators import MACECalculator

        calculator = MACECalculator(model_paths=str(model), device="cpu", default_dtype="float64")
        said = [calculate(f.frame, calculator) for f in data]
    E = np.array([(s.energy - f.label.energy) / len(f.frame) for s, f in zip(said, data, strict=True)])
    F = [s.forces - f.label.forces for s, f in zip(said, data, strict=True)]
    S = np.array([s.stress - f.label.stress for s, f in zip(said[3:], data[3:], strict=True)])

    def both(e):
        return [1000 * np.abs(e).mean(), 1000 * np.sqrt((e**2).mean())]

    flat = np.concatenate(F)
    n = sum(len(f.frame) for f in data)
    assert row(text, "all") == pytest.approx([6, n, *both(E), *both(flat), *both(S)], abs=2e-3)
    assert row(text, "C2H6O") == pytest.approx([3, 27, *both(E[:3]), *both(np.concatenate(F[:3]))], abs=2e-3)
    carbon = flat[np.concatenate([f.frame.numbers for f in data]) == 6]
    assert row(text, "C") == pytest.approx([3, 6, *both(carbon)], abs=2e-3)


def test_an_earlier_result_is_replaced_and_that_is_said(trained, tmp_path):
    model = sorted((trained / "results").glob("*.model"))[:1]
    _, first = assessed(model, trained / "results" / "test.xyz", tmp_path / "t.npz")
    assert first.rstrip().endswith("t.npz")
    (tmp_path / "t.npz").write_text("something else")
    _, again = assessed(model, trained / "results" / "test.xyz", tmp_path / "t.npz")
    assert again.rstrip().endswith("t.npz (replaces an earlier file)")
    assert "energy" in np.load(tmp_path / "t.npz")


def test_several_models_are_a_committee_with_mean_and_spread(trained, tmp_path):
    models = sorted((trained / "results").glob("*.model"))
    arrays, text = assessed(models, trained / "results" / "test.xyz", tmp_path / "deep" / "t.npz")
    stored = dict(np.load(tmp_path / "deep" / "t.npz"))
    assert set(stored) == set(arrays)
    np.testing.assert_allclose(stored["member_forces"].mean(0), stored["forces"], atol=1e-9)
    np.testing.assert_allclose(stored["member_energy"].mean(0), stored["energy"], atol=1e-9)
    deviation = stored["member_forces"] - stored["forces"]
    sd = np.sqrt((deviation**2).sum(axis=(0, 2)) / (3 * 2))
    np.testing.assert_allclose(stored["atomic_sd"], sd, rtol=1e-6)
    assert f"mean {1000 * sd.mean():.1f}, largest {1000 * sd.max():.1f} meV/Å" in text
    assert "committee mean" in text
    for model, a in zip(models, stored["member_forces"], strict=True):
        # what the report says of the one that is delivered
        h = calibrate(sd, np.sqrt(((a - stored["true_forces"]) ** 2).mean(axis=1)))
        assert f"where {model.stem} is wrong (rank correlation ρ = {h.rank:.2f})" in text
    h = calibrate(*atomic_errors(stored))
    assert f"where the committee mean is wrong (rank correlation ρ = {h.rank:.2f})" in text
    assert models[1].stem in text


def test_other_names_of_labels(trained, tmp_path):
    path = tmp_path / "other.xyz"
    write_extxyz(path, tiny.ethanol(2))
    path.write_text(path.read_text().replace("REF_energy", "my_energy").replace("REF_forces", "my_forces"))
    model = sorted((trained / "results").glob("*.model"))[0]
    _, text = assessed([model], path, tmp_path / "t.npz", keys=("my_energy", "my_forces", "REF_stress"))
    assert row(text, "C2H6O")[0] == 2
    assert "S MAE" not in text, "nobody has a stress here"


def test_data_that_cannot_be_used_are_named_with_their_place(trained, tmp_path):
    model, path = sorted((trained / "results").glob("*.model"))[0], tmp_path / "x.xyz"
    write_extxyz(path, tiny.ethanol(3))
    whole = path.read_text()
    one = len(whole.splitlines(True)) // 3
    other = f"1\nProperties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-1.0\nCl {6 * '0 '}\n"
    for text, said in [
        (
            "".join(whole.splitlines(True)[: one + 3]),
            r"structure 2 \(counted from 1\): the file is incomplete",
        ),
        (
            whole.replace("REF_energy=", "REF_energy=nan was=", 1),
            r"structure 1 \(counted from 1\): the energy is NaN",
        ),
        (whole + other, r"structure 4 \(counted from 1\): the model does not know Cl"),
    ]:
        path.write_text(text)
        with pytest.raises(SettingsError, match=rf"x\.xyz, {said}"):
            assessed([model], path, tmp_path / "t.npz")
        assert not (tmp_path / "t.npz").exists()


def test_wrong_use_is_told(trained, tmp_path):
    models, data = sorted((trained / "results").glob("*.model")), trained / "results" / "test.xyz"
    for words, changes, said in [
        (([models[0]], tmp_path / "no.xyz", tmp_path / "t.npz"), {}, r"no\.xyz: no such file"),
        (([models[0]], models[1], tmp_path / "t.npz"), {}, "the dataset is the last argument"),
        (([tmp_path / "no.model"], data, tmp_path / "t.npz"), {}, r"no\.model: no such file"),
        (([trained / "results"], data, tmp_path / "t.npz"), {}, r"results: a folder; .*results/\*\.model"),
        (([models[0]], data, tmp_path / "t.csv"), {}, "npz"),
        (([models[0]], data, tmp_path / "t.npz"), {"dtype": "float16"}, "float32 or float64"),
    ]:
        with pytest.raises(SettingsError, match=said):
            assessed(*words, **changes)


def test_labels_under_other_names_are_to_be_named_with_the_options_of_this_command(tmp_path):
    path = tmp_path / "plain.xyz"
    path.write_text("1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.0\nH 0 0 0 0 0 0\n")
    with pytest.raises(SettingsError) as caught:
        _labelled(path, ("REF_energy", "REF_forces", "REF_stress"))
    said = str(caught.value)
    assert "it has: energy, forces" in said
    assert "write --energy-key energy, --forces-key forces" in said
    assert "MISC" not in said
