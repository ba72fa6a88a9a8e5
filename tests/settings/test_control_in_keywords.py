"""Misspelled keywords of a control.in are recognised, new ones are left alone."""

import pytest

from aims_pax.settings.control_in_keywords import KNOWN, misspelled
from tests.stand_in_aims import keywords


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("sc_acuracy_rho", "sc_accuracy_rho"),
        ("ocupation_type", "occupation_type"),
        ("Mixer", None),
        ("of_next_year", None),
        *((word, None) for word in sorted(KNOWN)[::40]),
    ],
)
def test_one_or_two_wrong_letters_are_a_misspelling(word, near):
    assert misspelled(word) == near


def test_the_keywords_are_those_at_which_the_stand_in_for_fhi_aims_does_not_stop():
    assert keywords("control") == KNOWN
