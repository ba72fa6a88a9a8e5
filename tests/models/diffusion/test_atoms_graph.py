"""Structures as graphs: fixed atoms, repetition, batches."""

import numpy as np
import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.models.diffusion.atoms_graph import AtomsGraph, batch_graphs
from tests.models.diffusion.structures import adsorbates, trimers


def test_a_frame_and_its_graph_hold_the_same_structure():
    frame = adsorbates(1)[0]
    graph = AtomsGraph.from_frame(frame, (1.0, 4.0), {"energy": -1.0})
    assert graph.to_frame() == frame
    assert graph.fixed.tolist() == [True, False, False]
    assert not AtomsGraph.from_frame(frame, masked=False).fixed.any()


def test_an_atom_that_is_fixed_in_some_directions_is_refused():
    frame = Frame([18, 18], [[0, 0, 0], [3, 0, 0]], fixed=[[True, False, False], [False] * 3])
    with pytest.raises(SettingsError, match="atom 1 is fixed in some directions only"):
        AtomsGraph.from_frame(frame)


def test_repeated_structures_have_the_same_surroundings():
    graph = AtomsGraph.from_frame(adsorbates(1)[0])
    twice = graph.repeated(2)
    assert len(twice) == 12
    assert np.allclose(twice.cell[:2], 2 * graph.cell[:2])
    assert np.allclose(twice.cell[2], graph.cell[2])
    assert len(twice.edges(4.5)[0]) == 4 * len(graph.edges(4.5)[0])
    assert twice.fixed.tolist() == graph.fixed.tolist() * 4


def test_a_canonical_cell_changes_no_distance():
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    graph = AtomsGraph.from_frame(adsorbates(1)[0])
    turned = AtomsGraph(graph.x, graph.pos @ turn, graph.cell @ turn, graph.pbc).canonical()
    assert abs(turned.cell[0, 1:]).max() < 1e-9
    assert abs(turned.cell[1, 2]) < 1e-9
    between = [np.linalg.norm(g.pos[0] - g.pos[1]) for g in (graph, turned)]
    assert between[0] == pytest.approx(between[1])


def test_means_are_taken_structure_by_structure():
    batch, pos, x = batch_graphs([AtomsGraph.from_frame(f) for f in (trimers(1)[0], adsorbates(1)[0])])
    assert x.tolist() == [18, 18, 18, 29, 79, 46]
    assert torch.allclose(batch.mean(pos), torch.stack([pos[:3].mean(0), pos[3:].mean(0)]))
    assert torch.allclose(batch.mean(pos, batch.free)[1], pos[4:].mean(0))
    assert batch.anchored.tolist() == [False, True]
