import pytest

from tests.models.mace.tiny import ensemble


@pytest.fixture(scope="session")
def committee():
    """Two float64 members with made-up statistics, as a potential."""
    return ensemble(default_dtype="float64").potential()


@pytest.fixture(scope="session")
def committee32():
    """The same in float32."""
    return ensemble(default_dtype="float32").potential()
