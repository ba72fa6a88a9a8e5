"""Given labels against the reference: what is of one method passes, other functionals, units and signs do not."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.given_data import GivenFile
from aims_pax.stages.given_data_check import choose_structures, difference, judged

RNG = np.random.default_rng(3)


def pairs(n=4):
    """(as EMT says it, as the reference says it): the same."""
    found = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += RNG.normal(scale=0.1, size=(4, 3))
        atoms.calc = EMT()
        label = Label(atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False))
        found.append((LabelledFrame(Frame.from_atoms(atoms), label), label))
    return found


def changed(energy=lambda e: e, forces=lambda f: f, stress=lambda s, v: s):
    out = []
    for given, label in pairs():
        volume = abs(np.linalg.det(given.frame.cell))
        label_given = Label(energy(label.energy), forces(label.forces), stress(label.stress, volume))
        out.append((LabelledFrame(given.frame, label_given), label))
    return difference("train.xyz", out)


def test_labels_of_the_reference_itself_pass_in_silence():
    found = changed()
    assert judged(found) is None
    assert found.force < 1e-8
    assert found.stress_scale > 1e-3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"energy": lambda e: e + 60.0}, r"the zero of energy by \+15 eV/atom"),
        ({"energy": lambda e: 4 * e}, "zero of energy"),
        # virials under the key of the stress
        (
            {"stress": lambda s, v: -v * s},
            "the file contains −V × the stress",
        ),
        ({"stress": lambda s, v: -s}, "the file contains −1 × the stress"),  # the sign of LAMMPS and VASP
        ({"stress": lambda s, v: s * 160.21766}, "stress by"),  # GPa
        ({"stress": lambda s, v: s * 1602.1766}, "stress by"),  # kbar
        # another functional
        (
            {"forces": lambda f: f + RNG.normal(scale=0.3, size=f.shape)},
            "forces differ by",
        ),
    ],
)
def test_what_is_of_another_method_units_or_sign_is_refused(change, said):
    with pytest.raises(SettingsError, match=said) as caught:
        judged(changed(**change))
    assert "aims-PAX-recalc train.xyz" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"energy": lambda e: e / 27.2114, "forces": lambda f: f / 51.4221}, "look like hartree/bohr instead of eV/Å"),
        ({"energy": lambda e: e * 23.0605, "forces": lambda f: f * 23.0605}, "look like kcal/mol/Å"),
        ({"forces": lambda f: -f}, "look like gradients of the energy, with the opposite sign, instead"),
    ],
)  # fmt: skip
def test_forces_in_another_unit_are_refused_with_its_name(change, said):
    with pytest.raises(SettingsError, match=said):
        judged(changed(**change))


def test_slightly_other_settings_are_a_warning():
    warning = judged(changed(forces=lambda f: f + RNG.normal(scale=0.015, size=f.shape)))
    assert "the two methods probably differ in basis, grids or k-points" in warning


def test_energies_of_one_composition_are_compared_without_their_mean():
    mixed = [(given, label) for given, label in pairs(2)]
    assert difference("x", mixed).energy < 1e-12
    given, label = mixed[0]
    off = LabelledFrame(given.frame, Label(label.energy + 0.8, label.forces, label.stress))
    assert difference("x", [(off, label), mixed[1]]).energy == pytest.approx(0.1)  # ± 0.8 eV / 4 atoms / 2


def test_structures_are_spread_over_the_file_with_two_of_one_composition():
    frames = [
        LabelledFrame(Frame([1] * k, np.arange(3.0 * k).reshape(-1, 3)), Label(0, np.zeros((k, 3))))
        for k in (2, 3, 4, 5, 5, 6, 7, 8)
    ]
    found = choose_structures(GivenFile("x", "train", tuple(frames)), 4)
    assert len(found) == 4
    assert sorted(len(f.frame) for f in found).count(5) == 2
    assert len(choose_structures(GivenFile("x", "train", tuple(frames[:2])), 4)) == 2


def test_isolated_atoms_are_not_labelled_again():
    label, cell = Label(-13.6, np.zeros((1, 3))), 12 * np.eye(3)
    atoms = [
        LabelledFrame(Frame([29], np.zeros((1, 3))), label),
        LabelledFrame(Frame([29], np.zeros((1, 3)), cell, True), label, {"config_type": "IsolatedAtom"}),
        LabelledFrame(Frame([29], np.zeros((1, 3)), charge=1), label),
    ]
    crystals = [given for given, _ in pairs(3)]
    assert choose_structures(GivenFile("x", "train", (*atoms, *crystals)), 2) == [crystals[0], crystals[2]]
    assert choose_structures(GivenFile("x", "train", (*atoms, *crystals)), 9) == crystals
    assert choose_structures(GivenFile("x", "train", tuple(atoms)), 9) == []
