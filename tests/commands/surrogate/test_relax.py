"""The minimum is one of the reference, in less than half of the calls of BFGS."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.optimize import BFGS

from aims_pax.commands.surrogate.observations import SearchEnded
from aims_pax.commands.surrogate.relax import relax_on_surrogate
from aims_pax.errors import RestartError, SettingsError


@pytest.fixture
def cluster(search):
    atoms = Icosahedron("Cu", 2)
    atoms.positions += np.random.default_rng(1).normal(0, 0.2, (13, 3))
    ase.io.write("start.xyz", atoms)
    return atoms


def test_a_rattled_cluster(search, cluster):
    search(relax_on_surrogate, structure="start.xyz", fmax=0.02)
    found = ase.io.read("relax/minimum.xyz")
    found.calc = EMT()
    assert np.linalg.norm(found.get_forces(), axis=1).max() <= 0.02
    cluster.calc = EMT()
    plain = BFGS(cluster, logfile=None)
    plain.run(fmax=0.02)
    assert found.get_potential_energy() == pytest.approx(cluster.get_potential_energy(), abs=5e-3)
    calls = json.loads(Path("relax/result.json").read_text())["reference_calls"]
    assert calls == search.calls()
    assert calls <= plain.nsteps / 2


@pytest.mark.parametrize(
    ("atoms", "most"),
    [
        (Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]]), 6),
        (Atoms("Cu2", [[0, 0, 0], [0, 0, 3.0]]), 6),
        (Atoms("CuAu", [[0, 0, 0], [0, 0, 2.8]]), 6),
        (Atoms("Cu3", [[0, 0, 0], [2.6, 0, 0], [1.3, 2.2517, 0]]), 6),
        (molecule("CH4"), 8),
    ],
    ids=["Cu2", "stretched Cu2", "CuAu", "Cu3", "CH4"],
)
def test_symmetric_molecules_converge(search, atoms, most):
    ase.io.write("start.xyz", atoms)
    search(relax_on_surrogate, structure="start.xyz")
    result = json.loads(Path("relax/result.json").read_text())
    assert result["converged"]
    assert result["reference_calls"] <= most


def test_the_calls_are_bounded_and_a_later_run_continues(search, cluster):
    with pytest.raises(SearchEnded, match="max_calls"):
        search(relax_on_surrogate, structure="start.xyz", fmax=0.02, max_calls=2)
    assert not json.loads(Path("relax/result.json").read_text())["converged"]
    search(relax_on_surrogate, structure="start.xyz", fmax=0.02)
    assert search.calls() == json.loads(Path("relax/result.json").read_text())["reference_calls"]


SCALED = """
from ase.calculators.emt import EMT

class Scaled(EMT):
    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        for name in ("energy", "forces", "free_energy"):
            self.results[name] = 0.97 * self.results[name]
"""


def test_a_baseline_close_to_the_reference_saves_calls_and_cannot_be_exchanged(search, cluster):
    Path("scaled_emt.py").write_text(SCALED)
    search(relax_on_surrogate, structure="start.xyz", fmax=1e-3, output="alone")
    alone = json.loads(Path("alone/result.json").read_text())["reference_calls"]
    keys = {"structure": "start.xyz", "fmax": 1e-3, "baseline": {"factory": "scaled_emt:Scaled"}}
    search(relax_on_surrogate, **keys)
    result = json.loads(Path("relax/result.json").read_text())
    assert result["converged"]
    assert result["reference_calls"] < alone
    with pytest.raises(RestartError, match=r"another search \(baseline\)"):
        search(relax_on_surrogate, structure="start.xyz", fmax=1e-3)
    with pytest.raises(SettingsError, match="baseline"):
        search(relax_on_surrogate, structure="start.xyz", baseline="none.model", output="other")


CHARGED = """
from ase.calculators.emt import EMT

def make(charge=0):
    with open("charges", "a") as file:
        file.write(f"{charge:g}\\n")
    return EMT()
"""


def test_charge_and_notes_are_those_of_a_run(search):
    """MISC.charge was not looked at: a cation was relaxed as a neutral molecule, without a word."""
    Path("charged.py").write_text(CHARGED)
    Path("start.in").write_text("atom 0 0 0 Cu\nvelocity 0 0 1\natom 2.6 0 0 Cu\natom 1.3 2.25 0 Cu\n")
    keys = {"structure": "start.in", "reference": {"factory": "charged:make"}}
    said = search(relax_on_surrogate, MISC={"charge": 1}, **keys)
    assert set(Path("charges").read_text().split()) == {"1"}
    assert ase.io.read("relax/minimum.xyz").info["charge"] == 1
    assert "its velocities are not used" in said
    each = {"path_to_geometry": "start.in", "charge": {"start.in": -1}}
    search(relax_on_surrogate, MISC=each, output="anion", **keys)
    assert ase.io.read("anion/minimum.xyz").info["charge"] == -1
    Path("other.in").write_text(Path("start.in").read_text())
    with pytest.raises(
        SettingsError, match=r"^MISC\.charge: set for each geometry, but for none called other"
    ):
        search(relax_on_surrogate, MISC=each, output="other", **{**keys, "structure": "other.in"})


def test_a_reference_that_takes_no_charge_is_refused_before_it_is_asked(search):
    charged = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]], info={"charge": 1})
    ase.io.write("start.xyz", charged)
    with pytest.raises(SettingsError, match="has no known argument for the charge"):
        search(relax_on_surrogate, structure="start.xyz")
    assert search.calls() == 0
