"""Finite clusters: the four rules against brute force over molecules and images."""

from __future__ import annotations

import doctest
import itertools
from dataclasses import replace

import numpy as np
import pytest
from ase.data import atomic_masses
from scipy.spatial.distance import cdist

from aims_pax.frames import Frame
from aims_pax.sampler import SamplingError
from aims_pax.samplers import clusters
from aims_pax.samplers.clusters import Rule, choose_clusters
from tests.samplers.crystals import shuffled, skewed, water_box

CRYSTALS = {"water": water_box(3), "skewed": skewed((2, 2, 2), seed=3)}
DISTANCES = (2.5, 3.4, 4.0)
RULES = {
    "closest_to_center_of_mass": Rule("closest_to_center_of_mass", (1, 2, 5, 8)),
    "closest_to_central_molecule": Rule("closest_to_central_molecule", (1, 2, 5, 8)),
    "by atoms": Rule("closest_to_central_molecule", (1, 2, 5, 8), distance_between="atoms"),
    "max_min": Rule("max_min_distance_to_central_molecule", distances=DISTANCES),
    "max_max": Rule("max_max_distance_to_central_molecule", distances=(4.0, 5.0)),
}


def brute(frame: Frame, rule: Rule) -> list[set[int]]:
    """Every molecule of the (already whole) frame, all 343 images, straight from the words of the rules."""
    size = 3 if frame.numbers[0] == 8 else 4
    m = atomic_masses[frame.numbers[:size]]
    parts = frame.positions.reshape(-1, size, 3)
    along = np.einsum("a,kax->kx", m, parts) / m.sum() @ np.linalg.inv(frame.cell)
    parts = parts - (np.floor(along + 1e-6) @ frame.cell)[:, None]
    centers = np.einsum("a,kax->kx", m, parts) / m.sum()
    middle = int(np.argmin(np.linalg.norm(centers - centers.mean(0), axis=1)))
    shifts = np.array(list(itertools.product(range(-3, 4), repeat=3))) @ frame.cell
    told = []
    for k, own in enumerate(parts):
        by_center = rule.selection_rule == "closest_to_center_of_mass"
        to = centers.mean(0) if by_center else centers[middle]
        lengths = np.linalg.norm(centers[k] + shifts - to, axis=1)
        pairs = cdist(own + shifts[lengths.argmin()], parts[middle])
        if "max_m" not in rule.selection_rule:
            d = lengths.min() if rule.distance_between == "center_of_mass" else pairs.min()
        else:
            d = pairs.max() if "max_max" in rule.selection_rule else pairs.min()
        told.append(-1.0 if k == middle and not by_center else d)
    order = np.argsort(told)
    if "max_m" in rule.selection_rule:
        return [{k for k in range(len(parts)) if told[k] < r} for r in rule.distances]
    return [set(order[:n].tolist()) for n in rule.n_molecules]


@pytest.mark.parametrize("frame", CRYSTALS.values(), ids=CRYSTALS)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_rules_against_brute_force_under_any_wrapping(frame, rule):
    rng = np.random.default_rng(1)
    loose = frame.moved(frame.positions + rng.normal(scale=0.02, size=frame.positions.shape))  # no ties
    expected = brute(loose, rule)
    assert len({len(e) for e in expected}) > 1
    for seed in (0, 1):
        found = choose_clusters(shuffled(loose, seed), rule)
        assert [set(c.molecules) for c in found] == expected
        assert all(len(c.molecules) == len(set(c.molecules)) for c in found)


@pytest.mark.parametrize("frame", CRYSTALS.values(), ids=CRYSTALS)
def test_cut_clusters_are_compact_whole_and_centred(frame):
    pair = choose_clusters(frame, Rule(n_molecules=(2,)))[0]
    cut = pair.cut(shuffled(frame, 5))
    m = atomic_masses[cut.numbers]
    assert not cut.pbc.any()
    assert not cut.cell.any()
    np.testing.assert_allclose(m @ cut.positions / m.sum(), 0, atol=1e-7)
    size = len(cut) // 2
    np.testing.assert_allclose(
        cdist(cut.positions[:size], cut.positions[:size]),
        cdist(*2 * [frame.positions[pair.atoms[:size]]]),
        atol=1e-6,
    )
    assert cdist(cut.positions[:size], cut.positions[size:]).min() < 4.0  # and not a cell apart


