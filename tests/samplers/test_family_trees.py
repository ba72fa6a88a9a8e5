"""Family trees: what is labelled, what is kept, side by side or alone, and how they end."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed

from aims_pax.errors import NotConverged
from aims_pax.frames import Frame, Label
from aims_pax.sampler import SamplingError
from aims_pax.samplers.family_trees import (
    CLOSE,
    FAILED,
    FORCE,
    SIMILAR,
    SINGLE,
    Node,
    Tree,
    grow,
)  # fmt: skip
from aims_pax.samplers.rattle import Rattling, relaxed
from tests.md.potentials import LennardJones, Springs, cluster, crystal


class Watched(LennardJones):
    """Lennard-Jones that remembers the batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[Frame]] = []

    def labels(self, frames):
        self.batches.append(list(frames))
        return super().labels(frames)

    @property
    def asked(self) -> int:
        return sum(map(len, self.batches))


STARTS = [cluster(5), cluster(4, seed=1), crystal(1, 5.4), cluster(6, seed=2)]
ARGON = {"temperature": 100.0, "sigma_range": (0.05, 0.2)}


def trees(starts=STARTS, seed=3, **rattling):
    return [Tree(str(k), s, Rattling(**{**ARGON, **rattling}), seed) for k, s in enumerate(starts)]


def grown(planted, n, potential=None):
    list(grow(planted, n, potential or Watched()))
    return planted


def same(a: Node, b: Node) -> bool:
    return (a.id, a.frame, a.origin(), a.label.energy) == (b.id, b.frame, b.origin(), b.label.energy)


def mean_displacement(a: Frame, b: Frame) -> float:
    d = a.positions - b.positions
    if a.pbc.all():
        d -= np.round(d @ np.linalg.inv(a.cell)) @ a.cell  # cubic
    return float(np.linalg.norm(d, axis=1).mean())


def test_children_descend_from_their_parents():
    for tree in grown(trees(), 12):
        assert [node.id for node in tree.nodes] == [f"{tree.name}-{k}" for k in range(12)]
        by_id = {node.id: node for node in tree.nodes}
        root, *children = tree.nodes
        assert (root.frame, root.level, root.parent, root.sigma) == (tree.start, 0, None, None)
        for child in children:
            assert child.level == by_id[child.parent].level + 1
            assert 0.05 <= child.sigma <= 0.2
            assert 0 <= child.relax_steps <= 20
        attempts = [node.attempt for node in tree.nodes]
        assert attempts == sorted(set(attempts))


def test_every_label_belongs_to_its_structure():
    for node in itertools.chain(*(tree.nodes for tree in grown(trees(), 8))):
        expected = LennardJones().labels([node.frame])[0]
        assert node.label.energy == expected.energy
        assert (node.label.forces == expected.forces).all()


def test_no_two_structures_of_a_tree_are_alike_and_all_are_sound():
    r = {"max_force": 0.5, "min_separation": 3.0, "similarity_threshold": 0.2}
    rejected = 0
    for tree in grown(trees(**r), 10):
        rejected += tree.rejected.total()
        for a, b in itertools.combinations([n.frame for n in tree.nodes], 2):
            assert mean_displacement(a, b) >= 0.2
        for node in tree.nodes[1:]:
            assert np.linalg.norm(node.label.forces, axis=1).max() < 0.5
            if not node.frame.pbc.any():
                d = np.linalg.norm(node.frame.positions[:, None] - node.frame.positions[None], axis=-1)
                assert d[np.triu_indices(len(d), 1)].min() > 3.0
    assert rejected, "nothing was turned down: this test tests nothing"


