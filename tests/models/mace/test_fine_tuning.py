"""Members that begin from the same model differ by their weights of structures and their readouts."""

import numpy as np
import pytest
import torch

from aims_pax.models.mace.fine_tuning import (
    FROZEN,
    bootstrap_weight,
    epoch_graphs,
    freeze_lower_layers,
    perturb_readouts,
    weighted_graphs,
)
from aims_pax.settings.foundation import FoundationSettings
from tests.models.mace.published import a_copy
from tests.models.mace.tiny import ensemble, ethanol, water

DATA = ethanol(8, 0)


@pytest.fixture(scope="module")
def members():
    """Two members and the graphs of the data; their settings are those of each test."""
    both = ensemble((1, 2))
    return both.members, both.graphs.of(DATA), both.graphs.of(water(20, 3))


def set_up(members, replay=(), **foundation):
    chosen = FoundationSettings(model="small", **foundation) if foundation else None
    for member in members:
        member.settings = member.settings.model_copy(update={"foundation": chosen})
        member.replay = replay


def readouts_after(model, seed, **strength):
    """The weights of the readouts after a perturbation, which is undone; as {name: array}."""
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    perturb_readouts(model, seed, **strength)
    after = {n: p.detach().clone() for n, p in model.named_parameters()}
    assert {n for n in after if not torch.equal(after[n], before[n])} == {
        n for n in after if n.startswith("readouts.") and after[n].numel()
    }
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(before[name])
    return {n: after[n].numpy() for n in after if n.startswith("readouts.") and after[n].numel()}


def test_readouts_get_normal_noise_of_sigma_times_the_rms_of_each_tensor_and_nothing_else_moves():
    model = a_copy()
    start = {n: p.detach().numpy().copy() for n, p in model.named_parameters()}
    drawn = [readouts_after(model, seed, strength=0.3) for seed in range(200)]
    assert len(drawn[0]) > 1
    for name in drawn[0]:
        noise = np.array([one[name] for one in drawn]) - start[name]
        σ = 0.3 * np.sqrt(np.mean(start[name] ** 2))
        assert noise.std() == pytest.approx(σ, rel=0.08), name
        assert abs(noise.mean()) < 0.2 * σ, name


def test_the_seed_decides_and_the_default_strength_is_as_large_as_the_weights():
    model = a_copy()
    one, again, other, half = (
        readouts_after(model, 1), readouts_after(model, 1), readouts_after(model, 2),
        readouts_after(model, 1, strength=0.5),
    )  # fmt: skip
    for name, p in model.named_parameters():
        if name in one:
            assert np.array_equal(one[name], again[name])
            assert not np.array_equal(one[name], other[name])
            np.testing.assert_allclose(one[name] - p.detach().numpy(), 2 * (half[name] - p.detach().numpy()))


def test_frozen_are_embedding_and_interactions_and_products_and_readouts_are_trained():
    model = a_copy()
    freeze_lower_layers(model)
    trained = {n.partition(".")[0]: p.requires_grad for n, p in model.named_parameters()}
    assert trained == {"node_embedding": False, "interactions": False, "products": True, "readouts": True}
    assert all(hasattr(model, name) for name in FROZEN)


def test_the_weights_of_a_bootstrap_have_mean_one_and_differ_between_members():
    weights = np.array([[bootstrap_weight(seed, f"frame {k}") for k in range(4000)] for seed in (1, 2)])
    np.testing.assert_allclose(weights.mean(1), 1, atol=0.05)
    np.testing.assert_allclose(weights.std(1), 1, atol=0.08)
    assert abs(np.corrcoef(weights)[0, 1]) < 0.05
    assert (weights > 0).all()


def test_each_member_weights_the_structures_in_its_own_way_on_top_of_the_given_weights(members):
    pair, graphs, _ = members
    set_up(pair, differ_by=["data"])
    graphs = [*graphs[1:], type(graphs[0])(**{**vars(graphs[0]), "weight": 3.0})]
    found = [[g.weight for g in weighted_graphs(member, graphs)] for member in pair]
    for member, weights in zip(pair, found, strict=True):
        assert weights == [g.weight * bootstrap_weight(member.seed, g.id) for g in graphs]
    assert min(abs(a - b) for a, b in zip(*found, strict=True)) > 0
    assert [g.weight for g in graphs] == [1.0] * 7 + [3.0], (
        "the graphs that members share are left as they are"
    )
    copy = type(graphs[0])(**{**vars(graphs[0]), "id": "copy", "parent": graphs[0].id})
    assert weighted_graphs(pair[0], [copy])[0].weight == found[0][0]  # a copy weighs as its structure does
    for foundation in ({}, {"differ_by": ["readout"]}):
        set_up(pair, **foundation)
        assert weighted_graphs(pair[0], graphs) is graphs


def test_an_epoch_is_all_graphs_in_an_order_of_its_own(members):
    (member, _), graphs, replay = members
    for foundation in ({}, {"recipe": "naive"}):
        set_up([member], replay, **foundation)
        epochs = [[g.id for g in epoch_graphs(member, graphs, ("train", k))] for k in (0, 0, 1)]
        assert epochs[0] == epochs[1] != epochs[2]
        assert sorted(epochs[0]) == sorted(epochs[2]) == sorted(g.id for g in graphs)


@pytest.mark.parametrize(
    ("share", "n"),
    [(0.5, 8), (0.25, 3), (0.01, 1), (0.9, 20)],  # 8 · share / (1 − share), of 20 at most
)
def test_replayed_structures_have_their_share_of_an_epoch_and_none_is_in_it_twice(members, share, n):
    (member, _), graphs, replay = members
    set_up([member], replay, recipe="replay", replay_data="others.xyz", replay_share=share)
    own, others = {g.id for g in graphs}, {g.id for g in replay}
    epochs = [[g.id for g in epoch_graphs(member, graphs, ("train", k))] for k in (0, 1)]
    for ids in epochs:
        assert len(ids) == len(set(ids)) == 8 + n
        assert own <= set(ids) <= own | others
    assert epochs[0][:8] != [g.id for g in graphs], "they are mixed"
    assert n == 20 or set(epochs[0]) != set(epochs[1])
    member.replay = ()
    assert len(epoch_graphs(member, graphs, ("train", 0))) == 8
