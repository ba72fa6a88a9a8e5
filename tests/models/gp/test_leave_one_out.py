"""Leave-one-out errors in closed form are those of refits."""

import numpy as np
import pytest

from aims_pax.models.gp import dense_process, sparse_process
from aims_pax.models.gp.dense_process import fit_dense, with_errors
from aims_pax.models.gp.external_directions import internal_forces
from aims_pax.models.gp.leave_one_out import VarianceScale, fit_variance_scale, without_inducing
from aims_pax.models.gp.process import descriptor_for
from tests.models.gp import systems


def test_of_the_sparse_process_they_equal_refits():
    pytest.importorskip("featomic")
    data = [*systems.cu13(5), *systems.cu13(5, 0.1, seed=3)]
    frames, labels = [x.frame for x in data], [x.label for x in data]
    fit = sparse_process.fit_sparse(frames, labels, descriptor_for(frames), inducing=40)
    basis, s = fit.process.basis, fit.process.solution
    lam = (s.noise / s.amplitude) ** 2
    errors = fit.errors.forces.reshape(len(data), -1)
    rows = basis.rows(frames)
    for k in range(len(data)):
        others = [n for n in range(len(data)) if n != k]
        size = 3 * len(frames[0])
        forces = np.concatenate([internal_forces(frames[n], labels[n].forces).ravel() for n in others])
        phi = np.concatenate([rows.forces[size * n : size * (n + 1)] for n in others])
        weight = s.ratio * np.sqrt(13)
        centred = np.array([labels[n].energy for n in others]) - fit.process.solution.constants * 13
        own = np.concatenate([rows.energies[others], np.full((len(others), 1), 13.0)], 1) / weight
        design = np.concatenate([own, np.pad(phi, ((0, 0), (0, 1)))])
        y = np.concatenate([centred / weight, forces])
        penalty = np.sqrt(lam) * np.eye(basis.size + 1)[:-1]
        solved = np.linalg.lstsq(
            np.concatenate([design, penalty]), np.concatenate([y, np.zeros(basis.size)]), rcond=None
        )[0]
        energy = rows.energies[k] @ solved[:-1] + 13 * (solved[-1] + s.constants[0])
        force = rows.forces[size * k : size * (k + 1)] @ solved[:-1]
        assert fit.errors.energies[k] == pytest.approx(energy - labels[k].energy, abs=1e-8)
        true = internal_forces(frames[k], labels[k].forces).ravel()
        assert errors[k] == pytest.approx(force - true, abs=1e-8)


def test_of_the_dense_process_they_equal_refits():
    data = systems.h2(np.linspace(1, 2, 8))
    frames, labels = [x.frame for x in data], [x.label for x in data]
    shape = dense_process.DenseShape(1, 0.3, 1e-3, 1e-3)
    mean = float(np.mean([x.energy for x in labels]))
    errors = with_errors(fit_dense(frames, labels, shape), labels).errors
    for k in range(len(data)):
        rest = fit_dense(frames[:k] + frames[k + 1 :], labels[:k] + labels[k + 1 :], shape, mean=mean)
        assert errors.energies[k] == pytest.approx(
            rest.predict([frames[k]]).energies[0] - labels[k].energy, abs=1e-8
        )


def test_an_energy_that_no_other_structure_determines_has_no_error():
    pytest.importorskip("featomic")
    data = [*systems.cu13(3), *systems.alloy(1)]
    frames, labels = [x.frame for x in data], [x.label for x in data]
    errors = sparse_process.fit_sparse(frames, labels, descriptor_for(frames)).errors
    assert list(np.isnan(errors.energies)) == [False, False, False, True]
    assert np.isfinite(errors.forces).all()
    assert np.isfinite(errors.energy_mae)


def test_the_span_without_some_inducing_points_is_that_of_the_others():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 6))
    kernel, cross = a @ a.T + np.eye(6), rng.normal(size=(4, 6))
    factor = np.linalg.cholesky(kernel)
    rows = np.linalg.solve(factor, cross.T).T
    keep = [0, 2, 3, 5]
    sub = cross[:, keep]
    expected = np.einsum("nm,nm->n", sub, np.linalg.solve(kernel[np.ix_(keep, keep)], sub.T).T)
    assert without_inducing(rows, factor, np.array([1, 4])) == pytest.approx(expected)
    assert without_inducing(rows, factor, np.array([], int)) == pytest.approx((rows**2).sum(1))


def test_the_scale_of_variances_makes_intervals_cover_what_they_should():
    rng = np.random.default_rng(1)
    errors = rng.normal(0, 0.3, 4000)
    alone = fit_variance_scale(errors, np.ones(4000), np.zeros(4000))
    assert alone.near == 0
    assert np.mean(np.abs(errors) < 1.645 * np.sqrt(alone(np.ones(1), np.zeros(1)))) == pytest.approx(
        0.92, abs=0.02
    )
    both = fit_variance_scale(errors, np.ones(4000), rng.uniform(0, 2, 4000))
    far = both(np.ones(1), np.array([1e6]))
    assert far == pytest.approx(1e6, rel=0.01)
    few = fit_variance_scale(errors[:3], np.ones(3), np.ones(3))
    assert few.scale == 1
    assert VarianceScale()(np.ones(2), -np.ones(2)) == pytest.approx([1, 1])
