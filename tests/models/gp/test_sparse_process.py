"""Fits in batches, within a limited memory."""

import numpy as np
import pytest

from aims_pax.frames import Frame, Label
from aims_pax.models.gp import sparse_process
from aims_pax.models.gp.process import descriptor_for, formulas_without_energy
from aims_pax.models.gp.sparse_process import (
    batches,
    element_counts,
    fit_sparse,
    joined_predictions,
    outside_compositions,
)
from tests.models.gp import systems


def test_batches_hold_about_so_many_atoms(monkeypatch):
    monkeypatch.setattr(sparse_process, "ATOMS_AT_ONCE", 30)
    frames = [x.frame for x in systems.cu13(5)]
    assert list(batches(frames)) == [(0, 2), (2, 4), (4, 5)]
    assert list(batches([])) == []


def test_rows_that_are_not_stored_give_the_same_fit(monkeypatch):
    pytest.importorskip("featomic")
    data = systems.cu13(6)
    frames, labels = [x.frame for x in data], [x.label for x in data]
    one = fit_sparse(frames, labels, descriptor_for(frames), inducing=40)
    monkeypatch.setattr(sparse_process, "STORED_ROWS", 20_000)
    monkeypatch.setattr(sparse_process, "ATOMS_AT_ONCE", 20)
    other = fit_sparse(frames, labels, descriptor_for(frames), inducing=40)
    test = [x.frame for x in systems.cu13(2, seed=3)]
    a, b = (fit.process.predict(test, spread=True) for fit in (one, other))
    assert a.energies == pytest.approx(b.energies, abs=1e-6)
    assert a.force_sd == pytest.approx(b.force_sd, rel=1e-3)
    assert one.errors.forces == pytest.approx(other.errors.forces, abs=1e-5)


def test_it_can_be_stopped_between_structures():
    pytest.importorskip("featomic")
    data = systems.cu13(3)
    frames, labels = [x.frame for x in data], [x.label for x in data]

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_sparse(frames, labels, descriptor_for(frames), check=stop)


def test_counts_and_empty_predictions():
    frames = [systems.alloy(1)[0].frame, systems.cu13(1)[0].frame]
    assert element_counts(frames, (29, 79)).tolist() == [[3, 1], [13, 0]]
    assert len(joined_predictions([]).energies) == 0
    assert np.shape(joined_predictions([]).forces) == (0, 3)


def test_what_compositions_determine():
    # C, H, O of ethanol, methanol and water: CH2 and H2O
    known = np.array([[2.0, 6, 1], [1, 4, 1], [0, 2, 1]])
    asked = np.array([[3.0, 8, 1], [1, 2, 0], [1, 4, 0], [0, 2, 0], [0, 4, 2]])
    assert outside_compositions(asked, known).tolist() == [False, False, True, True, False]
    weighted = known / np.sqrt(known.sum(1))[:, None]
    inverse = np.linalg.pinv(weighted.T @ weighted, rcond=1e-10, hermitian=True)
    assert outside_compositions(asked, inverse).tolist() == [False, False, True, True, False]
    one_in_many = np.array([[1.0, 2, 0]] * 200 + [[64.0, 128, 1]])
    assert not outside_compositions(np.array([[0.0, 0, 1], [5, 10, 3]]), one_in_many).any()


def test_the_energy_of_a_composition_that_is_not_determined_has_no_finite_deviation():
    """It was wrong by 71 eV with a deviation of 1.8 eV, where energies of atoms were large."""
    pytest.importorskip("featomic")
    from ase.build import molecule

    rng = np.random.default_rng(0)
    frames = []
    for name in ("CH3CH2OH", "CH3OH", "H2O") * 2:
        atoms = molecule(name)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        frames.append(Frame.from_atoms(atoms))
    labels = [Label(-100.0 * int(f.numbers.sum()), np.zeros((len(f), 3))) for f in frames]
    process = fit_sparse(frames, labels, descriptor_for(frames)).process
    said = process.predict([frames[0], Frame.from_atoms(molecule("CH4"))], spread=True)
    assert np.isfinite(said.energy_sd).tolist() == [True, False]
    assert np.isfinite(said.force_sd).all()
    assert formulas_without_energy(frames, [frames[0], Frame.from_atoms(molecule("CH4"))]) == ["CH4"]
