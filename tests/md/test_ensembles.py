"""Long runs against statistical mechanics: volumes, temperatures and their fluctuations."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from scipy import stats

from aims_pax.frames import Frame
from aims_pax.md import MDState, advance
from aims_pax.md.state import MDState as State
from tests.md.laws import TRICLINIC, in_cell
from tests.md.potentials import LennardJones, Springs, cluster, crystal
from tests.md.settings import langevin, npt, rescaling

pytestmark = pytest.mark.slow


def volume(state: MDState) -> float:
    return float(abs(np.linalg.det(state.cell)))


def mean_error(x: np.ndarray) -> float:
    """Standard error of the mean of many independent trajectories. x: (trajectories, samples)."""
    return float(x.mean(1).std(ddof=1) / np.sqrt(len(x)))


def gather(states: list[State], potential, md: list, warm: int, n: int, every: int) -> list[list[State]]:
    warmed = [a.state for a in advance(states, potential, warm, md, guard=False)]
    return [list(a.observed) for a in advance(warmed, potential, n, md, guard=False, observe_every=every)]


def test_an_ideal_gas_under_isotropic_mtk_has_a_gamma_distribution_of_volumes():
    """P(V) ∝ V^n e^(−PV/kT) with n = N − 1, the centre of mass being at rest: ⟨V⟩ = N kT/P, var = N (kT/P)²."""
    N, T, P = 8, 300.0, 1e-3
    kT = units.kB * T
    box = np.eye(3) * (N * kT / P) ** (1 / 3)
    rng = np.random.default_rng(1)
    states = [
        MDState.start(Frame([18] * N, rng.uniform(0, 1, (N, 3)) @ box, box, True), T, k) for k in range(64)
    ]
    md = [npt("isotropic-MTK", T, 4.0, pressure=P, taut=100.0, taup=200.0)] * 64
    seen = gather(states, Springs(0.0), md, 1500, 6000, 20)
    x = np.array([[volume(s) * P / kT for s in run] for run in seen])
    K = np.array([[2 * s.kinetic_energy / kT for s in run] for run in seen])
    print(
        f"PV/kT {x.mean():.3f} ± {mean_error(x):.3f}, var {x.var():.2f}, 2K/kT {K.mean():.3f}, {K.var():.2f}"
    )
    assert x.mean() == pytest.approx(N, abs=4 * mean_error(x))
    assert mean_error(x) < 0.1  # N + 1 would be seen
    assert x.var() == pytest.approx(N, rel=0.12)
    assert K.mean() == pytest.approx(3 * N - 3, rel=0.01)
    assert K.var() == pytest.approx(2 * (3 * N - 3), rel=0.12)


LJ = LennardJones(cutoff=6.5, smooth=True)
T_SOLID, P_SOLID = 30.0, 2e-3


def solid(k: int) -> MDState:
    return MDState.start(in_cell(crystal(2, 5.25), np.diag([10.45, 10.5, 10.55])), T_SOLID, k)


def test_volumes_of_a_crystal_are_distributed_as_constant_volume_runs_say():
    """d ln P(V)/dV = (P_NVT(V) − P₀)/kT, with P_NVT from Langevin dynamics at seven volumes, integrated.

    P_NVT without the centre of mass: (N − 1) kT/V plus the virial.
    """
    N, kT, edges, copies = 4, units.kB * T_SOLID, np.linspace(5.0, 5.6, 7), 6
    states = [MDState.start(crystal(1, a), T_SOLID, 9 * k) for k, a in enumerate(np.repeat(edges, copies))]
    fixed = gather(states, LJ, [langevin(T_SOLID, 0.005, 5.0)] * len(states), 300, 1500, 15)
    virial = np.array([[-np.trace(LJ.labels([s.frame()])[0].stress) / 3 for s in run] for run in fixed])
    pressure = virial.reshape(len(edges), -1).mean(1) + (N - 1) * kT / edges**3
    fit = np.polyfit(edges**3 - 145, pressure, 4)
    V = np.linspace(edges[0] ** 3, edges[-1] ** 3, 2001)
    log = np.cumsum(np.polyval(fit, V - 145) - P_SOLID) * (V[1] - V[0]) / kT
    weight = np.exp(log - log.max())
    assert weight[0] < 1e-3
    assert weight[-1] < 1e-3
    mean = (V * weight).sum() / weight.sum()
    variance = ((V - mean) ** 2 * weight).sum() / weight.sum()
    md = npt("isotropic-MTK", T_SOLID, 5.0, pressure=P_SOLID, taut=150.0, taup=400.0)
    moving = gather(
        [MDState.start(crystal(1, 5.25), T_SOLID, k) for k in range(32)], LJ, [md] * 32, 600, 5000, 20
    )
    seen = np.array([[volume(s) for s in run] for run in moving])
    print(f"V {seen.mean():.2f} ± {mean_error(seen):.2f} ({mean:.2f}), var {seen.var():.2f} ({variance:.2f})")
    assert seen.mean() == pytest.approx(mean, rel=0.005)
    assert seen.var() == pytest.approx(variance, rel=0.15)


def test_all_barostats_agree_on_the_mean_volume_of_a_crystal():
    """Pressure on average as set, whatever the algorithm; MTK's cell fluctuates at T (6 degrees of freedom)."""
    keys = {"pressure": P_SOLID, "taut": 200.0, "taup": 500.0, "pfactor": 30.0, "ttime": 80.0}
    keys["compressibility"] = 4e-5
    names = ["Berendsen", "npt", "MTK", "isotropic-MTK"]
    states = [solid(k) for k in range(4) for _ in names]
    md = [npt(name, T_SOLID, 6.0, **keys) for _ in range(4) for name in names]
    seen = gather(states, LJ, md, 400, 1500, 10)
    means = {}
    for f, name in enumerate(names):
        runs = seen[f :: len(names)]
        V = np.array([[volume(s) for s in run] for run in runs])
        T = np.array([[s.temperature for s in run] for run in runs])
        T = T if name == "Berendsen" else T * 32 / 31  # it counts the centre of mass, as ASE does
        means[name] = V.mean()
        print(f"{name}: V {V.mean():.2f} ± {mean_error(V):.2f}, var {V.var():.1f}, T {T.mean():.2f}")
        assert T.mean() == pytest.approx(T_SOLID, rel=0.03)
    eta = np.array([s.extras["mtk/eta"] for run in seen[2 :: len(names)] for s in run])
    tau = 500.0 * units.fs
    inertia = 32 * tau**2  # W / kT = (3N − 3 + 3)/3 τ²
    cell = inertia * (eta**2).sum((1, 2)).mean()
    print(f"W tr η² / kT {cell:.2f} (6)")
    assert cell == pytest.approx(6, rel=0.15)
    for name in names:
        assert means[name] == pytest.approx(means["MTK"], rel=0.006), name


