"""One Slurm for all tests of this folder; without it they are skipped, and the reason is shown.

SLURM_TESTS=required: they fail instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, NoSlurmError


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slurm: needs Slurm's programs, or root to install Debian's packages")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/slurm/" in str(item.path):
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    try:
        cluster = Cluster().__enter__()
    except NoSlurmError as error:
        if os.environ.get("SLURM_TESTS") == "required":
            raise
        pytest.skip(f"no Slurm: {error}")
    yield cluster
    cluster.down()
