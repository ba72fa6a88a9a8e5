"""MD on the process asks the reference where it is unsure, conserves energy, and continues after a stop."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron

from aims_pax.commands.surrogate import uncertain_dynamics
from aims_pax.commands.surrogate.uncertain_dynamics import surrogate_md


@pytest.fixture
def keys(search):
    atoms = Icosahedron("Cu", 2)
    atoms.positions *= 0.96
    ase.io.write("start.xyz", atoms)
    return {
        "structure": "start.xyz",
        "steps": 60,
        "timestep": 4.0,
        "temperature": 200,
        "friction": 0.0,
        "every": 5,
    }


def trajectory(folder="md"):
    return ase.io.read(f"{folder}/trajectory.xyz", ":")


def test_forces_along_the_trajectory_are_right_within_what_was_asked_for(search, keys):
    search(surrogate_md, **keys)
    images = trajectory()
    assert [a.info["step"] for a in images] == list(range(5, 61, 5))
    calls = json.loads(Path("md/result.json").read_text())["reference_calls"]
    assert calls == search.calls() < 30
    energies = []
    for atoms in images:
        kinetic, predicted = atoms.info["kinetic_energy"], atoms.info["predicted_energy"]
        atoms.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(predicted, abs=0.02)
        energies.append(kinetic + atoms.get_potential_energy())
    assert np.ptp(energies) < 0.03


def test_a_stopped_run_continues_the_same_trajectory(search, keys, monkeypatch):
    keys |= {"friction": 0.01}
    search(surrogate_md, output="whole", **keys)
    first = search.calls()
    monkeypatch.setattr(uncertain_dynamics, "SAVE", 10)
    write = uncertain_dynamics._Dynamics._write

    def killed(self, energy):
        write(self, energy)
        if self.motion.step == 35:
            raise KeyboardInterrupt

    monkeypatch.setattr(uncertain_dynamics._Dynamics, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        search(surrogate_md, output="stopped", **keys)
    monkeypatch.setattr(uncertain_dynamics._Dynamics, "_write", write)
    search(surrogate_md, output="stopped", **keys)
    assert search.calls() == first, "all labels were in the store"
    assert Path("stopped/trajectory.xyz").read_bytes() == Path("whole/trajectory.xyz").read_bytes()
