"""Files outlive the code that wrote them: the names in them are frozen, whatever classes and fields are called."""

import json
from dataclasses import dataclass
from typing import get_args

import pytest

from aims_pax import errors
from aims_pax.core import work
from aims_pax.errors import LabelError, failure_class, failure_name
from aims_pax.labelling.claims import Claims
from aims_pax.record.checkpoint import from_plain, to_plain
from aims_pax.wire_names import in_files, name_in_files

# in every journal
EVENTS = {
    "Sampled",
    "Advanced",
    "Labelled",
    "LabelFailed",
    "LabelDropped",
    "Trained",
    "Selected",
}
FAILURES = {
    "NotConverged", "Crashed", "TimedOut", "Truncated", "WrongShape", "NotFinite", "Mismatch", "Unsupported",
    "Unphysical",
}  # fmt: skip  # in journals, quarantines, claims and reports


def test_events_stand_in_journals_under_their_frozen_names():
    assert {name_in_files(kind) for kind in get_args(work.Event)} == EVENTS


def test_failures_stand_in_files_under_their_frozen_names_and_those_are_read():
    assert {failure_name(kind) for kind in LabelError.__subclasses__()} == FAILURES
    for name in FAILURES:
        assert failure_name(failure_class(name)) == name
    assert failure_class("Insane") is errors.Unphysical  # up to 0.2
    with pytest.raises(LookupError, match="NoSuch"):
        failure_class("NoSuch")
    with pytest.raises(LookupError, match="SettingsError has no name in files"):
        name_in_files(errors.SettingsError)


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_a_failure_noted_for_a_later_driver_is_found_by_it(tmp_path, name):
    claims = Claims(tmp_path)
    (tmp_path / "f1.failure").write_text(json.dumps({"class": name, "reason": "why", "folder": "where"}))
    error = claims.take_failure("f1")
    assert type(error) is failure_class(name)
    assert (error.reason, error.folder) == ("why", "where")
    claims.note_failure("f2", error)
    assert json.loads((tmp_path / "f2.failure").read_text())["class"] == failure_name(error)


@in_files("Point", restart_frame="home")
@dataclass(frozen=True)
class Renamed:
    restart_frame: str | None
    n: int = 0


@in_files("State", points="trajectories")
@dataclass(frozen=True)
class Whole:
    points: tuple[Renamed, ...]
    pair: tuple[str, Renamed]
    one: Renamed | None = None
    frame: str = ""


def test_renamed_fields_keep_their_name_in_files_at_every_depth():
    state = Whole((Renamed("a"), Renamed(None, 3)), ("x", Renamed("b")), Renamed("c"), "home")
    plain = to_plain(state)
    assert plain == {
        "trajectories": [{"home": "a", "n": 0}, {"home": None, "n": 3}],
        "pair": ["x", {"home": "b", "n": 0}],
        "one": {"home": "c", "n": 0},
        "frame": "home",
    }
    assert from_plain(Whole, json.loads(json.dumps(plain))) == state


def test_a_snapshot_with_too_many_values_is_refused_not_cut():
    plain = to_plain(Whole((), ("x", Renamed("b"))))
    plain["pair"].append("more")
    with pytest.raises(errors.RestartError):
        from_plain(Whole, plain)
