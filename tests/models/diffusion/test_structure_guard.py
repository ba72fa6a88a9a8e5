"""What is refused, and with which words."""

from dataclasses import replace

import numpy as np
import pytest

from aims_pax.models.diffusion.structure_guard import StructureGuard
from aims_pax.models.diffusion.training_data import summarise
from tests.models.diffusion.structures import CONFINED, adsorbates, graphs, trimers

TRIMERS = graphs(trimers(50))
GUARD = StructureGuard(summarise(TRIMERS))
AT = TRIMERS[0].pos


@pytest.mark.parametrize(
    ("pos", "said"),
    [
        (AT * np.nan, "not finite"),
        (AT * 1e9, "not finite"),
        (AT * 0.5, "too close: Ar-Ar 1."),
        (AT * [[1], [1], [0.9]] * 1.3 + np.diag([0, 0, 9.0]), "detached"),
        (AT * 1.4, "spread out"),
    ],
)
def test_impossible_structures_are_refused_with_the_reason(pos, said):
    assert GUARD.refusal(replace(TRIMERS[0], pos=pos)).startswith(said)


def test_the_training_data_pass():
    assert [GUARD.refusal(g) for g in TRIMERS] == [None] * 50
    own = graphs(adsorbates(30), **CONFINED)
    guard = StructureGuard(summarise(own))
    assert [guard.refusal(g) for g in own] == [None] * 30


def test_structures_with_an_atom_far_from_all_others_pass_where_the_data_have_some():
    """The largest distance in the data was counted up to 8 Å only: all samples of such a model were refused."""
    far = [replace(g, pos=g.pos + np.diag([0, 0, 40.0])) for g in TRIMERS]
    guard = StructureGuard(summarise(far))
    assert [guard.refusal(g) for g in far] == [None] * 50
    away = replace(far[0], pos=far[0].pos + np.diag([0, 0, 30.0]))
    assert guard.refusal(away).startswith("detached")


def test_images_count_and_walls_are_walls():
    own = graphs(adsorbates(30), **CONFINED)
    guard = StructureGuard(summarise(own))
    pos = own[0].pos.copy()
    pos[1] = pos[2] - own[0].cell[0] + np.array([0.3, 0, 0])  # 0.3 Å from an image
    assert guard.refusal(replace(own[0], pos=pos)).startswith("too close: Au-Pd")
    high = own[0].pos + np.array([0, 0, 3.0])
    assert guard.refusal(replace(own[0], pos=high)).startswith("outside: z from")