def test_what_is_like_its_tree_is_never_calculated():
    potential = Watched()
    [tree] = grown(trees(STARTS[:1], sigma_range=(0.01, 0.1)), 8, potential)
    assert tree.rejected[SIMILAR] > 20
    known: list[Frame] = []
    labelled = [frame for batch in potential.batches for frame in batch]
    nodes = {node.frame: node for node in tree.nodes}
    for frame in labelled:
        assert all(mean_displacement(frame, k) >= 0.1 for k in known if k != frame)
        if frame in nodes:
            known.append(frame)
    assert len(labelled) < tree.rejected.total()


def led_back(tree: Tree, node: Node) -> bool:
    """Whether one step more would have been like an older structure of the tree."""
    ahead = relaxed(node.frame, node.label.forces, node.sigma / (node.relax_steps + 1))
    return any(mean_displacement(ahead, old.frame) < 0.1 for old in tree.nodes[: tree.nodes.index(node)])


def test_a_relaxation_that_leads_back_ends_one_step_before():
    # springs pull every atom to the origin: steps of σ/x along the force soon come back to an older structure
    start = Frame([18] * 3, np.zeros((3, 3)))
    [tree] = grown(
        trees([start], temperature=0.0, min_separation=0.0, sigma_range=(0.15, 0.15)), 6, Springs()
    )
    assert all(led_back(tree, node) for node in tree.nodes[1:] if node.relax_steps < 20)
    assert min(node.relax_steps for node in tree.nodes[1:]) < 20


@pytest.mark.parametrize("temperature", [0.0, 300.0])
def test_each_step_goes_sigma_over_x_along_the_force(temperature):
    potential = Watched()
    [tree] = grown(trees(STARTS[:1], temperature=temperature), 8, potential)
    path = [frame for batch in potential.batches for frame in batch]
    assert max(node.relax_steps for node in tree.nodes) > 2
    for node in tree.nodes[1:]:
        last = path.index(node.frame)
        parent = next(n for n in tree.nodes if n.id == node.parent)
        for x in range(node.relax_steps, 0, -1):
            before = path[last - (node.relax_steps - x) - 1]
            after = path[last - (node.relax_steps - x)]
            assert after == relaxed(before, LennardJones().labels([before])[0].forces, node.sigma / x)
        shaken = path[last - node.relax_steps].positions - parent.frame.positions
        np.testing.assert_allclose(shaken.mean(0), 0, atol=1e-7)


def test_at_zero_temperature_a_relaxation_ends_below_its_parent():
    [tree] = grown(trees(STARTS[:1], temperature=0.0, max_relax_steps=10), 25)
    above = []
    for node in tree.nodes[1:]:
        parent = next(n for n in tree.nodes if n.id == node.parent)
        above.append(node.label.energy > parent.label.energy)
        if above[-1]:
            assert node.relax_steps == 10 or led_back(tree, node)
    assert 0 < sum(above) < len(above)


@pytest.mark.parametrize(
    ("limit", "reason"), [({"max_force": 0.08}, FORCE), ({"min_separation": 3.55}, CLOSE)]
)
def test_a_relaxation_goes_on_until_it_is_sound(limit, reason):
    # a hot tree would end a quarter of its relaxations at once; what is not sound yet must go on instead
    wide = {"sigma_range": (0.2, 0.3), "temperature": 1e6, "max_relax_steps": 60, "beta": 1.0}
    [tree] = grown(trees(STARTS[:1], **wide, **limit), 15)
    [free] = grown(trees(STARTS[:1], **wide), 15)
    assert tree.rejected[reason] == 0
    assert np.mean([n.relax_steps for n in tree.nodes]) > np.mean([n.relax_steps for n in free.nodes]) + 0.5


def test_without_relaxation_children_are_only_shaken():
    [tree] = grown(trees(STARTS[:1], max_relax_steps=0), 6)
    assert {node.relax_steps for node in tree.nodes} == {0}
    for node in tree.nodes[1:]:
        parent = next(n for n in tree.nodes if n.id == node.parent)
        np.testing.assert_allclose((node.frame.positions - parent.frame.positions).mean(0), 0, atol=1e-7)


