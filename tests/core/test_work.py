"""Work, events and effects are values, and one line of JSON each."""

import json
import math
from dataclasses import FrozenInstanceError

import pytest

from aims_pax.core import work
from aims_pax.core.work import (
    Advanced,
    IllegalEvent,
    LabelDropped,
    LabelFailed,
    Labelled,
    RequestLabel,
    RunMD,
    RunSampler,
    RunTraining,
    Sampled,
    Selected,
    SelectFrames,
    Trained,
    UncertaintyCheck,
)
from aims_pax.record.checkpoint import from_plain, to_plain

ONE_OF_EACH = [
    Sampled(RunSampler(0, 3), (("a", "f1"), ("b", "f2"))),
    Advanced(RunMD(1, 10, 20, 2), 20, "f3", (0.1, math.inf)),
    Advanced(RunMD(1, 10, 20, 2), 15, "f3", (), "pair H–H 0.30 Å at step 15"),
    Labelled(RequestLabel("f3")),
    Labelled(RequestLabel("f3"), "train"),
    LabelFailed(RequestLabel("f3"), "NotConverged", "after 250 cycles"),
    LabelDropped(RequestLabel("f3")),
    Trained(RunTraining(4, 2), 17, (0.5, 0.25), (0.01, 0.02)),
    Trained(RunTraining(4, 2, member=1), 17, (0.5,), (0.01,)),
    Advanced(
        RunMD(1, 10, 20, 2), 20, "f3", (0.1,), implausible="predicted energy 3 eV above the lowest label"
    ),
    Selected(SelectFrames(2, ("f3", "f4"), (0.2, 0.3), 1), ("f4",)),
    UncertaintyCheck(0, 10, 0.3, math.inf, "certain"),
]


def test_every_event_is_tried_here():
    assert {type(event) for event in ONE_OF_EACH} - {UncertaintyCheck} == set(work.Event.__args__)


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda e: type(e).__name__)
def test_an_event_comes_back_from_a_line_of_json_as_it_was(event):
    line = json.dumps(to_plain(event))
    assert "\n" not in line
    back = from_plain(type(event), json.loads(line))
    assert back == event
    assert hash(back) == hash(event)


def test_nobody_can_change_one():
    with pytest.raises(FrozenInstanceError):
        ONE_OF_EACH[0].frames = ()
    assert RequestLabel("a") == RequestLabel("a") != RequestLabel("b")
    assert len({RunTraining(0, 2), RunTraining(0, 2), RunTraining(0, 2, 0)}) == 2


def test_an_illegal_event_is_a_value_error():
    assert issubclass(IllegalEvent, ValueError)
