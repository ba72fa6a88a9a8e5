import numpy as np
import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.mace.graphs import GraphCache, collate
from tests.models.mace.tiny import ELEMENTS, copper, ethanol, triclinic, water

CPU = torch.device("cpu")


def graphs(**options):
    return GraphCache(ELEMENTS, 3.5, torch.float32, **options)


def test_a_graph_is_built_once_for_a_frame():
    store, frames = graphs(), ethanol(2)
    first = store.of(frames)
    again = store.of([frames[1], LabelledFrame(frames[0].frame, frames[0].label)])
    assert again[0] is first[1]
    assert again[1] is first[0]
    assert len(store) == 2


def test_a_new_label_of_the_same_frame_is_taken():
    store, (old,) = graphs(), ethanol(1)
    store.of([old])
    new = LabelledFrame(old.frame, Label(old.label.energy + 1, old.label.forces))
    assert store.of([new])[0].energy == old.label.energy + 1


def test_a_copy_with_the_label_of_a_surrogate_names_its_structure():
    (one,) = ethanol(1)
    copy = LabelledFrame(
        one.frame.moved(one.frame.positions + 0.01),
        one.label,
        {"provenance": "surrogate:ab", "parent": one.id},
    )
    assert [g.parent for g in graphs().of([one, copy])] == ["", one.id]


def test_a_label_with_nan_is_refused():
    (good,) = ethanol(1)
    forces = good.label.forces.copy()
    forces[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        graphs().of([LabelledFrame(good.frame, Label(good.label.energy, forces))])


def test_an_unknown_element_is_named():
    gold = LabelledFrame(Frame([79], [[0, 0, 0]]), Label(0.0, np.zeros((1, 3))))
    with pytest.raises(SettingsError, match="Au"):
        graphs().of([gold])


def test_vectors_lead_from_sender_to_receiver_through_the_images():
    frame = triclinic()
    (g,) = graphs().of([LabelledFrame(frame, Label(0.0, np.zeros((2, 3))))])
    between = frame.positions[g.edges[1]] - frame.positions[g.edges[0]]
    S = (g.vectors.double().numpy() - between) @ np.linalg.inv(frame.cell)
    np.testing.assert_allclose(S, S.round(), atol=1e-5)
    assert (g.vectors.norm(dim=1) < 3.5).all()


def test_a_batch_is_its_graphs_one_after_the_other():
    made = graphs().of([*ethanol(1), *copper(1), *water(1)])
    batch = collate(made, np.zeros(4), CPU)
    assert batch.ptr.tolist() == [0, 9, 13, 16]
    assert batch.frames == 3
    assert batch.frame_of.tolist() == [0] * 9 + [1] * 4 + [2] * 3
    assert torch.equal(batch.frame_of[batch.edges[0]], batch.frame_of[batch.edges[1]])
    assert batch.node_attrs.argmax(1)[9:].tolist() == [3, 3, 3, 3, 2, 0, 0]
    assert batch.has_stress.tolist() == [0, 1, 0]


def test_large_total_energies_lose_nothing_in_float32():
    frame = water(1)[0].frame
    near = [LabelledFrame(frame, Label(-2_000_000.0 + x, np.zeros((3, 3)))) for x in (0.0, 1e-3)]
    energies = [collate(graphs().of([n]), np.array([-5e5, 0, -1e6, 0]), CPU).energy for n in near]
    assert float(energies[1] - energies[0]) == pytest.approx(1e-3, rel=1e-5)


def test_weights_follow_config_type_then_system_then_default():
    (f,) = ethanol(1)
    weights = {"Default": 1.0, "hot": 3.0, "ethanol": 2.0}
    origins = [
        {},
        {"system": "ethanol"},
        {"system": "ethanol", "config_type": "hot"},
        {"config_type": "cold"},
    ]
    made = [graphs(weights=weights).of([LabelledFrame(f.frame, f.label, o)])[0] for o in origins]
    assert [g.weight for g in made] == [1.0, 2.0, 3.0, 1.0]
    own = [{**o, "config_weight": 0.5} for o in origins]
    made = [graphs(weights=weights).of([LabelledFrame(f.frame, f.label, o)])[0] for o in own]
    assert [g.weight for g in made] == [0.5, 1.0, 1.5, 0.5]
