"""Sweeps of many cases, of which the suite runs some and `-m "slow or not slow"` runs all."""

from collections.abc import Iterable
from typing import Any

import pytest


def thinned(cases: Iterable[Any], every: int) -> list[Any]:
    """The first of each `every` cases as it is, the others marked `slow`; a tuple is the values of several names."""
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [
        pytest.param(*case, marks=[pytest.mark.slow] if k % every else []) for k, case in enumerate(values)
    ]
