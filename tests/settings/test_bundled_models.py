"""The table of foundation models: what each can do, what it needs, and that documentation and extras say the same."""

import re
import sys
import tomllib
from importlib.util import find_spec

import numpy as np
import pytest

from aims_pax.frames import Frame
from aims_pax.settings.bundled_models import (
    BUNDLED,
    MATERIALS,
    missing_packages,
    named_by_calculator,
    unsuitable_structures,
)
from aims_pax.systems import System
from tests import worlds
from tests.projects import ROOT

SO3LR, CHGNET = BUNDLED["so3lr"], BUNDLED["chgnet"]


def test_a_package_is_looked_for_without_importing_it(tmp_path, monkeypatch):
    (tmp_path / "chgnet.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.delitem(sys.modules, "chgnet", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert CHGNET.installed
    assert "chgnet" not in sys.modules
    monkeypatch.setitem(sys.modules, "chgnet", None)
    assert not CHGNET.installed
    monkeypatch.setitem(sys.modules, "chgnet", type(sys)("chgnet"))  # its __spec__ is None
    assert not CHGNET.installed


def test_missing_packages_are_listed_with_their_places_and_other_potentials_pass(monkeypatch):
    for model in BUNDLED.values():
        monkeypatch.setitem(sys.modules, model.module, None)
    named = [(("A",), "so3lr"), (("A", 0), "small"), (("B",), "chgnet"), (("C",), "")]
    assert list(missing_packages(named)) == [
        (("A",), "so3lr needs the package so3krates-torch: pip install 'aims-pax[so3lr]'"),
        (("B",), "chgnet needs the package chgnet: pip install 'aims-pax[chgnet]'"),
    ]
    monkeypatch.undo()
    if find_spec(SO3LR.module) is not None:
        assert not list(missing_packages(named[:2]))


def test_unsuitable_structures_are_listed_by_geometry():
    radon = Frame([86, 29], np.zeros((2, 3)), np.eye(3), True)
    systems = [System("cu", worlds.crystal()), System("slab", worlds.slab()), System("rn", radon)]
    named = [(("A",), "chgnet"), (("B",), "small"), (("C",), "so3lr")]
    assert list(unsuitable_structures(named, systems)) == [
        (
            ("A",),
            "chgnet needs a crystal, periodic in three directions (geometry slab); choose another potential",
        ),
        (("A",), "chgnet does not know Rn, only H to Bi, Ac to Pu (geometry rn); choose another potential"),
        *[
            (
                ("C",),
                f"so3lr does not know {symbols}, only H, C, N, O, F, P, S, Cl (geometry {name}); "
                "choose another potential",
            )
            for name, symbols in (("cu", "Cu"), ("slab", "Al"), ("rn", "Cu, Rn"))
        ],
    ]
    assert SO3LR.unsuitable(worlds.ethanol()) is None
    assert CHGNET.unsuitable(worlds.crystal()) is None


def test_a_calculator_is_known_by_its_factory_and_by_its_short_name():
    for model in BUNDLED.values():
        assert named_by_calculator(model.calculator) == named_by_calculator(model.name) == model.name
    assert named_by_calculator("ase.calculators.emt:EMT") is None
    assert named_by_calculator("chgnet:so3lr") is None


def test_the_materials_are_the_89_elements_of_mptrj():
    """Without Po, At, Rn, Fr, Ra (Deng et al., doi:10.1038/s42256-023-00716-3)."""
    assert len(MATERIALS) == 89
    assert set(range(1, 95)) - MATERIALS == {84, 85, 86, 87, 88}


@pytest.mark.parametrize("model", BUNDLED.values(), ids=lambda m: m.name)
def test_the_page_has_what_the_table_says(model):
    page = (ROOT / "docs" / "foundation_models.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{model.name}` \| {model.title} \|.*$", page, re.MULTILINE)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:7] == [
        f"`{model.extra}`",
        "crystals" if model.crystals_only else "any",
        model.elements_in_words,
        "yes" if model.electrons else "no",
        model.trained_on,
    ]
    assert cells[7:9] == [f"`{model.distribution}`, {model.size:g} MB", model.licence]
    assert f"https://doi.org/{model.citation}" in cells[9]
    assert f"pip install 'aims-pax[{model.extra}]'" in page
    assert model.citation in (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")


def test_every_extra_exists_and_a_fresh_machine_has_so3lr_in_the_tested_version():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for model in BUNDLED.values():
        assert any(need.startswith(model.distribution) for need in extras[model.extra])
    assert any("so3lr" in need for need in extras["dev"])
    script = (ROOT / "setup.sh").read_text()
    assert re.findall(r'extras="(.*?)"', script)
    assert all("so3lr" in words.split(",") for words in re.findall(r'extras="(.*?)"', script))
    assert "FOUNDATION_TESTS=required" in script
    assert re.search(r"^so3krates-torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
