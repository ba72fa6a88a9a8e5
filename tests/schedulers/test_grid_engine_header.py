"""The #$ lines of Grid Engine, as qsub 8.1.9 reads them."""

import math

import pytest

from aims_pax.schedulers.grid_engine_header import (
    block_limit,
    grid_engine_seconds,
    hard_resources,
    qsub_options,
)


def test_soft_requests_do_not_count_until_the_next_hard_one():
    header = "#$ -l a=1\n#$ -soft -l h_rt=60 -l b=2\n#$ -hard -l h_rt=7200\n"
    assert hard_resources(qsub_options(header)) == {"a": "1", "h_rt": "7200"}


@pytest.mark.parametrize(
    ("header", "limit"),
    [
        ("#$ -l h_rt=2:0:0,s_rt=1:59:0", 7140),
        ("#$ -l s_rt=60", 60),
        ("#$ -l h_rt=INFINITY,s_rt=60", 60),
        ("#$ -l h_rt=infinity", math.inf),
        ("#$ -l mem_free=2G", None),
        ("", None),
    ],
)
def test_the_limit_of_a_block_is_the_smaller_of_hard_and_soft(header, limit):
    assert block_limit(qsub_options(header)) == limit


@pytest.mark.parametrize("text", ["", ":", "::", "1:30", "1:2:3:4", "-5", "1.5", "soon", "²"])
def test_what_is_no_time_of_grid_engine_is_refused(text):
    with pytest.raises(ValueError, match="not a time of Grid Engine: expected seconds, HH:MM:SS or INFINITY"):
        grid_engine_seconds(text)


def test_quotes_swallow_the_rest_of_their_line():
    with pytest.raises(ValueError, match="reads everything after the quotes as one word"):
        qsub_options("#$ -v A='x y' -cwd")
    assert [o.name for o in qsub_options("#$ -cwd -v A='x y'  # a remark")] == ["cwd", "v"]
