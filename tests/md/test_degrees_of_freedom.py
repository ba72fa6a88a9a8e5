"""Equipartition at four atoms, where every degree of freedom counts: ⟨2K⟩ = N_f k_B T, var 2K = 2 N_f (k_B T)²."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import units

from aims_pax.frames import Frame
from aims_pax.md import MDState, advance
from aims_pax.md.degrees_of_freedom import degrees
from tests.md.laws import TRICLINIC, in_cell
from tests.md.potentials import LennardJones, Springs, crystal
from tests.md.settings import langevin, npt, rescaling
from tests.sweeps import thinned

T = 300.0
KT = units.kB * T
BOX = np.eye(3) * 8.0
NUMBERS = [18, 2, 10, 18]  # a light atom: momenta must not be shared out evenly
GAS, BOUND = Springs(0.0), Springs(1.0)
BAROSTATS = {
    "Berendsen": npt("Berendsen", T, 2.0, taut=20.0, taup=500.0, pressure=1e-3),
    "npt": npt("npt", T, 2.0, ttime=40.0, pfactor=2000.0, pressure=1e-3),
    "MTK": npt("MTK", T, 2.0, taut=60.0, taup=300.0, pressure=1e-3),
    "isotropic-MTK": npt("isotropic-MTK", T, 2.0, taut=60.0, taup=300.0, pressure=1e-3),
}


def four(copies: int, fixed: np.ndarray | None = None, pbc: bool = False, at_rest: bool = False):
    """Four atoms of three masses, `copies` times, with thermal momenta."""
    rng = np.random.default_rng(5)
    states = []
    for k in range(copies):
        frame = Frame(NUMBERS, rng.uniform(0, 8, (4, 3)), BOX * pbc, pbc, fixed=fixed)
        state = MDState.start(frame, T, k)
        if at_rest:
            share = (state.masses / state.masses.sum())[:, None]
            state = replace(state, momenta=state.momenta - share * state.momenta.sum(0))
        states.append(state)
    return states


def twice_kinetic(states, md, potential, steps: int = 600, warm: int = 300) -> np.ndarray:
    """(copies, samples) 2K / k_B T."""
    n = len(states)
    begun = [a.state for a in advance(states, potential, warm, [md] * n, guard=False)]
    seen = advance(begun, potential, steps, [md] * n, guard=False, observe_every=20)
    return np.array([[2 * s.kinetic_energy / KT for s in a.observed] for a in seen])


def check_equipartition(x: np.ndarray, n: int) -> None:
    error = x.mean(1).std(ddof=1) / np.sqrt(len(x))
    own = ((x - n) ** 2).mean(1)
    spread = own.std(ddof=1) / np.sqrt(len(x))
    print(f"2K/kT {x.mean():.3f} ± {error:.3f} ({n}), variance {own.mean():.2f} ± {spread:.2f} ({2 * n})")
    assert error < 0.5  # three degrees more or less would be seen
    assert x.mean() == pytest.approx(n, abs=4 * error)
    assert own.mean() == pytest.approx(2 * n, abs=4 * spread)


WALLS = np.zeros((4, 3), bool)
WALLS[0], WALLS[1, 2] = True, True  # one atom and one component


@pytest.mark.parametrize(("fixed", "n"), [(None, 12), (WALLS, 8)])
@pytest.mark.parametrize("name", ["Langevin", "SVR"])
def test_four_atoms_at_constant_volume_have_the_temperature_that_is_asked(name, fixed, n):
    states = four(100, fixed)
    assert {s.degrees for s in states} == {n}
    md = langevin(T, 0.02, 2.0) if name == "Langevin" else rescaling(T, 30.0, 2.0)
    check_equipartition(twice_kinetic(states, md, BOUND if name == "Langevin" else GAS), n)


def test_velocity_rescaling_of_a_system_at_rest_heats_nine_degrees_of_freedom_not_twelve():
    states = four(100, at_rest=True)
    assert {s.degrees for s in states} == {9}
    check_equipartition(twice_kinetic(states, rescaling(T, 30.0, 2.0), GAS), 9)


@pytest.mark.parametrize("name", thinned(["MTK", "isotropic-MTK"], 2))
def test_four_atoms_at_constant_pressure_have_nine_thermal_degrees_of_freedom(name):
    check_equipartition(twice_kinetic(four(100, pbc=True), BAROSTATS[name], GAS), 9)


@pytest.mark.parametrize("name", ["Berendsen", "npt"])
def test_four_atoms_at_300_kelvin_are_at_300_kelvin(name):
    """Neither samples the kinetic energy of an ensemble in a gas; the mean is held all the same."""
    x = twice_kinetic(four(60, pbc=True), BAROSTATS[name], GAS)
    assert x.mean() == pytest.approx(9, rel=0.02)


@pytest.mark.parametrize("name", thinned(BAROSTATS, 2))
def test_what_is_reported_is_the_temperature_that_is_asked_for(name):
    """A crystal of four atoms: equipartition with forces, and the centre of mass at rest."""
    lj = LennardJones(cutoff=6.5, smooth=True)
    start = [MDState.start(in_cell(crystal(1, 5.3), TRICLINIC / 2), 40.0, stream=k) for k in range(8)]
    changes = {"taut": 100.0, "taup": 400.0, "ttime": 40.0, "pfactor": 100.0, "pressure": 3e-3}
    md = [npt(name, 40.0, 4.0, **changes)] * len(start)
    begun = [a.state for a in advance(start, lj, 150, md)]
    seen = [s.temperature for a in advance(begun, lj, 500, md, observe_every=10) for s in a.observed]
    error = np.std(seen) / np.sqrt(len(seen) / 5)  # neighbours in time are alike
    assert error < 4  # 53 K is what twelve degrees of freedom would give, 30 K what they would report
    assert np.mean(seen) == pytest.approx(40.0, abs=3 * error)


def test_berendsen_leaves_unequal_masses_thermal():
    """Without the centre of mass ⟨p²⟩ = m k_B T (1 − m/M) of each component, whatever the masses."""
    md = npt("Berendsen", T, 1e-6, taut=1e9, taup=1e9)
    states = four(1500, pbc=True)
    ends = [a.state for a in advance(states, GAS, 1, [md] * len(states), guard=False)]
    m = states[0].masses
    expected = m * KT * (1 - m / m.sum())
    found = np.array([(s.momenta**2).mean(1) for s in ends]).mean(0)
    assert np.abs([s.momenta.sum(0) for s in ends]).max() < 1e-9
    assert found == pytest.approx(expected, rel=0.08)  # 2.1 % is one standard deviation


@pytest.mark.parametrize(
    ("n", "fixed", "at_rest", "expected"),
    [
        (4, None, False, 12),
        (4, None, True, 9),
        (2, None, True, 3),
        (1, None, True, 3),
        (4, np.zeros((4, 3), bool), True, 9),
        (4, WALLS, True, 8),
        (2, np.ones((2, 3), bool), False, 0),
    ],
)
def test_degrees_of_freedom_are_counted(n, fixed, at_rest, expected):
    assert degrees(n, fixed, at_rest=at_rest) == expected
