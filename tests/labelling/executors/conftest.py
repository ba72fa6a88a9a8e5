import pytest

from aims_pax.labelling.executors.handover import Handover


@pytest.fixture
def files(tmp_path):
    (tmp_path / "restart").mkdir()
    return Handover(tmp_path / "restart")
