"""Callables of the user, by name: found in the working folder, or refused by what is missing."""

import sys

import pytest

from aims_pax.errors import SettingsError
from aims_pax.user_code import calculator_factory, load_factory, load_object


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own_pes_module.py").write_text(
        "from ase.calculators.emt import EMT\nnumber = 3\ndef make(cutoff): return EMT()\n"
        "class Nested:\n    made = staticmethod(make)\n"
    )
    yield tmp_path
    sys.modules.pop("own_pes_module", None)


def test_a_callable_in_the_working_folder_is_found_and_the_import_path_stays(folder):
    before = list(sys.path)
    assert load_object("own_pes_module:number", folder) == 3
    assert load_object("own_pes_module:Nested.made", folder) is load_factory("own_pes_module:make", folder)
    assert sys.path == before


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("own_pes_module", "expected 'package.module:callable'"),
        (":make", "expected 'package.module:callable'"),
        ("own_pes_module:", "expected 'package.module:callable'"),
        (
            "no_such_module:make",
            r"cannot import no_such_module \(.*\); install it .* or put the module into the",
        ),
        ("own_pes_module:mak", "own_pes_module has no 'mak'; nearest: make"),
        ("own_pes_module:Nested.mode", "own_pes_module has no 'Nested.mode'; nearest: made"),
        ("own_pes_module:number", "number is not callable"),
    ],
)
def test_what_cannot_be_loaded_is_refused_by_its_missing_part(folder, factory, said):
    with pytest.raises(SettingsError, match=said) as refused:
        load_factory(factory, folder)
    assert refused.value.place == f"factory {factory!r}"


def test_wrong_arguments_are_a_mistake_of_the_settings_and_each_call_makes_a_new_calculator(folder):
    make = calculator_factory("own_pes_module:make", {"cutoff": 3}, folder)
    assert make() is not make()
    with pytest.raises(
        SettingsError, match=r"own_pes_module:make' with kwargs \{'cut': 3\}: .*unexpected keyword"
    ):
        calculator_factory("own_pes_module:make", {"cut": 3}, folder)()
