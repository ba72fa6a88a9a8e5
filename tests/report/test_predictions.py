"""The table of predictions, and its file."""

import numpy as np
import pytest

from aims_pax.report import predictions
from tests.report.wrong_model import SETS, Wrong


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


def test_some_frames_come_with_their_atoms():
    p = predictions.predictions(Wrong(), SETS)
    kept = predictions.select_predictions(p, np.array([False, True, False, True]))
    assert kept["split"].tolist() == ["valid", "test"]
    assert kept["numbers"].tolist() == [1, 1, 1]
    assert kept["true_forces"][:, 0].tolist() == [0.1, 0.1, 0.2]


def test_without_frames_there_is_no_table():
    with pytest.raises(ValueError, match="no frames to evaluate on"):
        predictions.predictions(Wrong(), {"train": []})


def test_a_table_whose_columns_do_not_fit_together_is_none(tmp_path):
    p = predictions.predictions(Wrong(), SETS)
    path = tmp_path / predictions.FILE
    for name in ("energy_sd", "forces"):
        path.write_bytes(predictions.pack_predictions({**p, name: p[name][1:]}))
        assert predictions.load_predictions(path) == {}
        path.write_bytes(predictions.pack_predictions({k: v for k, v in p.items() if k != name}))
        assert predictions.load_predictions(path) == {}
