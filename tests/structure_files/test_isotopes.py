import numpy as np
import pytest
from ase.data import atomic_masses

from aims_pax.errors import SettingsError
from aims_pax.structure_files.isotopes import MASSES, isotope_masses


def test_isotopes_have_their_own_mass_and_the_other_atoms_the_standard_one():
    numbers = np.array([8, 1, 1, 6])
    found = isotope_masses(numbers, {1: 2, 3: 13})
    np.testing.assert_allclose(found, [15.999, 2.01410178, 1.008, 13.00335484])
    np.testing.assert_array_equal(isotope_masses(numbers, {}), atomic_masses[numbers])


@pytest.mark.parametrize(("number", "mass_number"), MASSES)
def test_every_mass_is_its_mass_number_but_for_the_binding_energy(number, mass_number):
    """Mass excesses of these nuclei are below 20 MeV: 0.03 u."""
    assert MASSES[number, mass_number] == pytest.approx(mass_number, abs=0.035)
    assert mass_number >= number


def test_known_isotopes_average_to_the_standard_mass_of_chlorine():
    mean = 0.7576 * MASSES[17, 35] + 0.2424 * MASSES[17, 37]  # natural abundances, IUPAC
    assert mean == pytest.approx(35.453, abs=1e-3)


@pytest.mark.parametrize(
    ("isotopes", "said"),
    [
        ({3: 2}, "an isotope is set for atom 4, but there are 3 atoms"),
        ({-1: 2}, "an isotope is set for atom 0, but there are 3 atoms"),
        (
            {1: 9},
            r"the mass of 9H \(atom 2\) is unknown; write the structure as extended XYZ with a column masses",
        ),
    ],
)
def test_an_isotope_that_is_none_is_refused(isotopes, said):
    with pytest.raises(SettingsError, match=said):
        isotope_masses(np.array([8, 1, 1]), isotopes)
