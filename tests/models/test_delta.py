"""Δ-learning: what is learnt is the difference, what is said is the sum."""

import numpy as np
import pytest

from aims_pax.core.uncertainty import atomic_sd
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.md.propagate import advance
from aims_pax.md.state import MDState
from aims_pax.models.base import MemberData
from aims_pax.models.delta import DeltaModel
from aims_pax.potential import CalculatorPotential, calculate
from aims_pax.potentials.baseline import Baseline
from tests.cheap_baseline import Cheap
from tests.md.settings import langevin
from tests.models.linear_model import LinearMember, LinearModel
from tests.models.mace import tiny
from tests.worlds import crystal, rattled, water

CHEAP = {"factory": "tests.cheap_baseline:Cheap", "kwargs": {"scale": 0.8}}
DOUBLE = {"default_dtype": "float64", "inference": "torch"}


def emt(frames):
    return [LabelledFrame(f, calculate(f, Cheap(scale=1.0))) for f in frames]


def mace(tmp_path, **changes):
    return DeltaModel(tiny.ensemble(**DOUBLE, **changes), Baseline(CHEAP, tmp_path), ("mace", None))


def test_a_linear_model_learns_exactly_the_difference(tmp_path):
    frames = emt(rattled(water(), 12, 0.05))
    inner = LinearModel([LinearMember("one", 1)], (1, 8), has_spread=False)
    model = DeltaModel(inner, Baseline(CHEAP, tmp_path), ("tests.models.linear_model:KIND", None))
    (result,) = model.train({0: MemberData(frames[:10], frames[10:])}, 1)
    alone = LinearModel([LinearMember("one", 1)], (1, 8), has_spread=False)
    fifth = [LabelledFrame(f.frame, Label(0.2 * f.label.energy, 0.2 * f.label.forces)) for f in frames]
    (same,) = alone.train({0: MemberData(fifth[:10], fifth[10:])}, 1)
    assert result.force_mae == pytest.approx(same.force_mae, rel=1e-5)
    base = CalculatorPotential(lambda: Cheap(scale=0.8)).labels([frames[11].frame])[0]
    said, difference = (m.potential().labels([frames[11].frame])[0] for m in (model, alone))
    assert said.energy == pytest.approx(base.energy + difference.energy, abs=1e-7)
    assert said.forces == pytest.approx(base.forces + difference.forces, abs=1e-6)


def test_the_labels_that_are_given_to_it_stay_those_of_the_reference(tmp_path):
    frames = emt(rattled(water(), 3))
    before = [(f.label.energy, f.label.forces.copy()) for f in frames]
    model = mace(tmp_path)
    model.train({0: MemberData(frames[:2], frames[2:])}, 1)
    for f, (energy, forces) in zip(frames, before, strict=True):
        assert f.label.energy == energy
        assert np.array_equal(f.label.forces, forces)
    assert model.difference(frames[0]).label.energy == pytest.approx(0.2 * frames[0].label.energy)
    assert model.difference(frames[0]) is model.difference(frames[0])


def test_the_spread_of_the_members_is_that_of_the_differences_and_stress_is_a_sum(tmp_path):
    model, frames = mace(tmp_path), [crystal(), *rattled(crystal(), 1)]
    said, inner = model.potential().evaluate(frames), model.inner.potential().evaluate(frames)
    base = CalculatorPotential(lambda: Cheap(scale=0.8)).labels(frames)
    assert atomic_sd(said.forces.numpy()) == pytest.approx(atomic_sd(inner.forces.numpy()), abs=1e-12)
    assert (said.stress - inner.stress)[0].numpy() == pytest.approx(
        np.stack([b.stress for b in base]), abs=1e-12
    )
    label = model.potential().labels(frames)[1]
    assert label.stress == pytest.approx(inner.stress.mean(0)[1].numpy() + base[1].stress, abs=1e-10)


def test_an_isolated_atom_is_compared_with_the_baselines_atom(tmp_path):
    pytest.importorskip("tblite")
    xtb = {"factory": "tblite.ase:TBLite", "kwargs": {"method": "GFN1-xTB", "verbosity": 0}}
    model = DeltaModel(tiny.ensemble(), Baseline(xtb, tmp_path), ("mace", None))
    atom = LabelledFrame(Frame([1], [[0, 0, 0]]), Label(-13.6, np.zeros((1, 3))))
    assert model.difference(atom).label.energy == pytest.approx(-13.6 - model.baseline.atomic_energy(1))


def test_an_ion_is_compared_with_the_baselines_ion(tmp_path):
    class Ions:
        def atomic_energy(self, number):
            return -13.0

        def label(self, frame):
            return Label(-1.0 * frame.charge, np.zeros((1, 3)))

    model = DeltaModel(tiny.ensemble(), Ions(), ("mace", None))
    for charge, expected in ((None, 12.0), (0, 12.0), (1, 0.0), (-1, -2.0)):
        atom = LabelledFrame(Frame([1], [[0, 0, 0]], charge=charge), Label(-1.0, np.zeros((1, 3))))
        assert model.difference(atom).label.energy == expected


def test_driving_members_move_as_the_committee_says_and_the_baseline_is_computed_once_a_step(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("CHEAP", str(tmp_path / "calls.log"))
    model = mace(tmp_path)
    states = [MDState.start(f, 300.0, k) for k, f in enumerate(rattled(water(), 2))]
    md = [langevin(300.0, timestep=0.5)] * 2
    moved = advance(states, model.potential(), 4, md, driving_members=[0, 1])
    assert moved[0].evaluation.forces.shape[0] == 2
    assert len((tmp_path / "calls.log").read_text().splitlines()) == 2 * 5
    for m, outcome in enumerate(moved):
        alone = advance([states[m]], model.potential([m]), 4, md[:1])[0]
        assert outcome.state.positions == pytest.approx(alone.state.positions, abs=1e-9)


def test_a_structure_on_which_the_baseline_fails_is_a_fault_of_its_trajectory_alone(tmp_path):
    failing = Baseline({"factory": "tests.cheap_baseline:Failing", "kwargs": {"reach": 1.0}}, tmp_path)
    model = DeltaModel(tiny.ensemble(**DOUBLE), failing, ("mace", None))
    far = water().moved(water().positions * 1.1)
    states = [MDState.start(f, 1.0, k) for k, f in enumerate((water(), far))]
    near, broken = advance(states, model.potential(), 2, [langevin(1.0, timestep=0.1)] * 2)
    assert near.fault is None
    assert "energy or forces are not finite" in broken.fault
