"""`aims-PAX check FILE`: the configurations of `sample`, `augment` and `training-set` before they run."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from aims_pax.commands.augment import augment
from aims_pax.commands.check.config_file import checked_config_file
from aims_pax.commands.check.trial_labels import verdict_of_file
from aims_pax.errors import SettingsError
from aims_pax.settings.augment import read_augment
from aims_pax.settings.sample import read_sample
from aims_pax.settings.training_set import read_training_set
from tests.projects import ROOT, command, write_project

# folder of the example → command
KINDS = {
    "sample": "sample",
    "augment": "augment",
    "crystal": "training-set",
}


@pytest.fixture(params=KINDS)
def example(request, tmp_path, monkeypatch):
    """The folder of an example, to work in."""
    shutil.copytree(ROOT / "example" / request.param, tmp_path / request.param)
    monkeypatch.chdir(tmp_path / request.param)
    return request.param


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """Check the file of an example with changes at its top level, None for what is not there; what is found."""

    def check(name, **changes):
        folder = tmp_path / name
        shutil.copytree(ROOT / "example" / name, folder, dirs_exist_ok=True)
        monkeypatch.chdir(folder)
        Path("field.in").write_text("homogeneous_field 0 0 0.1\natom 0 0 0 H\natom 0 0 1 H\n")
        document = yaml.safe_load(Path("config.yaml").read_text()) | changes
        Path("config.yaml").write_text(
            yaml.safe_dump({k: v for k, v in document.items() if v is not None}, sort_keys=False)
        )
        return checked_config_file(Path("config.yaml"))

    return check


def test_an_example_is_recognised_in_order_and_what_is_printed_means_the_same(example):
    found = checked_config_file(Path("config.yaml"))
    assert found.kind == KINDS[example]
    assert found.warnings == []
    read = {"sample": read_sample, "augment": read_augment, "crystal": read_training_set}[example]
    Path("again.yaml").write_text(found.text)
    assert read(Path("again.yaml")) == read(Path("config.yaml"))


def test_its_potentials_label_a_structure(example):
    said = verdict_of_file(checked_config_file(Path("config.yaml")))
    place = {"sample": "SAMPLERS.0.potential", "augment": "model.calculator", "crystal": "calculator"}[
        example
    ]
    assert said.text.startswith(f"everything is in order; {place} labelled ")


def test_the_command_says_it_like_that_of_a_folder(example):
    before = sorted(Path().rglob("*"))
    done = command("check", "config.yaml", folder=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("check: everything is in order; ")
    assert yaml.safe_load(done.stdout)
    text = Path("config.yaml").read_text().replace("seed: 42", "sed: 42")
    Path("config.yaml").write_text(text)
    done = command("check", "config.yaml", folder=Path.cwd())
    assert (done.returncode, done.stdout) == (2, "")
    assert "sed: unknown key; nearest: seed" in done.stderr
    assert done.stderr.rstrip().endswith("to correct")
    assert sorted(Path().rglob("*")) == before, "nothing is left behind"


EMT = "ase.calculators.emt:EMT"


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("sample", {"output": "out.db"}, "output: out.db: expected a name that ends in .xyz"),
        (
            "sample",
            {"path_to_geometry": "none.xyz"},
            "path_to_geometry: cannot read the geometry:\n  none.xyz: no",
        ),
        ("sample", {"SAMPLERS": [{"kind": "aimd"}]}, "SAMPLERS.0.kind: aimd needs the reference of a run"),
        (
            "sample",
            {"SAMPLERS": [{"kind": "md", "potential": {"factory": f"{EMT}T"}}]},
            "SAMPLERS.0.potential.factory: factory 'ase.calculators.emt:EMTT': ase.calculators.emt has no 'EMTT'",
        ),
        (
            "sample",
            {"SAMPLERS": [{"kind": "md", "potential": "smal"}]},
            "SAMPLERS.0.potential: 'smal' is neither a model file nor one of",
        ),
        (
            "sample",
            {"SAMPLERS": [{"kind": "no.module:here"}]},
            "SAMPLERS.0.factory: factory 'no.module:here': cannot import no.module",
        ),
        ("augment", {"data": {"input": "no.xyz", "output": "o.xyz"}}, "data.input: no.xyz: no such file"),
        (
            "augment",
            {"data": {"input": "input.xyz", "output": "input.xyz"}},
            "data.output: the same file as the input",
        ),
        ("augment", {"model": {"calculator": "smal"}}, "model.calculator: 'smal' is neither a model file"),
        (
            "augment",
            {"model": {"calculator": "+nofile.f()"}},
            "model.calculator.factory: factory 'nofile:f': cannot import nofile",
        ),
        ("crystal", {"crystal": "no.xyz"}, "crystal: no.xyz: no such file"),
        (
            "crystal",
            {"crystal": "field.in"},
            "crystal: field.in: homogeneous_field 0.0 0.0 0.1 works only with FHI-aims",
        ),
        (
            "augment",
            {"data": {"input": "field.in", "output": "o.xyz"}},
            "data.input: field.in: homogeneous_field",
        ),
        ("crystal", {"calculator": "smal"}, "calculator: 'smal' is neither a model file"),
        (
            "crystal",
            {"md_sampling": {"calculator": {"factory": EMT, "kwargs": {"a": 1}}, "crystal": "other.xyz"}},
            "md_sampling.crystal: other.xyz: no such file",
        ),
        (
            "crystal",
            {"delta_learning": {"target": {"factory": "no.module:here"}}},
            "delta_learning.target.factory: factory 'no.module:here'",
        ),
    ],
)
def test_what_is_wrong_is_named_with_line_and_key(changed, name, changes, said):
    with pytest.raises(SettingsError) as told:
        changed(name, **changes)
    assert f": {said}" in str(told.value)
    assert str(told.value).startswith("config.yaml:")


def test_all_that_is_wrong_comes_at_once(changed):
    with pytest.raises(SettingsError) as told:
        changed(
            "sample",
            output="out.db",
            path_to_geometry="no.xyz",
            SAMPLERS=[{"kind": "md", "potential": "smal"}],
        )
    assert sum(line.startswith("config.yaml:") for line in str(told.value).splitlines()) == 3


def test_slips_in_arguments_are_warned_of(changed):
    potential = {"factory": EMT, "kwargs": {"asap_cuttoff": True}}
    (warning,) = changed("sample", SAMPLERS=[{"kind": "md", "potential": potential}]).warnings
    assert "SAMPLERS.0.potential.kwargs.asap_cuttoff: " in warning
    assert warning.endswith("nearest: asap_cutoff")
    found = changed("augment", model={"calculator": potential})
    assert "model.calculator.kwargs.asap_cuttoff" in found.warnings[0]
    assert "ready for aims-PAX augment (1 warning, see above)" in verdict_of_file(found).text
    assert len(changed("crystal", calculator=potential).warnings) == 1


def test_a_potential_that_cannot_label_is_found_and_one_that_may_be_dear_is_tried_when_that_is_wanted(
    changed,
):
    changed("augment")
    Path("own_checked.py").write_text("from ase.calculators.emt import EMT\ndef make(): return EMT()\n")
    found = changed("augment", model={"calculator": {"factory": "own_checked:make"}})
    assert "no potential was tried (aims-PAX check --try labels one structure" in verdict_of_file(found).text
    assert "model.calculator labelled structure 0 in" in verdict_of_file(found, wanted=True).text
    wrong = {"factory": "tblite.ase:TBLite", "kwargs": {"method": "GFN8", "verbosity": 0}}
    found = changed("augment", model={"calculator": wrong})
    with pytest.raises(
        SettingsError, match=r"model\.calculator: tblite\.ase:TBLite cannot label structure 0"
    ):
        verdict_of_file(found)


def test_built_in_potentials_and_their_spellings_are_understood(changed):
    found = changed("augment", model={"calculator": {"+lennard_jones": {"sigma": 2.2, "epsilon": 5.0}}})
    assert "model.calculator labelled structure 0" in verdict_of_file(found).text
    Path("again.yaml").write_text(found.text)
    assert read_augment(Path("again.yaml")) == read_augment(Path("config.yaml"))


def test_a_step_without_keys_has_its_defaults_and_one_left_out_stays_so(changed):
    Path("config.yaml").unlink(missing_ok=True)
    found = changed("crystal", md_sampling=None, phonon_sampling=None)
    assert set(found.complete) & {"md_sampling", "phonon_sampling", "delta_learning"} == set()
    Path("again.yaml").write_text(found.text)
    assert read_training_set(Path("again.yaml")) == read_training_set(Path("config.yaml"))


@pytest.mark.parametrize("name", ["aimsPAX.yaml", "mace.yaml"])
def test_a_file_of_a_run_is_sent_to_its_folder(tmp_path, name):
    folder = write_project(tmp_path / "run")
    with pytest.raises(SettingsError, match=rf"{name}: belongs to a run; name its folder"):
        checked_config_file(folder / name)


def test_a_file_of_somebody_else_is_not_guessed_at(tmp_path):
    (tmp_path / "other.yaml").write_text("a: 1\n")
    with pytest.raises(SettingsError, match=r"other\.yaml: none of its keys is known; expected the folder"):
        checked_config_file(tmp_path / "other.yaml")
    done = command("check", "other.yaml", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


def test_what_is_checked_is_what_runs(changed):
    changed("augment")
    augment(Path("config.yaml"), Console(file=io.StringIO()))
    assert checked_config_file(Path("config.yaml")).warnings == [], "an output that is there is no mistake"


def test_checking_a_file_does_not_load_torch(changed):
    import os
    import subprocess
    import sys

    changed("sample")
    code = (
        "import sys\nfrom pathlib import Path\nfrom aims_pax.commands.check.config_file import checked_config_file\n"
        "checked_config_file(Path('config.yaml'))\nsys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
