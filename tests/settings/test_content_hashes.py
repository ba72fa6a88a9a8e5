"""What a calculator computes depends on files: their contents are part of the method."""

import pytest

from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.labelling.store import method_hash
from aims_pax.potentials.named import LoadedPotential
from aims_pax.settings.augment import CallSpec

FILES = {
    "factory.py": "import helper\nfrom package.inner import value\ndef make(**kwargs):\n    import late\n",
    "helper.py": "import deeper\n",
    "deeper.py": "x = 1\n",
    "late.py": "",
    "package/__init__.py": "",
    "package/inner.py": "from . import sibling\nvalue = 1\n",
    "package/sibling.py": "",
    "unrelated.py": "",
    "model.pt": "weights",
    "params/a.skf": "1",
    "log.txt": "before",
}
KWARGS = {"model": "model.pt", "nested": [{"slako": "params"}], "logfile": "log.txt", "method": "model"}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def method(folder, kwargs=KWARGS, factory="factory:make"):
    return method_hash(CalculatorReference(factory, kwargs, folder).describe())


@pytest.mark.parametrize("name", [n for n in FILES if n not in ("unrelated.py", "log.txt")])
def test_another_content_of_a_file_it_uses_is_another_method(folder, name):
    before = method(folder)
    (folder / name).write_text(FILES[name] + "\n# changed\n")
    assert method(folder) != before


@pytest.mark.parametrize("name", ["unrelated.py", "log.txt", "new.py"])
def test_what_it_does_not_use_or_writes_itself_is_no_part_of_it(folder, name):
    before = method(folder)
    (folder / name).write_text("something else")
    assert method(folder) == before


def test_a_method_without_files_keeps_its_name(folder):
    """Labels that were paid for are found again: the names of an earlier version."""
    plain = CalculatorReference("ase.calculators.emt:EMT", {}, folder)
    assert plain.describe() == {
        "type": "calculator", "factory": "ase.calculators.emt:EMT", "kwargs": {}, "source": None,
    }  # fmt: skip
    assert method_hash(plain.describe()) == "da597380ce60"
    source = CalculatorReference("deeper:make", {}, folder).describe()["source"]
    assert source == "9e26bf369911"


def test_the_potential_of_another_command_is_told_by_the_same_files(folder):
    def identity():
        return LoadedPotential(CallSpec("factory:make", kwargs=KWARGS), None, folder).identity

    before = identity()
    (folder / "late.py").write_text("changed")
    later = identity()
    (folder / "model.pt").write_text("changed")
    assert len({before, later, identity()}) == 3
