"""What `model.calculator` may name."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from aims_pax.errors import SettingsError, SetupError
from aims_pax.frames import Frame
from aims_pax.potential import CalculatorPotential, Potential
from aims_pax.potentials.factory import GraphPes, make_potential
from aims_pax.settings.augment import as_calculator

WATER, COPPER = (Frame.from_atoms(a) for a in (molecule("H2O"), bulk("Cu", cubic=True)))
OWN = """\
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from aims_pax.potential import CalculatorPotential

def my_function(): return EMT()
def with_arguments(epsilon, sigma=1.0): return LennardJones(epsilon=epsilon, sigma=sigma)
def around(inner): return inner
def number(): return 3
def potential(): return CalculatorPotential(EMT)
calculator = EMT()
"""


@pytest.fixture
def made(tmp_path):
    (tmp_path / "my_pes_file.py").write_text(OWN)
    yield lambda written: make_potential(as_calculator(written), tmp_path)
    sys.modules.pop("my_pes_file", None)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("+lennard_jones()", LennardJones()),
        ({"+lennard_jones": {"epsilon": 0.3}}, LennardJones(epsilon=0.3)),
        ("+my_pes_file.my_function()", EMT()),
        ("+my_pes_file.calculator", EMT()),
        ("+my_pes_file.potential()", EMT()),
        (
            {"+my_pes_file.with_arguments": {"epsilon": 0.2, "sigma": 1.1}},
            LennardJones(epsilon=0.2, sigma=1.1),
        ),
        ({"+my_pes_file.with_arguments": 0.2}, LennardJones(epsilon=0.2)),
        ("+my_pes_file.with_arguments(0.2, sigma=1.1)", LennardJones(epsilon=0.2, sigma=1.1)),
        ({"+my_pes_file.around": {"inner": "+ase.calculators.emt.EMT()"}}, EMT()),
        ({"factory": "my_pes_file:with_arguments", "kwargs": {"epsilon": 0.4}}, LennardJones(epsilon=0.4)),
        ({"factory": "ase.calculators.emt:EMT"}, EMT()),
    ],
)
def test_every_spelling_gives_its_potential(made, written, expected):
    potential = made(written)
    assert isinstance(potential, Potential)
    said, known = (p.labels([COPPER])[0] for p in (potential, CalculatorPotential(lambda: expected)))
    assert said.energy == known.energy
    assert (said.forces == known.forces).all()
    assert said.stress is not None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("+my_pes_file.nothing()", "has no 'nothing'"),
        ("+my_pes_file.nothing", "has no 'nothing"),
        ("+my_pes_file.number()", "returned a int, expected an ASE calculator"),
        ("+my_pes_file.with_arguments()", "missing 1 required positional argument: 'epsilon'"),
        ("+lennard_jones", r"write \+lennard_jones\(\)"),
        ({"factory": "ase.calculators.emt:EMTT"}, "has no 'EMTT'"),
    ],
)
def test_mistakes_are_said(made, written, said):
    with pytest.raises(SettingsError, match=said):
        made(written)


@pytest.mark.skipif(importlib.util.find_spec("graph_pes") is not None, reason="graph-pes is there")
def test_a_missing_graph_pes_names_the_extra(made):
    with pytest.raises(SetupError, match=r"pip install 'aims-pax\[graph-pes\]'"):
        made({"+graph_pes_calculator": {"path": "model.pt"}})


class Batched:
    """EMT behind graph-pes' batched interface."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def calculate_all(self, structures, properties, batch_size):
        self.sizes.append(len(structures))
        answers = []
        for atoms in structures:
            atoms.calc = EMT()
            said = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces().astype(np.float32)}
            answers.append(said | ({"stress": atoms.get_stress()} if "stress" in properties else {}))
        return answers


def test_graph_pes_is_asked_in_batches_and_answers_in_order():
    calculator = Batched()
    stretched = COPPER.moved(COPPER.positions * 1.02, COPPER.cell * 1.02)
    frames = [COPPER, WATER, stretched]
    labels = GraphPes(calculator).labels(frames)
    assert calculator.sizes == [2, 1]
    for frame, label, known in zip(frames, labels, CalculatorPotential(EMT).labels(frames), strict=True):
        assert label.energy == pytest.approx(known.energy)
        np.testing.assert_allclose(label.forces, known.forces, atol=1e-6)
        assert label.forces.dtype == np.float64
        assert (label.stress is None) == (not frame.periodic)
        if frame.periodic:
            np.testing.assert_allclose(label.stress, known.stress, atol=1e-12)
