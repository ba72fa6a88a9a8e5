"""Every worker of a parallel test run must collect the same names."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names that hold the address of an object, which differs from process to process."""
    if names := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"give these cases names (ids): {', '.join(names[:3])}")
