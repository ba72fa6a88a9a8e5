"""Bias towards structures about which the members disagree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import units

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.md import MDState, advance
from aims_pax.md.batch import Forces, MDBatch
from aims_pax.md.bias import DEVIATIONS, MEANS, BatchBias, UncertaintyBias
from aims_pax.potential import Evaluation
from tests.md.laws import TRICLINIC, in_cell, rotation
from tests.md.potentials import LennardJones, cluster, crystal
from tests.md.settings import langevin, npt, rescaling

SCALES = (0.8, 1.0, 1.3)
HAL, UDD = UncertaintyBias("hal", 2.0), UncertaintyBias("udd", 2.0)
BOTH = pytest.mark.parametrize("bias", [HAL, UDD], ids=["hal", "udd"])
T = 60.0


def committee(drives: bool = False, **other) -> LennardJones:
    return LennardJones(scales=SCALES, smooth=True, drives=drives, **other)


def there(state: MDState, lj: LennardJones, stress: bool = False) -> Evaluation:
    here = torch.from_numpy(state.positions.copy()), torch.from_numpy(state.cell.copy())[None]
    return lj.bind([state.frame()])(*here, stress=stress)


class Energy:
    """V as a function of positions and cell, with the offset and the scale that a state has remembered."""

    def __init__(self, state: MDState, bias: UncertaintyBias, lj: LennardJones) -> None:
        self.state, self.bound = state, lj.bind([state.frame()])
        self.batch = MDBatch.of([state], "cpu")
        self.made = BatchBias(self.batch, [bias], [1.0], self.bound.members)
        self.kT = torch.tensor([units.kB * T], dtype=torch.float64)
        self.first, _ = self._act(self.said())

    def _act(self, said):
        zero = Forces(
            torch.zeros_like(said.forces[0]),
            None if said.stress is None else torch.zeros_like(said.stress[0]),
        )
        return self.made.act(self.batch.motion(), zero, said, self.kT)

    def said(self, positions=None, cell=None, stress=False) -> Evaluation:
        x = torch.from_numpy(np.array(self.state.positions if positions is None else positions))
        h = torch.from_numpy(np.array(self.state.cell if cell is None else cell))[None]
        return self.bound(x, h, stress=stress)

    def __call__(self, positions=None, cell=None) -> float:
        before, said = self.first.extras, self.said(positions, cell)
        energies = (said.energies - said.energies.mean(0)).T
        d = before[DEVIATIONS] + energies - before["bias/energies"]
        return float(self.made.energies(replace(self.first, extras={**before, DEVIATIONS: d}), self.kT)[0])

    def forces(self, stress=False) -> Forces:
        return self._act(self.said(stress=stress))[1]


def warm(frame: Frame, bias: UncertaintyBias, md=None, steps: int = 30, lj=None) -> MDState:
    """A state whose bias has an offset and a scale from some MD."""
    [moved] = advance(
        [MDState.start(frame, T, 5)], lj or committee(), steps, [md or langevin(T, 0.01)], bias=[bias]
    )
    return moved.state


def same(a: MDState, b: MDState) -> bool:
    mine, theirs = a.arrays(), b.arrays()
    return mine.keys() == theirs.keys() and all(mine[k].tobytes() == theirs[k].tobytes() for k in mine)


@BOTH
def test_the_bias_force_is_the_gradient_of_the_bias_energy(bias):
    bias = replace(bias, max_force=100.0)
    state = warm(cluster(5), bias)
    V, h = Energy(state, bias, committee()), 1e-4
    forces = V.forces().forces.numpy()
    assert np.abs(forces).max() > 1e-5
    for a, k in [(0, 0), (2, 1), (4, 2)]:
        up, down = state.positions.copy(), state.positions.copy()
        up[a, k] += h
        down[a, k] -= h
        assert forces[a, k] == pytest.approx(-(V(up) - V(down)) / (2 * h), rel=1e-5, abs=1e-9)


@BOTH
def test_the_bias_stress_is_the_derivative_of_the_bias_energy_by_strain(bias):
    bias = replace(bias, max_force=100.0)
    state = warm(in_cell(crystal(1, 5.3), TRICLINIC / 2), bias, npt("MTK", T, 1.0))
    V, h = Energy(state, bias, committee()), 1e-5
    stress = V.forces(stress=True).stress[0].numpy()
    assert np.abs(stress).max() > 1e-7
    volume = abs(np.linalg.det(state.cell))
    for i, k in [(0, 0), (1, 2), (2, 2), (0, 1)]:
        strain = np.zeros((3, 3))
        strain[i, k] = h
        strain = (strain + strain.T) / 2
        energies = [
            V(state.positions @ (np.eye(3) + s * strain), state.cell @ (np.eye(3) + s * strain))
            for s in (1, -1)
        ]
        assert stress[i, k] == pytest.approx(
            (energies[0] - energies[1]) / (2 * h * volume), rel=1e-4, abs=1e-12
        )


@BOTH
def test_energy_of_the_biased_hamiltonian_is_conserved_with_a_fixed_offset(bias):
    bias = replace(bias, strength=3.0, memory=0.0, max_force=100.0)
    frame, md = cluster(7, spacing=3.9), langevin(T, timestep=5.0, stat_ensemble="NVE")
    state = MDState.start(frame, T, 5)
    total, of_bias = [], []
    for _ in range(16):
        [moved] = advance([state], committee(), 12, [md], bias=[bias])
        state = moved.state
        V = Energy(state, bias, committee())()
        of_bias.append(V)
        total.append(state.kinetic_energy + moved.evaluation.energies.mean() + V)
    assert np.ptp(of_bias) > 3e-4
    assert np.ptp(total) < 0.03 * np.ptp(of_bias)


@BOTH
@pytest.mark.parametrize("driving", [None, [1]])
def test_without_the_bias_the_same_energy_is_not_conserved(bias, driving):
    """The bias does move the atoms: the unbiased energy changes by what V takes."""
    bias = replace(bias, strength=3.0, memory=0.0, max_force=100.0)
    md = langevin(T, timestep=5.0, stat_ensemble="NVE")
    state = MDState.start(cluster(7, spacing=3.9), T, 5)
    kept = []
    for b in (bias, None):
        [moved] = advance([state], committee(), 200, [md], bias=[b], driving_members=driving)
        mine = moved.evaluation.energies[1] if driving else moved.evaluation.energies.mean()
        kept.append(moved.state.kinetic_energy + mine)
    assert abs(kept[0] - kept[1]) > 5e-5


@BOTH
def test_the_bias_turns_with_the_structure_and_follows_the_order_of_its_atoms(bias):
    state = warm(cluster(6), bias)
    turn, order = rotation(), np.random.default_rng(0).permutation(6)
    turned = replace(state, positions=(state.positions @ turn)[order])
    here, there_ = (Energy(s, bias, committee()) for s in (state, turned))
    assert there_() == pytest.approx(here(), rel=1e-9)
    expected = (here.forces().forces.numpy() @ turn)[order]
    np.testing.assert_allclose(there_.forces().forces.numpy(), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(expected.sum(0), 0, atol=1e-12)  # no net force


def every() -> tuple[list[MDState], list, list]:
    """Trajectories of several ensembles and kinds of bias, some without, none in the order of kinds."""
    solids = [in_cell(crystal(1, 5.3), TRICLINIC / 2 @ rotation(k)) for k in range(3)]
    frames = [solids[0], cluster(7), solids[1], cluster(4), solids[2], cluster(5), cluster(3)]
    states = [MDState.start(f, 30.0 + 5 * k, 100 + k, step=7 * k) for k, f in enumerate(frames)]
    md = [
        npt("MTK", 40.0, 1.5, pressure=2e-3), langevin(50.0, 0.01, 1.0), npt("Berendsen", 30.0, 1.0),
        rescaling(30.0, 100.0, 1.5), npt("npt", 35.0, 2.0), rescaling(40.0, 100.0, 1.0), langevin(30.0, 0.01),
    ]  # fmt: skip
    return states, md, [HAL, UDD, UDD, None, HAL, HAL, None]


def test_fifty_steps_are_twenty_five_and_twenty_five_also_with_a_bias():
    states, md, bias = every()
    whole = advance(states, committee(), 50, md, bias=bias)
    half = advance(states, committee(), 25, md, bias=bias)
    stored = [MDState.from_arrays(a.state.arrays()) for a in half]
    for a, b in zip(whole, advance(stored, committee(), 25, md, bias=bias), strict=True):
        assert a.fault is None
        assert same(a.state, b.state)


def test_a_biased_trajectory_does_not_depend_on_who_shares_the_batch():
    states, md, bias = every()
    together = advance(states, committee(), 30, md, bias=bias)
    for k, became in enumerate(together):
        [alone] = advance([states[k]], committee(), 30, [md[k]], bias=[bias[k]])
        assert same(alone.state, became.state)


@pytest.mark.parametrize("drives", [True, False])
def test_trajectories_without_a_bias_are_unchanged_bit_for_bit(drives):
    states, md, bias = every()
    driven = {"driving_members": [k % 3 for k in range(len(states))]} if drives else {}
    plain = advance(states, committee(drives), 30, md, **driven)
    biased = advance(states, committee(drives), 30, md, bias=bias, **driven)
    for a, b, own in zip(plain, biased, bias, strict=True):
        assert same(a.state, b.state) is (own is None)
        assert (DEVIATIONS in b.state.extras) is (own is not None)
    for a, b in zip(
        plain, advance(states, committee(drives), 30, md, bias=[None] * 7, **driven), strict=True
    ):
        assert same(a.state, b.state)


def test_only_biased_trajectories_need_all_members():
    states, md, bias = every()
    lj = committee(drives=True)
    advance(states, lj, 10, md, bias=bias, driving_members=[0] * 7)
    # without a bias: 11 alone and one of all; with one: 11 of all
    assert (lj.alone, lj.evaluations) == (
        11,
        11 + 12,
    )


def test_what_is_returned_does_not_contain_the_bias():
    states, md, bias = every()
    for became in advance(states, committee(), 15, md, bias=bias):
        np.testing.assert_allclose(
            became.evaluation.forces, there(became.state, committee()).forces, rtol=0, atol=1e-12
        )


@BOTH
def test_constants_of_the_members_and_a_jump_between_two_blocks_change_nothing(bias):
    """Training changes the offsets of the energies while a trajectory waits."""

    class Shifted(LennardJones):
        shift = torch.zeros(3, dtype=torch.float64)

        def bind(self, frames):
            bound = super().bind(frames)

            def call(positions, cells, *, stress=False):
                said = bound(positions, cells, stress=stress)
                return replace(said, energies=said.energies + self.shift[:, None])

            call.members, call.device = bound.members, bound.device
            return call

    lj, md = Shifted(scales=SCALES, smooth=True), [langevin(T, 0.01)]
    state = MDState.start(cluster(6), T, 5)
    [plain] = advance([state], lj, 40, md, bias=[bias])
    lj.shift = torch.tensor([0.5, -3.0, 1.0])
    [half] = advance([state], lj, 20, md, bias=[bias])
    lj.shift = torch.tensor([7.0, 2.0, -1.0])
    [moved] = advance([half.state], lj, 20, md, bias=[bias])
    np.testing.assert_allclose(moved.state.positions, plain.state.positions, rtol=0, atol=1e-9)


def test_members_disagree_more_where_the_bias_leads():
    """Members that differ in ε only: σ is proportional to the energy about its mean, which the bias spreads."""
    frame, md = crystal(1, 5.4), langevin(20.0, 0.02, 8.0)

    def spread(bias):
        states = [MDState.start(frame, 20.0, k) for k in range(6)]
        seen = []
        for became in advance(states, committee(), 400, [md] * 6, bias=[bias] * 6, observe_every=10):
            energies = np.array([there(s, committee()).energies[:, 0].numpy() for s in became.observed[10:]])
            seen.append(energies - energies.mean(1, keepdims=True))
        return np.concatenate(seen).std(0).mean()

    without = spread(None)
    assert spread(UncertaintyBias("hal", 3.0)) > 1.3 * without
    assert spread(UncertaintyBias("udd", 6.0)) > 1.2 * without


@BOTH
def test_no_bias_force_is_larger_than_the_cap(bias):
    lj = committee()
    state = warm(cluster(6), replace(bias, strength=500.0, max_force=0.3), langevin(T, 0.01, 8.0), 60)
    V = Energy(state, replace(bias, strength=500.0, max_force=0.3), lj)
    free = Energy(state, replace(bias, strength=500.0, max_force=1e9), lj).forces().forces.numpy()
    forces = V.forces().forces.numpy()
    limit = 0.3 * np.sqrt(3 * float(V.first.extras[MEANS][0, 0]))
    assert np.linalg.norm(free, axis=1).max() > 2 * limit
    assert np.linalg.norm(forces, axis=1).max() == pytest.approx(limit)
    np.testing.assert_allclose(forces / forces.max(), free / free.max(), rtol=1e-9)  # the same direction


def test_identical_members_have_no_bias():
    lj, md = LennardJones(scales=(1.0, 1.0)), [langevin(T, 0.01)]
    state = MDState.start(cluster(5), T, 5)
    [plain] = advance([state], lj, 20, md)
    [biased] = advance([state], lj, 20, md, bias=[HAL])
    assert np.array_equal(plain.state.positions, biased.state.positions)


def test_fixed_atoms_neither_move_nor_count():
    frame = cluster(6, fixed=[True, True, False, False, False, False])
    state = warm(frame, HAL)
    assert np.array_equal(state.positions[:2], frame.positions[:2])
    free = there(state, committee()).forces.mean(0).numpy()[2:]
    assert 0.1 < float(state.extras[MEANS][0]) / (free**2).mean() < 10


@pytest.mark.parametrize(("bias", "scales", "text"), [
    (HAL, (1.0,), "at least two members"),
    (UncertaintyBias("metadynamics", 1.0), SCALES, "kind 'metadynamics' is not known; use hal or udd"),
])  # fmt: skip
def test_a_bias_that_cannot_act_is_refused(bias, scales, text):
    with pytest.raises(SettingsError, match=text):
        advance([MDState.start(cluster(3), T, 5)], LennardJones(scales=scales), 1, [langevin(T)], bias=[bias])


def test_biases_and_states_come_in_pairs():
    with pytest.raises(ValueError, match="1 states but 2 bias"):
        advance([MDState.start(cluster(3), T, 5)], committee(), 1, [langevin(T)], bias=[HAL, UDD])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_bias_of_the_cpu():
    states, md, bias = every()
    # the test potential's stress is for the CPU
    molecules = [k for k, s in enumerate(states) if not s.pbc.any()]

    def run(**other):
        chosen = ([x[k] for k in molecules] for x in (states, md, bias))
        mine, settings, biases = chosen
        return advance(mine, committee(**other), 20, settings, bias=biases)

    for a, b in zip(run(), run(device="cuda"), strict=True):
        assert b.fault is None
        np.testing.assert_allclose(b.state.positions, a.state.positions, rtol=0, atol=1e-9)
