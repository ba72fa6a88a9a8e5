"""Tests of a foundation model are skipped where its package is missing, never where `setup.sh test` installs it."""

from __future__ import annotations

import importlib.util
import os

import pytest

from aims_pax.settings.bundled_models import BUNDLED


def needs_package(name: str) -> None:
    """Skip the module, with the reason, if the package of this model is missing; an error if it must be there."""
    model = BUNDLED[name]
    if importlib.util.find_spec(model.module) is not None:
        return
    if os.environ.get("FOUNDATION_TESTS") == "required":
        raise RuntimeError(f"FOUNDATION_TESTS=required, but {model.missing}")
    pytest.skip(model.missing, allow_module_level=True)
