"""The compiled step: one graph whose gradients are those of eager training, for every batch."""

import numpy as np
import pytest
import torch

from aims_pax.models.mace import compiled_step
from aims_pax.models.mace.build import set_statistics
from aims_pax.models.mace.fast_forward import evaluate_fast, fast_mace
from aims_pax.models.mace.statistics import Statistics
from tests.models.mace.micro import batch, micro, micro_and_traced
from tests.models.mace.tiny import copper, water


def both(step, quick, graph):
    """Compiled and eager evaluation."""
    return (
        lambda: step(quick, graph, strain=True),
        lambda: evaluate_fast(quick, graph, training=True, strain=True),
    )


@pytest.fixture(scope="module")
def model():
    return micro_and_traced()[0]


@pytest.fixture(scope="module")
def traced():
    return micro_and_traced()[1]


BATCHES = {
    "molecules": water(3),
    "one molecule, copper missing": water(1),
    "cells with stress and molecules": [*copper(2), *water(2)],
    "one cell, all neighbours its own images": copper(1),
}


@pytest.mark.parametrize("frames", BATCHES.values(), ids=BATCHES)
def test_one_graph_has_the_predictions_and_gradients_of_eager_training_for_every_batch(model, traced, frames):
    quick, graph = fast_mace(model), batch(frames)
    ours, theirs = both(traced, quick, graph)
    for a, b in zip(ours(), theirs(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)
    weights = compiled_step.trained(quick)
    for a, b in zip(*(compiled_step.parameter_gradients(f(), weights) for f in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    compiled_step.compare_gradients(quick, ours, theirs)


def test_the_graph_takes_the_weights_of_another_member_and_new_statistics(traced):
    other = micro(seed=2)
    set_statistics(other, Statistics(np.zeros(3), 4.0, 0.6, -0.1, "given", 3))
    quick, graph = fast_mace(other), batch(water(2))
    ours, theirs = both(traced, quick, graph)
    torch.testing.assert_close(ours()[1], theirs()[1], rtol=0, atol=1e-11)
    compiled_step.compare_gradients(quick, ours, theirs)


def test_rows_hold_every_edge_once_and_dummies_beyond_the_cutoff():
    graph = batch([*copper(1), *water(1)])
    rows = compiled_step.arrange_rows(graph, 3, 3.5)
    v, senders = torch.cat(rows.vectors).flatten(0, 1), torch.cat(rows.senders).flatten()
    # of the single oxygen there are two, of all at least 40
    assert [len(t) for t in rows.vectors] == [
        34,
        2,
        4,
    ]
    assert torch.equal(v[rows.slot], graph.vectors)
    assert torch.equal(senders[rows.slot], rows.rank[graph.sender])
    K = rows.vectors[0].shape[1]
    assert torch.equal(rows.slot // K, rows.rank[graph.receiver])
    dummy = torch.ones(len(v), dtype=torch.bool)
    dummy[rows.slot] = False
    assert dummy.any()
    assert (v[dummy].norm(dim=1) > 3.5).all()


def test_gradients_that_are_wrong_are_found_though_energies_and_forces_are_right(model, traced):
    """As with `detach` in the graph: a weight that the loss does not see any more."""
    quick, graph = fast_mace(model), batch(water(2))
    ours, theirs = both(traced, quick, graph)

    def cut():
        e, F, s = ours()
        return e, F.detach() + 0 * F, s

    torch.testing.assert_close(cut()[1], theirs()[1])
    with pytest.raises(compiled_step.Disagreement, match=r"gradient of \S+ is wrong by"):
        compiled_step.compare_gradients(quick, cut, theirs)


def test_a_graph_with_detach_in_it_is_refused(monkeypatch, model):
    import torch._decomp

    monkeypatch.setattr(torch._decomp, "core_aten_decompositions", lambda: None)
    with pytest.raises(compiled_step.Disagreement, match="would cut the gradient"):
        compiled_step.trace_step(fast_mace(model))
