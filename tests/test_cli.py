"""The commands as a user meets them."""

import subprocess
import sys

import pytest

from tests.projects import ENTRIES, command


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
