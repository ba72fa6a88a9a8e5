from __future__ import annotations

import numpy as np
import pytest
from ase import units

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.md import MDState, advance, temperature_at
from aims_pax.md.batch import MDBatch
from aims_pax.md.temperature import Targets, hottest, ramped
from tests.md.laws import TRICLINIC, in_cell
from tests.md.potentials import LennardJones, Springs, cluster, crystal
from tests.md.settings import langevin, npt, rescaling


def same(a: MDState, b: MDState) -> bool:
    mine, theirs = a.arrays(), b.arrays()
    return mine.keys() == theirs.keys() and all(mine[k].tobytes() == theirs[k].tobytes() for k in mine)


def ramp(first: float, last: float, **changes):
    return langevin([first, last], **changes)


@pytest.mark.parametrize(
    "made",
    [ramp, lambda *T: rescaling(list(T)), lambda *T: npt("MTK", list(T)), lambda *T: npt("npt", list(T))],
)
def test_a_ramp_depends_on_the_absolute_step_alone(made):
    frame = in_cell(crystal(1, 5.3), TRICLINIC / 2)
    state, md = MDState.start(frame, 20.0, 1), [made(20.0, 90.0)]
    whole = advance([state], LennardJones(), 30, md, length=40)[0].state
    half = advance([state], LennardJones(), 13, md, length=40)[0].state
    rest = advance([half], LennardJones(), 17, md, length=40)[0].state
    assert same(whole, rest)
    constant = [type(md[0])(**{**vars(md[0]), "temperature": 20.0})]
    other = advance([state], LennardJones(), 30, constant, length=40)[0].state
    assert abs(other.positions - whole.positions).max() > 1e-6


def test_a_ramp_rises_linearly_and_then_stays():
    md = ramp(300.0, 600.0)
    assert [temperature_at(md, s, 1000) for s in (0, 250, 1000, 5000)] == [300, 375, 600, 600]
    assert temperature_at(langevin(70), 5, None) == 70


def test_a_thermostat_follows_its_ramp():
    """Free atoms with strong friction have the temperature of the moment."""
    frame = Frame([18] * 4000, np.zeros((4000, 3)))
    md = [ramp(100.0, 500.0, friction=0.5, timestep=2.0)]
    state = MDState.start(frame, 100.0, 1)
    [became] = advance([state], Springs(0.0), 200, md, length=200, observe_every=50, guard=False)
    assert [s.temperature for s in became.observed] == pytest.approx([200, 300, 400, 500], rel=0.05)


@pytest.mark.parametrize("length", [None, np.inf])
def test_a_ramp_without_an_end_is_refused_before_anything_is_evaluated(length):
    states = [MDState.start(cluster(7), 20.0, 100)]
    lj = LennardJones()
    with pytest.raises(SettingsError, match=r"MD\.temperature.*max_MD_steps"):
        advance(states, lj, 1, [ramp(300.0, 600.0)], length=length)
    assert lj.bindings == 0


def test_the_hottest_moment_of_a_ramp_is_its_higher_end_wherever_it_is():
    assert (hottest(ramp(600.0, 300.0)), hottest(ramp(300.0, 600.0)), hottest(langevin(70))) == (600, 600, 70)
    assert [ramped(md) for md in (ramp(1.0, 2.0), langevin(70), langevin((1.0, 2.0)))] == [True, False, True]
    assert temperature_at(ramp(600.0, 300.0), 250, 1000) == 525


def test_the_targets_of_a_batch_are_those_of_the_middle_of_each_trajectorys_own_step():
    states = [MDState.start(cluster(2), 20.0, k, step) for k, step in enumerate((0, 60, 5000))]
    targets = Targets(
        MDBatch.of(states, "cpu"), [ramp(100.0, 200.0), ramp(100.0, 200.0), langevin(70.0)], 100
    )
    np.testing.assert_allclose(targets(0) / units.kB, [100.5, 160.5, 70.0])
    np.testing.assert_allclose(targets(39) / units.kB, [139.5, 199.5, 70.0])
    np.testing.assert_allclose(targets(70) / units.kB, [170.5, 200.0, 70.0])


@pytest.mark.parametrize("length", [None, np.inf, 0])
def test_one_temperature_needs_no_length_and_a_ramp_names_the_key(length):
    assert temperature_at(langevin(70.0), 3, length) == 70.0
    with pytest.raises(
        SettingsError, match=r"MD\.temperature: \[300\.0, 600\.0\] is a ramp .*set max_MD_steps"
    ):
        temperature_at(ramp(300.0, 600.0), 3, length)
