"""Rows, readouts and prior variances of the basis agree with each other and with the kernel."""

import numpy as np
import pytest

from aims_pax.models.gp.inducing_points import choose_inducing
from aims_pax.models.gp.process import descriptor_for
from aims_pax.models.gp.sparse_basis import SparseBasis
from tests.models.gp import systems

pytest.importorskip("featomic")


@pytest.fixture(scope="module", params=[2, 3])
def basis(request):
    frames = [x.frame for x in systems.alloy(3)]
    descriptor = descriptor_for(frames)
    chosen = choose_inducing(frames, descriptor, 100)
    return SparseBasis(descriptor, request.param, {z: q for z, (q, _) in chosen.items()})


def test_predictions_are_rows_times_weights(basis):
    frames = [x.frame for x in systems.alloy(2, seed=5)]
    weights = np.random.default_rng(0).normal(size=basis.size)
    rows, of = basis.rows(frames), basis.environments(frames)
    energies, forces, strained = basis.predict(frames, basis.readout(weights), of)
    assert energies == pytest.approx(rows.energies @ weights)
    assert forces.ravel() == pytest.approx(rows.forces @ weights, abs=1e-6)
    assert strained is None


def test_a_structure_whose_environments_are_inducing_leaves_no_prior_variance(basis):
    frames = [x.frame for x in systems.alloy(3)]
    of = basis.environments(frames)
    energies, _ = basis.prior_variances(frames, of)
    assert energies == pytest.approx((basis.rows(frames, of).energies ** 2).sum(1), rel=1e-6)


def test_prior_variances_of_forces_exceed_what_the_basis_explains(basis):
    frames = [x.frame for x in systems.alloy(2, sigma=0.2, seed=6)]
    of = basis.environments(frames)
    rows = basis.rows(frames, of)
    energies, forces = basis.prior_variances(frames, of)
    assert (energies > (rows.energies**2).sum(1)).all()
    assert (forces > (rows.forces**2).sum(1) * (1 - 1e-6)).all()
    only, _ = basis.prior_variances(frames, of, [1])
    assert only == pytest.approx([0, energies[1]])


def test_prior_variances_of_forces_are_second_differences_of_the_kernel(basis):
    """k(x + h, x + h) + k(x − h, x − h) − 2 k(x + h, x − h) over 4h²: a large basis that has both structures."""
    frame, h = systems.alloy(1, seed=7)[0].frame, 1e-2
    step = np.zeros_like(frame.positions)
    step[1, 2] = h
    pair = [frame.moved(frame.positions + s * step) for s in (1, -1)]
    found = [basis.descriptor.of([f], slopes=False) for f in pair]

    def kernel(a, b):
        return sum(float(((a[z].values @ b[z].values.T) ** basis.zeta).sum()) for z in a)

    second = (kernel(found[0], found[0]) + kernel(found[1], found[1]) - 2 * kernel(*found)) / (4 * h**2)
    _, forces = basis.prior_variances([frame], basis.environments([frame]))
    assert forces[3 * 1 + 2] == pytest.approx(second, rel=1e-2)
