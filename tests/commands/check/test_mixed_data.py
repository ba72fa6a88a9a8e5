"""Charges and spins of one composition in one dataset: the model cannot tell them apart, and that is said."""

from dataclasses import replace

import ase.io
import pytest

from aims_pax.commands.check import mixed_data
from aims_pax.commands.check.project import checked_settings
from aims_pax.frames import Frame
from tests import worlds
from tests.projects import command, write_project

WATER = worlds.water()
CATION = replace(WATER, charge=1.0, spin=2)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([replace(WATER, charge=0), CATION], ["H2O with the charges 0, 1"]),
        ([replace(WATER, spin=1), replace(WATER, spin=3)], ["H2O with the multiplicities 1, 3"]),
        (
            [replace(WATER, charge=0, spin=1), CATION],
            ["H2O with the charges 0, 1 and the multiplicities 1, 2"],
        ),
        ([CATION, replace(worlds.ethanol(), charge=0)], []),
        ([CATION, CATION], []),
        ([WATER, WATER], []),
    ],
)
def test_only_structures_of_one_composition_mix(frames, said):
    assert [text.partition(";")[0] for text in mixed_data.mixed_charge_and_spin(frames)] == said


def test_two_geometries_that_the_model_cannot_tell_apart(tmp_path):
    systems = {"neutral": replace(WATER, charge=0.0, spin=1), "cation": CATION}
    folder = write_project(tmp_path, {"REFERENCE": worlds.XTB}, systems=systems)
    done = command("check", folder=folder)
    assert done.returncode == 0
    assert "MISC.path_to_geometry: H2O with the charges 0, 1 and the multiplicities 1, 2" in done.stderr


def cation_with_given_data(folder, charge):
    """Warnings of a project of the cation by MISC, whose data state this charge."""
    changes = {
        "INITIAL_DATASET_GENERATION": None,
        "ACTIVE_LEARNING": {"initial_train_dataset": "train.xyz"},
        "MISC": {"charge": 1, "spin": 2},
        "REFERENCE": worlds.XTB,
    }
    folder = write_project(folder, changes)
    with open(folder / "train.xyz", "w") as file:
        for frame in worlds.rattled(replace(WATER, charge=charge), 20):
            atoms = frame.to_atoms()
            atoms.info["REF_energy"] = -1.0
            atoms.arrays["REF_forces"] = 0.1 * atoms.positions
            ase.io.write(file, atoms, format="extxyz")
    settings = checked_settings(folder)
    from aims_pax.settings.geometries import read_geometries

    return list(mixed_data.warnings(settings, read_geometries(settings)))


def test_given_data_of_another_charge(tmp_path):
    (line,) = cation_with_given_data(tmp_path, 0.0)
    assert "train.xyz, with the geometries: H2O with the charges 0, 1" in line


def test_given_data_that_state_no_charge_have_that_of_misc(tmp_path):
    """They were said to count as neutral, while the run reads them with MISC.charge and MISC.spin."""
    assert not cation_with_given_data(tmp_path, None)


def test_given_structures_without_a_charge_beside_a_charged_geometry_are_warned_about():
    cation, silent = (Frame([8, 1, 1], [[0, 0, 0], [1, 0, 0], [0, 1, 0]], charge=q) for q in (1, None))
    (line,) = mixed_data.missing_charge_and_spin([cation], [silent, cation, silent])
    assert "H2O has charge 1 as geometry, but 2 given structures have neither" in line
    assert not list(mixed_data.missing_charge_and_spin([silent], [silent]))
    assert not list(mixed_data.missing_charge_and_spin([cation], [cation]))


def test_given_structures_of_which_only_some_state_a_charge_are_warned_about():
    cation, silent = (Frame([8, 1, 1], [[0, 0, 0], [1, 0, 0], [0, 1, 0]], charge=q) for q in (1, None))
    (line,) = mixed_data.missing_charge_and_spin([silent], [silent, cation, silent])
    assert "H2O has charge 1 in other structures, but 2 given structures have neither" in line
    carbon = Frame([6], [[0, 0, 0]])
    assert not list(mixed_data.missing_charge_and_spin([silent], [carbon, replace(carbon, spin=3)]))


def test_a_charged_geometry_beside_one_that_states_nothing_is_warned_about(tmp_path):
    """What states nothing is neutral for the reference: labels of two surfaces, and nothing was said."""
    folder = write_project(tmp_path, {"REFERENCE": worlds.XTB}, systems={"neutral": WATER, "cation": CATION})
    settings = checked_settings(folder)
    from aims_pax.settings.geometries import read_geometries

    (line,) = mixed_data.warnings(settings, read_geometries(settings))
    assert line.startswith(
        "MISC.path_to_geometry: H2O has charge 1, multiplicity 2 in one geometry, and neither"
    )
