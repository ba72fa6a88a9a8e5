"""Several samplers in given shares."""

from __future__ import annotations

import doctest
import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from aims_pax.frames import Frame
from aims_pax.sampler import Sample, SamplingError
from aims_pax.samplers import duplicates, equilibration, farthest_filter, sanity
from aims_pax.samplers import mixture as module
from aims_pax.samplers.mixture import PATIENCE, Mixture, Part
from aims_pax.systems import System
from tests.worlds import ethanol, water

SYSTEMS = (System("ethanol", ethanol()), System("water", water()))


class Counting:
    """Moves atoms by a number of Å that never comes twice; notes what it was asked for."""

    def __init__(self, name, step=0.05):
        self.name, self.step, self.asked, self.count = name, step, [], 0

    def sample(self, systems, n, rng):
        self.asked.append((tuple(s.name for s in systems), n))
        for _ in range(n):
            self.count += 1
            for s in systems:
                move = np.zeros_like(s.frame.positions)
                move[0, 0] = self.step * self.count
                yield Sample(
                    s.frame.moved(s.frame.positions + move), None, {"sampler": self.name, "system": s.name}
                )


def drawn(mixture, n, seed=0, systems=SYSTEMS):
    return list(mixture.sample(systems, n, np.random.default_rng(seed)))


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.9, 0.1), (1.0,), (1 / 3, 1 / 3, 1 / 3)])
def test_every_sampler_has_made_its_share_after_any_number(shares):
    mixture = Mixture([Part(str(k), Counting(str(k)), w) for k, w in enumerate(shares)])
    made = Counter()
    for n in (1, 2, 4, 3, 10, 7):
        made += Counter(s.origin["sampler"] for s in drawn(mixture, n, systems=SYSTEMS[:1]))
        for k, share in enumerate(shares):
            assert abs(made[str(k)] - share * made.total()) < 1


def test_parts_of_a_number_are_mixed_like_the_whole():
    def shares(*numbers):
        mixture = Mixture([Part("a", Counting("a"), 0.62), Part("b", Counting("b"), 0.38)])
        return Counter(s.origin["sampler"] for n in numbers for s in drawn(mixture, n, systems=SYSTEMS[:1]))

    assert shares(3, 1, 6) == shares(10) == shares(*[1] * 10)


def test_who_is_dealt_every_other_structure_gets_some_of_each():
    mixture = Mixture([Part("a", Counting("a"), 0.5), Part("b", Counting("b"), 0.5)])
    samples = [s.origin["sampler"] for s in drawn(mixture, 40, systems=SYSTEMS[:1])]
    assert 5 <= Counter(samples[::2])["a"] <= 15


def test_each_system_gets_the_same_mixture_one_of_each_in_turn():
    samples = drawn(Mixture([Part("a", Counting("a"), 0.6), Part("b", Counting("b"), 0.4)]), 5)
    assert [s.origin["system"] for s in samples] == ["ethanol", "water"] * 5
    for name in ("ethanol", "water"):
        mine = [s.origin["sampler"] for s in samples if s.origin["system"] == name]
        assert mine == [s.origin["sampler"] for s in samples[::2]]
        assert Counter(mine) == {"a": 3, "b": 2}


def test_what_a_filter_takes_away_is_made_up_for_and_nothing_more():
    sampler = Counting("a", step=0.3)  # (0.1 Å)·(number of atoms) has to be gone for another structure
    samples = drawn(Mixture([Part("a", sampler, 1.0, (duplicates(0.1),))]), 4)
    assert Counter(s.origin["system"] for s in samples) == {"ethanol": 4, "water": 4}
    assert sampler.asked[0] == (("ethanol", "water"), 4)
    assert any(names == ("ethanol",) for names, _ in sampler.asked), "water had enough"


def test_filters_that_choose_are_given_as_many_as_they_want():
    sampler = Counting("a")
    mixture = Mixture([Part("a", sampler, 1.0, (equilibration(skip=6), farthest_filter(of=3)))])
    assert len(drawn(mixture, 4)) == 8
    assert sampler.asked == [(("ethanol", "water"), 6 + 3 * 4)]
    drawn(mixture, 2)
    assert sampler.asked[-1] == (("ethanol", "water"), 3 * 2)


def test_of_a_filter_that_makes_several_of_one_some_are_taken():
    def doubled(samples):
        for sample in samples:
            yield from (sample, Sample(sample.frame, None, {**sample.origin, "half": 2}))

    samples = drawn(Mixture([Part("a", Counting("a"), 1.0, (doubled,))]), 40, systems=SYSTEMS[:1])
    halves = Counter(s.origin.get("half", 1) for s in samples)
    assert len(samples) == 40
    assert 10 <= halves[1] <= 30


def test_filters_that_let_nothing_pass_are_blamed():
    sampler = Counting("sleepy", step=0.0)
    with pytest.raises(SamplingError, match=r"water: the filters of sampler sleepy removed \d+ structures"):
        drawn(Mixture([Part("a", sampler, 1.0, (duplicates(0.1),))]), 3, systems=SYSTEMS[1:])
    assert PATIENCE <= sampler.count < 2 * PATIENCE


def test_how_much_each_filter_took_away_is_said_once_and_where_it_fails(caplog):
    part = Part("a", Counting("a", step=0.35), 1.0, (sanity(), duplicates(0.1)), ("sanity", "duplicates"))
    with caplog.at_level(logging.INFO):
        drawn(Mixture([part]), 4, systems=SYSTEMS[:1])  # ethanol: 9 atoms, every third structure is new
    assert [r.getMessage() for r in caplog.records] == ["filters of a removed: duplicates 6"]
    still = Part("a", Counting("a", step=0.0), 1.0, (sanity(), duplicates(0.1)), ("sanity", "duplicates"))
    with pytest.raises(SamplingError, match=r"in a row \(duplicates 201\)"):
        drawn(Mixture([still]), 2, systems=SYSTEMS[1:])


