"""Masses of isotopes that structure files give by mass number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import SettingsError

# (atomic number, mass number): u, AME2020
MASSES = {
    (1, 1): 1.00782503, (1, 2): 2.01410178, (1, 3): 3.01604928, (6, 12): 12.0, (6, 13): 13.00335484,
    (6, 14): 14.00324199, (7, 14): 14.00307400, (7, 15): 15.00010890, (8, 16): 15.99491462,
    (8, 17): 16.99913176, (8, 18): 17.99915961, (9, 19): 18.99840316, (14, 28): 27.97692653,
    (14, 29): 28.97649467, (14, 30): 29.97377014, (15, 31): 30.97376200, (16, 32): 31.97207117,
    (16, 34): 33.96786701, (17, 35): 34.96885269, (17, 37): 36.96590258,
}  # fmt: skip


def isotope_masses(numbers: NDArray[np.int64], isotopes: Mapping[int, int]) -> NDArray[np.float64]:
    """(N,) u: standard masses, and those of isotopes {atom from 0: mass number}. Raises SettingsError."""
    from ase.data import atomic_masses, chemical_symbols

    masses = np.array(atomic_masses[numbers], float)
    for atom, mass_number in isotopes.items():
        if not 0 <= atom < len(numbers):
            raise SettingsError(f"an isotope is set for atom {atom + 1}, but there are {len(numbers)} atoms")
        found = MASSES.get((int(numbers[atom]), mass_number))
        if found is None:
            name = f"{mass_number}{chemical_symbols[numbers[atom]]}"
            raise SettingsError(
                f"the mass of {name} (atom {atom + 1}) is unknown; write the structure as extended XYZ with "
                "a column masses"
            )
        masses[atom] = found
    return masses
