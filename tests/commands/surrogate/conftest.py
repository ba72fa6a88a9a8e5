"""Searches in a folder of their own, with a reference that counts its calls in a file."""

import io
from pathlib import Path

import ase.io
import pytest
import yaml
from ase.build import add_adsorbate, fcc100
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from rich.console import Console

COUNTED = """
from ase.calculators.emt import EMT

class Counted(EMT):
    def calculate(self, *args, **kwargs):
        with open("calls", "a") as file:
            file.write("call\\n")
        super().calculate(*args, **kwargs)

def make():
    return Counted()

class Broken(EMT):
    def calculate(self, *args, **kwargs):
        raise ValueError("out of order")

def broken():
    return Broken()
"""


def adsorbed(shift):
    """A gold atom in a hollow of one frozen layer of aluminium, relaxed."""
    slab = fcc100("Al", size=(2, 2, 1))
    add_adsorbate(slab, "Au", 1.9, "hollow")
    slab.center(axis=2, vacuum=5.0)
    slab.set_constraint(FixAtoms(mask=[a.symbol == "Al" for a in slab]))
    slab[-1].x += shift * slab.cell[0, 0] / 2
    slab.calc = EMT()
    BFGS(slab, logfile=None).run(fmax=0.02)
    slab.calc = None
    slab.info.clear()
    return slab


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Runs a command on a configuration; returns what it said. `search.calls()`: of the reference, in all runs."""
    pytest.importorskip("featomic")
    monkeypatch.chdir(tmp_path)
    Path("counted.py").write_text(COUNTED)

    def run(command, **keys):
        keys = {
            "reference": {"factory": "counted:make"},
            "CLUSTER": {"type": "local", "executor": "inline"},
            **keys,
        }
        Path("config.yaml").write_text(yaml.safe_dump(keys))
        said = io.StringIO()
        command(Path("config.yaml"), Console(file=said, width=200))
        return said.getvalue()

    run.calls = lambda: len(Path("calls").read_text().split()) if Path("calls").exists() else 0
    return run


@pytest.fixture
def ends(search):
    for name, shift in (("first.xyz", 0), ("last.xyz", 1)):
        ase.io.write(name, adsorbed(shift))
    return {"initial": "first.xyz", "final": "last.xyz"}