def test_an_equilibration_behind_a_filter_that_takes_most_away_is_waited_for():
    part = Part("a", Counting("a", step=0.05), 1.0, (duplicates(0.1), equilibration(skip=PATIENCE // 4)))
    sampler = part.sampler
    assert len(drawn(Mixture([part]), 1, systems=SYSTEMS[:1])) == 1
    assert sampler.count > 2 * PATIENCE, "ethanol: 9 atoms, every 18th structure is new"


@pytest.mark.parametrize("made", [0, 1])
def test_a_sampler_that_runs_dry_is_said_so_at_once(made):
    class Drying(Counting):
        def sample(self, systems, n, rng):
            self.asked.append(n)
            if self.count < made:
                yield from super().sample(systems, 1, rng)
                self.asked.pop()

    sampler = Drying("spring")
    with pytest.raises(
        SamplingError, match=r"ethanol: sampler spring was asked for \d structures and made none"
    ):
        drawn(Mixture([Part("a", sampler, 1.0)]), 1 + made, systems=SYSTEMS[:1])
    assert len(sampler.asked) == 1 + made


@pytest.mark.parametrize("origin", [{}, {"system": "benzene"}])
def test_a_structure_that_does_not_say_whose_it_is_is_refused(origin):
    class Anonymous(Counting):
        def sample(self, systems, n, rng):
            for s in super().sample(systems, n, rng):
                yield Sample(s.frame, None, origin)

    with pytest.raises(SamplingError, match=r"sampler lost: .* its key system must be one of ethanol, water"):
        drawn(Mixture([Part("a", Anonymous("lost"), 1.0)]), 2)


def test_a_sampler_that_does_not_sign_is_signed_for():
    class Modest(Counting):
        def sample(self, systems, n, rng):
            for s in super().sample(systems, n, rng):
                yield Sample(s.frame, None, {"system": s.origin["system"], "step": 3})

    origins = [s.origin for s in drawn(Mixture([Part("a", Modest("own"), 1.0)]), 1)]
    assert origins[0] == {"sampler": "own", "system": "ethanol", "step": 3}


def test_a_long_equilibration_is_not_taken_for_a_filter_that_lets_nothing_pass():
    mixture = Mixture([Part("a", Counting("a"), 1.0, (sanity(), equilibration(skip=PATIENCE + 50)))])
    assert len(drawn(mixture, 1)) == 2


def test_random_numbers_of_one_sampler_do_not_depend_on_the_others():
    class Random(Counting):
        def sample(self, systems, n, rng):
            for _ in range(n):
                for s in systems:
                    moved = s.frame.positions + rng.random(s.frame.positions.shape)
                    yield Sample(s.frame.moved(moved), None, {"sampler": self.name, "system": s.name})

    alone = Mixture([Part("a", Random("a"), 0.5), Part("b", Counting("b"), 0.5)])
    other = Mixture([Part("c", Random("c"), 0.5), Part("a", Random("a"), 0.5)])
    a, b = ([s.frame.id for s in drawn(m, 6) if s.origin["sampler"] == "a"] for m in (alone, other))
    assert a == b


def test_shares_and_keys_that_do_not_fit_are_refused():
    for parts in (
        [],
        [Part("a", Counting("a"), 0.5)],
        [Part("a", Counting("a"), 0.5), Part("a", Counting("b"), 0.5)],
    ):
        with pytest.raises(ValueError, match="shares sum to 1"):
            Mixture(parts)


def test_a_changed_list_of_samplers_counts_anew():
    first = Mixture([Part("a", Counting("a"), 1.0)])
    drawn(first, 20)
    changed = Mixture([Part("a", Counting("a"), 0.5), Part("b", Counting("b"), 0.5)])
    changed.load_state_arrays(first.state_arrays())
    assert Counter(s.origin["sampler"] for s in drawn(changed, 4)) == {"a": 4, "b": 4}


def test_its_examples_are_true(caplog):
    with caplog.at_level(logging.ERROR):
        result = doctest.testmod(module)
    assert result.attempted > 4
    assert result.failed == 0


class Bare:
    """Makes structures from the positions alone."""

    name = "bare"

    def sample(self, systems, n, rng):
        for _ in range(n):
            for s in systems:
                f = s.frame
                yield Sample(Frame(f.numbers, f.positions, f.cell), None, {"system": s.name})


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"charge": 1.0, "spin": 2}, r"charge None instead of 1\.0"),
        ({"spin": 3}, "spin None instead of 3"),
        ({"cell": 9 * np.eye(3), "pbc": True}, r"pbc \[False, False, False\] instead of"),
        ({"moments": [1.0, 0, 0]}, "no initial moments"),
        ({"charges": [0.1, 0, 0]}, "no initial charges"),
        ({"fixed": [True, False, False]}, "no fixed atoms"),
        ({"masses": [16.0, 2.014, 2.014]}, "no masses of isotopes"),
        ({"statements": ("homogeneous_field 0 0 0.1",)}, r"the statements \[\] instead of"),
    ],
)
def test_a_sampler_that_loses_what_labels_depend_on_is_refused(lost, said):
    mixture = Mixture([Part("bare", Bare(), 1.0)])
    with pytest.raises(SamplingError, match=f"sampler bare: a structure of ion has {said}"):
        drawn(mixture, 1, systems=[System("ion", replace(water(), **lost))])
    assert len(drawn(mixture, 2, systems=[System("ion", replace(water(), charge=0.0, spin=1))])) == 2
