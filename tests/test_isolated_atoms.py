"""Isolated atoms have the spin of their ground state."""

import numpy as np
import pytest
from ase.data import chemical_symbols

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.isolated_atoms import is_isolated_atom, isolated, unpaired_electrons


def test_every_ground_state_has_as_many_unpaired_electrons_as_its_electrons_allow():
    for z in range(1, 104):
        assert unpaired_electrons(z) % 2 == z % 2, chemical_symbols[z]


@pytest.mark.parametrize(
    ("symbol", "unpaired"),
    [("H", 1), ("He", 0), ("C", 2), ("N", 3), ("O", 2), ("Cr", 6), ("Mn", 5), ("Cu", 1), ("Pd", 0), ("Gd", 8),
     ("Np", 5), ("Lr", 1)],
)  # fmt: skip
def test_ground_states_are_those_of_the_textbook(symbol, unpaired):
    frame = isolated(chemical_symbols.index(symbol))
    assert frame.spin == unpaired + 1
    assert (0 if frame.moments is None else frame.moments[0]) == unpaired
    assert not frame.pbc.any()
    assert frame.charge is None


def test_beyond_the_known_elements_the_user_is_asked():
    with pytest.raises(SettingsError, match="isolated Rf atom is unknown"):
        isolated(104)


def test_hunds_rule_holds_for_the_p_block():
    for start in (5, 13, 31, 49, 81):  # B, Al, Ga, In, Tl
        assert [unpaired_electrons(start + k) for k in range(6)] == [1, 2, 3, 2, 1, 0]


def test_what_is_no_element_has_no_ground_state():
    with pytest.raises(SettingsError, match=r"ground state of an isolated .* ARCHITECTURE\.atomic_energies"):
        unpaired_electrons(0)


@pytest.mark.parametrize(
    ("kind", "alone"),
    [
        ("IsolatedAtom", True),
        ("isolated_atom", True),
        ("isolatedAtom", True),
        ("crystal", False),
        (None, False),
    ],
)
def test_an_atom_in_a_periodic_box_is_isolated_if_its_config_type_says_so(kind, alone):
    """In the words of MACE, and of GAP; else it is a crystal, and no zero of energy."""
    frame = Frame([1], [[0, 0, 0]], 9 * np.eye(3), [True] * 3)
    origin = {} if kind is None else {"config_type": kind}
    assert is_isolated_atom(LabelledFrame(frame, Label(-13.0, np.zeros((1, 3))), origin)) is alone
