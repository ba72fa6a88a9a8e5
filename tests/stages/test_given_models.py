"""Members that begin as models of the user: named after the run, described as they are, refused where they differ."""

import re
import shutil

import pytest

from aims_pax.commands.check.readiness import given_models_and_data
from aims_pax.errors import SettingsError
from aims_pax.models.mace import MemberData
from aims_pax.models.mace.architecture import architecture
from aims_pax.settings import read_settings
from aims_pax.settings.geometries import read_geometries
from aims_pax.settings.mace import ArchitectureSettings
from tests.models.mace import tiny
from tests.projects import command, write_project

OTHER = {"num_channels": 8, "max_L": 1, "max_ell": 2, "correlation": 2, "num_radial_basis": 6}
NONE = dict.fromkeys(("num_channels", "max_L", "max_ell", "correlation", "r_max", "radial_MLP"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models of another architecture than mace.yaml's defaults and than the tests' usual one."""
    folder = tmp_path_factory.mktemp("models")
    e, data = tiny.ensemble([1, 2], (1, 8), **OTHER), tiny.water(6)
    e.train([MemberData(data[2:], data[:2])] * 2, 1)
    for m, name in enumerate(("old_a", "old_b")):
        e.save(m, folder / f"{name}.model")
    return [str(folder / f"{name}.model") for name in ("old_a", "old_b")]


def project(folder, models, architecture):
    al = {"initial_models": models, "max_MD_steps": 20, "max_convergence_epochs": 1}
    changes = {"INITIAL_DATASET_GENERATION": None, "ACTIVE_LEARNING": al, "MISC": {"report": True}}
    return write_project(folder, changes, {"ARCHITECTURE": architecture})


def test_what_a_model_is_made_of_is_read_from_it():
    for changes in ({}, OTHER, {"max_L": 2, "max_ell": 3}, {"num_interactions": 1}):
        s = tiny.settings(**changes)
        found = architecture(tiny.ensemble([1], (1, 8), **changes).members[0].model)
        for key in ("num_channels", "max_L", "max_ell", "correlation", "num_radial_basis", "num_interactions", "r_max",
                    "num_cutoff_basis", "MLP_irreps", "model", "interaction"):  # fmt: skip
            # one layer has neither
            if changes.get("num_interactions") != 1 or key not in (
                "max_L",
                "MLP_irreps",
                "interaction",
            ):
                assert found[key] == getattr(s.architecture, key), (changes, key)


@pytest.mark.parametrize(
    ("key", "value", "theirs"), [("max_L", 0, 1), ("num_channels", 4, 8), ("correlation", 3, 2)]
)
def test_an_architecture_that_is_written_and_is_not_theirs_is_refused_by_check_and_run(
    tmp_path, models, key, value, theirs
):
    folder = project(tmp_path, models, {**NONE, key: value})
    settings = read_settings(folder)
    systems = read_geometries(settings)
    with pytest.raises(
        SettingsError,
        match=rf"(?s)ARCHITECTURE\.{key}: {value} in mace.yaml, {theirs} in .*delete these keys",
    ) as e:
        given_models_and_data(settings, systems)
    assert str(e.value).count("ARCHITECTURE") == 2
    if key == "max_L":
        done = command(folder=folder, name="aims-PAX-al")
        assert done.returncode == 2
        assert f"ARCHITECTURE.{key}: {value} in mace.yaml, {theirs}" in done.stderr


def test_the_card_describes_the_models_and_they_are_named_after_the_run(tmp_path, models):
    folder = project(tmp_path, models, NONE)
    shutil.copy(models[0], tmp_path / "copy.model")
    done = command(folder=folder, name="aims-PAX-al", timeout=200)
    assert done.returncode == 0, done.stderr
    (model,) = (folder / "results").glob("*.model")
    assert model.name.startswith("tiny_")
    text = model.with_suffix(".md").read_text()
    for key, value in OTHER.items():
        assert f"| ARCHITECTURE.{key} | {value} |" in text
    assert "| hidden irreps | 8x0e+8x1o |" in text
    shown = re.findall(r"^\| ARCHITECTURE\.(\w+)", text, re.MULTILINE)
    assert set(shown) <= set(ArchitectureSettings.model_fields), "a user who copies them gets no unknown key"
    assert "old_a.model" in text or "old_b.model" in text
