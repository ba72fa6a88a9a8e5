"""What the steps of training-set share."""

import json
from types import SimpleNamespace

import pytest

from aims_pax.commands.training_set.context import MADE_WITH, TrainingSetContext
from aims_pax.engine.interrupts import InterruptMonitor
from aims_pax.errors import RunInterrupted
from aims_pax.settings.training_set import MDSampling, TrainingSet
from tests.commands.training_set.argon import ARGON, KRYPTON


def context(tmp_path, watch=None, **changes):
    settings = TrainingSet(**{"crystal": "c.xyz", "calculator": ARGON, **changes})
    return TrainingSetContext(settings, tmp_path, watch or InterruptMonitor())


def test_a_step_s_own_calculator_comes_first_and_each_is_loaded_once(tmp_path):
    shop = context(tmp_path)
    common = shop.calculator("md_sampling", MDSampling())
    own = shop.calculator("md_sampling", MDSampling(calculator=KRYPTON))
    assert own.described.endswith("argon(epsilon=0.02)")
    assert common.described.endswith("argon()")
    assert shop.calculator("phonon_sampling", MDSampling()) is common
    assert shop.potential(MDSampling(calculator=KRYPTON).calculator) is own


def test_files_of_a_step_are_its_own_or_those_of_all(tmp_path):
    shop = context(tmp_path, work_dir="frames")
    assert shop.store(MDSampling()).path == tmp_path / "training_set.hdf5"
    assert shop.store(MDSampling(dataset="md.hdf5")).path == tmp_path / "md.hdf5"
    assert shop.work_dir(MDSampling()) == tmp_path / "frames"
    assert shop.work_dir(MDSampling(work_dir="elsewhere")) == tmp_path / "elsewhere"


def test_the_basis_of_a_step_is_what_determines_its_result(tmp_path):
    """Where the result is written and how its potential is spelled at the top do not."""
    named = SimpleNamespace(identity="ours", described="argon()")

    def basis(seed=42, identity="ours", contents="0123456789abcdef0123", **section):
        named.identity = identity
        return context(tmp_path, seed=seed).basis(
            "md_sampling", MDSampling(**section), named, crystal=contents
        )

    first = basis()
    assert basis(dataset="other.hdf5", work_dir="x", crystal="copy.xyz") == first
    for other in (
        basis(seed=1),
        basis(identity="other"),
        basis(contents="f" * 20),
        basis(temperature_K=77.0),
    ):
        assert other.digest != first.digest
    assert first.made_from["seed"] == "42"
    assert first.made_from["crystal"] == "contents 0123456789abcdef"
    assert first.made_from["calculator"] == "argon()"
    assert basis(temperature_K=77.0).made_from["md_sampling.temperature_K"] == "77.0"
    assert json.loads(first.attributes[MADE_WITH]) == first.made_from


def test_a_step_ends_when_it_is_asked_to(tmp_path):
    watch = InterruptMonitor()
    shop = context(tmp_path, watch)
    shop.check()
    watch.request_stop()
    with pytest.raises(RunInterrupted):
        shop.check()
