"""Logarithmic axes with plain numbers."""

import pytest

from aims_pax.report.figures.style import drawing
from aims_pax.report.figures.ticks import log_if_wide, log_ticks


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1.0, 8.0], "linear"), ([1.0, 8.1], "log"), ([-5.0, 0.0, 3.0], "linear"), ([], "linear")],
)
def test_an_axis_is_logarithmic_where_values_differ_by_more_than_a_factor_of_eight(values, scale):
    with drawing() as (_, axes):
        axes.plot(values)
        log_if_wide(axes, values)
        assert axes.get_yscale() == scale
        if scale == "linear":
            assert axes.get_ylim() == pytest.approx((0, 1.06 * max(values, default=1.0)))


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.9, 12.0, ["1", "2", "5", "10"]),
        (0.05, 6.0, ["0.1", "0.3", "1", "3"]),
        (0.5, 2e5, ["1", "10", "100", "1000", "10000", "1e+05"]),
    ],
)
def test_numbers_of_a_logarithmic_axis_are_plain_and_more_where_decades_are_few(low, high, labels):
    with drawing() as (_, axes):
        axes.set(yscale="log", ylim=(low, high))
        log_ticks(axes)
        inside = [v for v in axes.yaxis.get_majorticklocs() if low <= v <= high]
        assert [axes.yaxis.get_major_formatter()(v, 0) for v in inside] == labels
        assert len(axes.yaxis.get_minorticklocs()) == 0
