"""The code on the pages runs and does what they say; changes of aims-PAX that they show are made in a copy of it."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from aims_pax.dataset import read_extxyz, write_extxyz
from aims_pax.errors import Crashed, SetupError, TimedOut
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.potential import CalculatorPotential, Potential, calculate
from aims_pax.samplers.kinds.md import MDSampler
from aims_pax.settings.samplers import KINDS
from aims_pax.systems import System
from tests.md.potentials import cluster
from tests.md.settings import langevin
from tests.models.test_calculator import delivered
from tests.projects import ROOT, command, write_project
from tests.report.folders import recorded
from tests.samplers.contract import PROMISES, as_before, of_kind
from tests.test_docs import blocks, page
from tests.worlds import water


@pytest.fixture
def extensions(tmp_path, monkeypatch):
    """A folder with the modules of the page."""
    for name, code in re.findall(r"```python title=\"(\w+)\.py\"\n(.*?)```", page("extending"), re.DOTALL):
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with as_before(KINDS):
        yield tmp_path
    for name in ("my_reference", "shaken", "confined", "inverse"):
        sys.modules.pop(name, None)


def test_the_code_of_the_page_about_samplers_runs():
    (code,) = blocks(page("samplers"), "python")
    ran: dict = {}
    exec(code, ran)
    assert len(ran["structures"]) == 3
    assert all(len(atoms) == 4 for atoms in ran["structures"])


PROGRAM = """
import io, json, sys
from ase.calculators.emt import EMT
from ase.io import read
atoms = read(io.StringIO(sys.stdin.read()), format="xyz")
if atoms.positions[:, 2].max() > 50:
    sys.exit(3)
