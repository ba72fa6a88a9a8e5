"""A multiplicity fits the electrons of a structure, or is refused."""

from dataclasses import replace

import numpy as np
import pytest

from aims_pax.charge_and_spin import check_electrons, check_spin
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame


@pytest.mark.parametrize(
    ("numbers", "charge", "spin"),
    [
        ([1, 1], None, 1),
        ([8, 8], 0, 3),
        ([8, 1], -1, 1),
        ([1], 0, 2),
        ([1], 1, 1),
        ([26], 2, 5),
        ([8, 1, 1], 0.5, 2),
        ([8, 1, 1], 0, None),
    ],
)
def test_what_can_be_is_accepted(numbers, charge, spin):
    check_spin(numbers, charge, spin)


@pytest.mark.parametrize(
    ("numbers", "charge", "spin", "said"),
    [
        ([1, 1], 0, 0, "a whole number of at least 1"),
        ([8, 1], 0, 0.5, "a whole number of at least 1"),
        ([1, 1], 0, -1, "a whole number of at least 1"),
        (
            [1, 1],
            0,
            2,
            "2 electrons, an even number, which cannot have multiplicity 2: expected an odd multiplicity",
        ),
        ([8, 1], -1, 2, "10 electrons, an even number"),
        ([7], None, 3, "7 electrons, an odd number, which cannot have multiplicity 3: expected an even"),
        ([1], 0, 4, "needs 3 unpaired electrons, but there are only 1"),
        ([1], 1, 2, "needs 1 unpaired electrons, but there are only 0"),
    ],
)
def test_what_cannot_be_is_refused(numbers, charge, spin, said):
    with pytest.raises(SettingsError, match=said):
        check_spin(numbers, charge, spin)


def test_the_spin_of_a_crystal_is_that_of_its_cell_and_may_be_any():
    """Everywhere: reading, settings, FHI-aims and calculators ask one function."""
    nickel = Frame([28], [[0, 0, 0]], cell=np.diag([2.5, 2.5, 2.5]), pbc=True, charge=0.0, spin=2)
    check_electrons(nickel)
    with pytest.raises(SettingsError, match="28 electrons, an even number"):
        check_electrons(replace(nickel, pbc=False, cell=np.zeros((3, 3))))
    with pytest.raises(SettingsError, match="larger than the number of electrons"):
        check_electrons(replace(nickel, charge=29.0))
