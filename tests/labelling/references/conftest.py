"""What the tests of FHI-aims share."""

import pytest

from aims_pax.settings.control_in import read_control
from tests import worlds


@pytest.fixture
def control(tmp_path):
    def make(text=worlds.CONTROL):
        (tmp_path / "control.in").write_text(text)
        return read_control(tmp_path / "control.in")

    return make
