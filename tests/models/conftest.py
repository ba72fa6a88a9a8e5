"""What the tests of models share."""

import pytest

from aims_pax.models import memory_budget
from aims_pax.models.batch_splitting import batch_splitter
from aims_pax.models.mace import inference_pieces


@pytest.fixture
def fresh_limits():
    """Nothing said yet; afterwards no measured memory and no learnt sizes remain."""
    inference_pieces._said.clear()
    yield
    memory_budget.forget_measurement()
    batch_splitter.cache_clear()
