"""One child: which parent, how far its atoms and cell move, when its relaxation ends."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from ase.units import kB

from aims_pax.samplers.rattle import Rattling, rattled, relaxed
from tests.md.potentials import cluster, crystal

T = 300.0
ENERGIES = np.array([-1.0, -1.05, -0.9, -1.02])
LEVELS = np.array([0, 1, 1, 2])


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("boltzmann", "divisor"), [("per_atom", 4), ("total", 1)])
@pytest.mark.parametrize(("reading", "beta"), [("document", 0.2), ("code", 0.8)])
def test_parents_are_chosen_as_the_formula_says(reading, beta, boltzmann, divisor):
    weights = np.exp(-(ENERGIES - ENERGIES[0]) / divisor / (kB * T))
    expected = beta * weights / weights.sum() + (1 - beta) * np.array([1, 2, 2, 3]) / 8
    p = Rattling(T, beta=0.2, beta_reading=reading, boltzmann=boltzmann).parents(ENERGIES, LEVELS, 4)
    np.testing.assert_allclose(p, expected, rtol=1e-12)


def test_at_zero_temperature_only_the_lowest_energy_counts():
    p = Rattling(0.0, beta=1.0).parents(ENERGIES, LEVELS, 4)
    assert p.tolist() == [0, 1, 0, 0]
    assert Rattling(0.0).stop(-1.1, -1.0, 4) == 0.25
    assert Rattling(0.0).stop(-0.999, -1.0, 4) == 0.0


def test_cold_trees_do_not_overflow():
    p = Rattling(0.01, beta=1.0).parents(np.array([0.0, 500.0, -500.0]), np.zeros(3), 1)
    assert p.tolist() == [0, 0, 1]
    assert Rattling(0.01).stop(500.0, -500.0, 1) == 0.0


@pytest.mark.parametrize(("boltzmann", "divisor"), [("per_atom", 5), ("total", 1)])
def test_the_relaxation_ends_with_the_boltzmann_factor_but_at_most_a_quarter(boltzmann, divisor):
    r = Rattling(T, boltzmann=boltzmann)
    rise = 3 * kB * T * divisor
    assert r.stop(1 + rise, 1.0, 5) == pytest.approx(math.exp(-3))
    assert r.stop(1 + 0.1 * rise, 1.0, 5) == 0.25
    assert r.stop(0.0, 1.0, 5) == 0.25


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"beta": 1.1},
        {"sigma_range": (0.2, 0.1)},
        {"sigma_range": (0.0, 0.1)},
        {"max_attempts": 0},
        {"max_relax_steps": -1},
        {"beta_reading": "paper"},
        {"boltzmann": "each"},
        {"cell_sigma_reading": "rows"},
    ],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Rattling(**{"temperature": 300, **wrong})


def test_displacements_are_normal_with_a_log_uniform_width_and_no_drift():
    start, r = cluster(7), Rattling(T, sigma_range=(0.01, 0.2))
    moved = [rattled(start, start, r, g) for g in map(rng, range(2000))]
    shifts = np.array([f.positions - start.positions for f, _ in moved])
    sigmas = np.array([s for _, s in moved])
    np.testing.assert_allclose(shifts.mean(1), 0, atol=1e-8)
    scaled = shifts / sigmas[:, None, None]
    assert scaled.var() == pytest.approx(6 / 7, rel=0.02)  # one of seven degrees of freedom is the drift
    assert (sigmas >= 0.01).all()
    assert (sigmas <= 0.2).all()
    quantiles = np.quantile(np.log(sigmas), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quantiles, np.log(0.01) + np.log(20) * np.array([0.25, 0.5, 0.75]), atol=0.1)


def test_fixed_components_stay_and_no_drift_is_taken_out_where_something_is_fixed():
    fixed = np.zeros((4, 3), bool)
    fixed[0, 2] = True
    start = cluster(4, fixed=fixed)
    frame, _ = rattled(start, start, Rattling(T), rng())
    shift = frame.positions - start.positions
    assert shift[0, 2] == 0
    assert (shift[~fixed] != 0).all()
    np.testing.assert_allclose(shift[:, :2].mean(0), 0, atol=1e-8)
    assert abs(shift[:, 2].mean()) > 1e-4


def strains(reading, cell_sigma=0.05, n=4000):
    C0 = np.array([[5.0, 0, 0], [1.0, 6.0, 0], [0.5, 0.2, 9.0]])
    start = crystal(1, 5.4).moved(crystal(1, 5.4).positions, C0)
    r = Rattling(T, cell_sigma=cell_sigma, cell_sigma_reading=reading)
    return C0, np.array([rattled(start, start, r, g)[0].cell - C0 for g in map(rng, range(n))])


def test_the_cell_is_strained_as_each_reading_says():
    C0, change = strains("strain")
    A = (np.linalg.solve(C0, change)).transpose(0, 2, 1)
    assert A.var() == pytest.approx(0.05**2 / 3, rel=0.05)  # variance of N(0, s), s uniform in [0, 0.05]
    C0, change = strains("length")
    assert change.std() == pytest.approx(0.05, rel=0.03)
    C0, change = strains("code")
    np.testing.assert_allclose(change.std(0), 0.05 * np.tile(np.linalg.norm(C0, axis=1), (3, 1)), rtol=0.06)


def test_cells_change_about_the_starting_one_and_atoms_go_along():
    start = crystal(1, 5.4)
    parent = start.moved(start.positions * 1.5, start.cell * 1.5)
    r = Rattling(T, cell_sigma=0.01, sigma_range=(1e-6, 1e-6))
    frame, _ = rattled(parent, start, r, rng())
    assert abs(frame.cell - start.cell).max() < 0.3
    fractional = frame.positions @ np.linalg.inv(frame.cell)
    np.testing.assert_allclose(fractional, start.positions @ np.linalg.inv(start.cell), atol=1e-5)


def test_a_molecule_has_no_cell_to_change_and_a_slab_keeps_its_open_direction():
    molecule = cluster(3)
    frame, _ = rattled(molecule, molecule, Rattling(T, cell_sigma=0.1), rng())
    assert not frame.cell.any()
    slab = crystal(1, 5.4)
    slab = type(slab)(slab.numbers, slab.positions, slab.cell, [True, True, False])
    frame, _ = rattled(slab, slab, Rattling(T, cell_sigma=0.1), rng())
    assert (frame.cell[2] == slab.cell[2]).all()
    assert (frame.cell[:2, :2] != slab.cell[:2, :2]).all()


def test_a_cell_turned_inside_out_is_no_child():
    start = crystal(1, 5.4)
    frames = [rattled(start, start, Rattling(T, cell_sigma=2.0), g)[0] for g in map(rng, range(50))]
    assert None in frames
    volumes = [np.linalg.det(f.cell) for f in frames if f is not None]
    assert min(volumes) > 0.1 * np.linalg.det(start.cell)


def test_every_atom_goes_the_whole_step_along_its_force():
    start = cluster(3, fixed=[[0, 0, 0], [1, 1, 1], [0, 0, 1]])
    forces = np.array([[3.0, 0, 4.0], [1.0, 1.0, 1.0], [0, 2.0, 5.0]])
    shift = relaxed(start, forces, 0.1).positions - start.positions
    np.testing.assert_allclose(shift, [[0.06, 0, 0.08], [0, 0, 0], [0, 0.1, 0]], atol=1e-8)


def test_no_force_is_no_direction():
    start = cluster(2)
    assert relaxed(start, np.zeros((2, 3)), 0.1) == start


@pytest.mark.parametrize("reading", ["strain", "length", "code"])
@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, True)])
def test_a_slab_is_not_tilted_and_a_wire_not_turned(pbc, reading):
    """Their cells left the plane of the surface, where the reference corrects its dipole along z."""
    start = replace(crystal(1, 5.4), pbc=pbc)
    how = Rattling(T, sigma_range=(1e-7, 2e-7), cell_sigma=0.05, cell_sigma_reading=reading)
    open_ = ~np.array(pbc)
    for seed in range(5):
        child, _ = rattled(start, start, how, rng(seed))
        assert (child.cell[open_] == start.cell[open_]).all()
        assert abs(child.cell[~open_][:, open_]).max() < 1e-8
        assert abs(child.cell - start.cell).max() > 1e-3
        np.testing.assert_allclose(child.positions[:, open_], start.positions[:, open_], atol=1e-6)
