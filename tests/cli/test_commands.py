"""The subcommands as a user meets them."""

import json
import shlex
import signal
import subprocess
import sys

import yaml

from tests.projects import command, write_project
from tests.report.folders import made_up, recorded


def test_check_prints_one_yaml_document_and_nothing_else(tmp_path):
    folder = write_project(tmp_path, {"ACTIVE_LEARNING": {"analysis_skip": 7}})
    done = command("check", folder=folder)
    assert done.returncode == 0
    document = yaml.safe_load(done.stdout)
    assert set(document) == {"aimsPAX", "mace"}
    assert document["aimsPAX"]["ACTIVE_LEARNING"]["max_MD_steps"] == 60
    assert document["mace"]["TRAINING"]["weight_decay"] == 5e-7
    assert "analysis_skip" in done.stderr, "a key without effect is said so"
    assert sorted(p.name for p in folder.iterdir()) == ["aimsPAX.yaml", "geometries", "mace.yaml"]


def test_check_tells_all_mistakes_at_once_and_exits_with_2(tmp_path):
    folder = write_project(
        tmp_path,
        {"MD": {"timestep": -1}, "ACTIVE_LEARNING": {"num_trajektories": 3}},
        {"TRAINING": {"lr": "much"}},
    )
    done = command("check", folder=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    for word in ("timestep", "num_trajectories", "TRAINING.lr", "aimsPAX.yaml:", "mace.yaml:"):
        assert word in done.stderr


def test_the_command_after_init_can_be_pasted_whatever_the_folder_is_called(tmp_path):
    done = command("init", "laptop", "my möl; ecule", folder=tmp_path)
    hint = done.stdout.splitlines()[-1].removeprefix("then: ")
    assert shlex.split(hint) == ["cd", "my möl; ecule", "&&", "aims-PAX", "check"]


def test_a_strangers_path_to_the_start(tmp_path):
    """`init`, `check` and `plan` from an empty folder, without torch and quickly enough to be typed again."""
    done = command("init", "laptop", "mine", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cd mine && aims-PAX check" in done.stdout
    assert command("check", folder=tmp_path / "mine").returncode == 0
    for verb in ("check", "plan"):
        from_outside = command(verb, "mine", folder=tmp_path)
        inside = command(verb, folder=tmp_path / "mine")
        assert (from_outside.returncode, from_outside.stdout) == (0, inside.stdout), from_outside.stderr
    done = command("plan", folder=tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    assert "reference calls in all" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 140
    code = (
        "import sys; sys.argv = ['aims-PAX', 'plan', '--json']\nfrom aims_pax.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "mine", capture_output=True, text=True)
    assert done.returncode == 0
    assert set(json.loads(done.stdout)) >= {"systems", "initial", "active_learning", "memory_MB", "cluster"}
    again = command("init", "molecule", "mine", folder=tmp_path)
    assert again.returncode == 2
    assert "is not overwritten" in again.stderr


def test_status_as_json_and_as_text(tmp_path):
    folder = recorded(tmp_path)
    done = command("status", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "finished"
    done = command("status", str(folder), folder=tmp_path)
    assert "finished" in done.stdout
    assert done.stderr == ""


def test_status_again_and_again_until_ctrl_c(tmp_path):
    folder = recorded(tmp_path)
    code = "import sys; sys.argv = ['aims-PAX', 'status', '--watch', '--json', '--every', '0.2']; "
    watching = subprocess.Popen(
        [sys.executable, "-c", code + "from aims_pax.cli import main; main()"],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        lines = [watching.stdout.readline() for _ in range(2)]
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=30)
    finally:
        watching.kill()
    assert [json.loads(line)["state"] for line in lines] == ["finished"] * 2
    assert watching.returncode == 0, err
    assert err == ""


def test_watching_begins_before_the_run_does(tmp_path):
    code = "import sys; sys.argv = ['aims-PAX', 'status', '--watch', '--json', '--every', '0.2']; "
    watching = subprocess.Popen(
        [sys.executable, "-c", code + "from aims_pax.cli import main; main()"],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        said = watching.stderr.readline()
        made_up(tmp_path)
        line = watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=30)
    finally:
        watching.kill()
    assert said.startswith("waiting: no aims-PAX run has begun here yet")
    assert json.loads(line)["name"] == "made up"
    assert (watching.returncode, err) == (0, ""), "said once"


def test_report_prints_where_the_page_is(tmp_path):
    folder = recorded(tmp_path)
    done = command("report", str(folder), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (folder / "report.html").is_file()
    assert "report.html" in done.stdout
