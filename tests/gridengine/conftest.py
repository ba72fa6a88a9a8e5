"""One Grid Engine for all tests of this folder; without it they are skipped, and the reason is shown.

GRIDENGINE_TESTS=required: they fail instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.gridengine.cluster import Cluster, NoGridEngineError

QUEUES = {"all.q": 64, "a.q": 2, "b.q": 2, "c.q": 2}  # two slots are room for one block


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gridengine: needs Grid Engine's programs, or root to install them")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/gridengine/" in str(item.path):
            item.add_marker(pytest.mark.gridengine)


@pytest.fixture(scope="session")
def gridengine() -> Iterator[Cluster]:
    try:
        cluster = Cluster(queues=QUEUES).__enter__()
    except NoGridEngineError as error:
        if os.environ.get("GRIDENGINE_TESTS") == "required":
            raise
        pytest.skip(f"no Grid Engine: {error}")
    yield cluster
    cluster.down()