def test_kinetic_energy_under_velocity_rescaling_is_gamma_distributed():
    states = [MDState.start(cluster(7, seed=k), 30.0, k) for k in range(40)]
    md = [rescaling(30.0, 50.0, 4.0)] * 40
    seen = gather(states, LennardJones(cutoff=1e3), md, 200, 3000, 25)
    x = np.array([2 * s.kinetic_energy / (units.kB * 30.0) for run in seen for s in run])
    print(f"2K/kT mean {x.mean():.3f} (21), variance {x.var():.2f} (42)")
    assert x.mean() == pytest.approx(21, rel=0.02)
    assert x.var() == pytest.approx(42, rel=0.08)
    assert stats.kstest(x[::5], stats.chi2(21).cdf).pvalue > 1e-3


def test_velocity_rescaling_leaves_the_canonical_distribution_of_oscillators_alone():
    """⟨x²⟩ = kT/k, ⟨x⁴⟩ = 3⟨x²⟩² at each frequency, for ever. (Equal oscillators that begin in phase stay so
    under a common factor: they must begin in the distribution.)"""
    T, k = 300.0, 0.5
    kT, rng = units.kB * T, np.random.default_rng(2)
    frames = [Frame([1, 6, 18], rng.normal(0, np.sqrt(kT / k), (3, 3))) for _ in range(400)]
    states = [MDState.start(frame, T, s) for s, frame in enumerate(frames)]
    seen = gather(states, Springs(k), [rescaling(T, 20.0, 0.5)] * 400, 1000, 2000, 20)
    x = np.array([[s.positions for s in run] for run in seen]) / np.sqrt(kT / k)  # (400, samples, 3, 3)
    x2 = (x**2).mean((0, 1, 3))
    total = (x**2).sum((2, 3))
    print(
        f"k⟨x²⟩/kT {x2.round(4)}, all {total.mean() / 9:.4f} ± {mean_error(total) / 9:.4f}; Σ var {total.var():.2f}"
    )
    assert x2 == pytest.approx([1, 1, 1], rel=0.06)
    assert total.mean() / 9 == pytest.approx(1, abs=4 * mean_error(total) / 9)
    assert (x**4).mean() == pytest.approx(3, rel=0.08)


def test_a_triclinic_cell_relaxes_to_the_same_volume_as_a_cubic_one():
    md = npt("MTK", T_SOLID, 6.0, pressure=P_SOLID, taut=200.0, taup=500.0)
    tilted = in_cell(crystal(2, 5.25), TRICLINIC)
    states = [MDState.start(tilted, T_SOLID, k) if k % 2 else solid(k) for k in range(6)]
    seen = gather(states, LJ, [md] * 6, 600, 900, 10)
    V = np.array([[volume(s) for s in run] for run in seen])
    print(f"tilted {V[1::2].mean():.2f}, cubic {V[::2].mean():.2f}")
    assert V[1::2].mean() == pytest.approx(V[::2].mean(), rel=0.01)
