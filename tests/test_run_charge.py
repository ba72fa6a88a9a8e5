"""A whole run of a cation: charge and spin of the settings are in every structure, and in every label."""

import pytest
from tblite.ase import TBLite

from aims_pax.dataset import read_extxyz
from aims_pax.potential import calculate
from tests import worlds
from tests.projects import command, write_project

XTB = worlds.XTB["kwargs"]


@pytest.mark.parametrize("sampling", ["calculator", "aimd"])
def test_every_label_of_a_cation_is_the_cations(tmp_path, sampling):
    changes = {
        "REFERENCE": worlds.XTB,
        "MISC": {"charge": 1, "spin": {"water.xyz": 2}},
        "INITIAL_DATASET_GENERATION": {
            "initial_sampling": sampling,
            "initial_calculator": {"factory": "tblite.ase:TBLite", "kwargs": XTB}
            if sampling == "calculator"
            else None,
            "skip_step_initial": 2,
            "max_initial_epochs": 2,
        },
        "ACTIVE_LEARNING": {"num_trajectories": 1, "max_MD_steps": 10, "max_convergence_epochs": 1},
    }
    folder = write_project(tmp_path, changes)
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr
    frames = list(read_extxyz(folder / "data" / "labelled.xyz"))
    assert len(frames) >= 6
    for one in frames:
        assert (one.frame.charge, one.frame.spin) == (1.0, 2)
        truth = calculate(one.frame, TBLite(**XTB, charge=1, multiplicity=2)).energy
        assert one.label.energy == pytest.approx(truth, abs=1e-4)
        assert one.label.energy > calculate(one.frame, TBLite(**XTB, charge=0, multiplicity=1)).energy + 10
