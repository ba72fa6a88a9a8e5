"""The page of `aims-PAX gpr` has the numbers of the record."""

import json

import numpy as np
import pytest

from aims_pax.models.gp.leave_one_out import LeaveOneOutErrors
from aims_pax.models.gp.sparse_process import ProcessPrediction
from aims_pax.models.gp.surrogate_copies import LabelledCopies
from aims_pax.report.gpr_page import GprRecord, TestErrors, write_gpr_page
from tests.models.gp import systems


def test_numbers_and_figures(tmp_path):
    data = systems.h2(np.linspace(1, 2, 3))
    energies = np.array([x.label.energy for x in data])
    forces = np.concatenate([x.label.forces for x in data])
    said = ProcessPrediction(energies + 0.002, forces + 0.01, None, np.full(3, 0.01), np.full((6, 3), 0.005))
    loo = LeaveOneOutErrors(np.array([0.1, np.nan, 0.3]), np.full(18, 0.25), np.ones(3), np.ones(18))
    copies = LabelledCopies(refused={"uncertain force": 4})
    record = GprRecord("train.in", "auto", data, data, loo, TestErrors(energies, forces, said), copies)
    page = write_gpr_page(tmp_path, record).read_text()
    assert "250.00" in page
    assert "uncertain force" in page
    numbers = json.loads((tmp_path / "gpr/errors.json").read_text())
    assert numbers["energy_mae"] == pytest.approx(0.002)
    assert numbers["force_mae"] == pytest.approx(0.01)
    assert numbers["coverage_90"] == 0
    assert numbers["loo_energy_mae"] == pytest.approx(0.2)
    assert numbers["refused"] == {"uncertain force": 4}


def test_forces_that_vanish_by_symmetry_are_within_their_intervals(tmp_path):
    """Of primitive cells 0 % was said, and matplotlib warned of a logarithmic axis without values."""
    data = systems.h2(np.linspace(1, 2, 3))
    none = np.zeros((6, 3))
    said = ProcessPrediction(np.ones(3), none, None, np.full(3, 0.01), none)
    tested = TestErrors(np.ones(3), none, said)
    assert tested.coverage == 1
    loo = LeaveOneOutErrors(np.full(3, 0.1), np.full(18, 0.25), np.ones(3), np.ones(18))
    write_gpr_page(tmp_path, GprRecord("train.in", "auto", data, data, loo, tested, None))
    assert not (tmp_path / "gpr/gpr_uncertainty.png").exists()
