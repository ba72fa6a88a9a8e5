"""Job headers as sbatch reads them; each case was tried with Slurm 22.05."""

import pytest
from pydantic import ValidationError

from aims_pax.schedulers.slurm_header import (
    block_walltime,
    option,
    sbatch_options,
    slurm_seconds,
    without_options,
)
from aims_pax.settings.cluster import ClusterSettings


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("#SBATCH -t 10\n#SBATCH --time=1:00:00", 3600),
        ("#SBATCH --time=1:00:00\n#SBATCH -t 10", 600),
        ("#SBATCH --time=1:00:00 -t10", 600),
        ("#SBATCH -Ht3", 180),
        ("#SBATCH --time-min=1 --time 5  # --time=7", 300),
        ("#SBATCH --ntasks=4", None),
    ],
)
def test_the_last_of_several_times_counts(header, seconds):
    assert block_walltime(header) == seconds


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("#SBATCH --tim=10", "--tim is ambiguous: it could be --time, --time-min"),
        ("#SBATCH --nod=1", "--nod is ambiguous: it could be --nodefile, --nodelist, --nodes"),
        ("module load x\n#SBATCH --time=10", "comes after the command 'module load x'"),
        ("#SBATCH --exclusive user", "'user' is not an option"),
        ("#SBATCH --arr=1-4", "remove --array"),
        ("#SBATCH -W", "remove --wait"),
        ("#SBATCH -Q", "remove --quiet"),
        ("#SBATCH --time=10 --time-min=2", "remove --time-min"),
        ("#!/bin/bash\n  #SBATCH --time=10", "remove the indentation"),
        ("#SBATCH --clusters=big", "remove --clusters"),
        ("#SBATCH -t=3", "not a time of Slurm"),
        ("#SBATCH --comment='open", "No closing quotation"),
    ],
)
def test_what_slurm_refuses_or_does_not_read_is_refused_at_once(header, said):
    with pytest.raises(ValidationError) as error:
        ClusterSettings(slurm_str=header)
    assert said in str(error.value)


def test_abbreviations_and_letters_are_read_as_the_options_they_mean():
    read = sbatch_options(
        "#SBATCH --acco=mine -pfast -N 2 --ntasks-per-n=4\n# no option\n\n#SBATCH --exclusive --newer=1"
    )
    assert read == {
        "account": "mine", "partition": "fast", "nodes": "2", "ntasks-per-node": "4", "exclusive": "", "newer": "1",
    }  # fmt: skip


def test_an_option_of_a_newer_slurm_may_be_a_flag():
    assert sbatch_options("#SBATCH --stepmgr -N 2\n#SBATCH --newest 3 -t 5") == {
        "stepmgr": "", "nodes": "2", "newest": "3", "time": "5",
    }  # fmt: skip


def test_a_line_keeps_its_words_when_nothing_is_taken_out():
    line = "#SBATCH  -p fast   --comment='two words'  # mine"
    assert without_options(line, {"time"}) == line
    assert (
        without_options("#SBATCH -t 5 --comment='it is \"so\"'", {"time"})
        == '#SBATCH --comment="it is \\"so\\""'
    )
    assert without_options("#SBATCH -t 5", {"time"}) is None
    assert option("mem", "4G") == "--mem=4G"


# where nodes find the run ---------------------------------------------------------------------------------

OPTIONS = {"nodes_per_block": 1, "init_blocks": 1, "min_blocks": 0, "max_blocks": 2, "label": "l"}


def test_address_interface_and_ports_are_strict():
    options = ClusterSettings(
        parsl_options={**OPTIONS, "interface": "ib0", "port_range": [50000, 50100]}
    ).parsl_options
    assert (options.interface, options.port_range, options.address) == ("ib0", (50000, 50100), None)
    with pytest.raises(ValidationError, match="keep one of them"):
        ClusterSettings(parsl_options={**OPTIONS, "interface": "ib0", "address": "login1"})
    for wrong in ([50100, 50000], [0, 10], [1, 70000], [50000], "50000-50100", 50000, [1.5, 2], None):
        with pytest.raises(ValidationError, match="port_range"):
            ClusterSettings(parsl_options={**OPTIONS, "port_range": wrong})


@pytest.mark.parametrize("text", ["", "1:2:3:4", "soon", "-5", "1-", "1-2:3:4:5", "1.5"])
def test_what_is_no_time_of_slurm_is_refused(text):
    with pytest.raises(ValueError, match="not a time of Slurm"):
        slurm_seconds(text)
