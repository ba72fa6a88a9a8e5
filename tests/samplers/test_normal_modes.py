"""Phonon sampling: canonical to within its statistical error, whichever way the same modes are written."""

from __future__ import annotations

import doctest
import functools
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from aims_pax.frames import Frame
from aims_pax.potential import CalculatorPotential
from aims_pax.sampler import SamplingError
from aims_pax.samplers import normal_modes
from aims_pax.samplers.force_constants import ForceConstants, force_constants
from aims_pax.samplers.normal_modes import Modes, Window, displacements, modes, small_vibrations, trajectory
from aims_pax.samplers.supercell import repeated
from tests.md.potentials import LennardJones, crystal

ALL = Window(0.1, None)
SKEW = np.array([[1, 1, 0], [-1, 2, 1], [0, 1, 2]])
THREE = 3 * np.eye(3, dtype=int)
FRAMES = 2000


@functools.cache
def constants(kind: str) -> ForceConstants:
    """Copper, EMT, at its minimum (a = 3.58982479 Å)."""
    cubic = Frame.from_atoms(bulk("Cu", a=3.58982479, cubic=True))
    if kind == "Γ of 108 atoms":
        return force_constants(repeated(cubic, THREE)[0], CalculatorPotential(EMT))
    if kind == "3×3×3 of 4 atoms":
        return force_constants(cubic, CalculatorPotential(EMT), THREE)
    return force_constants(Frame.from_atoms(bulk("Cu", a=3.58982479)), CalculatorPotential(EMT), SKEW)


@functools.cache
def copper(kind: str) -> Modes:
    return modes(constants(kind), "gamma" if kind.startswith("Γ") else (3, 3, 3), ALL)


KINDS = ("Γ of 108 atoms", "3×3×3 of 4 atoms")


def harmonic(m: Modes, U: np.ndarray) -> np.ndarray:
    """(F,) eV: ½ u·Φ·u with the force constants of the 108 atoms, their order found by position."""
    whole = constants("Γ of 108 atoms")
    d = m.frame.positions[:, None] - whole.frame.positions[None]
    length = whole.frame.cell[0, 0]
    order = ((d - length * np.round(d / length)) ** 2).sum(-1).argmin(1)
    same = np.empty_like(U)
    same[:, order] = U
    x = same.reshape(len(U), -1)
    return 0.5 * ((x @ whole.values.transpose(0, 2, 1, 3).reshape(324, 324)) * x).sum(1)


def within_three_errors(samples: np.ndarray, expected: float) -> bool:
    return abs(samples.mean() - expected) < 3 * samples.std(ddof=1) / np.sqrt(len(samples))


@pytest.mark.parametrize("kind", KINDS)
def test_displacements_and_energies_are_canonical(kind):
    m = copper(kind)
    assert len(m) == 321  # 324 but for three translations
    U = np.array(list(displacements(m, 300, FRAMES, np.random.default_rng(0))))
    u2 = (U**2).sum(2).mean(1)
    E = harmonic(m, U)
    assert within_three_errors(u2, m.mean_square(300).mean())
    assert within_three_errors(E, m.energies(300).sum() / 2)
    assert u2.std() / np.sqrt(FRAMES) < 0.01 * u2.mean()  # the errors are small enough to mean something
    assert E.std() / np.sqrt(FRAMES) < 0.01 * E.mean()
    np.testing.assert_allclose(U.mean(1), 0, atol=1e-10)  # the crystal as a whole stays


@pytest.mark.parametrize("temperature", [0, 300])
def test_phonopys_own_thermal_displacements(temperature):
    whole = constants("3×3×3 of 4 atoms").phonopy
    whole.run_mesh([3, 3, 3], with_eigenvectors=True, is_mesh_symmetry=False, is_gamma_center=True)
    whole.run_thermal_displacements(temperatures=[temperature], freq_min=0.1)
    theirs = whole.thermal_displacements.thermal_displacements[0].reshape(4, 3).sum(1)
    for kind in KINDS:
        np.testing.assert_allclose(copper(kind).mean_square(temperature), theirs.mean(), rtol=1e-5)


