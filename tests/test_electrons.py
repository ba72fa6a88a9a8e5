"""A multiplicity fits the electrons of a structure, or is refused."""

import pytest

from aims_pax.electrons import check_spin
from aims_pax.errors import SettingsError


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
        ([1, 1], 0, 0, "expected a whole number from 1 on"),
        ([8, 1], 0, 0.5, "expected a whole number from 1 on"),
        ([1, 1], 0, -1, "expected a whole number from 1 on"),
        ([1, 1], 0, 2, "2 electrons are an even number and need an odd multiplicity"),
        ([8, 1], -1, 2, "10 electrons are an even number"),
        ([7], None, 3, "7 electrons are an odd number and need an even multiplicity"),
        ([1], 0, 4, "needs 3 unpaired electrons, there are 1"),
        ([1], 1, 2, "needs 1 unpaired electrons, there are 0"),
    ],
)
def test_what_cannot_be_is_refused(numbers, charge, spin, said):
    with pytest.raises(SettingsError, match=said):
        check_spin(numbers, charge, spin)
