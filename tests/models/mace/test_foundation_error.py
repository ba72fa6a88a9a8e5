"""The error of a foundation model before training, and labels in other units."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.frames import Label, LabelledFrame
from aims_pax.models.mace.foundation_error import foundation_force_mae
from aims_pax.models.mace.graphs import GraphCache
from tests.models.mace import tiny

ELEMENTS = (1, 6, 8)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def foundation():
    """(model, E0, structures whose labels are its own predictions)."""
    made = tiny.ensemble([1], ELEMENTS)
    frames = [f.frame for f in tiny.ethanol(6, 0)]
    bound = made.potential().bind(frames)
    positions = torch.from_numpy(np.concatenate([f.positions for f in frames]))
    forces = (
        bound(positions, torch.zeros(len(frames), 3, 3, dtype=torch.float64))
        .forces[0]
        .detach()
        .double()
        .numpy()
    )
    parts = np.split(forces, len(frames))
    return made.members[0], [LabelledFrame(f, Label(0.0, p)) for f, p in zip(frames, parts, strict=True)]


def mae(foundation, factor=1.0, shift=0.0):
    member, labelled = foundation
    changed = [replace(f, label=Label(0.0, factor * f.label.forces + shift)) for f in labelled]
    graphs = GraphCache(ELEMENTS, 3.5, torch.float32).of(changed)
    return foundation_force_mae(member.model, np.zeros(3), graphs, CPU)


def test_it_is_the_mean_error_of_the_components(foundation):
    assert mae(foundation) == pytest.approx(0, abs=1e-4)
    assert mae(foundation, shift=0.02) == pytest.approx(0.02, abs=1e-4)


@pytest.mark.parametrize(
    ("factor", "unit"), [(1 / 51.4221, "hartree/bohr"), (23.06, "kcal/mol/Å"), (-1.0, "sign")]
)
def test_labels_in_other_units_are_refused_by_name(foundation, factor, unit):
    with pytest.raises(SettingsError, match=unit):
        mae(foundation, factor)
