"""Groups of structures that are evaluated together: as many as the limit allows, the same results, clear refusals."""

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.md import MDState, advance
from aims_pax.models import memory_budget
from aims_pax.models.mace import inference_pieces
from aims_pax.models.mace.inference import Committee
from aims_pax.models.mace.inference_pieces import likely_edges
from aims_pax.models.neighbour_list import neighbour_list
from aims_pax.settings.md import MDSettings
from tests.models.mace import tiny
from tests.models.mace.tiny import copper, ethanol, slab, triclinic, water

LANGEVIN = MDSettings(
    stat_ensemble="NVT", thermostat="Langevin", temperature=300.0, timestep=0.5, friction=0.01
)


MB = 1e6


pytestmark = pytest.mark.usefixtures("fresh_limits")


def cells(n: int, repeat: int = 2) -> list[Frame]:
    """n copper crystals of 4·repeat³ atoms, a little shaken."""
    from ase.build import bulk

    base = bulk("Cu", cubic=True).repeat(repeat)
    rng = np.random.default_rng(3)
    return [
        Frame(base.numbers, base.positions + rng.normal(0, 0.05, base.positions.shape), base.cell[:], True)
        for _ in range(n)
    ]


def models(**changes):
    return [m.frozen_copy() for m in tiny.ensemble(**changes).members]


@pytest.mark.parametrize("driving_members", [None, [0, 1, 0, 1, 0, 1]])
def test_trajectories_in_groups_move_as_in_one_batch(driving_members, caplog):
    committee = Committee(models(default_dtype="float64", inference="torch"))
    states = [MDState.start(f, 300.0, k) for k, f in enumerate([*cells(4, 1), *(x.frame for x in water(2))])]
    whole = advance(states, committee, 6, [LANGEVIN] * 6, driving_members=driving_members, observe_every=3)
    assert committee.pieces([s.frame() for s in states]) == [range(6)]
    need = committee._need(12.0)
    memory_budget.allow(1.5 * need.of(4, 4 * 12), written=True)
    assert len(committee.pieces([s.frame() for s in states])) > 3
    said = advance(states, committee, 6, [LANGEVIN] * 6, driving_members=driving_members, observe_every=3)
    for a, b in zip(said, whole, strict=True):
        np.testing.assert_allclose(a.state.positions, b.state.positions, rtol=0, atol=1e-10)
        np.testing.assert_allclose(a.evaluation.forces, b.evaluation.forces, rtol=0, atol=1e-10)
        assert [s.step for s in a.observed] == [3, 6]


def test_a_trajectory_that_cannot_move_does_not_disturb_the_groups():
    from dataclasses import replace

    committee = Committee(models(default_dtype="float64", inference="torch"))
    states = [MDState.start(f, 300.0, k) for k, f in enumerate(cells(4, 1))]
    for k in (0, 2):
        states[k] = replace(states[k], positions=states[k].positions * np.nan)
    memory_budget.allow(1.2 * committee._need(12.0).of(4, 4 * 12), written=True)
    moved = advance(states, committee, 2, [LANGEVIN] * 4)
    assert [m.fault is None for m in moved] == [False, True, False, True]
    assert [m.state.step for m in moved] == [0, 2, 0, 2]


def test_labels_of_many_structures_keep_to_the_limit_too(monkeypatch):
    committee = Committee(models(inference="torch"))
    frames, sizes = cells(10, 1), []
    whole = committee.labels(frames)
    real = committee.evaluate
    monkeypatch.setattr(committee, "evaluate", lambda chunk: sizes.append(len(chunk)) or real(chunk))
    memory_budget.allow(3.5 * committee._need(12.0).of(4, 4 * 12), written=True)
    found = committee.labels(frames)
    assert max(sizes) == 3
    for a, b in zip(found, whole, strict=True):
        np.testing.assert_allclose(a.forces, b.forces, rtol=0, atol=1e-5)


def test_a_structure_larger_than_the_written_limit_is_refused_with_its_size():
    committee = Committee(models(inference="torch"))
    memory_budget.allow(2 * MB, written=True)
    with pytest.raises(SettingsError, match=r"MISC\.memory_limit.* one structure of 108 atoms.*needs about"):
        committee.pieces(cells(2, 3))


