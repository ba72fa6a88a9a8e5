"""The minimum is one of the reference, in less than half of the calls of BFGS."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.optimize import BFGS

from aims_pax.commands.surrogate.observations import SearchEnded
from aims_pax.commands.surrogate.relax import relax_on_surrogate


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


def test_the_calls_are_bounded_and_a_later_run_continues(search, cluster):
    with pytest.raises(SearchEnded, match="max_calls"):
        search(relax_on_surrogate, structure="start.xyz", fmax=0.02, max_calls=2)
    assert not json.loads(Path("relax/result.json").read_text())["converged"]
    search(relax_on_surrogate, structure="start.xyz", fmax=0.02)
    assert search.calls() == json.loads(Path("relax/result.json").read_text())["reference_calls"]
