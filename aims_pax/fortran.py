"""Numbers as Fortran programs read and print them."""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eEdDqQ]([+-]?\d+)|([+-]\d+))?")


def fortran_number(word: str) -> float:
    """A number as Fortran reads and prints it: 1, 1.5e-3, 1d0, and 1.0-100 for 1.0e-100.

    Raises ValueError for anything else, including infinity, NaN and overflow.

    >>> fortran_number("-1.5D+2"), fortran_number("0.5-101"), fortran_number(".5")
    (-150.0, 5e-102, 0.5)
    """
    parts = _NUMBER.fullmatch(word)
    value = math.inf if parts is None else float(f"{parts[1]}e{parts[2] or parts[3] or 0}")
    if not math.isfinite(value):
        raise ValueError(f"{word!r} is not a number")
    return value
