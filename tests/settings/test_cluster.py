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
    with pytest.raises(ValidationError, match=r"expected slurm \| pbs \| lsf \| sge \| local"):
        ClusterSettings(type="torque")


def test_at_least_one_worker():
    assert ClusterSettings().max_workers is None
    with pytest.raises(ValidationError, match="expected at least 1"):
        ClusterSettings(max_workers=0)


# a limit in either place ----------------------------------------------------------------------------------

OPTIONS = {"nodes_per_block": 1, "init_blocks": 1, "min_blocks": 0, "max_blocks": 2, "label": "l"}


def test_a_time_limit_may_be_written_under_parsl_options_too():
    inner = {**OPTIONS, "job_time_limit": "00:10:00"}
    assert ClusterSettings(parsl_options=inner).job_time_limit == 600
    assert ClusterSettings(parsl_options=inner, job_time_limit=600).job_time_limit == 600
    assert math.isinf(ClusterSettings(parsl_options=OPTIONS).job_time_limit)
    assert math.isinf(ClusterSettings(type="local", parsl_options=inner).job_time_limit), "no blocks there"


def test_two_different_limits_are_refused():
    inner = {**OPTIONS, "job_time_limit": 600}
    with pytest.raises(ValidationError, match=r"300 s, but parsl_options.job_time_limit is 600 s"):
        ClusterSettings(parsl_options=inner, job_time_limit=300)


def test_a_limit_under_parsl_options_must_fit_into_a_block_too():
    inner = {**OPTIONS, "job_time_limit": 3600}
    with pytest.raises(ValidationError, match="3600 s do not fit into a block of 3600 s"):
        ClusterSettings(parsl_options=inner, slurm_str="#SBATCH --time=1:00:00")


@pytest.mark.parametrize("written", ["soon", 0, -5])
def test_a_wrong_limit_is_told_once_where_it_is_written(written):
    with pytest.raises(ValidationError) as caught:
        ClusterSettings(parsl_options={**OPTIONS, "job_time_limit": written})
    assert [e["loc"] for e in caught.value.errors()] == [("parsl_options", "job_time_limit")]


# training -------------------------------------------------------------------------------------------------


def test_training_has_a_profile_with_either_type():
    for kind in ("local", "slurm"):
        profile = ClusterSettings(type=kind, training={"devices": ["cuda:0", "CUDA:1"]}).training
        assert (profile.devices, profile.workers, profile.threads) == (("cuda:0", "cuda:1"), None, 1)
    assert ClusterSettings(training={"devices": "cpu"}).training.devices == ("cpu",)
    assert ClusterSettings().training is None


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"devices": ["gpu0"]}, "or cuda:0, got 'gpu0'"),
        ({"devices": ["cuda:0", "cuda:0"]}, "cuda:0 is named twice"),
        ({"devices": []}, "empty list"),
        ({"devices": ["cuda:0"], "workers": 2}, "2 workers for 1 devices"),
        ({"workers": -1}, "at least 0"),
        ({"threads": 0.5}, "whole number"),
        ({"device": "cuda"}, "Extra inputs"),
    ],
)
def test_a_wrong_profile_is_refused(profile, said):
    with pytest.raises(ValidationError, match=said):
        ClusterSettings(training=profile)


@pytest.mark.parametrize(
    ("key", "header"),
    [("slurm_str", "#!/bin/tcsh\n#SBATCH --time=10"), ("sge_str", "#$ -cwd -S /bin/csh"),
     ("pbs_str", "#!/usr/bin/env fish")],
)  # fmt: skip
def test_the_script_of_a_block_is_one_for_bash(key, header):
    with pytest.raises(ValidationError, match="is one for bash"):
        ClusterSettings(**{key: header})
    ClusterSettings(slurm_str="#!/bin/bash -l\n#SBATCH --time=10  # like csh")


@pytest.mark.parametrize("path", ["$SCRATCH/calc", "/ptmp/${USER}/calc"])
def test_a_variable_in_a_path_would_be_the_name_of_a_folder(path):
    with pytest.raises(ValidationError, match="is not replaced here; write the path itself"):
        ClusterSettings(calc_dir=path)
    for key in ("run_dir", "function_dir"):
        with pytest.raises(ValidationError, match="is not replaced here"):
            ClusterSettings(parsl_options={**OPTIONS, key: path})


def test_a_block_has_time_to_start_before_its_first_calculation():
    header = "#SBATCH --time=1:00:00"
    with pytest.raises(ValidationError, match="workers start in the first 60 s"):
        ClusterSettings(parsl_options=OPTIONS, slurm_str=header, job_time_limit=3480)
    assert (
        ClusterSettings(parsl_options=OPTIONS, slurm_str=header, job_time_limit=3420).job_time_limit == 3420
    )


@pytest.mark.parametrize(
    ("key", "header"),
    [("slurm_str", "#!/bin/bash -l #SBATCH --time=10"), ("slurm_str", "#SBATCH --time=10 #SBATCH -N 2"),
     ("slurm_str", r"#!/bin/bash\n#SBATCH -p test"),
     ("sge_str", "#$ -cwd #$ -l h_rt=60"), ("pbs_str", "#PBS -q short #PBS -l walltime=60")],
)  # fmt: skip
def test_lines_of_a_header_that_yaml_has_joined_are_refused(key, header):
    with pytest.raises(ValidationError, match="several lines in one"):
        ClusterSettings(**{key: header})
    ClusterSettings(slurm_str="#SBATCH -N 2 # was: #SBATCH -N 1\n# #SBATCH --mem=2G\n##SBATCH -t 5")


def test_header_lines_among_the_commands_of_a_worker_would_not_be_read():
    with pytest.raises(ValidationError, match="belongs to the header: move it to slurm_str"):
        ClusterSettings(worker_str="module load x\n  #SBATCH --mem=3G")
    ClusterSettings(type="local", worker_str="#SBATCH --mem=3G\n# a remark")
