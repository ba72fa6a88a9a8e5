"""Many trajectories in one batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT

from aims_pax.errors import Abandoned, SettingsError
from aims_pax.frames import Frame
from aims_pax.md import MDState, advance, propagate
from aims_pax.potential import CalculatorPotential
from tests.md.laws import TRICLINIC, in_cell, rotation
from tests.md.potentials import LennardJones, cluster, crystal
from tests.md.settings import langevin, npt, rescaling


def mixed() -> tuple[list[MDState], list]:
    """Molecules and crystals of several sizes, temperatures, frictions, steps of time and steps of MD."""
    boxed = cluster(5, cell=np.eye(3) * 30, pbc=True)
    frames = [cluster(7), crystal(1, 5.4), cluster(3, seed=1), boxed, cluster(1)]
    states = [MDState.start(f, 20.0 * (k + 1), 100 + k, step=7 * k) for k, f in enumerate(frames)]
    return states, [langevin(20.0 * (k + 1), 0.001 * (k + 1), 1.0 + k / 2) for k in range(len(states))]


def every_ensemble() -> tuple[list[MDState], list]:
    """One trajectory of each kind, some kinds twice, none in the order of kinds."""
    solids = [in_cell(crystal(1, 5.3), TRICLINIC / 2 @ rotation(k)) for k in range(6)]
    frames = [solids[0], cluster(7), *solids[1:], cluster(4), crystal(1, 5.4)]
    states = [MDState.start(f, 20.0 + 5 * k, 100 + k, step=7 * k) for k, f in enumerate(frames)]
    P = 2e-3
    md = [
        npt("MTK", 40.0, 1.5, pressure=P),
        langevin(50.0, 0.01, 1.0),
        npt("npt", 35.0, 2.0, pressure=P),
        npt("isotropic-MTK", 45.0, 2.5, pressure=-P / 4),
        npt("Berendsen", 30.0, 1.0, pressure=P),
        rescaling(30.0, 100.0, 1.5),
        npt("isotropic-MTK", 25.0, 1.0, taut=60.0),
        npt("npt", 55.0, 1.0, thermostat="SVR"),  # not periodic
        langevin(stat_ensemble="NVE", temperature=30.0),
    ]
    return states, md


@pytest.fixture(params=[mixed, every_ensemble])
def many(request) -> tuple[list[MDState], list]:
    return request.param()


def same(a: MDState, b: MDState) -> bool:
    mine, theirs = a.arrays(), b.arrays()
    return mine.keys() == theirs.keys() and all(mine[k].tobytes() == theirs[k].tobytes() for k in mine)


def test_fifty_steps_are_twenty_five_and_twenty_five(many):
    states, md = many
    whole = advance(states, LennardJones(), 50, md)
    half = advance(states, LennardJones(), 25, md)
    stored = [MDState.from_arrays(a.state.arrays()) for a in half]
    rest = advance(stored, LennardJones(), 25, md)
    for a, b in zip(whole, rest, strict=True):
        assert same(a.state, b.state)
        assert np.array_equal(a.evaluation.forces, b.evaluation.forces)


def test_a_trajectory_does_not_feel_who_shares_the_batch(many):
    states, md = many
    together = advance(states, LennardJones(), 40, md)
    assert [a.fault for a in together] == [None] * len(states)
    order = np.random.default_rng(3).permutation(len(states)).tolist()
    shuffled = advance([states[k] for k in order], LennardJones(), 40, [md[k] for k in order])
    for k, became in zip(order, shuffled, strict=True):
        assert same(became.state, together[k].state)
        [alone] = advance([states[k]], LennardJones(), 40, [md[k]])
        assert same(alone.state, together[k].state)


def test_the_size_of_noise_blocks_changes_nothing(monkeypatch):
    states, md = mixed()
    whole = advance(states, LennardJones(), 20, md)
    monkeypatch.setattr(propagate, "NOISE_AT_ONCE", 50)
    for a, b in zip(whole, advance(states, LennardJones(), 20, md), strict=True):
        assert same(a.state, b.state)


def test_one_evaluation_a_step_and_one_binding_a_block():
    states, md = mixed()
    lj = LennardJones()
    advance(states, lj, 10, md)
    assert (lj.bindings, lj.evaluations) == (1, 11)


def test_what_it_says_of_the_end_is_what_the_members_say_there():
    states, md = mixed()
    lj = LennardJones(scales=(0.9, 1.0, 1.2))
    for became in advance(states, lj, 12, md):
        n = len(became.state)
        assert became.evaluation.energies.shape == (3,)
        assert became.evaluation.forces.shape == (3, n, 3)
        bound = lj.bind([became.state.frame()])
        here = became.state.positions, became.state.cell[None]
        there = bound(*(torch.from_numpy(x.copy()) for x in here))
        assert np.allclose(there.forces.numpy(), became.evaluation.forces, rtol=0, atol=1e-12)
        assert np.allclose(there.energies[:, 0].numpy(), became.evaluation.energies, rtol=0, atol=1e-12)


def test_the_mean_of_the_members_moves_the_atoms():
    states, md = mixed()
    one = advance(states, LennardJones(scales=(1.0,)), 10, md)
    three = advance(states, LennardJones(scales=(0.5, 1.0, 1.5)), 10, md)
    for a, b in zip(one, three, strict=True):
        assert np.allclose(a.state.positions, b.state.positions, rtol=0, atol=1e-10)


def test_no_steps_give_the_evaluation_at_the_start():
    states, md = mixed()
    lj = LennardJones()
    for state, became in zip(states, advance(states, lj, 0, md), strict=True):
        assert same(state, became.state)
        assert np.allclose(lj.labels([state.frame()])[0].forces, became.evaluation.forces[0], atol=1e-12)


def test_states_on_the_way_are_kept_at_steps_divisible_by_n():
    states, md = mixed()
    became = advance(states, LennardJones(), 20, md, observe_every=5)
    assert [s.step for s in became[0].observed] == [5, 10, 15, 20]
    assert [s.step for s in became[1].observed] == [10, 15, 20, 25]  # began at step 7
    assert same(became[0].observed[-1], became[0].state)
    [fifth] = advance(states[:1], LennardJones(), 5, md[:1])
    assert same(became[0].observed[0], fifth.state)


def test_the_system_stays_what_it_was():
    frame = cluster(4, charge=1.0, spin=2, moments=[1, 0, 0, 0], charges=[1, 0, 0, 0], fixed=[True, 0, 0, 0])
    end = advance([MDState.start(frame, 60, 1)], LennardJones(), 5, [langevin()])[0].state.frame()
    assert end != frame
    assert end.moved(frame.positions) == frame


def test_an_interruption_is_noticed_at_the_next_step():
    states, md = mixed()
    lj = LennardJones()
    with pytest.raises(Abandoned):
        advance(states, lj, 100, md, stop=lambda: lj.evaluations >= 4)
    assert lj.evaluations == 4


def test_any_calculator_can_move_the_atoms():
    fcc = np.array([[0, 0, 0], [0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]])
    copper = Frame([29] * 4, fcc, np.eye(3) * 3.6, True)
    pair = Frame([29, 29], [[0, 0, 0], [2.3, 0, 0]])
    states = [MDState.start(f, 300, k) for k, f in enumerate((copper, pair))]
    md = [langevin(300, 0.01, 2.0)] * 2
    became = advance(states, CalculatorPotential(EMT), 20, md)
    assert [a.fault for a in became] == [None, None]
    assert all((a.state.positions != s.positions).any() for a, s in zip(became, states, strict=True))


def test_float32_members_move_float64_atoms():
    class Single(LennardJones):
        def bind(self, frames):
            bound = super().bind(frames)

            def call(positions, cells, *, stress=False):
                said = bound(positions, cells)
                return type(said)(said.energies.float(), said.forces.float().requires_grad_())

            call.members, call.device = bound.members, bound.device
            return call

    states, md = mixed()
    for a, b in zip(advance(states, Single(), 10, md), advance(states, LennardJones(), 10, md), strict=True):
        assert a.state.positions.dtype == np.float64
        assert np.allclose(a.state.positions, b.state.positions, rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_moves_the_atoms_as_the_cpu_does():
    states, md = mixed()
    there = advance(states, LennardJones(device="cuda"), 20, md, observe_every=10)
    for a, b in zip(advance(states, LennardJones(), 20, md), there, strict=True):
        assert b.fault is None
        assert np.allclose(a.state.positions, b.state.positions, rtol=0, atol=1e-10)


def test_an_ensemble_that_is_not_there_is_refused_before_anything_is_evaluated():
    states, md = mixed()
    lj = LennardJones()
    with pytest.raises(SettingsError, match="thermostat Bussi is not known"):
        advance(states, lj, 1, [*md[:4], langevin(thermostat="Bussi")])
    assert lj.bindings == 0


@pytest.mark.parametrize("drives", [True, False])
def test_each_trajectory_can_be_driven_by_one_member(drives):
    states, md = every_ensemble()
    driving_members = [k % 3 for k in range(len(states))]
    scales = (0.9, 1.0, 1.1)
    committee = LennardJones(scales=scales, drives=drives)
    became = advance(states, committee, 15, md, driving_members=driving_members)
    for k, m in enumerate(driving_members):
        [alone] = advance([states[k]], LennardJones(scales=(scales[m],)), 15, [md[k]])
        assert np.allclose(alone.state.positions, became[k].state.positions, rtol=0, atol=1e-10)
        assert np.allclose(alone.state.cell, became[k].state.cell, rtol=0, atol=1e-10)
        assert became[k].evaluation.forces.shape == (3, len(states[k]), 3)
        assert np.allclose(became[k].evaluation.forces[m], alone.evaluation.forces[0], rtol=0, atol=1e-10)
        assert np.allclose(became[k].evaluation.energies[m], alone.evaluation.energies[0], rtol=0, atol=1e-10)
    assert committee.alone == (16 if drives else 0)
    assert committee.evaluations == (17 if drives else 16)


def test_driven_trajectories_go_on_bit_for_bit():
    states, md = every_ensemble()
    driving_members = [k % 2 for k in range(len(states))]
    lj = LennardJones(scales=(0.9, 1.1), drives=True)
    whole = advance(states, lj, 10, md, driving_members=driving_members)
    half = [a.state for a in advance(states, lj, 4, md, driving_members=driving_members)]
    for a, b in zip(whole, advance(half, lj, 6, md, driving_members=driving_members), strict=True):
        assert same(a.state, b.state)


def test_drivers_and_states_come_in_pairs():
    states, md = mixed()
    with pytest.raises(ValueError, match="5 states but 2 driving_members"):
        advance(states, LennardJones(), 1, md, driving_members=[0, 1])


def test_states_and_settings_come_in_pairs():
    states, md = mixed()
    with pytest.raises(ValueError, match="5 states but 4"):
        advance(states, LennardJones(), 1, md[:4])


def test_nothing_to_move_is_no_work():
    assert advance([], LennardJones(), 5, []) == []


@pytest.mark.parametrize("box", [None, "NPT"])
def test_atoms_four_times_as_heavy_go_the_same_way_in_twice_the_time(box):
    """m → 4m, t → 2t, p → 2p leaves Newton's equations as they are, also with a moving cell (NPT, τ → 2τ)."""
    frame = cluster(5) if box is None else crystal(1, 5.4)
    state = MDState.start(frame, 30.0, 3)
    own = replace(state, own_masses=4 * state.masses, momenta=2 * state.momenta)
    md = [
        langevin(stat_ensemble="NVE", timestep=dt) if box is None
        else npt("Berendsen", 30.0, dt, pressure=2e-3, taut=dt * 250, taup=dt * 500)
        for dt in (1.0, 2.0)
    ]  # fmt: skip
    light, heavy = advance([state, own], LennardJones(), 40, md)
    assert np.abs(light.state.positions - state.positions).max() > 1e-3
    np.testing.assert_allclose(heavy.state.positions, light.state.positions, rtol=0, atol=1e-9)
    np.testing.assert_allclose(heavy.state.momenta, 2 * light.state.momenta, rtol=0, atol=1e-9)
    np.testing.assert_allclose(heavy.state.cell, light.state.cell, rtol=0, atol=1e-9)
    assert heavy.state.own_masses.tolist() == own.own_masses.tolist()
    assert heavy.state.temperature == pytest.approx(light.state.temperature)


def test_constant_pressure_without_a_stress_is_refused_not_an_explosion():
    class WithoutStress(EMT):
        implemented_properties = ["energy", "free_energy", "energies", "forces"]  # noqa: RUF012

    copper = Frame([29] * 4, [[0, 0, 0], [0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]], 3.6 * np.eye(3), True)
    potential = CalculatorPotential(WithoutStress)
    state = MDState.start(copper, 300.0, 1)
    with pytest.raises(SettingsError, match="NPT needs the stress, which this potential does not give"):
        advance([state], potential, 2, [npt("MTK", 300.0)])
    assert advance([state], potential, 2, [langevin(300.0)])[0].fault is None
