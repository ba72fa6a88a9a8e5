"""Fits in batches, within a limited memory."""

import numpy as np
import pytest

from aims_pax.models.gp import sparse_process
from aims_pax.models.gp.process import descriptor_for
from aims_pax.models.gp.sparse_process import batches, element_counts, fit_sparse, joined_predictions
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
