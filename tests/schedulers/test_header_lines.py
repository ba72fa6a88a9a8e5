"""Option lines of job scripts."""

import re

import pytest

from aims_pax.schedulers.header_lines import (
    HeaderOption,
    HeaderSyntax,
    refuse,
    refuse_other_marks,
    replaced,
    resources,
)
from aims_pax.schedulers.registry import known_schedulers

JOINED = HeaderSyntax("#PBS", "qsub", {"l": 1, "N": 1, "V": 0, "z": 0}, {}, joined=True)
WORDS = HeaderSyntax("#$", "qsub", {"pe": 2, "cwd": 0, "h": 0}, {"h": "[uso]+"}, anywhere=True)


def test_options_are_lines_of_their_own_that_begin_with_the_directive():
    header = "#!/bin/sh\n#PBS -V\n# a remark\n##PBS -z\n\n#PBS -N x\necho\n"
    assert JOINED.lines(header) == ["#PBS -V", "#PBS -N x"]
    with pytest.raises(ValueError, match="comes after the command 'echo' and is not read there; move it up"):
        JOINED.lines(header + "#PBS -z")
    assert WORDS.lines("echo\n#$ -cwd") == ["#$ -cwd"]
    with pytest.raises(ValueError, match="remove the indentation"):
        WORDS.lines("  #$ -cwd")


@pytest.mark.parametrize("name", ["slurm", "sge", "pbs", "lsf"])
@pytest.mark.parametrize(
    "line",
    ["#SBATCH --time=60", "#$ -l h_rt=60", "#PBS -l walltime=60", "#BSUB -W 60", "#sbatch -t 60", "SBATCH -t 60",
     "--time=60", "  -l h_rt=60"],
)  # fmt: skip
def test_options_that_the_scheduler_of_a_block_would_not_read_are_refused(name, line):
    scheduler = known_schedulers()[name]
    if line.startswith(scheduler.directive):
        assert scheduler.read_header(line).walltime
        return
    with pytest.raises(ValueError, match=f"does not begin with {re.escape(scheduler.directive)}"):
        scheduler.read_header(f"#!/bin/bash\n{line}\n")


def test_remarks_switched_off_options_and_commands_are_no_such_lines():
    for scheduler in known_schedulers().values():
        mark = scheduler.directive
        scheduler.read_header(f"# - a list\n#----\n#{mark} --time=1\n# {mark[1:]} -t 1\nrun \\\n  --quiet\n")


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("#PBS -VzNx", [("V",), ("z",), ("N", "x")]),
        ("#PBS -N 'two words' -V", [("N", "two words"), ("V",)]),
        ("#PBS", []),
    ],
)
def test_letters_may_be_grouped_and_joined_to_their_argument(line, options):
    assert [(o.name, *o.arguments) for o in JOINED.options(line)] == options


def test_further_arguments_are_taken_only_if_they_look_like_one():
    assert WORDS.options("#$ -h uo -cwd") == [HeaderOption("h", ("uo",)), HeaderOption("cwd")]
    assert WORDS.options("#$ -pe smp 4")[0].value == "smp"
    assert WORDS.options("#$ -h")[0].value == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("#$ -pe smp", "-pe needs 2 arguments"),
        ("#$ -pe -cwd 4", "-pe needs 2 arguments"),
        ("#$ -walltime 3", "'-walltime' is not an option of qsub"),
        ("#$ -h xyz", "'xyz' is not an option of qsub"),
        ("#$ -pe 'smp 4", "No closing quotation"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(line, said):
    with pytest.raises(ValueError, match=said):
        WORDS.options(line)


def test_a_line_stays_as_it_was_unless_something_is_taken_out():
    assert JOINED.without("#PBS  -V   -lselect=1 # mine", {"N"}) == "#PBS  -V   -lselect=1 # mine"
    assert JOINED.without("#PBS -N x -V -l 'a b'", {"N"}) == '#PBS -V\n#PBS -l "a b"'
    assert JOINED.without("#PBS -N x", {"N"}) is None
    written = JOINED.without("#PBS -N x -l 'a b'", {"N"})
    assert JOINED.options(written) == [HeaderOption("l", ("a b",))], "it is read back as it was"


def test_resources_of_several_options_are_one_table():
    assert resources(["a=1,b", "c=x=y", ""]) == {"a": "1", "b": "", "c": "x=y"}
    assert resources(["a=1", "a=1"]) == {"a": "1"}
    with pytest.raises(ValueError, match="-l a=1 and -l a=2 contradict each other"):
        resources(["a=1,a=2"])


def test_what_a_block_cannot_have_is_refused_and_what_we_set_is_told():
    options = WORDS.options("#$ -cwd -h")
    with pytest.raises(ValueError, match="it is one job: remove -h"):
        refuse(options, {"h": "it is one job"})
    refuse(options, {"pe": "no"})
    assert replaced([*options, *options], {"h", "cwd", "pe"}) == ("-cwd", "-h")


def test_quotes_inside_a_word_that_is_written_again_stay():
    syntax = HeaderSyntax("#BSUB", "bsub", {"J": 1, "R": 1}, {})
    line = syntax.without("#BSUB -J mine -R 'select[type==\"any\"]'", {"J"})
    assert line == "#BSUB -R 'select[type==\"any\"]'"
    assert syntax.options(line)[0].value == 'select[type=="any"]'


def test_an_option_in_a_quoted_text_over_several_lines_is_no_option_of_the_scheduler():
    quoted = """#SBATCH -N 1\n# it's a comment\nexport ARGS="\n  --bind-to core\n"\n"""
    refuse_other_marks(quoted, "#SBATCH")
    with pytest.raises(ValueError, match="--time=1:00"):
        refuse_other_marks(f"{quoted}--time=1:00\n", "#SBATCH")
