"""Starter folders: what `init` writes is in order, or `check` names exactly what must be edited."""

import re

import pytest
import yaml

from aims_pax.commands import init
from aims_pax.commands.check.project import check_as_yaml
from aims_pax.commands.init import KINDS, MARK, write_starter
from aims_pax.errors import SettingsError
from aims_pax.settings import bundled_models
from aims_pax.settings.schema import schema
from tests.settings.test_schema import problems
from tests.worlds import write_species


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k not in ("laptop", "fine-tuning", "pre-training", "delta")]
)
def test_check_names_the_lines_to_edit_and_is_content_afterwards(tmp_path, kind):
    _, edit = write_starter(kind, tmp_path)
    lines = (tmp_path / "aimsPAX.yaml").read_text().splitlines()
    marked = {i for i, line in enumerate(lines, 1) if MARK in line}
    assert {int(place.split(":")[1]) for place in edit} == marked
    assert len(marked) == 2
    with pytest.raises(SettingsError) as refused:
        check_as_yaml(tmp_path)
    named = {int(n) for n in re.findall(r"aimsPAX\.yaml:(\d+)", str(refused.value))}
    same = {i for i, line in enumerate(lines, 1) if "*species" in line}  # says it again
    assert named == marked | same

    species = write_species(tmp_path / "species", ("H", "C", "O", "Si"))
    text = "\n".join(lines).replace("species_dir: &species", f"species_dir: &species {species}")
    (tmp_path / "aimsPAX.yaml").write_text(text.replace("launch_str:", 'launch_str: "mpirun aims.x"'))
    _, warnings = check_as_yaml(tmp_path)
    assert warnings == (), warnings


@pytest.mark.parametrize("so3lr", [True, False])
@pytest.mark.parametrize("xtb", [True, False])
def test_a_laptop_needs_no_editing_with_and_without_xtb_and_so3lr(tmp_path, monkeypatch, xtb, so3lr):
    monkeypatch.setattr(bundled_models, "find_spec", lambda name: object() if so3lr else None)
    spec = init.importlib.util.find_spec
    if xtb and spec("tblite") is None:
        pytest.skip("no tblite here")
    if not xtb:
        monkeypatch.setattr(
            init.importlib.util, "find_spec", lambda name: None if name == "tblite" else spec(name)
        )
    _, edit = write_starter("laptop", tmp_path)
    assert edit == []
    text, warnings = check_as_yaml(tmp_path)
    assert warnings == ()
    factory = yaml.safe_load(text)["aimsPAX"]["REFERENCE"]["factory"]
    assert ("tblite" in factory) == xtb
    sampling = yaml.safe_load(text)["aimsPAX"]["INITIAL_DATASET_GENERATION"]["initial_sampling"]
    assert (sampling == "so3lr") == (xtb and so3lr)


def test_delta_learning_needs_no_editing(tmp_path):
    pytest.importorskip("tblite")
    _, edit = write_starter("delta", tmp_path)
    assert edit == []
    text, warnings = check_as_yaml(tmp_path)
    assert warnings == ()
    assert yaml.safe_load(text)["aimsPAX"]["REFERENCE"]["baseline"]["kwargs"]["method"] == "GFN1-xTB"


def test_pre_training_needs_no_editing_and_sets_no_rate_of_random_weights(tmp_path):
    pytest.importorskip("tblite")
    _, edit = write_starter("pre-training", tmp_path)
    assert edit == []
    text, warnings = check_as_yaml(tmp_path)
    assert warnings == ()
    found = yaml.safe_load(text)
    assert found["aimsPAX"]["PRETRAINING"]["n_frames"] == 200
    assert found["mace"]["TRAINING"]["lr"] == 0.002
    mace = (tmp_path / "mace.yaml").read_text()
    (tmp_path / "mace.yaml").write_text(mace.replace("  # lr: 0.002", "  lr: 0.01"))
    (warning,) = check_as_yaml(tmp_path)[1]
    assert "0.01 is a rate for random weights" in warning
    assert "remove the key to use 0.002" in warning


@pytest.mark.parametrize("kind", KINDS)
def test_editors_find_the_schema_by_the_first_line_and_accept_the_rest(tmp_path, kind):
    write_starter(kind, tmp_path)
    for file in ("aimsPAX.yaml", "mace.yaml"):
        text = (tmp_path / file).read_text()
        where = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)[1]
        assert (tmp_path / where).is_file()
        missing = [p for p, _ in problems(yaml.safe_load(text), schema(file))]
        assert missing == []
        assert all(len(line) <= 120 for line in text.splitlines())


def test_nothing_is_overwritten_and_everything_that_is_there_is_named(tmp_path):
    (tmp_path / "mace.yaml").write_text("mine")
    (tmp_path / "control.in").write_text("mine")
    with pytest.raises(SettingsError, match=r"mace\.yaml, control\.in: already exists"):
        write_starter("molecule", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["control.in", "mace.yaml"]
    assert (tmp_path / "mace.yaml").read_text() == "mine"


def test_a_wrong_kind_names_the_near_one(tmp_path):
    with pytest.raises(SettingsError, match="nearest: crystal"):
        write_starter("cristal", tmp_path)
    with pytest.raises(SettingsError, match="aims-PAX init molecule my/folder"):
        write_starter("my/folder", tmp_path)