atoms.calc = EMT()
print(json.dumps({"energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist()}))
"""


def test_its_reference_labels_and_fails_as_the_page_says(extensions, monkeypatch):
    def reference(**kwargs):
        return CalculatorReference("my_reference:MyProgram", kwargs, extensions)

    (extensions / "program.py").write_text(PROGRAM)
    good = reference(command=[sys.executable, "program.py"], timeout=60)
    good.check()
    frame = water().moved(water().positions + np.array([[0, 0, 0.03], [0, 0, 0], [0, 0.02, 0]]))
    monkeypatch.chdir(extensions)
    label, truth = good.label(frame), calculate(frame, EMT())
    with pytest.raises(Crashed):
        good.label(frame.moved(frame.positions + np.array([0, 0, 100])))
    with pytest.raises(TimedOut):
        reference(command=[sys.executable, "-c", "import time; time.sleep(9)"], timeout=0.2).label(frame)
    with pytest.raises(SetupError):
        reference(command=["no-such-program"], timeout=5).label(frame)
    assert label.energy == pytest.approx(truth.energy, abs=1e-9)
    assert np.abs(label.forces - truth.forces).max() < 1e-9
    assert np.abs(truth.forces).max() > 0.1


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.__name__)
def test_its_sampler_keeps_the_promises_of_samplers(extensions, promise):
    import shaken

    assert isinstance(of_kind("shaken"), shaken.Shaken)
    promise(lambda: of_kind("shaken"))


def test_what_its_sampler_makes_is_labelled_by_the_command_on_the_page(extensions):

    assert "python shake.py\naims-PAX-recalc shaken.xyz -o labelled.xyz\n" in blocks(
        page("extending"), "bash"
    )
    write_project(extensions)
    ase.io.write(extensions / "geometry.in", water().to_atoms(), format="aims")
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "shake.py"], cwd=extensions, env=quiet, check=True, timeout=120)
    done = command("shaken.xyz", "-o", "labelled.xyz", folder=extensions, name="aims-PAX-recalc", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len({labelled.id for labelled in read_extxyz(extensions / "labelled.xyz")}) == 20


def test_its_potential_has_the_forces_of_its_energy_and_moves_atoms(extensions):
    from confined import Confined

    inner = CalculatorPotential(lambda: LennardJones(epsilon=0.0104, sigma=3.4, rc=8.5, smooth=True))
    potential = Confined(inner, radius=2.0, k=3.0)
    assert isinstance(potential, Potential)
    frame = cluster(5)
    label, bare = potential.labels([frame])[0], inner.labels([frame])[0]
    assert label.energy > bare.energy + 0.1
    assert np.abs(label.forces.sum(0)).max() < 1e-9
    h = 1e-4
    for atom, k in ((0, 0), (3, 2)):
        shift = np.zeros(frame.positions.shape)
        shift[atom, k] = h
        up, down = potential.labels([frame.moved(frame.positions + s) for s in (shift, -shift)])
        assert label.forces[atom, k] == pytest.approx((down.energy - up.energy) / (2 * h), abs=1e-5)
    soft = Confined(inner, radius=2.0, k=0.01)
    dynamics = MDSampler(soft, lambda system: langevin(40), skip_steps=5, name="confined")
    samples = list(dynamics.sample((System("drop", frame),), 2, np.random.default_rng(1)))
    assert len({s.frame.id for s in samples} | {frame.id}) == 3


def test_the_scripts_of_the_page_about_python_run(tmp_path, monkeypatch, capsys):
    scripts = dict(re.findall(r"```python title=\"(\w+)\.py\"\n(.*?)```", page("python"), re.DOTALL))
    assert set(scripts) == {"start", "dynamics", "largest"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_molecule").mkdir()
    exec(scripts["start"], {})
    assert capsys.readouterr().out.startswith("correct the settings: aimsPAX.yaml: no such file")
    delivered(tmp_path / "results")
    exec(scripts["dynamics"].replace("> 0.5", "> 0.01"), {})  # untrained members differ by 0.1 eV/Å
    assert re.match(r"step \d+: the members differ by \d\.\d\d eV/Å\n", capsys.readouterr().out)
    frame = water()
    one = LabelledFrame(frame, Label(-1.0, np.array([[3.0, 4.0, 0], [0, 0, 0], [0, 0, 1]])), {"stage": "md"})
    write_extxyz(tmp_path / "results" / "training.xyz", [one])
    exec(scripts["largest"], {})
    assert capsys.readouterr().out == f"{frame.id} md: largest force 5.00 eV/Å\n"


def test_the_page_about_python_names_what_the_package_exports():
    import aims_pax

    table = page("python").split("## ")[0]
    named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*) \|$", table, re.MULTILINE))))
    assert {*aims_pax.__all__} - {"__version__"} <= named


# ---------------------------------------------------------------- changes of aims-PAX itself, made in a copy of it


def changed_copy(folder, title):
    """A copy of the package with the change of this title on the page `extending`; the environment that imports it."""
    shutil.copytree(ROOT / "aims_pax", folder / "aims_pax", ignore=shutil.ignore_patterns("__pycache__"))
    (diff,) = re.findall(rf"```diff title=\"{title}\"\n(.*?)```", page("extending"), re.DOTALL)
    for name, hunks in re.findall(r"^\+\+\+ b/(\S+)\n(.*?)(?=^--- |\Z)", diff, re.MULTILINE | re.DOTALL):
        text = (folder / name).read_text(encoding="utf-8")
        for hunk in filter(None, hunks.split("@@\n")):
            lines = hunk.splitlines(keepends=True)
            old, new = ("".join(li[1:] for li in lines if li[0] in signs) for signs in (" -", " +"))
            assert text.count(old) == 1, f"the page changes what is not in {name}:\n{old}"
            text = text.replace(old, new)
        (folder / name).write_text(text, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def run_python(code, folder, environment):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_acquisition_rule_decides_in_a_run(tmp_path):
    environment = changed_copy(tmp_path, "top3_atomic_sd")
    active = {
        "uncertainty_type": "top3_atomic_sd",
        "analysis": True,
        "analysis_skip": 5,
        "max_MD_steps": 30,
        "c_x": -0.5,
    }
    d = 0.63
    corners = [[0, 0, 0], [d, d, d], [d, -d, -d], [-d, d, -d], [-d, -d, d]]
    changes = {"ACTIVE_LEARNING": {**active, "max_convergence_epochs": 1}}
    write_project(tmp_path / "run", changes, systems={"methane": Frame([6, 1, 1, 1, 1], corners)})
    printed = run_python(
        "import aims_pax; print(aims_pax.__file__, aims_pax.run('run'))", tmp_path, environment
    )
    assert str(tmp_path / "aims_pax") in printed
    lines = (tmp_path / "run" / "restart" / "journal.jsonl").read_text().splitlines()
    checks = [entry["check"] for entry in map(json.loads, lines) if entry.get("check")]
    compared = 0
    for check in checks:
        path = tmp_path / f"run/analysis/trajectory_{check['trajectory']:03d}/step_{check['step']:09d}.npz"
        if path.exists():
            compared += 1
            sigma = np.load(path)["atomic_sd"]
            assert check["uncertainty"] == pytest.approx(np.sort(sigma)[-3:].mean(), rel=1e-6)
            assert 1.001 * sigma.mean() < check["uncertainty"] < 0.999 * sigma.max()
    assert compared >= 10
    assert "candidate" in {check["decision"] for check in checks}


def test_its_figure_is_in_the_report_with_its_numbers(tmp_path):
    environment = changed_copy(tmp_path, "durations")
    (code,) = re.findall(r"```python title=\"durations\.py\"\n(.*?)```", page("extending"), re.DOTALL)
    (tmp_path / "aims_pax" / "report" / "figures" / "durations.py").write_text(code, encoding="utf-8")
    folder = recorded(tmp_path / "run")
    run_python(
        "from aims_pax.report.html_page import write_report; write_report('run')", tmp_path, environment
    )
    assert (folder / "report" / "durations.png").read_bytes().startswith(b"\x89PNG")
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert html.count('<figure id="durations">') == 1
    assert html.index("Where did the time go") < html.index('id="durations"') < html.index("What failed?")
    with (folder / "report" / "durations.csv").open() as file:
        drawn = sorted(float(row["duration_s"]) for row in csv.DictReader(file))
    stored = [json.loads(p.read_text()) for p in (folder / "data" / "labels").glob("*/*.json")]
    seconds = sorted(label["seconds"] for label in stored if "seconds" in label)
    assert len(drawn) > 20
    assert set(np.round(drawn, 9)) <= set(np.round(seconds, 9))


def test_its_model_goes_from_the_initial_dataset_to_a_tested_file(extensions):
    members = {"ensemble_size": 2}
    changes = {
        "MODEL": {"kind": "inverse:KIND"}, "INITIAL_DATASET_GENERATION": members,
        "ACTIVE_LEARNING": {**members, "max_MD_steps": 40, "n_test": 1},
    }  # fmt: skip
    folder = write_project(extensions / "run", changes, {"ARCHITECTURE": None, "TRAINING": None})
    (folder / "inverse.py").write_text((extensions / "inverse.py").read_text())
    for words in ((), ("check",), ("plan",)):
        done = command(*words, folder=folder)
        assert done.returncode == 0, done.stderr + done.stdout
    models = sorted((folder / "results").rglob("*.inverse"))
    assert len(models) == 2
    done = command("test", *map(str, models), "results/training.xyz", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "spread of the forces on an atom" in done.stdout
    refused = command("export", folder=folder)
    assert refused.returncode == 2
    assert "inverse-distance models cannot be exported" in " ".join(refused.stderr.split())
