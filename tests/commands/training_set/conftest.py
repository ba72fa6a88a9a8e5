from __future__ import annotations

import io
from pathlib import Path

import ase.io
import pytest
import yaml
from ase.build import bulk
from rich.console import Console

from aims_pax.commands.training_set import workflow as story
from tests.commands.training_set.argon import QUICK


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes a configuration and runs it; gives back the console's text."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("crystal.xyz", bulk("Ar", a=5.26, cubic=True), format="extxyz")

    def run(**changes) -> str:
        config = {k: v for k, v in (QUICK | changes).items() if v is not None}
        Path("config.yaml").write_text(yaml.safe_dump(config))
        said = io.StringIO()
        story.training_set(Path("config.yaml"), Console(file=said, width=400))
        return said.getvalue()

    run.folder = tmp_path
    return run
