"""Which file holds the output of FHI-aims, however a launch command is written."""

import pytest

from aims_pax.errors import SetupError
from aims_pax.labelling.references.launch_output import begun, output_of, written_by

AIMS = "          Invoking FHI-aims ...\n  | Number of atoms                   :        3\n"
DONE = AIMS + "          Have a nice day.\n"


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("srun aims.x >> aims.out 2> err", ["aims.out"]),
        ("srun aims.x 2> err", []),
        ("aims.x 1>aims.out", ["aims.out"]),
        ("aims.x &> aims.out", ["aims.out"]),
        ("aims.x >& aims.out", ["aims.out"]),
        ("aims.x &>> aims.out", ["aims.out"]),
        ("aims.x >| aims.out", ["aims.out"]),
        ("aims.x > aims.out 2>&1", ["aims.out"]),
        ("aims.x 2>&1 | tee -a aims.out", ["aims.out"]),
        ("aims.x |& tee aims.out copy.out > /dev/null", ["aims.out", "copy.out"]),
        ("aims.x > 'my aims.out'", ["my aims.out"]),
        ('aims.x > "my out" < input', ["my out"]),
        ("aims.x > my\\ out", ["my out"]),
        ("aims.x > aims.out; date > finished.txt", ["aims.out", "finished.txt"]),
        ("module load x\nsrun aims.x > aims.out\nls > listing", ["aims.out", "listing"]),
        ("srun \\\n  aims.x > aims.out", ["aims.out"]),
        ("(ulimit -s unlimited; aims.x) > aims.out", ["aims.out"]),
        ("{ aims.x; } > aims.out", ["aims.out"]),
        ("bash -c 'ulimit -s unlimited && aims.x > aims.out'", ["aims.out"]),
        ("srun -n 4 -o aims.out aims.x", ["aims.out"]),
        ("srun --output=aims.out aims.x", ["aims.out"]),
        ("for i in $(seq 3); do echo 'a > b' >> aims.out; done", ["aims.out"]),
        ("echo warning >&2; echo x 1>&2; aims.x", []),
        ("aims.x > /dev/null", []),
        ("aims.x > $OUT", []),
    ],
)
def test_the_files_of_standard_output_are_read_from_a_command(command, files):
    assert written_by(command) == files


@pytest.mark.parametrize(
    ("command", "contents", "expected"),
    [
        ("aims.x > aims.out; date > done", {"aims.out": DONE, "done": "Mon"}, "aims.out"),
        ("echo begin > log; aims.x > run.out", {"log": "begin", "run.out": DONE}, "run.out"),
        ("echo begin > log; aims.x", {"log": "begin", "launch.out": DONE}, "launch.out"),
        ("./run_aims.sh", {"launch.out": "submitted\n", "FHI.out": DONE}, "FHI.out"),
        ("aims.x > $OUT", {"launch.out": "", "named.out": DONE}, "named.out"),
        ("aims.x | tee a.out > b.out", {"a.out": DONE, "b.out": DONE}, "b.out"),
        ("aims.x > a.out || aims.x > b.out", {"a.out": AIMS, "b.out": DONE}, "b.out"),
        ("aims.x > aims.out", {"aims.out": "Segmentation fault"}, "aims.out"),
        ("aims.x > aims.out", {"aims.out": "Syntax error", "aims.out.0": DONE}, "aims.out"),
    ],
)
def test_the_output_is_told_by_its_contents(tmp_path, command, contents, expected):
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    assert output_of(tmp_path, command, tmp_path / "launch.out") == tmp_path / expected


def test_two_outputs_that_differ_stop_the_run(tmp_path):
    (tmp_path / "light.out").write_text(DONE)
    (tmp_path / "tight.out").write_text(DONE + "more")
    with pytest.raises(SetupError, match=r"light\.out and tight\.out are both outputs"):
        output_of(tmp_path, "aims.x > light.out; aims.x > tight.out", tmp_path / "launch.out")


def test_one_output_for_all_calculations_stops_the_run(tmp_path):
    (tmp_path / "all.out").write_text(DONE)
    folder = tmp_path / "one"
    folder.mkdir()
    with pytest.raises(SetupError, match="one file for all calculations"):
        output_of(folder, f"aims.x > {tmp_path}/all.out", folder / "launch.out")


def test_a_listing_is_no_sign_of_life(tmp_path):
    (tmp_path / "log").write_text("begin")
    command = "echo begin > log; aims.x > aims.out"
    assert not begun(tmp_path, command, tmp_path / "launch.out")
    (tmp_path / "aims.out").write_text(AIMS)
    assert begun(tmp_path, command, tmp_path / "launch.out")