def test_relaxation_goes_downhill():
    [shaken] = grown(trees(STARTS[:1], max_relax_steps=0), 10)
    [relaxed] = grown(trees(STARTS[:1], temperature=0.0), 10)  # at 0 K it ends only below the parent
    means = [np.mean([n.label.energy for n in t.nodes[1:]]) for t in (shaken, relaxed)]
    assert means[1] < means[0] - 0.005


def test_a_tree_does_not_know_who_grows_beside_it():
    together = grown(trees(), 8)
    for k, tree in enumerate(together):
        [alone] = grown([Tree(str(k), STARTS[k], tree.rattling, tree.seed)], 8)
        assert all(map(same, alone.nodes, tree.nodes))


def test_a_seed_and_a_name_make_a_tree():
    first, again, other = (grown(trees(STARTS[:1], seed=s), 6)[0] for s in (3, 3, 4))
    assert all(map(same, first.nodes, again.nodes))
    renamed = grown([Tree("b", STARTS[0], first.rattling, 3)], 6)[0]
    for different in (other, renamed):
        assert not {n.frame for n in different.nodes[1:]} & {n.frame for n in first.nodes[1:]}


def test_a_tree_goes_on_as_if_it_had_never_stopped():
    whole = grown(trees(), 10)
    for tree in whole:
        for known in (1, 4, 9):
            half = Tree(tree.name, tree.start, tree.rattling, tree.seed, tree.nodes[:known])
            potential = Watched()
            grown([half], 10, potential)
            assert all(map(same, half.nodes, tree.nodes))
            assert tree.start not in {frame for batch in potential.batches for frame in batch}


def test_a_complete_tree_asks_nothing():
    [tree] = grown(trees(STARTS[:1]), 5)
    potential = Watched()
    assert list(grow([Tree(tree.name, tree.start, tree.rattling, 3, tree.nodes)], 5, potential)) == []
    assert potential.asked == 0


def test_each_round_is_one_evaluation_for_all_trees():
    potential = Watched()
    planted = grown(trees([cluster(5, seed=k) for k in range(8)]), 6, potential)
    assert len(potential.batches[0]) == 8
    assert max(map(len, potential.batches)) == 8
    alone = []
    for k, tree in enumerate(planted):
        one = Watched()
        grown([Tree(str(k), tree.start, tree.rattling, tree.seed)], 6, one)
        alone.append(one.asked)
    assert potential.asked == sum(alone)
    assert len(potential.batches) == max(alone)


def test_structures_come_as_they_are_accepted():
    potential = Watched()
    stream = grow(trees(), 50, potential)
    assert [next(stream)[1].level for _ in range(4)] == [0] * 4
    assert len(potential.batches) == 1
    next(stream)
    assert len(potential.batches) < 40


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize(
    ("start", "rattling", "reason", "advice"),
    [
        (cluster(4), {"sigma_range": (0.01, 0.02)}, SIMILAR, "raise sigma_range"),
        (Frame([18], [[0, 0, 0]]), {}, SINGLE, "two movable atoms"),
        (cluster(2, fixed=[True, True]), {}, SINGLE, "two movable atoms"),
        (cluster(4), {"max_force": 1e-9}, FORCE, "raise max_force"),
        (cluster(4), {"min_separation": 9.0}, CLOSE, "min_separation"),
    ],
)
def test_a_hopeless_tree_is_given_up_with_the_reason(start, rattling, reason, advice):
    potential = Watched()
    planted = trees([start, cluster(5)], max_attempts=15)
    planted[0] = Tree(
        "0", start, Rattling(**{**ARGON, "sigma_range": (0.15, 0.2), "max_attempts": 15, **rattling}), 3
    )
    ends = [(tree.name, node) for tree, node in grow(planted, 4, potential)]
    assert ends.count(("0", None)) == 1
    assert [name for name, _ in ends].count("1") == 4, "the other tree is complete"
    assert planted[0].rejected == {reason: 15}
    assert f"0: given up at 1 of 4 structures after 15 attempts in a row (15 {reason})" in planted[0].given_up
    assert advice in planted[0].given_up
    if reason in (SIMILAR, SINGLE):
        assert sum(start == frame for batch in potential.batches for frame in batch) == 1
        assert sum(len(start) == len(frame) for batch in potential.batches for frame in batch) == 1


