"""Files that are not there are named together with all other mistakes, whatever else is wrong in their section."""

import ase.io
import pytest
from ase.build import molecule

from aims_pax.commands.check.project import check_as_yaml
from aims_pax.errors import SettingsError
from tests.settings.folders import AIMS, GIVEN, MACE, PROJECT, with_key, write

ACTIVE, INITIAL = "ACTIVE_LEARNING", "INITIAL_DATASET_GENERATION"
WRONG = "no_such_key: 1"  # in the same section


@pytest.fixture
def folder(tmp_path):
    ase.io.write(tmp_path / "geometry.in", molecule("H2O"))
    return tmp_path


def problems(folder, project=PROJECT, mace=MACE):
    with pytest.raises(SettingsError) as caught:
        check_as_yaml(write(folder, project, mace))
    return str(caught.value).splitlines()


def test_three_mistakes_of_a_fine_tuning_come_at_once(folder):
    (folder / "foundation.model").write_text("")
    mace = MACE + "FOUNDATION:\n  model: foundaton.model\n  recipe: frozzen\n"
    found = problems(folder, with_key(PROJECT, "MISC", "force_key: F"), mace)
    assert len(found) == 3
    assert any(line.startswith("mace.yaml:5: FOUNDATION.recipe: ") for line in found)
    assert any("MISC.force_key: unknown key" in line for line in found)
    assert any(
        line.startswith("mace.yaml:4: FOUNDATION.model: 'foundaton.model' is neither a model file")
        and line.endswith("nearest: foundation.model")
        for line in found
    )


@pytest.mark.parametrize(
    ("project", "section", "written", "said"),
    [
        (GIVEN, ACTIVE, "initial_train_dataset: a.xyz", "initial_train_dataset: a.xyz: no such file"),
        (GIVEN, ACTIVE, "initial_valid_dataset: {1: b.xyz}", "initial_valid_dataset: b.xyz: no such file"),
        (GIVEN, ACTIVE, "initial_models: [c, d, e, f]", "initial_models: d: no such file"),
        (PROJECT, "MISC", "test_set: t.xyz", "MISC.test_set: t.xyz: no such file"),
        (PROJECT, "MISC", "path_to_geometry: g.xyz", "g.xyz: no such file"),
        (AIMS, "MISC", "path_to_control: c.in", "c.in: no such file"),
        (AIMS, INITIAL, "seed: 1", "species_dir: species: no such folder"),
        (PROJECT, INITIAL, "initial_foundational_size: x.model", "'x.model' is neither a model file"),
        (PROJECT, "PRETRAINING", "potential: free.model", "'free.model' is neither a model file"),
    ],
)
def test_a_missing_file_is_named_beside_a_wrong_key_of_its_section(folder, project, section, written, said):
    found = problems(folder, with_key(project, section, written, WRONG))
    assert any(f"{section}.no_such_key: unknown key" in line for line in found)
    assert any(said in line for line in found), found


@pytest.mark.parametrize("remove", ["  num_trajectories: 2\n", "  stat_ensemble: NVT\n"])
def test_a_missing_file_is_named_beside_a_missing_key(folder, remove):
    project = with_key(GIVEN, ACTIVE, "initial_train_dataset: a.xyz").replace(remove, "")
    found = problems(folder, project)
    assert len(found) == 2, found
    assert "mandatory" in found[0]
    assert "initial_train_dataset: a.xyz: no such file" in found[1]


def test_nothing_is_claimed_from_keys_that_could_not_be_read(folder):
    """Labels under wrongly named keys, or the input of a reference that is not known: only the mistake itself."""
    ase.io.write(folder / "t.xyz", molecule("H2O"), format="extxyz")
    (line,) = problems(folder, with_key(PROJECT, "MISC", "test_set: t.xyz", "energi_key: E"))
    assert "energi_key" in line
    (line,) = problems(folder, PROJECT.replace("factory:", "type: no_such_type\n  factory:"))
    assert "no_such_type" in line
    project = with_key(PROJECT, "MODEL", "kind: gp")
    (line,) = problems(folder, project, MACE + "  no_such_key: 1\nFOUNDATION:\n  model: x.model\n")
    assert "no_such_key" in line


def test_a_file_that_is_no_yaml_does_not_hide_the_files_of_the_other(folder):
    found = problems(folder, with_key(PROJECT, "MISC", "test_set: t.xyz"), "GENERAL: [")
    assert any("MISC.test_set: t.xyz: no such file" in line for line in found)
    found = problems(folder, "MISC: [", MACE + "FOUNDATION:\n  model: x.model\n")
    assert any("FOUNDATION.model: 'x.model' is neither" in line for line in found)
