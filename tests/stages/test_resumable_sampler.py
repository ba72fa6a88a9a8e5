"""Whenever a run is stopped, a resumed sampler makes the same structures: none again, none left out."""

import numpy as np
import pytest

from aims_pax.engine.stage_environment import group_arrays
from aims_pax.errors import Abandoned
from aims_pax.sampler import Sample
from aims_pax.samplers.kinds.md import MDSampler
from aims_pax.samplers.mixture import Mixture, Part
from aims_pax.stages.resumable_sampler import ResumableSampler
from aims_pax.systems import System
from tests.md.potentials import LennardJones, cluster
from tests.md.settings import langevin

SYSTEMS = [System("drop", cluster(5)), System("pair", cluster(2))]


def md(stop=lambda: False):
    return MDSampler(LennardJones(), lambda system: langevin(40), 2, "md", stop, continues=True)


def mixture():
    return Mixture([Part("one", md(), 0.5), Part("two", md(), 0.5)])


def batch(resumable, visit):
    return [one.frame.id for one in resumable.sample(SYSTEMS, 2, visit)]


@pytest.mark.parametrize("make", [md, mixture])
@pytest.mark.parametrize("ahead", [0, 1], ids=["", "with a batch that is not in the snapshot"])
def test_after_a_restart_the_batches_are_those_of_a_run_that_never_stopped(make, ahead):
    whole = ResumableSampler(make, "sample", 7)
    batches = [batch(whole, visit) for visit in range(4)]
    assert len({frame for one in batches for frame in one}) == 4 * 2 * len(SYSTEMS)
    for visits in range(4 - ahead):
        first, second = ResumableSampler(make, "sample", 7), ResumableSampler(make, "sample", 7)
        assert [batch(first, visit) for visit in range(visits + ahead)] == batches[: visits + ahead]
        arrays = first.arrays(visits)
        assert bool(arrays) == bool(visits)
        second.take_arrays(group_arrays(arrays))
        assert second.arrays(visits).keys() == arrays.keys(), "a second snapshot before the next batch"
        assert [batch(second, visit) for visit in range(visits, 4)] == batches[visits:]


@pytest.mark.parametrize("visit", [0, 1, 2])
def test_a_batch_that_was_stopped_in_the_middle_is_made_anew(visit):
    whole = ResumableSampler(md, "sample", 7)
    batches = [batch(whole, k) for k in range(3)]
    left = []  # evaluations until the run is asked to stop

    def stop():
        left[:] = [left[0] - 1] if left else []
        return bool(left) and left[0] < 0

    stopped = ResumableSampler(lambda: md(stop), "sample", 7)
    assert [batch(stopped, k) for k in range(visit)] == batches[:visit]
    before = stopped.arrays(visit)
    left.append(3)
    with pytest.raises(Abandoned):
        batch(stopped, visit)
    after = stopped.arrays(visit + 1)
    assert all(np.array_equal(after[name], array) for name, array in before.items())
    assert after.keys() == before.keys()
    left.clear()
    assert batch(stopped, visit) == batches[visit]


class Noise:
    """A sampler without state, as a user may write one."""

    name = "noise"

    def sample(self, systems, n, rng):
        for _ in range(n):
            for system in systems:
                shaken = system.frame.moved(system.frame.positions + rng.normal(size=(len(system.frame), 3)))
                yield Sample(shaken, {"system": system.name, "sampler": self.name})


def test_without_a_state_the_words_and_the_visit_decide_and_nothing_is_stored():
    one = ResumableSampler(Noise, "sample", 7)
    batches = [batch(one, visit) for visit in range(3)]
    assert one.arrays(3) == {}
    assert batch(ResumableSampler(Noise, "sample", 7), 1) == batches[1]
    assert batch(ResumableSampler(Noise, "sample", 8), 1) != batches[1]
    assert batches[0] != batches[1]


def test_it_is_made_when_it_is_first_used_and_only_once():
    made = []
    resumable = ResumableSampler(lambda: made.append(md()) or made[-1], "sample", 7)
    resumable.take_arrays({})
    assert resumable.arrays(5) == {}
    assert made == []
    for visit in range(3):
        batch(resumable, visit)
    assert len(made) == 1


def test_a_snapshot_holds_one_state_however_many_batches_there_were():
    resumable = ResumableSampler(md, "sample", 7)
    sizes = []
    for visit in range(4):
        batch(resumable, visit)
        sizes.append(len(resumable.arrays(visit + 1)))
        assert {name.split("/")[1] for name in resumable.arrays(visit + 1)} == {str(visit)}
        assert {name.split("/")[1] for name in resumable.arrays(visit)} == (
            {str(visit - 1)} if visit else set()
        )
    assert len(set(sizes)) == 1


class Learner:
    """Makes one structure whose position is the number of labels that it has been given."""

    name = "learner"

    def __init__(self):
        self.labels = []

    def new_labels(self, labelled):
        self.labels.append(list(labelled))

    def sample(self, systems, n, rng):
        yield Sample(systems[0].frame.moved(systems[0].frame.positions + sum(map(len, self.labels))))


def test_labels_are_given_once_and_all_of_them_again_after_a_restart():
    made = []

    def make():
        made.append(Learner())
        return made[-1]

    first = ResumableSampler(make, "sample", 7)
    for visit, labels in enumerate([[], [1, 2], [1, 2, 3]]):
        last = first.sample(SYSTEMS, 1, visit, labels)[0]
    assert made[0].labels == [[], [1, 2], [3]]
    again = ResumableSampler(make, "sample", 7)
    assert again.sample(SYSTEMS, 1, 2, [1, 2, 3])[0].frame == last.frame
    assert made[1].labels == [[1, 2, 3]]
