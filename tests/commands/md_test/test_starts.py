"""Where trajectories of the MD test begin."""

from dataclasses import replace

import pytest

from aims_pax.commands.md_test.starts import choose_starts, systems_of_frames, temperatures
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.settings.md import MDSettings
from tests.commands.md_test.springs import MD, WATER, frames


def systems(md=MD, temperature=None):
    return systems_of_frames(frames(), lambda name: md, temperature)


def test_each_start_is_a_labelled_frame_at_t_and_at_one_and_a_half_t():
    [water] = systems()
    starts = choose_starts([water], 3, 64)
    assert [s.temperature for s in starts] == [300, 450] * 3
    assert {s.frame.id for s in starts} <= {f.id for f in water.frames}
    assert len({s.frame.id for s in starts}) == 3
    assert len({s.stream for s in starts}) == 6
    assert starts[0].bonds.pairs.tolist() == [[0, 1], [0, 2]]
    assert [s.stream for s in choose_starts([water], 3, 64)] == [s.stream for s in starts]
    assert choose_starts([water], 3, 64, seed=1)[0].stream != starts[0].stream


def test_bonds_are_found_in_frames_from_the_first_to_the_last():
    [water] = systems_of_frames(frames(100), lambda name: MD, None)
    longer = WATER.positions * [1.3, 1, 1]
    last = replace(water.frames[-1], frame=WATER.moved(longer))
    [start, _] = choose_starts([replace(water, frames=(*water.frames[:-1], last))], 1, 2)
    assert start.bonds.longest[0] == pytest.approx(1.3 * 0.96)


def test_a_bond_that_is_broken_in_its_own_frame_is_not_watched():
    [water] = systems_of_frames(frames(12), lambda name: MD, None)
    torn = replace(water.frames[0], frame=WATER.moved(WATER.positions * [2.0, 1, 1]))
    starts = choose_starts([replace(water, frames=(torn, *water.frames[1:]))], 12, 24)
    pairs = {s.frame.id: s.bonds.pairs.tolist() for s in starts}
    assert pairs.pop(torn.frame.id) == [[0, 2]]
    assert all(own == [[0, 1], [0, 2]] for own in pairs.values())
    assert not any(s.bonds.broken(s.frame) for s in starts)


def test_a_run_that_heats_is_tested_at_its_highest_temperature_unless_one_is_given():
    assert temperatures(systems(MD.model_copy(update={"temperature": (100.0, 400.0)}))[0]) == (400, 600)
    assert temperatures(systems(temperature=200.0)[0]) == (200, 300)


def test_the_thermostat_of_the_test_is_strong_enough_for_short_trajectories_and_npt_keeps_its_barostat():
    [start, _] = choose_starts(systems(MD.model_copy(update={"thermostat": "SVR", "friction": 0.001})), 1, 2)
    assert (start.md.stat_ensemble, start.md.thermostat, start.md.friction) == ("NVT", "Langevin", 0.02)
    npt = MDSettings(stat_ensemble="NPT", barostat="MTK", temperature=300.0)
    [molecule, _] = choose_starts(systems(npt), 1, 2)
    assert molecule.md.stat_ensemble == "NVT", "a molecule has no pressure"


def test_of_many_systems_some_are_tested_spread_over_the_list():
    data = [LabelledFrame(Frame([29, 29], [[0, 0, 0], [2.2, 0, 0]]), Label(0.0, [[0, 0, 0]] * 2), {"system": f"s{k}"})
            for k in range(10)]  # fmt: skip
    many = systems_of_frames(data, lambda name: MD, None)
    starts = choose_starts(many, 4, 8)
    assert [s.system for s in starts[::2]] == ["s0", "s2", "s5", "s7"]
    assert [s.system for s in choose_starts(many[:2], 4, 8)[::2]] == ["s0", "s0", "s1", "s1"]


def test_isolated_atoms_are_no_systems():
    atom = LabelledFrame(Frame([1], [[0, 0, 0]]), Label(0.0, [[0, 0, 0]]), {"config_type": "IsolatedAtom"})
    assert [s.name for s in systems_of_frames([atom, *frames(2)], lambda name: MD, None)] == ["water"]


def test_settings_of_a_system_that_are_missing_are_an_error():
    with pytest.raises(KeyError):
        systems_of_frames(frames(1), {}.__getitem__, None)


def test_a_run_at_several_temperatures_is_tested_at_the_highest():
    ladder = MD.model_copy(update={"temperatures": (500.0, 800.0)})
    [start, hot] = choose_starts(systems(ladder), 1, 2)
    assert (start.temperature, hot.temperature) == (800, 1200)


def test_a_crystal_of_one_atom_a_cell_is_a_system():
    frame = Frame([29], [[0, 0, 0]], [[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]], True)
    one = LabelledFrame(frame, Label(0.0, [[0, 0, 0]]), {"system": "cu"})
    assert [s.name for s in systems_of_frames([one], lambda name: MD, None)] == ["cu"]
