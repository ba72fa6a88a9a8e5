"""The order of files, and structures that are too close."""

from pathlib import Path

import numpy as np

from aims_pax.commands.gpr.input_files import _in_order, without_close_ones
from tests.models.gp import systems


def test_numbers_in_names_are_compared_as_numbers():
    names = ["a/file_100000.xsf", "a/file_99999.xsf", "a/file_00002.xsf"]
    assert sorted(map(Path, names), key=_in_order) == [Path(n) for n in reversed(names)]


def test_structures_closer_than_the_threshold_to_an_earlier_one_are_left_out():
    data = systems.h2(np.array([1.0, 1.01, 1.5, 1.001]))
    assert [x.id for x in without_close_ones(data, 0.1)] == [data[0].id, data[2].id]
    assert len(without_close_ones(data, 0.0)) == 4