def test_later_frames_give_the_same_molecules():
    frame = water_box(3)
    cluster = choose_clusters(frame, Rule(n_molecules=(4,)))[0]
    rng = np.random.default_rng(0)
    later = frame.moved(frame.positions + rng.normal(scale=0.05, size=frame.positions.shape))
    now, then = cluster.cut(frame), cluster.cut(shuffled(later, 2))
    assert abs(now.positions - then.positions).max() < 0.4
    assert (now.numbers == then.numbers).all()


@pytest.mark.parametrize("frame", CRYSTALS.values(), ids=CRYSTALS)
def test_molecules_that_cross_a_face_of_the_cell_stay_with_their_cluster(frame):
    cluster = choose_clusters(frame, Rule(n_molecules=(6,)))[0]
    now = cluster.cut(frame)
    for seed in range(6):  # everything drifts together: each molecule crosses some face at some time
        drift = np.random.default_rng(seed).uniform(-9, 9, 3)
        strained = frame.moved((frame.positions + drift) * 1.01, frame.cell * 1.01)
        then = cluster.cut(shuffled(strained, seed))
        np.testing.assert_allclose(then.positions, now.positions * 1.01, atol=1e-6)


def test_mixed_compositions_are_refused_unless_allowed():
    water = water_box(2)
    numbers = water.numbers.copy()
    numbers[1] = 9
    mixed = Frame(numbers, water.positions, water.cell, True)
    with pytest.raises(SamplingError, match=r"H2O, HFO.*assert_identical_composition"):
        choose_clusters(mixed)
    assert len(choose_clusters(mixed, Rule(assert_identical_composition=False))) == 8


@pytest.mark.parametrize("which", ["min", "max"])
def test_the_central_molecule_is_always_in(which):
    rule = Rule(f"max_{which}_distance_to_central_molecule", distances=(0.1,))  # less than its own size
    assert [c.key for c in choose_clusters(water_box(2), rule)] == ["n=1,r=0.1"]


def test_sizes_beyond_the_frame_are_left_out_with_a_word(caplog):
    assert [c.key for c in choose_clusters(water_box(2), Rule(n_molecules=(8, 9)))] == ["n=8"]
    assert "has only 8" in caplog.text


def test_two_distances_that_select_the_same_molecules_give_one_cluster(caplog):
    rule = Rule("max_min_distance_to_central_molecule", distances=(1.0, 1.5, 4.0, 1.5))
    chosen = choose_clusters(water_box(3), rule)
    assert [c.key for c in chosen] == ["n=1,r=1", f"n={len(chosen[1].molecules)},r=4"]
    assert "1.5 Å selects the same molecules as 1 Å" in caplog.text


@pytest.mark.parametrize("which", ["max_min", "max_max"])
def test_distances_beyond_the_cell_are_warned_of(which, caplog):
    argon = Frame([18, 18], [[0, 0, 0], [4, 0, 0]], np.diag([9.0, 30, 30]), True)
    rule = f"{which}_distance_to_central_molecule"
    assert [len(c.molecules) for c in choose_clusters(argon, Rule(rule, distances=(4.5,)))] == [2]
    assert not caplog.records
    assert [len(c.molecules) for c in choose_clusters(argon, Rule(rule, distances=(4.5, 5.5)))] == [2]
    assert "distances: 5.5 Å: from 5.00 Å on further periodic images" in caplog.text
    caplog.clear()
    choose_clusters(replace(argon, pbc=False, cell=np.zeros((3, 3))), Rule(rule, distances=(4.5, 55.0)))
    assert "further periodic images" not in caplog.text


def test_a_charged_cell_is_refused():
    frame = water_box(2)
    with pytest.raises(SamplingError, match="charge 1"):
        choose_clusters(Frame(frame.numbers, frame.positions, frame.cell, True, charge=1.0))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"selection_rule": "nearest"}, "selection_rule"),
        ({"distance_between": "centres"}, "distance_between"),
        ({"selection_rule": "max_min_distance_to_central_molecule"}, "distances"),
        ({"n_molecules": (0,)}, "n_molecules"),
    ],
)
def test_wrong_rules_are_told(wrong, told):
    with pytest.raises(ValueError, match=told):
        Rule(**wrong)


def test_the_example_runs():
    result = doctest.testmod(clusters)
    assert result.attempted > 2
    assert result.failed == 0


def test_a_cell_with_unpaired_electrons_is_refused():
    frame = water_box(4)
    with pytest.raises(SamplingError, match="spin 3 cannot be divided"):
        choose_clusters(replace(frame, spin=3))
    assert choose_clusters(replace(frame, spin=1))
