"""Things chosen by name: where they are looked for, and what is said when they cannot be had."""

from __future__ import annotations

import doctest
import sys

import pytest

from aims_pax import registry
from aims_pax.errors import SettingsError
from aims_pax.registry import Registry


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A registry with two modules of its own, `plain` and `empty`."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("ORDER = ('plain',)\nfrom tests.test_registry import SHOP\n")
    (package / "plain.py").write_text("from shop import SHOP\n@SHOP.register('plain')\nclass Plain: ...\n")
    (package / "empty.py").write_text("")
    (package / "_shared.py").write_text("raise AssertionError('nobody asked for this')")
    monkeypatch.syspath_prepend(str(tmp_path))
    global SHOP
    SHOP = Registry("thing", "shop", "aims_pax.test_things")
    yield SHOP
    for name in [n for n in sys.modules if n.partition(".")[0] in {"shop", "brought"}]:
        del sys.modules[name]


def install(folder, package, points, code=""):
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[aims_pax.test_things]\n{points}\n")
    (folder / "brought.py").write_text(code)


def test_a_module_is_imported_when_its_name_is_asked_for(shop):
    assert list(shop) == ["plain", "empty"]
    assert "shop.plain" not in sys.modules
    assert shop["plain"].__name__ == "Plain"
    assert "plain" in shop
    assert shop.get("nothing") is None
    with pytest.raises(SettingsError, match="module of the thing 'empty' does not register this name"):
        shop["empty"]


def test_an_entry_point_names_a_module_that_registers_or_the_thing(shop, tmp_path):
    code = "from tests import test_registry as t\n@t.SHOP.register('one')\nclass One: ...\nclass Two: ...\n"
    install(tmp_path, "pack", "one = brought\ntwo = brought:Two", code)
    assert list(shop) == ["plain", "empty", "one", "two"]
    assert (shop["one"].__name__, shop["two"].__name__) == ("One", "Two")


def test_what_a_package_cannot_give_is_named_with_the_package(shop, tmp_path, caplog):
    install(tmp_path, "pack", "one = brought\nlost = nowhere_at_all\nplain = brought", "x = 1\n")
    with pytest.raises(SettingsError, match=r"'lost' of the package pack cannot be loaded: ModuleNotFound"):
        shop["lost"]
    with pytest.raises(SettingsError, match="'one' does not register this name"):
        shop["one"]
    assert list(shop.available()) == ["plain"], "the others are said and left out"
    assert "'lost' of the package pack" in caplog.text
    assert "the thing plain of the package pack is not used: aims-PAX has a built-in one" in caplog.text


def test_one_name_of_two_packages_is_refused(shop, tmp_path):
    install(tmp_path, "pack", "one = brought:One", "class One: ...\n")
    install(tmp_path, "rival", "one = brought:Rival", "class One: ...\nclass Rival: ...\n")
    with pytest.raises(
        SettingsError, match=r"'one' is provided by (pack and rival|rival and pack); uninstall"
    ):
        shop["one"]


def test_a_name_is_given_once(shop):
    shop.register("mine")(int)
    for name in ("mine", "plain"):
        with pytest.raises(ValueError, match="already exists"):
            shop.register(name)(float)


def test_a_cell_of_a_notebook_can_be_run_again(shop):
    for _ in range(2):
        names = {"__name__": "__main__"}
        exec("class Cell: ...", names)
        shop.register("cell")(names["Cell"])
    assert shop["cell"] is names["Cell"]


def test_its_example_is_true():
    result = doctest.testmod(registry)
    assert result.attempted > 2
    assert result.failed == 0
