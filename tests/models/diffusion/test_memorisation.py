"""Copies are recognised, new structures are not."""

import numpy as np

from aims_pax.models.diffusion.atoms_graph import AtomsGraph
from aims_pax.models.diffusion.memorisation import distance_fingerprint, memorised_fraction
from tests.models.diffusion.structures import adsorbates, graphs, trimers


def test_copies_count_as_memorised_and_new_structures_rarely():
    train, held, new = (graphs(trimers(n, seed)) for n, seed in ((200, 0), (100, 1), (200, 2)))
    assert memorised_fraction(train[:50], train, held) == 1
    assert memorised_fraction(new, train, held) < 0.15
    assert np.isnan(memorised_fraction(graphs(adsorbates(2)), train, held))


def test_the_fingerprint_knows_no_order_turn_or_image():
    graph = AtomsGraph.from_frame(adsorbates(1)[0])
    order = [2, 0, 1]
    moved = graph.pos + np.array([[0], [1], [-1]]) * graph.cell[0]
    other = AtomsGraph(graph.x[order], moved[order], graph.cell, graph.pbc, graph.fixed[order])
    assert np.allclose(distance_fingerprint(graph), distance_fingerprint(other))


def test_copies_are_memorised_although_the_data_repeat_themselves():
    train = graphs(trimers(40))
    assert memorised_fraction(train[:10], train, train[20:]) == 1.0
    assert memorised_fraction(graphs(trimers(10, 5)), train, train[20:]) == 0.0
