"""A run folder in a temporary directory."""

from types import SimpleNamespace

import pytest

from aims_pax.record.folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    settings = SimpleNamespace(
        folder=tmp_path,
        misc=SimpleNamespace(dataset_dir="data", log_dir="logs"),
        model=SimpleNamespace(checkpoints_dir="c", loss_dir="l", model_dir="m"),
        path=lambda value: tmp_path / value,
    )
    return RunFolder(settings)
