"""CLUSTER: times, limits and names."""

import math

import pytest
from pydantic import ValidationError

from aims_pax.settings.cluster import ClusterSettings


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(90, 90.0), ("00:01:30", 90.0), ("1-00:00:00", 86400.0), ("100:00:00", 360000.0), (math.inf, math.inf)],
)
def test_a_time_limit_is_seconds_or_a_clock(written, seconds):
    assert ClusterSettings(job_time_limit=written).job_time_limit == seconds


@pytest.mark.parametrize("written", ["1:30", "an hour", -5, 0, "00:00:00", None])
def test_other_times_are_refused(written):
    with pytest.raises(ValidationError):
        ClusterSettings(job_time_limit=written)


def test_type_and_executor_are_known_words():
    assert ClusterSettings(type="LOCAL", executor="HTEX").executor == "htex"
    with pytest.raises(ValidationError, match=r"expected slurm \| local"):
        ClusterSettings(type="pbs")


def test_at_least_one_worker():
    assert ClusterSettings().max_workers is None
    with pytest.raises(ValidationError, match="expected at least 1"):
        ClusterSettings(max_workers=0)
