"""Delta-learning data: target minus baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aims_pax.dataset import read_extxyz
from aims_pax.errors import SettingsError
from aims_pax.record.hdf5 import Hdf5
from tests.commands.training_set.argon import CALLS, DELTA, argon, md


def test_delta_data_is_target_minus_baseline(project):
    project(delta_learning=DELTA)
    atom, *data = read_extxyz(Path("frames/delta.xyz"))
    assert (atom.origin["config_type"], atom.label.energy) == ("IsolatedAtom", -2.0)
    assert len(data) == 2 * 2 * 4
    low, high = argon(), argon(0.02)
    for labelled in data:
        a, b = high.labels([labelled.frame])[0], low.labels([labelled.frame])[0]
        assert labelled.label.energy == pytest.approx(a.energy - b.energy, abs=1e-9)
        np.testing.assert_allclose(labelled.label.forces, a.forces - b.forces, atol=2e-8)
    truth = Hdf5(Path("training_set.hdf5")).read("training/md_sampling/finite_subsystems/n=2/ground_truth")
    assert truth["E_target (eV∕atom)"].shape == (4,)
    assert truth["forces_baseline (eV∕Å)"].shape == (4, 2, 3)
    assert truth["status_target"].tolist() == [1] * 4
    CALLS.clear()
    project(delta_learning=DELTA)
    assert CALLS == []  # neither the steps nor the labels again
    project(delta_learning=DELTA | {"root_keys": ["training/md_sampling/finite_subsystems/n=2"]})
    assert len(list(read_extxyz(Path("frames/delta.xyz")))) == 5


def test_atoms_whose_energy_nobody_knows_are_an_error(project):
    nan = {"factory": "tests.commands.training_set.argon:lonely"}
    with pytest.raises(SettingsError, match=r"target_E0: .*isolated Ar atom.*set target_E0: \{Ar: …\}"):
        project(md_sampling=md(), delta_learning={"target": nan})
    with pytest.raises(SettingsError, match=r"root_keys: training_set\.hdf5 has no structures"):
        project(delta_learning=DELTA | {"root_keys": ["elsewhere"]})
