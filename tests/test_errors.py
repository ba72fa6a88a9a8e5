"""Errors travel between processes as they are, and read as one line."""

import pickle

import pytest

from aims_pax import errors
from aims_pax.errors import (
    Abandoned,
    AimsPaxError,
    Busy,
    LabelError,
    NotConverged,
    NotStored,
    RunInterrupted,
    SettingsError,
    SetupError,
    failure_class,
    failure_name,
)


def test_a_mistake_reads_place_and_text_wherever_it_was_found():
    bare, placed = (
        SettingsError("'smal' is no size"),
        SettingsError("SAMPLERS.0.potential", "'smal' is no size"),
    )
    assert (str(bare), bare.place, bare.text) == ("'smal' is no size", "", "'smal' is no size")
    assert str(placed) == "SAMPLERS.0.potential: 'smal' is no size"
    assert (
        str(placed.at("config.yaml:3")) == str(bare.at("config.yaml:3")) == "config.yaml:3: 'smal' is no size"
    )
    again = pickle.loads(pickle.dumps(placed))
    assert (again.place, again.text, str(again)) == (placed.place, placed.text, str(placed))


@pytest.mark.parametrize("kind", LabelError.__subclasses__())
def test_a_failure_keeps_its_reason_and_folder_on_the_way_from_a_worker(kind):
    sent = kind("after 250 cycles", "/scratch/a1")
    back = pickle.loads(pickle.dumps(sent))
    assert type(back) is kind
    assert (str(back), back.reason, back.folder) == ("after 250 cycles", "after 250 cycles", "/scratch/a1")
    assert kind("x").folder is None


def test_names_of_failures_are_known_by_class_and_by_example():
    assert failure_name(NotConverged) == failure_name(NotConverged("x")) == "NotConverged"
    assert failure_class("Insane") is failure_class("Unphysical") is errors.Unphysical
    with pytest.raises(LookupError, match="unknown failure 'Sane'"):
        failure_class("Sane")


def test_a_stop_is_no_error_that_code_around_a_calculator_would_catch():
    stop = RunInterrupted("walltime", 75, cancel=True)
    assert not isinstance(stop, Exception)
    assert (stop.reason, stop.code, stop.cancel) == ("walltime", 75, True)
    assert not issubclass(Abandoned, AimsPaxError)
    assert issubclass(Busy, SetupError)
    assert issubclass(NotStored, SetupError)
    assert not issubclass(LabelError, SetupError)


def test_the_tree_in_the_docstring_is_the_tree():
    indent = {name: line.index(name) for line in (errors.__doc__ or "").splitlines() if "──" in line
              for name in [line.split("──")[1].split()[0]]}  # fmt: skip
    assert set(indent) == {
        name for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, AimsPaxError) and kind is not AimsPaxError
    }  # fmt: skip
    parents = {8: AimsPaxError}
    for name, column in indent.items():
        kind = getattr(errors, name)
        assert kind.__bases__ == (parents[column],), name
        parents[column + 4] = kind
