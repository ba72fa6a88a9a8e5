"""Delta-learning data: target minus baseline."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed

from aims_pax.commands.training_set.delta_learning import _atomic_energy, _ground_truth
from aims_pax.dataset import read_extxyz
from aims_pax.errors import NotConverged, SettingsError
from aims_pax.frames import Frame, Label
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


FRAMES = [Frame([18, 18], [[0, 0, 0], [r, 0, 0]]) for r in (3.6, 3.8, 4.0, 4.2)]
NOBODY = SimpleNamespace(check=lambda: None)


class Fails:
    """A potential that answers −r eV, except for one distance; counts what it is asked for."""

    identity = "fails"

    def __init__(self, at=None, error=None):
        self.at, self.error, self.asked, self.potential = at, error, 0, self

    def refusal(self, frame):
        return None

    def labels(self, frames):
        self.asked += len(frames)
        r = [f.positions[1, 0] for f in frames]
        if self.at in r and self.error:
            raise self.error
        return [Label(np.nan if d == self.at else -d, np.full((2, 3), d)) for d in r]

    def atomic_energy(self, z):
        raise SettingsError("KeyError: 'Ar'")


@pytest.mark.parametrize("error", [NotConverged("no"), CalculationFailed("no"), None])
def test_a_structure_on_which_a_level_fails_is_left_out_and_marked(tmp_path, error):
    store, named = Hdf5(tmp_path / "a.hdf5"), Fails(at=3.8, error=error)
    found = _ground_truth(NOBODY, store, "group", FRAMES, "target", named)
    assert [label and label.energy for label in found] == [-3.6, None, -4.0, -4.2]
    stored = store.read("group/ground_truth")
    assert stored["status_target"].tolist() == [1, 0, 1, 1]
    np.testing.assert_allclose(stored["E_target (eV∕atom)"], [-1.8, np.nan, -2.0, -2.1])
    asked = named.asked
    again = _ground_truth(NOBODY, store, "group", FRAMES, "target", named)
    assert named.asked == asked, "what is stored is not computed again"
    assert [label and label.energy for label in again] == [-3.6, None, -4.0, -4.2]


def test_another_potential_or_other_structures_are_computed_anew(tmp_path):
    store, named = Hdf5(tmp_path / "a.hdf5"), Fails()
    _ground_truth(NOBODY, store, "group", FRAMES, "target", named)
    _ground_truth(NOBODY, store, "group", FRAMES, "baseline", named)
    assert named.asked == 8, "each level has its own labels"
    named.identity = "other contents"
    _ground_truth(NOBODY, store, "group", FRAMES, "target", named)
    assert named.asked == 12
    _ground_truth(NOBODY, store, "group", FRAMES[:3], "target", named)
    assert named.asked == 15


def test_a_potential_that_cannot_be_given_the_charge_is_refused(tmp_path):
    named = Fails()
    named.refusal = lambda frame: "it has no charge"
    with pytest.raises(SettingsError, match=r"^delta_learning\.target: it has no charge$"):
        _ground_truth(NOBODY, Hdf5(tmp_path / "a.hdf5"), "group", FRAMES, "target", named)
    assert named.asked == 0


def test_the_energy_of_an_atom_is_the_one_that_is_given_else_the_potential_s():
    named = Fails()
    assert _atomic_energy(18, {"Ar": -7.5}, named, "target_E0") == -7.5
    with pytest.raises(
        SettingsError, match=r"isolated Ar atom \(KeyError: 'Ar'\); set target_E0: \{Ar: …\} \(eV\)"
    ):
        _atomic_energy(18, {"Kr": -7.5}, named, "target_E0")
    named.atomic_energy = lambda z: -0.25 * z
    assert _atomic_energy(18, None, named, "target_E0") == -4.5
