"""The barostat of Martyna, Tobias and Klein: how it begins, and its chains of thermostats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import units
from scipy.integrate import solve_ivp

from aims_pax.md import MDState, advance
from aims_pax.md.barostats import VOLUME
from aims_pax.md.batch import MDBatch
from aims_pax.md.integrators import make_integrator
from aims_pax.md.martyna_tobias_klein import CHAINS, ETA, SUZUKI_YOSHIDA
from aims_pax.md.temperature import Targets
from tests.md.laws import TRICLINIC, in_cell
from tests.md.potentials import LennardJones, crystal
from tests.md.settings import npt

LJ = LennardJones(cutoff=6.5, smooth=True)


def volume(state: MDState) -> float:
    return float(abs(np.linalg.det(state.cell)))


def small() -> MDState:
    """Four argon atoms in a triclinic cell."""
    return MDState.start(in_cell(crystal(1, 5.3), TRICLINIC / 2), 40.0, stream=3)


def settings(barostat: str, h: float = 2.0, pressure: float = 3e-3, **changes):
    return npt(barostat, 40.0, h, **{"taut": 100.0, "taup": 400.0, "pressure": pressure, **changes})


def test_fresh_momenta_make_the_barostat_begin_anew():
    md = settings("MTK")
    moved = advance([small()], LJ, 30, [md])[0].state
    fresh = moved.redraw(40.0, 99)
    assert set(moved.extras) == {"mtk/eta", "mtk/chains", VOLUME}
    assert not fresh.extras
    [a] = advance([fresh], LJ, 1, [md])
    assert float(a.state.extras[VOLUME]) == pytest.approx(volume(fresh))
    never_moved = MDState.start(fresh.frame(), 40.0, 99, fresh.step)
    [b] = advance([never_moved], LJ, 1, [md])
    assert np.allclose(a.state.extras["mtk/eta"], b.state.extras["mtk/eta"], rtol=1e-4)
    assert not np.allclose(a.state.extras["mtk/eta"], moved.extras["mtk/eta"], rtol=0.1)


def test_a_cell_begins_with_the_kinetic_energy_of_its_temperature():
    """W tr η² = n kT over many streams, and every thermostat with kT."""
    for name, n in (("MTK", 6), ("isotropic-MTK", 1)):
        states = [replace(small(), stream=k) for k in range(500)]
        md = [settings(name)] * 500
        batch = MDBatch.of(states, "cpu")
        integrator = make_integrator(batch, md)
        kT = Targets(batch, md, None).now
        begun = integrator.begin(kT)
        eta, v = begun["mtk/eta"], begun["mtk/chains"][:, :, 1]
        W = integrator.inertia[0]
        each = W * (eta**2).sum((1, 2))
        assert float(each.mean()) == pytest.approx(n, rel=0.2)
        assert float(each.var()) == pytest.approx(2 * n, rel=0.35)
        first = integrator.n[0] * integrator.tau2[0] * (v[:, :, 0] ** 2).mean(0)
        later = integrator.tau2[0][:, None] * (v[:, :, 1:] ** 2).mean(0)
        assert np.allclose(first, 1, atol=0.2)
        assert np.allclose(later, 1, atol=0.2)
        assert not begun["mtk/chains"][:, :, 0].any()


def begun(name: str = "MTK"):
    """The integrator of one trajectory, its k_B T and its initial values."""
    state, md = small(), [settings(name)]
    batch = MDBatch.of([state], "cpu")
    integrator, kT = make_integrator(batch, md), Targets(batch, md, None).now
    return integrator, kT, batch.motion(integrator.begin(kT))


def test_the_weights_of_the_chains_make_one_step_and_cancel_its_error_of_third_order():
    assert sum(SUZUKI_YOSHIDA) == pytest.approx(1.0, abs=1e-15)
    assert sum(w**3 for w in SUZUKI_YOSHIDA) == pytest.approx(0.0, abs=1e-15)


def test_the_chains_follow_their_equations_of_motion():
    """ξ, v and the kinetic energy after half a step, against the equations of the docstring solved numerically."""
    integrator, _, motion = begun()
    chains, E0 = motion.extras[CHAINS], 1.7 * integrator.n
    scale, after = integrator._chains(E0, chains)
    for part, (n, tau) in enumerate(((9, 100.0), (6, 400.0))):
        tau2 = (tau * units.fs) ** 2

        def rates(t, y, n=n, tau2=tau2):
            v1, v2, v3, E = y[3:]
            v1_, v2_ = (E - n) / (n * tau2) - v1 * v2, n * v1**2 - 1 / tau2 - v2 * v3
            return [v1, v2, v3, v1_, v2_, v2**2 - 1 / tau2, -2 * v1 * E]

        start = [*chains[0, part].ravel().tolist(), float(E0[0, part])]
        end = solve_ivp(rates, (0, units.fs), start, rtol=1e-12, atol=1e-14).y[:, -1]
        np.testing.assert_allclose(after[0, part].ravel(), end[:6], rtol=1e-7)
        assert float(scale[0, part]) == pytest.approx(np.sqrt(end[6] / start[6]), rel=1e-9)


@pytest.mark.parametrize("name", ["MTK", "isotropic-MTK"])
def test_momenta_are_damped_by_the_cell_they_move_in(name):
    """κ = η + tr η/N_f: free particles in a cell that grows at rate η lose p at that rate."""
    integrator, _, motion = begun(name)
    eta = motion.extras[ETA]
    kappa = integrator._drag(eta)
    N_f, one = 3 * 4 - 3, torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(kappa[0], eta[0] + eta[0].trace() / N_f * one, rtol=1e-14, atol=0)
    if name == "isotropic-MTK":
        torch.testing.assert_close(eta[0], eta[0, 0, 0] * one, rtol=0, atol=1e-18)
    p, h = motion.momenta, float(integrator.h[0])
    free = integrator._kick(p, kappa, torch.zeros_like(p))
    expected = p @ torch.linalg.matrix_exp(-0.5 * h * kappa[0])
    torch.testing.assert_close(free, expected, rtol=1e-12, atol=1e-14)


def test_the_conserved_energy_counts_every_term_once():
    """U + K + PV + ½ W tr η² + Σ ½ Q v² + k_B T (n ξ₁ + ξ₂ + ξ₃), written out for one trajectory."""
    integrator, kT, motion = begun()
    rng = np.random.default_rng(0)
    chains = motion.extras[CHAINS].clone()
    chains[:, :, 0] = torch.from_numpy(rng.normal(size=(1, 2, 3)))
    motion = replace(motion, extras={**motion.extras, CHAINS: chains})
    said = float(integrator.conserved(motion, torch.tensor([-3.0], dtype=torch.float64), kT)[0])
    k, T = float(kT[0]), small()
    tau = [100.0, 400.0]
    eta, (xi, v) = motion.extras[ETA][0].numpy(), np.moveaxis(chains[0].numpy(), 1, 0)
    expected = -3.0 + T.kinetic_energy + 3e-3 * volume(T)
    expected += 0.5 * (9 + 3) / 3 * k * (tau[1] * units.fs) ** 2 * np.trace(eta @ eta)
    for part, n in enumerate((9, 6)):
        Q = k * (tau[part] * units.fs) ** 2 * np.array([n, 1, 1])
        expected += (0.5 * Q * v[part] ** 2).sum() + k * (n * xi[part, 0] + xi[part, 1:].sum())
    assert said == pytest.approx(expected, rel=1e-12)


def test_a_barostat_for_the_volume_does_not_continue_a_change_of_shape():
    """Settings may change between two runs: the strain rate that the whole cell had must not shear it for ever."""
    before = advance([small()], LJ, 40, [settings("MTK")])[0].state
    [after] = advance([before], LJ, 300, [settings("isotropic-MTK")])
    change = np.linalg.solve(before.cell, after.state.cell)
    assert after.fault is None
    assert np.allclose(change, change[0, 0] * np.eye(3), atol=1e-9)
    rate = np.trace(before.extras[ETA]) / 3
    kept = MDBatch.of([before], "cpu")
    begun = make_integrator(kept, [settings("isotropic-MTK")]).begin(torch.tensor([units.kB * 40.0]))
    assert np.allclose(begun[ETA][0], rate * np.eye(3))
