"""The sampler of family trees: what it yields, how it ends."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from aims_pax.errors import Abandoned
from aims_pax.sampler import SamplingError
from aims_pax.samplers.base import sampler
from aims_pax.samplers.kinds.rattle_tree import RattleTreeSampler
from aims_pax.systems import System
from tests.md.potentials import cluster, crystal
from tests.samplers.test_family_trees import ARGON, Watched

SYSTEMS = [System("a", cluster(5)), System("b", cluster(4, seed=1))]


def sampled(potential=None, n=4, systems=SYSTEMS, seed=1, **settings):
    made = RattleTreeSampler(potential or Watched(), **{**ARGON, **settings})
    return list(made.sample(systems, n, np.random.default_rng(seed)))


def test_the_sampler_is_found_by_its_kind():
    assert isinstance(sampler("rattle_tree", potential=Watched(), temperature=300), RattleTreeSampler)


def test_provenance_says_how_a_structure_came_about():
    for sample in sampled():
        origin = sample.origin
        assert origin["sampler"] == "rattle_tree"
        assert str(origin["id"]).startswith(f"{origin['system']}-")
        assert {"parent", "level", "relax_steps", "sigma", "attempt", "temperature"} <= set(origin)
        assert sample.label is None, "the potential is not the reference"


def test_a_systems_structures_do_not_depend_on_the_other_systems():
    both, alone = sampled(), sampled(systems=SYSTEMS[1:])
    assert [s.frame for s in both if s.origin["system"] == "b"] == [s.frame for s in alone]


def test_no_structure_is_the_system_itself():
    starts = {s.frame for s in SYSTEMS}
    assert not starts & {s.frame for s in sampled()}


def test_nothing_wanted_costs_nothing():
    potential = Watched()
    assert sampled(potential, n=0) == []
    assert potential.asked == 0


def test_it_says_what_to_do_when_nothing_new_comes():
    with pytest.raises(SamplingError, match=r"a: given up at 1 of 5 .*raise sigma_range"):
        sampled(sigma_range=(0.001, 0.002), max_attempts=5)


def test_it_can_be_interrupted():
    potential = Watched()
    made = RattleTreeSampler(potential, stop=lambda: len(potential.batches) > 3, **ARGON)
    with pytest.raises(Abandoned):
        list(made.sample(SYSTEMS, 50, np.random.default_rng(1)))
    assert len(potential.batches) == 4


def test_its_examples_are_true():
    from aims_pax.samplers.kinds import rattle_tree

    result = doctest.testmod(rattle_tree)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_cell_that_the_file_fixes_is_not_changed():
    """constrain_relaxation after lattice_vector was ignored by cell_sigma, though NPT refuses it."""
    system = System("held", crystal(1, 5.4), fixed_cell=np.ones((3, 3), bool))
    with pytest.raises(
        SamplingError, match=r"^held: constrain_relaxation .* which cell_sigma does not support; set it"
    ):
        sampled(systems=[system], cell_sigma=0.05)
    assert (sampled(systems=[system], n=1)[0].frame.cell == system.frame.cell).all()
