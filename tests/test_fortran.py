"""Numbers of Fortran programs: read exactly, or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aims_pax.fortran import fortran_number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive_fortrans_spelling(number):
    assert fortran_number(repr(number)) == number
    assert fortran_number(repr(number).replace("e", "D")) == number


@pytest.mark.parametrize(
    "word", ["", "1e", "d0", "1d0d0", "--1", "0x1", "1_000", "nan", "inf", "1.0.0", "1e999"]
)
def test_what_is_no_number_of_fortrans_is_refused(word):
    with pytest.raises(ValueError, match="is not a number"):
        fortran_number(word)
