"""What `import aims_pax` offers: light, complete, each name with an example that runs, and a run from Python."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import aims_pax
from aims_pax.settings.samplers import KINDS
from tests.projects import write_project
from tests.samplers.contract import as_before
from tests.test_docs import PAGES, blocks

EXAMPLES = doctest.DocTestParser().get_examples(aims_pax.__doc__)


def test_its_examples_are_true():
    assert len(EXAMPLES) > 20
    with as_before(KINDS):  # they register a sampler
        assert doctest.testmod(aims_pax).failed == 0


@pytest.mark.parametrize("name", sorted(set(aims_pax.__all__) - {"__version__"}))
def test_every_name_is_there_and_has_an_example(name):
    value = getattr(aims_pax, name)
    assert value.__doc__, name
    assert name in dir(aims_pax)
    assert any(f" {name}" in e.source.replace(",", " ").replace("(", " ") for e in EXAMPLES)
    assert getattr(importlib.import_module(value.__module__), name) is value


def test_paths_may_be_text(tmp_path):
    water = aims_pax.Frame([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    one = aims_pax.LabelledFrame(water, aims_pax.Label(-1.0, [[0, 0, 0]] * 3))
    file = str(tmp_path / "water.xyz")
    aims_pax.write_extxyz(file, [one])
    assert [read.id for read in aims_pax.read_extxyz(file)] == [one.id]
    assert aims_pax.read_systems(file)[0].frame == aims_pax.read_systems([file])[0].frame == water
    aims_pax.Dataset(str(tmp_path / "data")).add(one, "train")
    assert [read.id for read in aims_pax.Dataset(str(tmp_path / "data")).train(0)] == [one.id]


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Frames'"):
        aims_pax.Frames  # noqa: B018


def test_importing_it_loads_nothing_but_itself():
    code = "import sys, aims_pax; print(*sorted(m for m in sys.modules if m.partition('.')[0] in HEAVY))"
    code = "HEAVY = {'aims_pax', 'numpy', 'torch', 'mace', 'ase', 'pydantic', 'parsl'}; " + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["aims_pax", "aims_pax.version"]


def test_the_pages_import_what_the_face_has_from_the_face():
    """A name that `aims_pax` exports is imported from there on every page, not from the module it lives in."""
    homes = {getattr(aims_pax, n).__module__ for n in aims_pax.__all__ if n != "__version__"} - {"aims_pax"}
    code = "\n".join(b for p in PAGES for b in blocks(p.read_text(encoding="utf-8"), "python"))
    assert "from aims_pax import " in code
    for line in code.splitlines():
        words = line.split()
        if words[:1] == ["from"] and words[1] in homes:
            imported = {w.strip(",()") for w in words[3:]}
            assert not imported & set(aims_pax.__all__), line


def test_a_run_from_python_is_the_run_of_the_command_and_continues(tmp_path):
    write_project(tmp_path / "run", {"ACTIVE_LEARNING": {"max_MD_steps": 10, "max_convergence_epochs": 1}})
    code = (
        "import os, aims_pax; here = os.getcwd(); first, again = aims_pax.run('run'), aims_pax.run('run'); "
    )
    code += "assert first == again; assert os.getcwd() == here; print(first.name)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.index("done: ") < done.stdout.index(
        "this run is complete and nothing has changed since"
    )
    assert done.stdout.splitlines()[-1] == "results"
    assert len(list((tmp_path / "run" / "results").glob("*.model"))) == 1


def test_a_run_in_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(aims_pax.SettingsError, match="no such folder"):
        aims_pax.run(tmp_path / "nowhere")
    assert not Path(tmp_path / "nowhere").exists()


def test_every_name_that_the_samplers_list_is_there():
    samplers = importlib.import_module("aims_pax.samplers")
    assert [name for name in samplers.__all__ if not hasattr(samplers, name)] == []
