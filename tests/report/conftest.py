import pytest

from tests.report.folders import recorded


@pytest.fixture
def folder(tmp_path):
    """A copy of the recorded run that a test may break."""
    return recorded(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The recorded run, read once."""
    from aims_pax.report.load_run import load_run

    return load_run(recorded(tmp_path_factory.mktemp("recorded")))
