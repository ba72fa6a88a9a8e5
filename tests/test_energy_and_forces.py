"""Energies and forces of given data that do not belong together are recognised without a reference."""

import numpy as np
import pytest
from ase.calculators.emt import EMT

from aims_pax.energy_and_forces import PAIRS, refusal
from aims_pax.errors import SettingsError
from aims_pax.frames import Label, LabelledFrame
from aims_pax.given_data import read_given
from aims_pax.labelled_data import LabelKeys, to_extxyz
from aims_pax.potential import calculate
from tests import worlds

WRONG = {
    "opposite sign": (1, -1),
    "the energies are in hartree": (1 / 27.2114, 1),
    "the forces are in hartree/bohr": (1, 1 / 51.4221),
    "the forces are per bohr": (1 / 27.2114, 1 / 51.4221),
    "the energies are in kcal/mol": (23.0605, 1),
    "times those of the energies": (1 / 9, 1),
}


def labelled(frames, energy=1.0, forces=1.0):
    labels = [calculate(frame, EMT()) for frame in frames]
    return [
        LabelledFrame(frame, Label(energy * label.energy, forces * label.forces))
        for frame, label in zip(frames, labels, strict=True)
    ]


ETHANOL, COPPER = worlds.rattled(worlds.ethanol(), 8, 0.03), worlds.rattled(worlds.crystal(), 8, 0.03)


@pytest.mark.parametrize("frames", [ETHANOL, COPPER, ETHANOL + COPPER, ETHANOL[:PAIRS], 5 * [ETHANOL[0]]])
def test_labels_of_one_method_pass(frames):
    assert refusal(labelled(frames)) is None


@pytest.mark.parametrize("frames", [ETHANOL, COPPER])
@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_is_said(frames, said):
    assert said in str(refusal(labelled(frames, *WRONG[said])))


def test_atoms_in_other_images_are_near():
    wrapped = [f.moved(f.positions + (k % 2) * f.cell[0]) for k, f in enumerate(COPPER)]
    assert refusal(labelled(wrapped)) is None
    assert refusal(labelled(wrapped, forces=-1))


@pytest.mark.parametrize("shape", [(), (3,)])
def test_structures_far_from_each_other_and_constant_energies_say_nothing(shape):
    far = worlds.rattled(worlds.ethanol(), 8, 0.6)
    zeros = [LabelledFrame(f, Label(1.0, np.zeros((len(f), 3)))) for f in ETHANOL]
    assert refusal(labelled(far, forces=-1)) is refusal(zeros) is None


def test_given_data_are_refused_with_their_file(tmp_path):
    file = tmp_path / "t.xyz"
    file.write_text(to_extxyz(labelled(ETHANOL, forces=-1)))
    with pytest.raises(SettingsError, match=r"t\.xyz: energies and forces do not belong .*opposite sign"):
        read_given(file, "t.xyz", "train", LabelKeys(), ())
