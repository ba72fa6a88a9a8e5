"""What the members of a run began from, and what there is when that can no longer be found."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from aims_pax.models.base import MemberData
from aims_pax.models.kinds import kind_of_run
from aims_pax.record.folder import RunFolder
from aims_pax.settings import read_settings
from aims_pax.settings.geometries import read_geometries
from aims_pax.stages.beginning import beginning_in_words, untrained_members
from tests.models.mace import tiny
from tests.models.test_contract import same
from tests.projects import write_project

FREE = {"PRETRAINING": {"potential": {"factory": "ase.calculators.emt:EMT"}, "n_frames": 20}}
SEEDS = (3, 5)


def run_of(folder, changes=None):
    """What the function reads of a run; its members have been trained meanwhile."""
    settings = read_settings(write_project(folder, changes or {}))
    ensemble = kind_of_run(settings).build(settings, SEEDS, (1, 8))
    ensemble.train({m: MemberData(tiny.water(4), tiny.water(2)) for m in range(2)}, 1, words=("train", 0))
    systems, folder = read_geometries(settings), RunFolder(settings)
    return SimpleNamespace(
        settings=settings, systems=systems, ensemble=ensemble, folder=folder, pretrained={}
    )


def test_without_anything_else_they_began_with_the_random_weights_of_their_seeds(tmp_path):
    run = run_of(tmp_path)
    assert beginning_in_words(run) == "random weights"
    begun, other = untrained_members(run), kind_of_run(run.settings).build(run.settings, SEEDS, (1, 8))
    assert not begun.trained
    for m in range(2):
        same(begun.member_arrays(m), other.member_arrays(m))


def test_pretrained_members_that_no_snapshot_has_are_those_in_memory(tmp_path):
    run = run_of(tmp_path, FREE | {"MISC": {"create_restart": False}})
    assert beginning_in_words(run) == "the pre-trained weights"
    run.pretrained.update(run.ensemble.arrays())
    begun = untrained_members(run)
    for name, value in run.ensemble.member_arrays(1).items():
        if name.startswith("ema/"):
            assert np.array_equal(begun.member_arrays(1)[name], value)


def test_pretrained_weights_that_were_removed_are_never_replaced_by_random_ones(tmp_path, caplog):
    run = run_of(tmp_path, FREE)
    with caplog.at_level(logging.WARNING):
        assert untrained_members(run) is None
    assert "training continues from the present weights" in caplog.text


@pytest.mark.parametrize("models", [["a.model", "b.model"]])
def test_given_models_are_named(tmp_path, models):
    changes = {"INITIAL_DATASET_GENERATION": None, "ACTIVE_LEARNING": {"initial_models": models}}
    run = SimpleNamespace(settings=read_settings(write_project(tmp_path, changes)))
    assert beginning_in_words(run) == "the given models"