def test_phonopys_own_random_displacements():
    whole = constants("3×3×3 of 4 atoms").phonopy
    whole.generate_displacements(
        number_of_snapshots=FRAMES, temperature=300, random_seed=1, cutoff_frequency=0.1
    )
    theirs = (whole.dataset["displacements"] ** 2).sum(2).mean(1)
    ours = np.array(list(displacements(copper(KINDS[1]), 300, FRAMES, np.random.default_rng(2))))
    ours = (ours**2).sum(2).mean(1)
    error = np.hypot(theirs.std(), ours.std()) / np.sqrt(FRAMES)
    assert abs(theirs.mean() - ours.mean()) < 3 * error


def test_both_ways_have_the_same_modes():
    first, second = (np.sort(copper(kind).frequencies) for kind in KINDS)
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_the_q_points_of_a_skewed_supercell_are_its_gamma_modes(monkeypatch):
    few = constants("skewed")
    at_rest, _ = repeated(few.frame, SKEW)
    gamma = modes(force_constants(at_rest, CalculatorPotential(EMT)), "gamma", ALL)
    monkeypatch.setattr(normal_modes, "_mesh_matrix", lambda constants, mesh: SKEW)
    by_q = modes(few, "gamma", ALL)
    np.testing.assert_allclose(np.sort(by_q.frequencies), np.sort(gamma.frequencies), atol=2e-3)
    Phi = [m.vectors.reshape(len(m), -1) for m in (by_q, gamma)]
    squares = [(v.T * m.frequencies**2) @ v for v, m in zip(Phi, (by_q, gamma), strict=True)]
    np.testing.assert_allclose(squares[0], squares[1], atol=3e-3 * abs(squares[1]).max())


def test_a_radius_gives_the_q_points_of_its_least_volume_supercell():
    few = constants("skewed")
    m = modes(few, 5.0, ALL)
    assert len(m) == 3 * len(m.frame) - 3
    assert len(m.frame) == 8


def test_coordinates_are_orthonormal_and_come_in_pairs_of_a_mode():
    m = copper(KINDS[1])
    V = m.vectors.reshape(len(m), -1)
    np.testing.assert_allclose(V @ V.T, np.eye(len(m)), atol=1e-10)
    groups = m.coordinates()
    assert sorted(np.concatenate(groups)) == list(range(len(m)))
    assert sum(len(g) == 1 for g in groups) == 9  # Γ alone is its own opposite on an odd mesh
    for pair in (g for g in groups if len(g) == 2):
        assert m.frequencies[pair[0]] == m.frequencies[pair[1]]
        assert (m.q[pair[0]] == m.q[pair[1]]).all()


def test_the_window_is_open_and_selected_modes_count_from_one():
    f = np.array([-0.3, 0.0, 0.1, 2.0, 8.0, 9.0])
    assert Window().takes(f).tolist() == [False, False, False, True, False, False]
    assert Window(freq_max=None).takes(f).tolist() == [False, False, False, True, True, True]
    assert Window(0.0, None).takes(np.array([-1e-7, 1e-7, 0.5])).tolist() == [False, False, True]
    assert Window(selected_modes=(1, 2, 3, 6)).takes(f).tolist() == [False, False, True, False, False, True]
    with pytest.raises(SamplingError, match="selected_modes: 7"):
        Window(selected_modes=(7,)).takes(f)


