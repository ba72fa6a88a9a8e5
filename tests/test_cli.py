"""The commands as a user meets them."""

import json
import signal
import subprocess
import sys

import pytest
import yaml

from tests.projects import ENTRIES, command, write_project
from tests.report.folders import made_up, recorded


@pytest.mark.parametrize("name", ENTRIES)
def test_help_and_version_come_without_torch(name, tmp_path):
    for word in ("--help", "--version"):
        done = command(word, folder=tmp_path, name=name)
        assert done.returncode == 0
        assert done.stderr == ""
    assert "0.1.0" in done.stdout
    entry = ENTRIES[name]
    code = (
        f"import sys; sys.argv = [{name!r}, '--help']\nfrom aims_pax.cli import {entry}\n"
        f"try: {entry}()\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


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


@pytest.mark.parametrize(
    "words",
    [
        ["--mace-settings", "m.yaml", "--aimsPAX-settings", "a.yaml", "check"],
        ["check", "--mace_settings", "m.yaml", "--aimsPAX_settings", "a.yaml"],
        ["check", "--model-settings", "m.yaml", "--aimsPAX-settings", "a.yaml"],
    ],
)
def test_other_file_names_are_accepted_in_every_spelling(tmp_path, words):
    folder = write_project(tmp_path)
    (folder / "mace.yaml").rename(folder / "m.yaml")
    (folder / "aimsPAX.yaml").rename(folder / "a.yaml")
    done = command(*words, folder=folder)
    assert done.returncode == 0, done.stderr


def test_missing_files_are_named(tmp_path):
    done = command("check", folder=tmp_path)
    assert done.returncode == 2
    assert "aimsPAX.yaml" in done.stderr
    assert "mace.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_verb_is_refused_with_the_near_one(tmp_path):
    done = command("chek", folder=tmp_path)
    assert done.returncode == 2
    assert "check" in done.stderr


@pytest.mark.parametrize(
    "verb",
    ["init", "check", "plan", "status", "pause", "resume", "stop", "report", "export", "test", "augment"],
)
def test_every_verb_has_help_and_version_without_torch(verb, tmp_path):
    code = (
        f"import sys; sys.argv = ['aims-PAX', {verb!r}, '--help']\nfrom aims_pax.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'mace', 'ase', 'matplotlib', 'scipy', 'parsl'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"aims-PAX {verb}" in done.stdout
    assert "0.1.0" in command(verb, "--version", folder=tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stauts"], "status"),
        (["status", "--wach"], "--watch"),
        (["export", "--fromat", "ase"], "--format"),
        (["export", "--format", "lamps"], "nearest: lammps"),
        (["export"], "no models in"),
        (["init", "cristal"], "nearest: crystal"),
        (["plan", "--jsn"], "--json"),
        (["pause"], "no aims-PAX run was begun"),
        (["resume", "nowhere"], "nowhere: no such folder"),
        (["status"], "no aims-PAX run"),
        (["report"], "no aims-PAX run"),
        (["test", "a.model"], "MODEL... DATA.xyz"),
        (["test"], "MODEL..."),
        (["augment"], "config"),
        (["run"], "`aims-PAX` alone runs everything"),
        (["run", "--all"], "`aims-PAX` alone runs everything"),
        (["check", "nowhere"], "nowhere: no such folder"),
        (["check", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["plan", "nowhere"], "nowhere: no such folder"),
        (["export", "."], "no models in results"),
        (["export", "nowhere"], "nowhere: no such file; expected a model file, or the folder of a run"),
        (["status", "nowhere", "--watch"], "nowhere: no such folder"),
        (["--mace-setings", "x"], "--mace-settings"),
    ],
    ids=str,
)
def test_wrong_use_helps_and_exits_with_2(tmp_path, words, said):
    done = command(*words, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said.lower() in " ".join(done.stderr.replace("│", " ").split()).lower()
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


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


def test_augment_runs_its_own_story(tmp_path):
    done = command("augment", "none.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert "none.yaml: no such file" in done.stderr


def test_a_mistake_of_ours_is_one_line_with_a_traceback_in_a_file(tmp_path, monkeypatch):
    code = (
        "import sys; sys.argv = ['aims-PAX', 'report']\nimport aims_pax.report.html_page as page\n"
        "def broken(folder): raise ZeroDivisionError('so it is')\npage.write_report = broken\n"
        "from aims_pax.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "ZeroDivisionError: so it is" in done.stderr
    assert "so it is" in (tmp_path / "logs" / "traceback.log").read_text()


def test_what_noisy_packages_put_in_the_place_of_standard_output_does_not_get_the_live_view(monkeypatch):
    """The live view behind such a stand-in prints its control sequences as text."""
    import io

    from aims_pax.cli.run_command import console

    real, stand_in = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", real)
    terminal = console()
    monkeypatch.setattr(sys, "stdout", stand_in)
    terminal.print("a line of the run")
    assert (real.getvalue(), stand_in.getvalue()) == ("a line of the run\n", "")
