"""Laws of motion at constant volume."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase import units
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.md.verlet import VelocityVerlet

from aims_pax.frames import Frame
from aims_pax.md import MDState, advance
from tests.md.potentials import LennardJones, Springs, cluster, crystal
from tests.md.settings import langevin, rescaling


def atoms_at_rest(n: int, z: int = 1) -> MDState:
    return MDState.start(Frame(numbers=[z] * n, positions=np.zeros((n, 3))), 0.0, stream=9)


def test_positions_of_a_harmonic_oscillator_are_sampled_exactly_at_a_large_step():
    """hω = 1: ⟨x²⟩ = kT/k without any error in h, ⟨p²⟩ = m kT (1 − h²ω²/4)."""
    T, h, mass = 300.0, 5.0, 1.008
    k = mass / (h * units.fs) ** 2
    state, springs, x2, p2 = atoms_at_rest(3000), Springs(k), [], []
    md = [langevin(T, friction=0.1, timestep=h)]
    state = advance([state], springs, 80, md, guard=False)[0].state
    [became] = advance([state], springs, 400, md, guard=False, observe_every=4)
    for seen in became.observed:
        x2.append((seen.positions**2).mean())
        p2.append((seen.momenta**2).mean())
    assert np.mean(x2) == pytest.approx(units.kB * T / k, rel=0.01)
    assert np.mean(p2) == pytest.approx(mass * units.kB * T * (1 - 0.25), rel=0.01)


def test_momenta_become_maxwell_boltzmann_at_the_rate_of_each_trajectorys_own_friction():
    """From rest, ⟨p²⟩ = m kT (1 − exp(−2γt)): three temperatures, frictions and time steps in one batch."""
    md = [langevin(100, 0.01, 1.0), langevin(300, 0.002, 0.5), langevin(900, 0.05, 2.0)]
    elements = [1, 8, 18]
    states = [atoms_at_rest(4000, z) for z in elements]
    for became, m in zip(advance(states, Springs(0.0), 40, md, guard=False), md, strict=True):
        mass = became.state.masses[0]
        expected = mass * units.kB * m.temperature * (1 - math.exp(-2 * m.friction * m.timestep * 40))
        p = became.state.momenta
        assert (p**2).mean() == pytest.approx(expected, rel=0.04)
        assert (p**4).mean() == pytest.approx(3 * expected**2, rel=0.1)


def test_a_crystal_takes_the_temperature_it_is_given():
    state = MDState.start(crystal(2), 5.0, stream=4)
    md = [langevin(40.0, friction=0.02, timestep=4.0)]
    state = advance([state], LennardJones(), 100, md)[0].state
    [became] = advance([state], LennardJones(), 300, md, observe_every=5)
    assert np.mean([s.temperature for s in became.observed]) == pytest.approx(40, rel=0.1)


def test_velocity_rescaling_from_rest_gives_the_distribution_of_eq_a7():
    """From rest 2K/kT = (1 − c) χ²_Nf in one step; each of 1 000 atoms is a trajectory, some half fixed."""
    fixed = [None, np.array([[True, False, False]])]
    frames = [Frame([1], [[0.0, 0, 0]], fixed=fixed[k % 2]) for k in range(1000)]
    states = [MDState.start(f, 0.0, k) for k, f in enumerate(frames)]
    md = [rescaling(300.0, 10.0, 2.0)] * 1000
    c = math.exp(-0.2)
    ends = advance(states, Springs(0.0), 1, md, guard=False)
    for part, n in ((ends[::2], 3), (ends[1::2], 2)):
        x = np.array([2 * a.state.kinetic_energy / (units.kB * 300.0) for a in part]) / (1 - c)
        assert x.mean() == pytest.approx(n, rel=0.1)
        assert x.var() == pytest.approx(2 * n, rel=0.3)
        work = [float(a.state.extras["svr/work"]) for a in part]
        assert work == pytest.approx([a.state.kinetic_energy for a in part], rel=1e-12)


def test_without_friction_the_energy_is_kept_the_better_the_smaller_the_step():
    lj = LennardJones(cutoff=1e3)
    start = MDState.start(cluster(7), 20.0, stream=2)

    def error(h: float) -> float:
        [became] = advance([start], lj, int(400 / h), [langevin(20, 0.0, h)], observe_every=1)
        seen = [start, *became.observed[:: int(8 / h)]]
        energies = np.array([s.kinetic_energy + lj.labels([s.frame()])[0].energy for s in seen])
        return float(abs(energies - energies[0]).max())

    coarse, fine = error(8.0), error(2.0)
    assert fine < 1e-5
    assert coarse / fine == pytest.approx(16, rel=0.35)  # second order in h


def test_without_friction_it_is_the_velocity_verlet_of_ase():
    start = MDState.start(cluster(5), 50.0, stream=2)
    [became] = advance([start], LennardJones(cutoff=10), 60, [langevin(50, 0.0, 3.0)])
    atoms = start.frame().to_atoms()
    atoms.calc = AseLennardJones(epsilon=0.0104, sigma=3.4, rc=10, smooth=False)
    atoms.set_momenta(start.momenta)
    VelocityVerlet(atoms, 3.0 * units.fs).run(60)
    assert abs(atoms.positions - became.state.positions).max() < 1e-9
    assert abs(atoms.get_momenta() - became.state.momenta).max() < 1e-9


@pytest.mark.parametrize("md", [langevin(80, 0.05), rescaling(80, 20.0), langevin(80, stat_ensemble="NVE")])
def test_fixed_atoms_and_components_never_move(md):
    fixed = np.zeros((7, 3), bool)
    fixed[:2] = True
    fixed[4, 2] = True
    start = MDState.start(cluster(7, fixed=fixed), 80.0, stream=2)
    end = advance([start], LennardJones(), 50, [md])[0].state
    assert np.array_equal(end.positions[fixed], start.positions[fixed])
    assert not end.momenta[fixed].any()
    assert (end.positions[~fixed] != start.positions[~fixed]).all()