def test_attempts_are_counted_in_a_row():
    [tree] = grown(trees(STARTS[:1], sigma_range=(0.01, 0.1), max_attempts=60), 15)
    assert not tree.given_up
    assert tree.rejected.total() > 60


def test_attempts_that_fail_after_a_restart_count_again():
    hopeless = trees([cluster(4)], sigma_range=(0.01, 0.02), max_attempts=10)
    grown(hopeless, 3)
    again = Tree("0", cluster(4), hopeless[0].rattling, 3, hopeless[0].nodes)
    grown([again], 3)
    assert again.rejected == {SIMILAR: 10}


class Failing(LennardJones):
    """Fails, or gives NaN, for children of five atoms."""

    def __init__(self, how) -> None:
        super().__init__()
        self.how = how

    def labels(self, frames):
        said = super().labels(frames)
        for k, frame in enumerate(frames):
            if frame == STARTS[0] or len(frame) != 5:
                continue
            if self.how is not None:
                raise self.how
            said[k] = Label(float("nan"), said[k].forces)
        return said


@pytest.mark.parametrize("how", [NotConverged("no SCF"), CalculationFailed("no SCF"), None])
def test_a_calculation_that_fails_costs_only_its_own_attempt(how):
    planted = grown(trees(max_attempts=6), 5, Failing(how))
    assert planted[0].rejected == {FAILED: 6}
    assert "another potential" in planted[0].given_up
    undisturbed = grown(trees(), 5)
    for tree, expected in zip(planted[1:], undisturbed[1:], strict=True):
        assert all(map(same, tree.nodes, expected.nodes))
        assert len(tree.nodes) == 5


def test_other_errors_are_not_hidden():
    class Broken(LennardJones):
        def labels(self, frames):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        grown(trees(), 2, Broken())


def test_a_start_without_a_label_is_named():
    class Never(LennardJones):
        def labels(self, frames):
            raise NotConverged("no SCF")

    planted = grown(trees(STARTS[:1]), 3, Never())
    assert "0: the starting structure could not be calculated: NotConverged: no SCF" in planted[0].given_up


def test_zero_temperature_grows_too():
    assert all(len(tree.nodes) == 5 for tree in grown(trees(temperature=0.0, beta=1.0), 5))


def test_a_single_atom_in_a_cell_that_changes_can_grow():
    atom = Frame([18], [[0.1, 0, 0]], np.eye(3) * 4, [True] * 3)
    [tree] = grown(trees([atom], cell_sigma=0.1, min_separation=0.5), 5)
    assert len({node.frame.cell.tobytes() for node in tree.nodes}) == 5
    volumes = [np.linalg.det(node.frame.cell) for node in tree.nodes]
    assert 20 < min(volumes) < max(volumes) < 140


def test_cells_do_not_wander():
    [tree] = grown(trees([STARTS[2]], cell_sigma=0.02, cell_sigma_reading="length", beta=0.0), 40)
    assert max(node.level for node in tree.nodes) > 5
    assert abs(np.array([n.frame.cell for n in tree.nodes]) - STARTS[2].cell).max() < 0.02 * 5


def test_fixed_atoms_and_a_changing_cell_exclude_each_other():
    fixed = crystal(1, 5.4, fixed=[True, False, False, False])
    with pytest.raises(SamplingError, match=r"0: fixed atoms .* set cell_sigma to null"):
        grown(trees([fixed], cell_sigma=0.1), 2)
