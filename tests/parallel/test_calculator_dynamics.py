"""Trajectories with cheap calculators move on several cores, the same way as on one."""

import os
import signal
from functools import partial

import numpy as np
import pytest
import yaml
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed

from aims_pax.errors import Abandoned, SetupError
from aims_pax.frames import Frame
from aims_pax.md import MDState, advance
from aims_pax.parallel.calculator_dynamics import CalculatorDynamics, CalculatorSource
from aims_pax.parallel.dynamics import MDPool
from aims_pax.potentials.named import Potentials, user_calculator
from aims_pax.settings.augment import CallSpec
from aims_pax.settings.md import MDSettings
from aims_pax.stages.sampler_factory import mixture
from aims_pax.systems import System
from tests.settings.folders import PROJECT
from tests.settings.folders import read as read_settings

LANGEVIN = MDSettings(
    stat_ensemble="NVT", thermostat="Langevin", temperature=500.0, timestep=0.5, friction=0.01
)
XTB = CallSpec("tblite.ase:TBLite", kwargs={"method": "GFN2-xTB", "verbosity": 0})
WHERE = "PRETRAINING.potential"


def states(n):
    frame = Frame.from_atoms(molecule("CH3OH"))
    return [MDState.start(frame, 500.0, stream) for stream in range(n)]


def maker(folder, spec=XTB):
    return partial(user_calculator, spec, folder, WHERE)


@pytest.fixture
def two():
    with CalculatorDynamics(2, patience=0) as made:
        yield made


def test_two_processes_make_the_trajectories_of_one_to_the_last_bit(two, tmp_path):
    make, md = maker(tmp_path), [LANGEVIN] * 3
    far = near = here = states(3)
    with MDPool(CalculatorSource(make), 1) as one:  # not this process, whose libraries may use more threads
        for _ in range(2):
            far = [o.state for o in two.advance(make, "xtb", far, make(), 15, md)]
            near = [o.state for o in one.advance(near, 15, md)]
            here = [o.state for o in advance(here, make(), 15, md)]
    assert [c is not None for c in two._pools["xtb"]._companions] == [True, True]
    for a, b, c in zip(far, near, here, strict=True):
        assert np.array_equal(a.positions, b.positions)
        assert np.array_equal(a.momenta, b.momenta)
        np.testing.assert_allclose(a.positions, c.positions, rtol=0, atol=1e-7)


def test_one_trajectory_or_one_core_starts_no_process(tmp_path):
    make = maker(tmp_path)
    with CalculatorDynamics(2, patience=0) as several, CalculatorDynamics(1, patience=0) as one:
        several.advance(make, "xtb", states(1), make(), 1, [LANGEVIN])
        one.advance(make, "xtb", states(2), make(), 1, [LANGEVIN] * 2)
        assert not several._pools
        assert not one._pools


def test_short_dynamics_stay_in_this_process(tmp_path):
    make, md = maker(tmp_path), [LANGEVIN] * 2
    with CalculatorDynamics(2, patience=0.05) as own:
        own.advance(make, "xtb", states(2), make(), 1, md)
        assert not own._pools
        own.advance(make, "xtb", states(2), make(), 200, md)
        own.advance(make, "xtb", states(2), make(), 1, md)
        assert own._pools


def test_a_process_that_dies_is_replaced_and_stop_reaches_all(two, tmp_path, caplog):
    make, md = maker(tmp_path), [LANGEVIN] * 2
    first = two.advance(make, "xtb", states(2), make(), 3, md)
    os.kill(two._pools["xtb"]._companions[1].process.pid, signal.SIGKILL)
    again = two.advance(make, "xtb", states(2), make(), 3, md)
    assert "the steps are repeated" in caplog.text
    assert np.array_equal(first[1].state.positions, again[1].state.positions)
    with pytest.raises(Abandoned):
        two.advance(make, "xtb", states(2), make(), 10**7, md, stop=lambda: True)


def test_processes_end_with_the_block(tmp_path):
    make = maker(tmp_path)
    with CalculatorDynamics(2, patience=0) as own:
        own.advance(make, "xtb", states(2), make(), 1, [LANGEVIN] * 2)
        started = [c.process for c in own._pools["xtb"]._companions]
    assert all(p.returncode is not None for p in started)


def test_what_is_wrong_names_the_key_and_a_failed_structure_is_one_of_the_sampler(two, tmp_path):
    wrong = CallSpec("tblite.ase:TBLite", kwargs={"method": "GFN9-xTB", "verbosity": 0})
    with pytest.raises(SetupError, match=WHERE):
        two.advance(maker(tmp_path, wrong), "wrong", states(2), None, 1, [LANGEVIN] * 2)
    make, md = maker(tmp_path), [LANGEVIN] * 2
    two.advance(make, "xtb", states(2), make(), 1, md)
    on_top = states(2)
    numbers, x = on_top[0].frame().numbers, on_top[0].frame().positions.copy()
    x[1] = x[0] + 1e-6
    bad = [MDState.start(Frame(numbers, x), 500.0, 1), on_top[1]]
    with pytest.raises(CalculationFailed):
        two.advance(make, "xtb", bad, make(), 1, md)
    two.advance(make, "xtb", states(2), make(), 1, md)


@pytest.mark.parametrize(("factory", "several"), [("tblite.ase:TBLite", True), ("own_tblite:make", False)])
def test_a_sampler_uses_the_processes_for_light_calculators_alone(
    two, tmp_path, monkeypatch, factory, several
):
    (tmp_path / "own_tblite.py").write_text(
        "from tblite.ase import TBLite\nclass Own(TBLite): pass\ndef make(**k): return Own(**k)\n"
    )
    potential = {"factory": factory, "kwargs": {"method": "GFN2-xTB", "verbosity": 0}}
    samplers = {"SAMPLERS": [{"kind": "md", "potential": potential, "num_trajectories": 2}]}
    asked = read_settings(tmp_path, PROJECT + yaml.safe_dump(samplers)).samplers
    made = mixture(asked, lambda _: LANGEVIN, 500.0, 5, Potentials(tmp_path), lambda: False, dynamics=two)
    system = System("methanol", Frame.from_atoms(molecule("CH3OH")))
    found = list(made.sample([system], 4, np.random.default_rng(0)))
    assert len(found) == 4
    assert bool(two._pools) == several
