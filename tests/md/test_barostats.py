"""Laws of motion with a moving cell, for every barostat."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import units

from aims_pax.errors import SettingsError
from aims_pax.md import MDState, advance
from aims_pax.md.barostats import VOLUME
from tests.md.laws import TRICLINIC, at_rest, conserved, in_cell, rotation
from tests.md.potentials import LennardJones, Springs, cluster, crystal
from tests.md.settings import langevin, npt, rescaling

LJ = LennardJones(cutoff=6.5, smooth=True)
BAROSTATS = ["Berendsen", "npt", "MTK", "isotropic-MTK"]
CONSERVING = ["npt", "MTK", "isotropic-MTK"]


def replace_settings(md: SimpleNamespace, **changes) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(md), **changes})


def volume(state: MDState) -> float:
    return float(abs(np.linalg.det(state.cell)))


def small(temperature: float = 40.0, turn: np.ndarray | None = None) -> MDState:
    """Four argon atoms in a triclinic cell."""
    cell = TRICLINIC / 2 if turn is None else TRICLINIC / 2 @ turn
    return MDState.start(in_cell(crystal(1, 5.3), cell), temperature, stream=3)


def settings(barostat: str, h: float = 2.0, pressure: float = 3e-3, **changes):
    return npt(barostat, 40.0, h, **{"taut": 100.0, "taup": 400.0, "pressure": pressure, **changes})


@pytest.mark.parametrize("name", [*CONSERVING, "SVR"])
def test_what_must_be_conserved_is_the_better_the_smaller_the_step(name):
    start = small()

    def error(h: float) -> tuple[float, float]:
        md = rescaling(40.0, 100.0, h) if name == "SVR" else settings(name, h)
        [became] = advance([start], LJ, int(240 / h), [md], observe_every=int(40 / h))
        seen = became.observed
        energies = np.array([conserved(s, md, LJ) for s in seen])
        moved = max(abs(volume(s) / volume(start) - 1) for s in seen)
        assert moved > 0.005 or name == "SVR"
        return float(abs(energies - energies[0]).max()), moved

    (coarse, _), (fine, _) = error(4.0), error(1.0)
    assert fine < 1e-4
    # second order in h; with SVR the random path depends on h too
    assert coarse / fine == pytest.approx(16, rel=0.2 if name != "SVR" else 0.5)


@pytest.mark.parametrize("name", CONSERVING)
def test_a_step_can_be_taken_back(name):
    """With momenta and all rates reversed the trajectory returns: the splitting is symmetric."""
    md = settings(name)
    start = advance([small()], LJ, 40, [md])[0].state
    there = advance([start], LJ, 60, [md])[0].state
    back = advance([reversed_(there)], LJ, 60, [md])[0].state
    assert abs(there.cell - start.cell).max() > 0.01
    assert abs(back.cell - start.cell).max() < 1e-9
    assert abs(back.positions - start.positions).max() < 1e-9
    assert abs(back.momenta + start.momenta).max() < 1e-9


def reversed_(state: MDState) -> MDState:
    extras = {k: v.copy() for k, v in state.extras.items()}
    for name, v in extras.items():
        if name.endswith("eta"):
            v *= -1
        elif name == "npt/zeta":
            v[0] *= -1
        elif name == "mtk/chains":
            v[:, 1] *= -1
    return replace(state, momenta=-state.momenta, extras=extras)


@pytest.mark.parametrize("name", BAROSTATS)
def test_a_turned_cell_gives_the_turned_trajectory(name):
    turn, md = rotation(), settings(name)
    plain = at_rest(small())
    turned = replace(
        at_rest(small(turn=turn)), momenta=plain.momenta @ turn, positions=plain.positions @ turn
    )
    turned = replace(turned, cell=plain.cell @ turn)
    a, b = (advance([s], LJ, 100, [md])[0].state for s in (plain, turned))
    assert abs(a.cell - plain.cell).max() > 0.02
    assert abs(a.cell @ turn - b.cell).max() < 1e-9
    assert abs(a.positions @ turn - b.positions).max() < 1e-9
    assert abs(a.momenta @ turn - b.momenta).max() < 1e-9


@pytest.mark.parametrize("name", ["Berendsen", "isotropic-MTK"])
def test_an_isotropic_barostat_keeps_the_shape(name):
    start = small()
    end = advance([start], LJ, 60, [settings(name)])[0].state
    scale = (volume(end) / volume(start)) ** (1 / 3)
    assert abs(scale - 1) > 0.005
    assert np.allclose(end.cell, scale * start.cell, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["npt", "MTK"])
def test_a_flexible_cell_changes_its_shape_and_never_turns(name):
    start = small()
    end = advance([start], LJ, 60, [settings(name)])[0].state
    scale = (volume(end) / volume(start)) ** (1 / 3)
    assert abs(end.cell - scale * start.cell).max() > 0.01
    eta = end.extras["npt/eta" if name == "npt" else "mtk/eta"]
    assert np.array_equal(eta, eta.T) or abs(eta - eta.T).max() < 1e-15


@pytest.mark.parametrize("name", BAROSTATS)
def test_more_pressure_makes_it_smaller(name):
    start = small(10.0)
    ends = [advance([start], LJ, 100, [settings(name, pressure=p)])[0].state for p in (0.0, 0.01)]
    assert volume(ends[1]) < 0.98 * volume(ends[0])


def test_berendsen_arrives_at_the_pressure_and_temperature_it_is_given():
    """An ideal gas without motion of its centre: 3N − 3 degrees of freedom push on the walls, P V = (N − 1) k T."""
    P, T = 1e-3, 300.0
    start = MDState.start(in_cell(crystal(2, 5.3), TRICLINIC), 100.0, 2)
    md = npt("Berendsen", T, 2.0, taut=50.0, taup=100.0, pressure=P, compressibility=2e-4)
    end = advance([start], Springs(0.0), 1500, [md], guard=False)[0].state
    assert end.temperature == pytest.approx(T, rel=1e-6)
    assert P * volume(end) == pytest.approx((len(start) - 1) * units.kB * T, rel=1e-3)
    slow = replace_settings(md, taut=500.0)
    one = advance([start], Springs(0.0), 1, [slow], guard=False)[0].state
    still = start.momenta - start.momenta.mean(0)
    before = replace(start, momenta=still)
    assert before.degrees == 3 * len(start) - 3
    expected = 1 + (T / before.temperature - 1) * 2.0 / 500.0
    assert one.kinetic_energy / before.kinetic_energy == pytest.approx(expected, rel=1e-12)


def test_a_slab_moves_at_constant_volume_with_the_thermostat():
    slab = replace(small(), pbc=np.array([True, True, False]))
    molecule = MDState.start(cluster(5), 40.0, 7)
    for state in (slab, molecule):
        for thermostat in ("Langevin", "SVR"):
            md = npt("MTK", 40.0, thermostat=thermostat)
            nvt = langevin(40.0, thermostat=thermostat)
            a, b = (advance([state], LJ, 20, [m])[0].state for m in (md, nvt))
            assert np.array_equal(a.positions, b.positions)
            assert np.array_equal(a.cell, state.cell)
            assert VOLUME not in a.extras


@pytest.mark.parametrize("name", BAROSTATS)
def test_fixed_atoms_at_constant_pressure_are_refused_before_anything_is_evaluated(name):
    lj = LennardJones()
    fixed = np.zeros((4, 3), bool)
    fixed[1, 2] = True
    state = replace(small(), fixed=fixed)
    with pytest.raises(SettingsError, match=r"cannot be fixed.*NVT"):
        advance([state], lj, 5, [settings(name)])
    assert lj.bindings == 0
    molecule = MDState.start(cluster(4, fixed=[True, 0, 0, 0]), 40, 1)
    assert advance([molecule], lj, 5, [settings(name)])[0].fault is None


def test_a_potential_without_stress_is_refused_with_a_way_out():
    class Mute(LennardJones):
        def bind(self, frames):
            bound = super().bind(frames)

            def call(positions, cells, *, stress=False):
                return bound(positions, cells)

            call.members, call.device = bound.members, bound.device
            return call

    with pytest.raises(SettingsError, match=r"needs the stress.*NVT"):
        advance([small()], Mute(), 5, [settings("npt")])


@pytest.mark.parametrize("name", CONSERVING)
def test_the_centre_of_mass_stays_at_rest(name):
    start = small()
    assert np.linalg.norm(start.momenta.sum(0)) > 0.1
    end = advance([start], LJ, 30, [settings(name)])[0].state
    assert np.linalg.norm(end.momenta.sum(0)) < 1e-12


@pytest.mark.parametrize("name", BAROSTATS)
def test_a_single_atom_has_a_pressure_too(name):
    """Its image forces cancel; the cell moves."""
    from aims_pax.frames import Frame

    frame = Frame([18], [[0, 0, 0]], np.array([[0, 2.65, 2.65], [2.65, 0, 2.65], [2.65, 2.65, 0]]), True)
    start = MDState.start(frame, 40.0, 1)
    [became] = advance([start], LJ, 100, [settings(name)])
    assert became.fault is None
    assert abs(volume(became.state) / volume(start) - 1) > 1e-4


def test_another_barostat_does_not_inherit_what_the_first_one_remembered():
    moved = advance([small()], LJ, 5, [settings("MTK")])[0].state
    moved = advance([moved], LJ, 5, [langevin(40.0)])[0].state
    assert not moved.extras


@pytest.mark.parametrize(("pressure", "words"), [(-0.02, "times the initial one)"), (-1e300, "not finite")])
def test_a_cell_that_explodes_is_a_fault_and_the_others_go_on(pressure, words):
    wild = settings("npt", h=4.0, pressure=pressure, pfactor=2.0)
    good = small()
    a, b = advance([good, replace(good, stream=5)], LJ, 60, [settings("npt"), wild])
    [alone] = advance([good], LJ, 60, [settings("npt")])
    assert a.fault is None
    assert np.array_equal(a.state.cell, alone.state.cell)
    assert words in b.fault
    assert np.isfinite(b.state.cell).all()
    assert b.state.frame().id


def test_a_stress_that_is_not_finite_is_named():
    class Broken(LennardJones):
        def bind(self, frames):
            bound = super().bind(frames)

            def call(positions, cells, *, stress=False):
                said = bound(positions, cells, stress=stress)
                said.stress[:, 0, 0, 1] = np.nan  # a potential without stress has none at all, and is refused
                return said

            call.members, call.device = bound.members, bound.device
            return call

    [became] = advance([small()], Broken(), 5, [settings("npt")])
    assert became.fault == "stress is not finite at step 0"


def test_springs_give_stress_to_ideal_atoms():
    """The helper potential itself: no force, no stress."""
    said = Springs(0.0).bind([small().frame()])(
        torch.zeros(4, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[None], stress=True
    )
    assert not said.stress.any()
