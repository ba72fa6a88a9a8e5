import numpy as np
import pytest

from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.potential import Evaluation
from aims_pax.report import predictions
from aims_pax.report.accuracy import by_element, by_system, held_out
from aims_pax.report.calibration import atomic_errors, calibrate

H2 = Frame([1, 1], [[0, 0, 0], [0.8, 0, 0]])
HO = Frame([1, 8], [[0, 0, 0], [1.0, 0, 0]])
CRYSTAL = Frame([1], [[0, 0, 0]], np.eye(3) * 3, True)


def labelled(frame, energy, force, system, stress=None):
    return LabelledFrame(frame, Label(energy, np.full((len(frame), 3), force), stress), {"system": system})


class Wrong:
    """Says one energy, no force and, in crystals, no stress; as a committee two members one eV/Å apart."""

    members, device = 2, "cpu"

    def labels(self, frames):
        return [Label(1.0, np.zeros((len(f), 3)), np.zeros((3, 3)) if f.periodic else None) for f in frames]

    def bind(self, frames):
        atoms = sum(map(len, frames))

        def said(positions, cells, *, stress=False):
            import torch

            assert positions.shape == (atoms, 3)
            assert cells.shape == (len(frames), 3, 3)
            forces = torch.zeros((2, atoms, 3), dtype=torch.float64)
            forces[1, :, 0] = 1.0
            return Evaluation(torch.tensor([[1.0] * len(frames), [3.0] * len(frames)]), forces)

        said.device = "cpu"
        return said


SETS = {
    "train": [labelled(H2, 1.0, 0.5, "h2")],
    "valid": [labelled(H2.moved(H2.positions * 1.1), 1.2, 0.1, "h2"), labelled(HO, 2.0, -0.3, "oh")],
    "test": [labelled(CRYSTAL, 1.0, 0.2, "solid", np.full((3, 3), 0.01))],
}


def test_the_table_holds_predictions_beside_the_truth(monkeypatch):
    monkeypatch.setattr(predictions, "CHUNK", 2)  # several bindings
    p = predictions.predictions(Wrong(), SETS, Wrong())
    assert p["split"].tolist() == ["train", "valid", "valid", "test"]
    assert p["system"].tolist() == ["h2", "h2", "oh", "solid"]
    assert p["numbers"].tolist() == [1, 1, 1, 1, 1, 8, 1]
    assert p["true_energy"].tolist() == [1.0, 1.2, 2.0, 1.0]
    assert p["true_forces"][4:6].tolist() == [[-0.3] * 3] * 2
    assert np.isnan(p["true_stress"][:3]).all()
    np.testing.assert_allclose(p["true_stress"][3], 0.01)
    np.testing.assert_allclose(p["energy_sd"], 1.0)  # 1 and 3 eV about 2
    np.testing.assert_allclose(p["atomic_sd"], np.sqrt(0.25 / 3))  # ±0.5 eV/Å in x, over three components


def test_without_a_committee_there_is_no_spread():
    p = predictions.predictions(Wrong(), SETS)
    assert np.isnan(p["atomic_sd"]).all()
    assert np.isnan(p["energy_sd"]).all()


def test_the_table_survives_its_file_and_a_torn_one_is_none(tmp_path):
    p = predictions.predictions(Wrong(), SETS, Wrong())
    path = tmp_path / predictions.FILE
    assert predictions.load_predictions(path) == {}
    content = predictions.pack_predictions(p)
    path.write_bytes(content)
    again = predictions.load_predictions(path)
    assert set(again) == set(p)
    for name in p:
        np.testing.assert_array_equal(again[name], p[name])
    for share in (0.2, 0.6, 0.95):
        path.write_bytes(content[: int(share * len(content))])
        assert predictions.load_predictions(path) == {}
    path.write_bytes(predictions.pack_predictions({**p, "format": np.asarray(99)}))
    assert predictions.load_predictions(path) == {}


def test_errors_by_system_are_what_a_hand_gives():
    rows = {(r.split, r.group): r for r in by_system(predictions.predictions(Wrong(), SETS))}
    assert rows["valid", "h2"].energy_mae == pytest.approx(0.1)  # 0.2 eV, two atoms
    assert rows["valid", "oh"].energy_mae == pytest.approx(0.5)
    both = rows["valid", "all"]
    assert both.frames == 2
    assert both.energy_mae == pytest.approx(0.3)
    assert both.energy_rmse == pytest.approx(np.sqrt((0.1**2 + 0.5**2) / 2))
    assert both.force_mae == pytest.approx(0.2)
    assert both.force_rmse == pytest.approx(np.sqrt((0.1**2 + 0.3**2) / 2))
    assert np.isnan(both.stress_mae)
    assert rows["test", "solid"].stress_mae == pytest.approx(0.01)
    assert ("train", "all") not in rows  # one system is its own total


def test_errors_by_element_count_atoms():
    rows = {(r.split, r.group): r for r in by_element(predictions.predictions(Wrong(), SETS))}
    assert rows["valid", "O"].force_mae == pytest.approx(0.3)
    assert rows["valid", "H"].force_mae == pytest.approx((2 * 0.1 + 0.3) / 3)
    assert rows["valid", "H"].atoms == 3
    assert rows["valid", "H"].frames == 2


def test_test_frames_are_believed_before_validation_frames():
    p = predictions.predictions(Wrong(), SETS)
    name, part = held_out(p)
    assert (name, part["split"].tolist()) == ("test frames", ["test"])
    name, part = held_out(predictions.predictions(Wrong(), {k: SETS[k] for k in ("train", "valid")}))
    assert (name, part["split"].tolist()) == ("validation frames", ["valid", "valid"])
    assert held_out(predictions.predictions(Wrong(), {"train": SETS["train"]})) == ("", {})


def test_the_true_error_of_an_atom_is_what_its_spread_predicts():
    """Members and truth drawn from one distribution: e_a and σ_a agree on average."""
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.05, 0.5, 4000)
    arrays = {
        "atomic_sd": sigma,
        "forces": rng.normal(size=(4000, 3)) * sigma[:, None],
        "true_forces": np.zeros((4000, 3)),
    }
    spread, error = atomic_errors(arrays)
    h = calibrate(spread, error)
    assert h.ratio == pytest.approx(1.0, abs=0.03)
    assert calibrate(spread, 2 * error).ratio == pytest.approx(2.0, abs=0.06)


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(1)
    x = rng.integers(1, 8, 60).astype(float)  # many ties
    y = x + rng.integers(0, 6, 60)
    assert calibrate(x, y).rank == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert calibrate(x, x).rank == pytest.approx(1.0)
    assert calibrate(x, x.max() + 1 - x).rank == pytest.approx(-1.0)


def test_what_is_not_finite_does_not_count():
    h = calibrate(np.array([np.nan, 0.0, 1, 2, 3]), np.array([1.0, 1.0, 1, 2, np.inf]))
    assert len(h.spread) == 2
    assert np.isnan(h.rank)
