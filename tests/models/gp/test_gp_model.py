"""Gaussian processes as the models of a run; what all kinds promise is in tests/models/test_contract.py."""

import sys

import numpy as np
import pytest

from aims_pax.errors import RestartError, SettingsError, SetupError
from aims_pax.models.base import MemberData
from aims_pax.models.gp.gp_model import GPMember, GPModel
from aims_pax.models.kinds import kind_of_run
from aims_pax.settings import read_settings
from tests.models.gp import systems
from tests.projects import write_project


def model_of(seed=1, elements=(29,)):
    return GPModel([GPMember("a", seed)], elements)


def test_without_a_visit_there_is_nothing_to_predict_with():
    model = model_of()
    assert not model.trained
    assert model.describe(0) == {}
    with pytest.raises(RuntimeError, match="not been trained"):
        model.potential().labels([systems.h2([1.0])[0].frame])


def test_members_of_other_elements_are_not_loaded():
    model = model_of(elements=(1,))
    model.train({0: MemberData(systems.h2(np.linspace(1, 2, 5)))}, 1)
    with pytest.raises(RestartError, match="other elements"):
        model_of(elements=(29,)).load_member(0, model.member_arrays(0))


def test_a_crystal_has_stress_and_a_description():
    pytest.importorskip("featomic")
    model = model_of()
    data = systems.copper(4)
    model.train({0: MemberData(data)}, 1)
    assert model.potential().labels([data[0].frame])[0].stress.shape == (3, 3)
    assert model.describe(0)["inducing"] == 16
    assert model.potential().evaluate([data[0].frame]).spread.shape == (4,)


def test_settings_of_the_kind_and_the_missing_extra(tmp_path, monkeypatch):
    project = {"MODEL": {"kind": "gp", "kwargs": {"cutoff": 4.0, "inducing": 50}}}
    settings = read_settings(write_project(tmp_path, project, {"ARCHITECTURE": None, "TRAINING": None}))
    kind = kind_of_run(settings)
    assert kind.cutoff(settings) == 4.0
    assert kind.build(settings, (3,), (1, 8)).options.inducing == 50
    monkeypatch.setitem(sys.modules, "featomic", None)
    for method in (kind.build, kind.trial_members):
        with pytest.raises(SetupError, match=r"aims-pax\[gpr\]"):
            method(settings, (3,), (1, 8))
    other = tmp_path / "other"
    other.mkdir()
    wrong = read_settings(write_project(other, {"MODEL": {"kind": "gp", "kwargs": {"cutof": 4.0}}}))
    with pytest.raises(SettingsError, match="nearest: cutoff"):
        kind.options(wrong)


def test_a_width_that_no_cutoff_allows_is_found_by_check(tmp_path):
    pytest.importorskip("featomic")
    for k, kwargs in enumerate(({"width": 0.05}, {"cutoff": 8.0, "width": 0.2})):
        folder = tmp_path / str(k)
        folder.mkdir()
        project = {"MODEL": {"kind": "gp", "kwargs": kwargs}}
        settings = read_settings(write_project(folder, project, {"ARCHITECTURE": None, "TRAINING": None}))
        kind = kind_of_run(settings)
        for method in (kind.build, kind.trial_members):
            with pytest.raises(SettingsError, match=r"MODEL.kwargs: width 0.\d+ Å is too small for cutoff"):
                method(settings, (3,), (1, 8))
