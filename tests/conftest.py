"""Every worker of a parallel test run must collect the same names; no test may leave the process in another state."""

import logging
import os
import sys
from collections.abc import Iterator

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names that hold the address of an object, which differs from process to process."""
    if names := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"give these cases names (ids): {', '.join(names[:3])}")


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """A changed log would silence later tests, and whatever a user does next in the same process.

    A relative entry of sys.path would be another folder for each later test.
    """
    before = _log_states()
    relative = [entry for entry in sys.path if not os.path.isabs(entry)]
    yield
    assert [entry for entry in sys.path if not os.path.isabs(entry)] == relative
    after = _log_states()
    assert {name: after[name] for name in before} == before, "the test left loggers in another state"
    assert all(after[name] == _UNTOUCHED for name in after.keys() - before.keys())


_UNTOUCHED = (logging.NOTSET, True, False)


def _log_states() -> dict[str, tuple[int, bool, bool]]:
    """(level, propagate, disabled) of every logger of aims-PAX; the level of all that are disabled."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "aims_pax"]
    loggers = {name: logging.getLogger(name) for name in names}
    states = {name: (one.level, one.propagate, one.disabled) for name, one in loggers.items()}
    return {**states, "all": (logging.root.manager.disable, True, False)}
