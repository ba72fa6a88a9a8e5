import pytest
import torch

from tests.models.mace.tiny import ensemble


@pytest.fixture(scope="session")
def committee():
    """Two float64 members with made-up statistics, as a potential."""
    return ensemble(default_dtype="float64").potential()


@pytest.fixture(scope="session")
def committee32():
    """The same in float32."""
    return ensemble(default_dtype="float32").potential()


@pytest.fixture(scope="session")
def member_files(committee, tmp_path_factory):
    """The two float64 members as files."""
    folder = tmp_path_factory.mktemp("members")
    for k, model in enumerate(committee.evaluator.owners):
        torch.save(model, folder / f"{k}.model")
    return [folder / "0.model", folder / "1.model"]
