"""A visit sees the new structures and a fresh random part of the old ones, whatever their number."""

from collections import Counter

import pytest

from aims_pax.core.replay import Replay

IDS = [f"{k:04d}" for k in range(1000)]
REPLAY = Replay(train=50, valid=20, fresh=4)


def test_the_newest_are_always_in_and_the_size_is_kept():
    seen = REPLAY.training(IDS, ("visit", 0))
    assert seen[-4:] == IDS[-4:]
    assert len(seen) == len(set(seen)) == 50
    assert seen == sorted(seen)


def test_equal_words_draw_equally_and_other_words_otherwise():
    assert REPLAY.training(IDS, ("visit", 0)) == REPLAY.training(IDS, ("visit", 0))
    assert REPLAY.training(IDS, ("visit", 0)) != REPLAY.training(IDS, ("visit", 1))


@pytest.mark.parametrize("n", [0, 1, 4, 5, 50])
def test_a_small_set_is_seen_whole(n):
    assert REPLAY.training(IDS[:n], ("visit", 0)) == IDS[:n]
    assert Replay(train=2, valid=20, fresh=4).training(IDS[:n], ("visit", 0)) == IDS[:n][-4:]


def test_over_many_visits_every_old_structure_is_seen_equally_often():
    visits = 2000
    counts = Counter(i for v in range(visits) for i in REPLAY.training(IDS, ("visit", v))[:-4])
    expected = visits * 46 / 996
    chi2 = sum((counts[i] - expected) ** 2 / expected for i in IDS[:-4])
    assert 800 < chi2 < 1200  # 995 degrees of freedom, less a little: drawn without replacement
    assert not set(counts) & set(IDS[-4:])


def test_validation_changes_little_as_the_set_grows():
    import hashlib

    ids = [hashlib.sha256(str(k).encode()).hexdigest() for k in range(1000)]
    before, after = REPLAY.validation(ids[:900]), REPLAY.validation(ids)
    assert len(before) == len(after) == 20
    assert len(set(before) & set(after)) >= 14
    assert [i for i in ids if i in after] == after
    assert REPLAY.validation(ids[:7]) == ids[:7]