def test_a_limit_of_some_kilobytes_is_not_said_to_be_zero():
    committee = Committee(models(inference="torch"))
    memory_budget.allow(1000, written=True)
    with pytest.raises(SettingsError, match=r"the limit for this process is 1e-06 GB") as refused:
        committee.pieces(cells(2, 3))
    assert " 0.0 GB" not in str(refused.value)


def test_a_structure_larger_than_the_machine_is_refused_before_it_is_tried(monkeypatch):
    committee = Committee(models(inference="torch"))
    monkeypatch.setattr(memory_budget, "available_memory", lambda device="cpu": MB)
    memory_budget.forget_measurement()
    with pytest.raises(SettingsError, match=r"108 atoms.* 0\.001 GB are free on cpu.*num_channels"):
        committee.pieces(cells(1, 3))


def test_a_share_that_was_halved_refuses_nothing(caplog):
    committee = Committee(models(inference="torch"))
    memory_budget.allow(2 * MB)
    assert committee.pieces(cells(3, 3)) == [range(0, 1), range(1, 2), range(2, 3)]
    assert "tried anyway" in caplog.text


@pytest.mark.parametrize(
    "frame",
    [ethanol(1)[0].frame, water(1)[0].frame, copper(1)[0].frame, triclinic(), slab()],
    ids=["ethanol", "water", "copper", "triclinic", "slab"],
)
def test_the_estimate_without_neighbours_is_never_below_the_edges(frame):
    for r_max in (2.0, 3.5, 6.0):
        edges = len(neighbour_list(frame.positions, frame.cell, frame.pbc, r_max)[0])
        assert likely_edges(frame, r_max) >= edges


def test_a_small_molecule_has_at_most_all_its_pairs():
    assert likely_edges(water(1)[0].frame, 50.0) == 6
    assert likely_edges(Frame([8], [[0, 0, 0]]), 5.0) == 0


def test_what_surely_fits_is_one_group_and_nothing_is_measured():
    def need(k):
        raise AssertionError("measured")

    pieces = inference_pieces.Pieces(32, 2, 3.5, "cpu", need, lambda: False)
    memory_budget.allow(1e9)
    assert pieces([x.frame for x in water(5)]) == [range(5)]
    memory_budget.allow(1000)
    with pytest.raises(AssertionError, match="measured"):
        pieces([x.frame for x in water(5)])


def test_groups_are_consecutive_and_said_once(caplog):
    """With 1000 bytes for each edge, an ethanol (72 edges) needs 72 kB and a water molecule (6) 6 kB."""
    pieces = inference_pieces.Pieces(
        10_000, 2, 10.0, "cpu", lambda k: memory_budget.Need(0.0, 700.0), lambda: False
    )
    frames = [x.frame for x in (ethanol(1) + water(2) + ethanol(1) + water(1))]
    memory_budget.allow(85_000, written=True)
    for _ in range(2):
        assert pieces(frames) == [range(0, 3), range(3, 5)]
    assert len(caplog.records) == 1
    assert "5 structures at once would need 0.0 GB" in caplog.text
    assert "at most 3 are evaluated together, with the same results" in caplog.text


def test_an_economical_evaluation_is_asked_for_before_a_structure_is_refused():
    cost = [2000.0]

    def economical():
        cost[0] = 1000.0
        return True

    pieces = inference_pieces.Pieces(
        10_000, 2, 10.0, "cpu", lambda k: memory_budget.Need(0.0, cost[0] - memory_budget.GRAPH), economical
    )
    memory_budget.allow(73_000, written=True)
    assert pieces([x.frame for x in ethanol(2)]) == [range(0, 1), range(1, 2)]
    pieces.economical = lambda: False
    cost[0] = 2000.0
    with pytest.raises(
        SettingsError, match=r"one structure of 9 atoms \(72 edges\) needs about 0\.000144 GB"
    ):
        pieces([x.frame for x in ethanol(2)])
