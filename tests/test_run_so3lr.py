"""A run whose first structures come from SO3LR: the same structures after an interruption, in any working folder."""

from __future__ import annotations

import pytest

from aims_pax.dataset import read_extxyz
from tests.potentials.packages import needs_package
from tests.projects import command, write_project
from tests.test_run import interrupted
from tests.worlds import ethanol, water

needs_package("so3lr")

CHANGES = {
    "INITIAL_DATASET_GENERATION": {
        "initial_sampling": "so3lr",
        "initial_calculator": None,
        "n_points_per_sampling_step_idg": 3,
        "max_initial_epochs": 6,
    },
    "ACTIVE_LEARNING": None,
}
SYSTEMS = {"water": water(), "ethanol": ethanol()}


def structures(folder):
    """(system, sampler, id) of every labelled structure, in order."""
    frames = read_extxyz(folder / "data" / "labelled.xyz")
    return [(f.origin["system"], f.origin["sampler"], f.id) for f in frames]


@pytest.mark.slow
def test_stopped_and_continued_it_makes_the_same_structures(tmp_path):
    undisturbed, stopped = (write_project(tmp_path / n, CHANGES, systems=SYSTEMS) for n in ("a", "b"))
    done = command(folder=undisturbed, name="aims-PAX-initial-ds")
    assert done.returncode == 0, done.stderr + done.stdout
    code, output = interrupted(stopped, "training visit 1", name="aims-PAX")
    assert code == 3, output
    done = command(folder=stopped, name="aims-PAX-initial-ds")
    assert done.returncode == 0, done.stderr + done.stdout
    made = structures(undisturbed)
    assert len(made) == len({i for *_, i in made}) == 3 * 2 * 2 * 3
    assert {(system, sampler) for system, sampler, _ in made} == {("water", "so3lr"), ("ethanol", "so3lr")}
    assert structures(stopped) == made
