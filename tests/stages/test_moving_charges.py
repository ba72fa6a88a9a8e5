"""Calculators that move atoms, or label for other commands, are made for the charge and spin of each structure."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from tblite.ase import TBLite

from aims_pax.frames import Frame
from aims_pax.potential import calculate
from aims_pax.potentials.factory import calculator_potential, make_potential
from aims_pax.record import hdf5
from aims_pax.settings.augment import CallSpec

XTB = {"method": "GFN1-xTB", "accuracy": 0.01, "verbosity": 0}
WATER = Frame([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
FRAMES = [WATER, replace(WATER, charge=1, spin=2), replace(WATER, charge=0, spin=3), WATER]


def expected():
    singlet, triplet = (
        calculate(WATER, TBLite(**XTB, charge=q, multiplicity=m)).energy for q, m in ((0, 1), (0, 3))
    )
    return [singlet, -136.346982, triplet, singlet]


def of_a_sampler(folder):
    return make_potential(CallSpec("tblite.ase:TBLite", kwargs=XTB), folder, "SAMPLERS.0.potential")


def of_the_initial_dataset(folder):
    return calculator_potential("tblite.ase:TBLite", XTB, folder, "initial_calculator")


@pytest.mark.parametrize("made", [of_a_sampler, of_the_initial_dataset])
def test_each_structure_has_its_own_charge_one_by_one_and_bound(made, tmp_path):
    import torch

    potential = made(tmp_path)
    assert [x.energy for x in potential.labels(FRAMES)] == pytest.approx(expected(), abs=1e-5)
    positions = torch.tensor(np.concatenate([f.positions for f in FRAMES]))
    cells = torch.tensor(np.stack([f.cell for f in FRAMES]))
    said = potential.bind(FRAMES)(positions, cells)
    assert said.energies[0].tolist() == pytest.approx(expected(), abs=1e-5)


def test_what_cannot_be_given_a_charge_moves_the_atoms_with_one_warning(tmp_path, caplog):
    potential = make_potential(CallSpec("ase.calculators.emt:EMT"), tmp_path, "SAMPLERS.0.potential")
    with caplog.at_level(logging.WARNING):
        first, second = (potential.labels([replace(WATER, charge=1)])[0].energy for _ in range(2))
    assert first == second == potential.labels([WATER])[0].energy
    assert [r.message.partition(",")[0] for r in caplog.records] == ["SAMPLERS.0.potential: H2O has charge 1"]


@pytest.mark.parametrize(
    "said", [{"charge": -1.0}, {"charge": 1.0, "spin": 2}, {"moments": np.array([2.0, 0, 0])}, {}]
)
def test_structures_in_hdf5_keep_charge_and_spin(said):
    frames = [replace(WATER, **said), replace(WATER, positions=WATER.positions + 0.1, **said)]
    arrays = hdf5.structure_arrays(frames)
    assert [f.id for f in hdf5.frames_of(arrays)] == [f.id for f in frames]
