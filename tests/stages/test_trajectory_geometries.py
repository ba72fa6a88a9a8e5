"""Which geometry each trajectory has."""

import pytest
from ase.build import molecule

from aims_pax.errors import RestartError
from aims_pax.frames import Frame
from aims_pax.stages.trajectory_geometries import fair_or_all, geometries_of_trajectories
from aims_pax.systems import System

WATER, METHANE = (System(name, Frame.from_atoms(molecule(name))) for name in ("H2O", "CH4"))


def test_a_system_whose_trajectories_are_all_hot_or_biased_is_judged_by_them():
    names = ["a", "b", "a", "b"]
    assert fair_or_all(names, [False, False, True, False]) == (1, 2, 3)
    assert fair_or_all(names, [True, False, True, True]) == (0, 2, 3)
    assert fair_or_all(names, [False] * 4) == (0, 1, 2, 3)


def test_started_trajectories_keep_their_geometries_and_new_ones_take_turns():
    dealt = geometries_of_trajectories(["H2O", "H2O"], 4, [WATER, METHANE])
    assert [s.name for s in dealt[:2]] == ["H2O", "H2O"]
    assert {s.name for s in dealt[2:]} >= {"CH4"}


@pytest.mark.parametrize(
    ("begun", "n", "systems", "said"),
    [
        (["H2O", "NH3"], 2, [WATER], "geometry NH3: trajectories of it have started"),
        (["H2O", "H2O"], 1, [WATER], "2 → 1: started trajectories cannot be removed"),
        (["H2O", "H2O"], 2, [WATER, METHANE], "raise it to 3 or more"),
    ],
)
def test_what_would_take_a_started_trajectory_away_is_refused(begun, n, systems, said):
    with pytest.raises(RestartError, match=said):
        geometries_of_trajectories(begun, n, systems)
