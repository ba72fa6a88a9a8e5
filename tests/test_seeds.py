"""Named random streams."""

import pytest

from aims_pax import seeds


def test_a_stream_depends_on_its_words_alone():
    assert seeds.rng("a", 1).random() == seeds.rng("a", 1).random()
    assert (
        len({seeds.seed_number(*w) for w in [("a", 1), ("a", "1"), ("a1",), ("a", 2), ("b", 1), ("a", 1, 0)]})
        == 6
    )


def test_the_streams_are_the_same_on_every_machine():
    assert seeds.seed_number("train", 0, 7) == 1039600865844382448


def test_member_seeds_never_repeat():
    for seed in range(50):
        assert len(set(seeds.member_seeds(seed, 20))) == 20
    assert seeds.member_seeds(42, 4) == seeds.member_seeds(42, 4) != seeds.member_seeds(43, 4)
    with pytest.raises(ValueError, match="1000"):
        seeds.member_seeds(1, 1001)


def test_uniform_numbers_are_uniform():
    drawn = [seeds.uniform("u", k) for k in range(4000)]
    assert min(drawn) >= 0
    assert max(drawn) < 1
    assert sum(drawn) / 4000 == pytest.approx(0.5, abs=0.02)
