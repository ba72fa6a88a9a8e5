"""mace.yaml in MACE's names, and the energies of isolated atoms."""

import ast
import importlib.util
from pathlib import Path

import pytest
from pydantic import ValidationError

from aims_pax.errors import SettingsError
from aims_pax.settings.mace import (
    ELEMENTS,
    INTERACTIONS,
    ArchitectureSettings,
    GeneralSettings,
    MaceMiscSettings,
    TrainingSettings,
    atomic_energies_by_element,
)


def mace_source(*parts):
    """A file of the installed MACE as text; importing MACE takes seconds."""
    spec = importlib.util.find_spec("mace")
    return Path(spec.submodule_search_locations[0], *parts).read_text()


def test_the_interactions_are_maces():
    tree = ast.parse(mace_source("modules", "__init__.py"))
    named = [
        n for n in ast.walk(tree) if isinstance(n, ast.AnnAssign) and n.target.id == "interaction_classes"
    ]
    assert tuple(key.value for key in named[0].value.keys) == INTERACTIONS


def test_the_foundation_models_are_maces():
    from aims_pax.settings.callables import FOUNDATION_MODELS

    source = mace_source("calculators", "foundations_models.py")
    tree = ast.parse(source)
    named = [n for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "mace_mp_urls"]
    assert tuple(key.value for key in named[0].value.keys) == FOUNDATION_MODELS


def test_the_elements_are_ases():
    from ase.data import chemical_symbols

    assert list(ELEMENTS) == chemical_symbols[1:]


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("gate", None, "None"),
        ("gate", "tanh", "tanh"),
        ("MLP_irreps", "16x0e + 8x0e", "16x0e+8x0e"),
        ("radial_MLP", [32, 32], (32, 32)),
        ("atomic_energies", [-1, -2], (-1.0, -2.0)),
        ("atomic_energies", {1: -1, "O": -2}, {"H": -1.0, "O": -2.0}),
        ("atomic_energies", "energies.json", "energies.json"),
        ("radial_type", "Gaussian", "gaussian"),
    ],
)
def test_accepted_architecture(key, value, kept):
    assert getattr(ArchitectureSettings(**{key: value}), key) == kept


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "interaction",
            "RealAgnosticResidualInteractionBlok",
            "nearest: RealAgnosticResidualInteractionBlock",
        ),
        ("interaction_first", "RealAgnosticAttResidualInteractionBlock", "expected RealAgnostic"),
        ("model", "PolarMACE", "expected ScaleShiftMACE | MACE"),
        ("scaling", "rms_dipoles_scaling", "expected rms_forces_scaling"),
        ("MLP_irreps", "16x1o", "expected scalars such as '16x0e'"),
        ("radial_MLP", [], "expected a list of layer sizes"),
        ("radial_MLP", [64, 0], "0 is not possible"),
        ("r_max", 0, "0 Å is not possible; expected more than 0 and at most 30 Å"),
        ("atomic_energies", {"Xx": 1}, "'Xx' is not an element"),
        ("atomic_energies", {"H": 1, 1: 2}, "H is given twice"),
        ("atomic_energies", {"H": "low"}, "expected a number"),
        ("atomic_energies", [], "got an empty list"),
        ("atomic_energies", "average", "is the default: leave the key out"),
        ("atomic_energies", 5, "expected None, a list"),
        ("atomic_energies", [float("inf")], "expected an energy in eV"),
    ],
)
def test_refused_architecture(key, value, said):
    with pytest.raises(ValidationError) as caught:
        ArchitectureSettings(**{key: value})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("optimizer", "schedulefree", "schedulefree is not available; expected adam | adamw"),
        (
            "loss",
            "dipole",
            "expected weighted | forces_only | virials | stress | huber | universal | l1l2energyforces",
        ),
        ("ema_decay", 1, "1 is not possible; expected more than 0 and less than 1"),
        ("lr", 0, "0 is not possible"),
        ("clip_grad", 0, "0 is not possible"),
        ("batch_size", 0, "0 is not possible; expected at least 1"),
        ("config_type_weights", {"Default": -1}, "-1 is not possible"),
        ("config_type_weights", 1, "expected a table"),
        ("swa", 1, "expected True or False, got 1"),
    ],
)
def test_refused_training(key, value, said):
    with pytest.raises(ValidationError) as caught:
        TrainingSettings(**{key: value})
    assert said in str(caught.value)


def test_clipping_can_be_switched_off():
    assert TrainingSettings(clip_grad=None).clip_grad is None


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "CPU"])
def test_devices(device):
    assert MaceMiscSettings(device=device).device == device.lower()
    with pytest.raises(ValidationError, match="expected devices like cpu, cuda or cuda:0"):
        MaceMiscSettings(device="gpu")


@pytest.mark.parametrize("name", ["a/b", "a\\b", ".a", "a\nb", "", "  "])
def test_a_name_must_be_able_to_begin_a_files_name(name):
    with pytest.raises(ValidationError, match="expected"):
        GeneralSettings(name_exp=name)


def test_words_may_be_in_any_case():
    assert MaceMiscSettings(log_level="debug", error_table="totalrmse").error_table == "TotalRMSE"
    assert GeneralSettings(name_exp="a", default_dtype="Float64").default_dtype == "float64"


def test_energies_in_a_list_are_in_ascending_atomic_number():
    assert atomic_energies_by_element((-1.0, -2.0), (8, 1)) == {1: -1.0, 8: -2.0}


def test_energies_by_symbol_or_number():
    assert atomic_energies_by_element({"O": -2, "1": -1, 6: -3}, [1, 8]) == {1: -1.0, 8: -2.0}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((-1.0,), "1 energies for 2 elements; expected one for each of H O, in this order"),
        ((-1.0, -2.0, -3.0), "3 energies for 2 elements"),
        ({"H": -1.0}, "no energy for O; expected one for each of H O"),
        ({"Hy": -1.0}, "'Hy' is not an element"),
        ({"H": "a"}, "expected a number"),
    ],
)
def test_wrong_energies_are_refused(value, said):
    with pytest.raises(SettingsError) as caught:
        atomic_energies_by_element(value, [1, 8])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("e.json", '{"H": -1.5, "8": -2}'), ("e.yaml", "H: -1.5\n8: -2\n"), ("e.txt", "H: -1.5\nO: -2\n")],
)
def test_energies_from_a_file(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert atomic_energies_by_element(name, [1, 8], tmp_path) == {1: -1.5, 8: -2.0}


@pytest.mark.parametrize(
    ("name", "text"),
    [("e.json", "{"), ("e.json", "[1]"), ("e.yaml", "- 1"), ("e.json", None), ("e.yaml", None)],
)
def test_a_broken_energies_file_is_named(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError, match=name):
        atomic_energies_by_element(name, [1, 8], tmp_path)


@pytest.mark.parametrize("word", ["auto", "torch", "native", "Native"])
def test_inference_is_chosen_by_a_word(word):
    assert MaceMiscSettings(inference=word).inference == word.lower()
    assert MaceMiscSettings().inference == "auto"
    with pytest.raises(ValidationError, match=r"auto.*torch.*native"):
        MaceMiscSettings(inference="symmetrix")
