"""Labels that no force field should be trained on are refused with the reason; strained real ones are not."""

import numpy as np
import pytest

from aims_pax.errors import NotFinite, Unphysical, WrongShape
from aims_pax.frames import Frame, Label
from aims_pax.label_limits import ENERGY_OFFSET, LARGEST_FORCE, LARGEST_STRESS, check_label
from tests import worlds


def label(energy=-1.0, forces=None, stress=None):
    return Label(energy, np.zeros((3, 3)) if forces is None else forces, stress)


def test_labels_of_the_wrong_shape_are_named():
    with pytest.raises(WrongShape, match=r"\(2, 3\), expected \(3, 3\)"):
        check_label(worlds.water(), label(forces=np.zeros((2, 3))))


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (label(energy=np.nan), "energy"),
        (label(forces=np.full((3, 3), np.inf)), "forces"),
        (label(stress=np.full((3, 3), np.nan)), "stress"),
    ],
)
def test_nan_in_a_label_is_found_and_named(bad, name):
    with pytest.raises(NotFinite, match=f"in {name}$"):
        check_label(worlds.water(), bad)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (label(forces=np.diag([0, 0, 2e3])), "force 2e[+]03 eV/Å on atom 2"),
        (label(energy=1e7), "energy 1e[+]07 eV"),  # what tblite says of overlapping atoms
        (label(energy=-1e6), "energy -1e[+]06 eV"),
        (label(stress=200 * np.eye(3)), "stress"),
    ],
)
def test_absurd_labels_are_insane(bad, what):
    with pytest.raises(Unphysical, match=what):
        check_label(worlds.water(), bad)


@pytest.mark.parametrize(
    ("z", "energy"),
    [(1, -13.6), (6, -1030.0), (29, -45_000.0), (79, -535_000.0), (92, -763_000.0), (79, -4.4), (18, 0.3)],
)
def test_energies_of_real_atoms_pass_with_and_without_their_cores(z, energy):
    check_label(Frame([z], [[0, 0, 0]]), Label(energy, np.zeros((1, 3))))


def test_limits_are_for_the_length_of_a_force_and_include_their_value():
    forces = np.array([[0.6, 0.8, 0], [0, 0, 0], [0, 0, -1.0]]) * LARGEST_FORCE
    check_label(worlds.water(), label(forces=forces))
    with pytest.raises(Unphysical, match=r"on atom 2; limit 1000 eV/Å"):
        check_label(worlds.water(), label(forces=forces * [[1], [1], [1.001]]))
    check_label(worlds.water(), label(stress=-LARGEST_STRESS * np.eye(3)))
    with pytest.raises(Unphysical, match=r"stress 101 eV/Å³; limit 100 eV/Å³"):
        check_label(worlds.water(), label(stress=-1.01 * LARGEST_STRESS * np.eye(3)))


def test_energies_may_be_as_deep_as_twice_thomas_fermi_and_little_above_nothing():
    """E = −20.9 eV·Z^(7/3), twice, and 1 keV for each atom."""
    deepest = -(2 * 20.9 * (8 ** (7 / 3) + 2) + 3 * ENERGY_OFFSET)
    for energy in (0.9999 * deepest, 2.9 * ENERGY_OFFSET):
        check_label(worlds.water(), label(energy))
    for energy in (1.001 * deepest, 3.1 * ENERGY_OFFSET):
        with pytest.raises(Unphysical, match=r"is outside \["):
            check_label(worlds.water(), label(energy))


def test_all_that_is_not_finite_is_named_at_once():
    bad = label(np.inf, np.full((3, 3), np.nan), np.full((3, 3), np.nan))
    with pytest.raises(NotFinite, match=r"^NaN or infinity in energy, forces, stress$"):
        check_label(worlds.water(), bad)


def test_a_stress_that_is_not_symmetric_is_refused_as_in_given_data():
    with pytest.raises(Unphysical, match=r"stress is not symmetric: 0 0\.01 0 0 0 0 0 0 0"):
        check_label(worlds.water(), label(stress=np.eye(3, k=1) * [[1], [0], [0]] * 0.01))
    check_label(worlds.water(), label(stress=np.eye(3, k=1) * 0.0005))
