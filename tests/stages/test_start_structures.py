"""Where trajectories begin, and which energies are believed there."""

import math
from dataclasses import replace

import numpy as np
from ase.build import molecule

from aims_pax.dataset import Dataset
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.stages.start_structures import EnergyRanges, start_structures
from aims_pax.systems import System, system_of


def system(name):
    return System(name, Frame.from_atoms(molecule(name)))


def dataset_of(*entries):
    """entries: (system, stage, energy), each with positions of its own."""
    rng, dataset = np.random.default_rng(0), Dataset()
    for s, stage, energy in entries:
        frame = s.frame.moved(s.frame.positions + rng.normal(scale=0.05, size=(len(s.frame), 3)))
        label = Label(energy, np.zeros((len(frame), 3)))
        dataset.add(LabelledFrame(frame, label, {"system": s.name, "stage": stage}), "train")
    return dataset


def test_trajectories_begin_at_different_frames_of_their_own_system():
    water, ethanol = system("H2O"), system("CH3CH2OH")
    dataset = dataset_of(*[(s, "initial", 0.0) for _ in range(10) for s in (water, ethanol)])
    starts = start_structures(dataset, [water, ethanol], [water, ethanol] * 8, [False] * 16)
    assert len({f.id for f in starts}) > 12
    assert all(len(f) == (3, 9)[i % 2] for i, f in enumerate(starts))


def test_more_trajectories_leave_the_starts_of_the_others_unchanged():
    water = system("H2O")
    dataset = dataset_of(*[(water, "initial", 0.0)] * 7)
    few, many = (start_structures(dataset, [water], [water] * n, [False] * n) for n in (3, 9))
    assert [f.id for f in few] == [f.id for f in many[:3]]


def test_frames_that_a_user_gave_and_those_of_active_learning_are_no_starts():
    water = system("H2O")
    dataset = dataset_of((water, "given", 0.0), (water, "active learning", 0.0))
    assert start_structures(dataset, [water], [water], [False])[0] is water.frame


def test_the_lowest_label_of_the_same_system_sets_the_range_and_follows_new_labels():
    water, ethanol = system("H2O"), system("CH3CH2OH")
    dataset = dataset_of((water, "initial", -5.0), (ethanol, "initial", -50.0))
    ranges = EnergyRanges(dataset, [water, ethanol], 5.0)
    assert ranges.implausible(water, water.frame, -4.9, 300.0) is None
    assert "5.00 eV above the lowest label" in ranges.implausible(water, water.frame, 0.0, 300.0)
    for entry in dataset_of(
        (water, "active learning", -0.5), (water, "active learning", -9.0)
    ).frames.values():
        dataset.add(entry, "train")
    assert "below" not in (ranges.implausible(water, water.frame, -9.0, 300.0) or "")
    assert "9.00 eV above" in ranges.implausible(water, water.frame, 0.0, 300.0)


def test_without_labels_or_with_an_infinite_limit_every_energy_is_believed():
    water = system("H2O")
    assert EnergyRanges(Dataset(), [water], 5.0).implausible(water, water.frame, 1e6, 300.0) is None
    dataset = dataset_of((water, "initial", -5.0))
    assert EnergyRanges(dataset, [water], math.inf).implausible(water, water.frame, 1e6, 300.0) is None


def test_frames_with_other_atoms_or_another_cell_are_no_starts_unless_the_cell_moves():
    from ase.build import bulk

    copper = System("Cu", Frame.from_atoms(bulk("Cu", cubic=True)))
    strained, larger = bulk("Cu", a=3.7, cubic=True), bulk("Cu", cubic=True) * (2, 1, 1)
    dataset = Dataset()
    for atoms in (strained, larger):
        frame = Frame.from_atoms(atoms)
        label = Label(0.0, np.zeros((len(frame), 3)))
        dataset.add(LabelledFrame(frame, label, {"system": "Cu", "stage": "initial"}), "train")
    starts = {moves: start_structures(dataset, [copper], [copper], [moves])[0] for moves in (False, True)}
    assert starts[False] is copper.frame
    assert np.allclose(starts[True].cell, strained.cell[:])


def test_labels_of_other_charges_of_one_formula_set_no_range():
    neutral = system("H2O")
    cation = System("cation", replace(neutral.frame, charge=1, spin=2))
    dataset = dataset_of((neutral, "given", -12.0))
    named = [
        replace(f, origin={"stage": "given"}, frame=replace(f.frame, charge=0))
        for f in dataset.frames.values()
    ]
    for systems in ([cation], [cation, neutral]):
        own = Dataset()
        for one in named:
            own.add(one, "train")
        ranges = EnergyRanges(own, systems, 5.0)
        assert ranges.implausible(cation, cation.frame, 0.1, 300.0) is None
    assert system_of(named[0].frame, {}, [cation, replace(neutral, frame=named[0].frame)]) == "H2O"