@pytest.mark.parametrize(("amplitudes", "share"), [("uniform", 1 / 3), ("time", 1 / 2), ("scan", 1 / 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_documents_amplitudes_are_smaller(amplitudes, share, kind):
    m = copper(kind)
    U = np.array(list(displacements(m, 300, FRAMES, np.random.default_rng(3), amplitudes, time_step=97.3)))
    assert (U**2).sum(2).mean() == pytest.approx(share * m.mean_square(300).mean(), rel=0.03)


def test_the_time_of_the_document_is_a_cosine():
    m = copper(KINDS[0])
    U = np.array(list(displacements(m, 300, 4, np.random.default_rng(0), "time", 100.0, only=np.array([7]))))
    phases = np.cos(2 * np.pi * m.frequencies[7] * 0.1 * np.arange(4))  # THz · ps
    np.testing.assert_allclose(U, phases[:, None, None] * U[0], atol=1e-12)


def test_per_mode_moves_one_mode_at_a_time():
    m = copper(KINDS[1])
    made = list(trajectory(m, 300, 3, np.random.default_rng(0), per_mode=True))
    assert [number for _, number in made] == [k for k in range(1, len(m.coordinates()) + 1) for _ in range(3)]
    frame, number = made[-1]
    u = (frame.positions - m.frame.positions) * np.sqrt(63.546)
    along = m.vectors.reshape(len(m), -1) @ u.ravel()
    others = np.setdiff1d(np.arange(len(m)), m.coordinates()[number - 1])
    assert abs(along[others]).max() < 1e-5
    assert abs(along).max() > 0.01
    assert {number for _, number in trajectory(m, 300, 2, np.random.default_rng(0))} == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_reproduce_bit_for_bit_and_more_frames_begin_the_same(kind):
    def ids(n, seed):
        return [f.id for f, _ in trajectory(copper(kind), 300, n, np.random.default_rng(seed))]

    assert ids(5, 1) == ids(5, 1)
    assert ids(100, 1)[:5] == ids(5, 1)
    assert not set(ids(5, 1)) & set(ids(5, 2))


def test_q_points_that_do_not_fit_are_refused():
    with pytest.raises(SamplingError, match=r"q = .* does not fit into the supercell"):
        modes(constants(KINDS[1]), (2, 1, 1), ALL, matrix=THREE)
    assert len(modes(constants(KINDS[1]), "gamma", ALL, matrix=THREE)) == 9


@pytest.mark.parametrize("mesh", [(0, 1, 1), (1, 2), "M", (1.5, 1, 1)])
def test_meshes_that_mean_nothing_are_refused(mesh):
    with pytest.raises(ValueError, match="expected gamma"):
        modes(constants(KINDS[1]), mesh)


def test_imaginary_modes_are_told_and_never_moved(caplog):
    stretched = crystal(1, 6.1)  # some of its modes are past the limit of stability
    found = modes(force_constants(stretched, LennardJones(smooth=True)), "gamma", Window(0.01, None))
    assert len(found.imaginary) == 3
    assert "3 imaginary modes, not sampled; the largest 0.22i THz" in caplog.text
    assert len(found) == 6
    assert (found.frequencies > 0.1).all()


def test_a_window_without_modes_is_told():
    with pytest.raises(SamplingError, match="no mode is selected"):
        modes(constants(KINDS[0]), window=Window(20.0, None))


def test_the_example_runs():
    result = doctest.testmod(normal_modes)
    assert result.attempted > 5
    assert result.failed == 0


def test_a_motion_that_is_no_small_vibration_is_left_out(caplog):
    """Librations of a molecule in its box are slow: straight displacements would tear it apart."""
    m = copper("3×3×3 of 4 atoms")
    first = m.coordinates()[3]
    slower = np.array(m.frequencies)
    slower[first] = 0.03
    kept = small_vibrations(replace(m, frequencies=slower), 300)
    rest = np.setdiff1d(np.arange(len(m)), first)
    assert np.array_equal(kept.frequencies, m.frequencies[rest])
    assert np.array_equal(kept.vectors, m.vectors[rest])
    assert (
        f"1 of {len(m.coordinates())} modes are too soft to be harmonic at 300 K: at 0.03 THz" in caplog.text
    )
    assert small_vibrations(m, 300) is m
    alone = modes(constants("Γ of 108 atoms"), "gamma", Window(selected_modes=(4,)))
    with pytest.raises(SamplingError, match="no other mode is selected"):
        small_vibrations(replace(alone, frequencies=np.full(len(alone), 0.02)), 300)
