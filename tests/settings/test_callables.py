"""Callables that settings name: by module, and by the name that an installed package registers."""

from __future__ import annotations

import os

import pytest

from aims_pax.errors import SettingsError
from aims_pax.settings import read_settings
from aims_pax.settings.callables import FOUNDATION_ONLY, registered_factory, unknown_models
from tests.projects import ROOT, command, write_project


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package, installed as pip does it, that registers a reference."""
    site = tmp_path / "site"
    about = site / "cheap-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cheap\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[aims_pax.references]\ncheap_emt = cheap:make\n")
    (site / "cheap.py").write_text(
        "from ase.calculators.emt import EMT\ndef make(asap_cutoff=False): return EMT()\n"
    )
    monkeypatch.syspath_prepend(str(site))
    return site


def test_a_package_registers_a_reference_by_an_entry_point(installed, tmp_path):
    assert registered_factory("cheap_emt") == "cheap:make"
    folder = write_project(tmp_path / "run", {"REFERENCE": {"factory": "cheap_emt", "kwargs": {}}})
    assert read_settings(folder).reference.factory == "cheap:make"


def test_what_no_package_registers_is_refused_with_the_nearest_name(installed, tmp_path):
    folder = write_project(tmp_path / "run", {"REFERENCE": {"factory": "cheap_etm", "kwargs": {}}})
    with pytest.raises(SettingsError, match=r"REFERENCE.*factory.*aims_pax\.references.*nearest: cheap_emt"):
        read_settings(folder)


def test_check_labels_with_the_registered_reference(installed, tmp_path):
    folder = write_project(tmp_path / "run", {"REFERENCE": {"factory": "cheap_emt", "kwargs": {}}})
    done = command("check", folder=folder, env={**os.environ, "PYTHONPATH": f"{installed}:{ROOT}"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_callable_in_place_of_a_model_is_answered_with_how_to_write_it(tmp_path):
    ((_, text),) = unknown_models([(("PRETRAINING", "potential"), "tblite.ase:TBLite")], tmp_path)
    assert text.endswith("; a callable is written {factory: tblite.ase:TBLite, kwargs: {…}}")


def test_a_misspelt_model_names_the_nearest_file_and_what_that_key_takes(tmp_path):
    (tmp_path / "organic.model").write_bytes(b"")
    place = ("mace", "FOUNDATION", "model")
    ((_, text),) = unknown_models([(place, "organc.model")], tmp_path, FOUNDATION_ONLY, short=())
    assert text.endswith("; nearest: organic.model")
    assert ", omol" in text
    assert "so3lr" not in text
    ((_, text),) = unknown_models([(place, "so3lr")], tmp_path, FOUNDATION_ONLY, short=())
    assert "neither a model file" in text
    assert list(unknown_models([(place, "organic.model")], tmp_path, FOUNDATION_ONLY, short=())) == []
