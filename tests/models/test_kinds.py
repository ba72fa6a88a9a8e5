"""How a kind of model is found: by name, by an installed package, by module and object, by a file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aims_pax.errors import SettingsError
from aims_pax.models import kinds
from aims_pax.models.kinds import export_forms, kind_of_file, load_named, model_kind
from tests.models import linear_model


def test_a_folder_with_a_module_kind_is_built_in_under_its_name():
    folders = [path.parent.name for path in Path(kinds.__file__).parent.glob("*/kind.py")]
    assert "mace" in folders
    assert [model_kind(name).name for name in folders] == folders


def test_mace_is_built_in_and_others_are_named_by_module_and_object():
    assert model_kind("mace").title == "MACE"
    assert model_kind("tests.models.linear_model:KIND") is linear_model.KIND


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mase", "'mase' is not a kind of model; nearest: mace, or package.module:object"),
        ("quip", "'quip' is not a kind of model; known: gp, mace"),
        ("nowhere.at_all:KIND", "cannot import nowhere.at_all"),
        ("tests.models.linear_model:KINT", "has no 'KINT'; nearest: KIND"),
        ("tests.models.linear_model:LinearKind", "is a ABCMeta, expected a ModelKind"),
    ],
)
def test_what_is_no_kind_is_refused_with_what_there_is(name, said):
    with pytest.raises(SettingsError, match=r"^MODEL\.kind: ") as refused:
        model_kind(name)
    assert said in str(refused.value)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package, installed as pip does it, that registers a kind."""
    about = tmp_path / "elsewhere-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[aims_pax.models]\nlinear = tests.models.linear_model:KIND\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_package_registers_a_kind_by_an_entry_point(installed):
    assert model_kind("linear") is linear_model.KIND
    with pytest.raises(SettingsError, match="nearest: linear"):
        model_kind("linaer")


def test_files_are_known_by_what_their_run_recorded_and_by_their_names(tmp_path, installed):
    for name in ("a.model", "a.linear.npz", "committee/b.npz"):
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / name).write_text("")
    kinds = [
        kind_of_file(tmp_path / "results" / n).title for n in ("a.model", "a.linear.npz", "committee/b.npz")
    ]
    assert kinds == ["MACE", "linear", "MACE"]
    models = {
        "a.model": {"sha256": ""},
        "committee/b.npz": {"sha256": "", "kind": "tests.models.linear_model:KIND"},
    }
    (tmp_path / "results" / "models.json").write_text(json.dumps({"format": 1, "models": models}))
    kinds = [kind_of_file(tmp_path / "results" / n).title for n in ("a.model", "committee/b.npz")]
    assert kinds == ["MACE", "linear"], "runs that recorded no kind were MACE's"


def test_a_potential_is_loaded_by_the_kind_of_its_file(tmp_path, installed):
    from tests.models.test_contract import DATA

    model = linear_model.LinearModel([linear_model.LinearMember("m", 1)], (1, 8))
    model.train({0: DATA[0]}, 1)
    model.save(0, tmp_path / "m.linear.npz")
    potential = load_named("m.linear.npz", tmp_path)
    frame = DATA[0].train[0].frame
    assert potential.labels([frame])[0].energy == model.potential().labels([frame])[0].energy


def test_finding_a_kind_and_its_forms_does_not_load_torch():
    code = (
        "import sys; from aims_pax.models import kinds; kind = kinds.model_kind('mace'); "
        "assert kind.forms == kinds.export_forms(); sys.exit('torch' in sys.modules or 'mace' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert export_forms()[0] == "ase"
