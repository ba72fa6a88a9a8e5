"""The fast evaluation against MACE's own modules: energies, forces, stress, gradients of all weights."""

import gc
import pickle
import weakref

import numpy as np
import pytest
import torch

from aims_pax.frames import Frame
from aims_pax.models.mace.build import build_model, set_statistics
from aims_pax.models.mace.fast_forward import FastEvaluator, fast_evaluator, fast_mace
from aims_pax.models.mace.graphs import GraphCache, collate
from aims_pax.models.mace.inference import Committee, TorchEvaluator
from aims_pax.models.mace.losses import predict, predict_by_modules
from aims_pax.models.mace.statistics import Statistics
from tests.models.mace.tiny import ELEMENTS, copper, ensemble, ethanol, settings, slab, triclinic, water

DENSITY = "RealAgnosticDensityInteractionBlock"
ARCHITECTURES = [
    {},
    {"correlation": 3, "max_ell": 3},
    {"correlation": 1},
    {"max_L": 0},
    {"max_L": 2},
    {"num_interactions": 1},
    {"num_interactions": 3},
    {"model": "MACE"},
    {"interaction": "RealAgnosticInteractionBlock", "interaction_first": "RealAgnosticInteractionBlock"},
    {"interaction": DENSITY, "interaction_first": DENSITY},
    {
        "interaction": "RealAgnosticDensityResidualInteractionBlock",
        "interaction_first": "RealAgnosticDensityResidualInteractionBlock",
    },
    {"radial_type": "gaussian", "gate": "None", "radial_MLP": [8, 8]},
    {"pair_repulsion": True, "gate": "tanh", "num_cutoff_basis": 6},
]
OTHERS = [
    {"correlation": 4, "max_ell": 1},
    {"radial_type": "chebyshev"},
    {"interaction": "RealAgnosticAttResidualInteractionBlock"},
]


def model(dtype="float64", seed=1, **changes):
    made = build_model(settings(default_dtype=dtype, **changes), ELEMENTS, seed)
    shift = 0.0 if changes.get("model") == "MACE" else 0.3
    set_statistics(made, Statistics(np.zeros(4), 7.0, 1.7 if shift else 1.0, shift, "given", 4))
    return made


def batch(dtype):
    graphs = GraphCache(ELEMENTS, 3.5, getattr(torch, dtype)).of(ethanol(2) + copper(2) + water(1))
    return collate(graphs, np.zeros(4), torch.device("cpu"))


CASES = [("float64", changes) for changes in ARCHITECTURES] + [("float32", ARCHITECTURES[k]) for k in (1, -1)]


@pytest.mark.parametrize(("dtype", "changes"), CASES, ids=str)
def test_predictions_and_their_gradients_are_those_of_maces_modules(changes, dtype):
    made, frames = model(dtype, **changes), batch(dtype)
    assert fast_mace(made) is not None
    tight = dtype == "float64"
    weights = [p for p in made.parameters() if p.requires_grad]
    told = []
    for f in (predict, predict_by_modules):
        p = f(made, frames, training=True, stress=True)
        value = p.energy.square().sum() + p.forces.square().sum() + 100 * p.stress.square().sum()
        told.append((p.energy, p.forces, p.stress, torch.autograd.grad(value, weights)))
    (e, F, s, g), (e0, F0, s0, g0) = told
    torch.testing.assert_close(e, e0, rtol=1e-12 if tight else 2e-6, atol=1e-10 if tight else 5e-6)
    torch.testing.assert_close(F, F0, rtol=0, atol=1e-10 if tight else 5e-5)
    torch.testing.assert_close(s, s0, rtol=0, atol=1e-10 if tight else 5e-6)
    for ours, theirs in zip(g, g0, strict=True):
        scale = float(theirs.abs().max())
        assert float((ours - theirs).abs().max()) <= (1e-10 if tight else 1e-4) * scale


@pytest.mark.parametrize("changes", OTHERS, ids=str)
def test_what_is_not_written_here_is_left_to_mace(changes):
    made, frames = model(**changes), batch("float64")
    assert fast_mace(made) is None
    assert fast_evaluator([made]) is None
    ours = predict(made, frames, training=False, stress=False)
    theirs = predict_by_modules(made, frames, training=False, stress=False)
    assert torch.equal(ours.forces, theirs.forces)


def committees(models):
    ours, theirs = Committee(models), Committee(models)
    ours.evaluator, theirs.evaluator = fast_evaluator(models), TorchEvaluator(models)
    assert isinstance(ours.evaluator, FastEvaluator)
    return ours, theirs


def test_a_committee_on_mixed_structures_is_that_of_maces_modules():
    ours, theirs = committees([model(seed=1), model(seed=2)])
    lone = Frame([8], [[0.0, 0.0, 0.0]])
    frames = [ethanol(1)[0].frame, copper(1)[0].frame, lone, triclinic(), slab(), water(1)[0].frame]
    a, b = ours.evaluate(frames), theirs.evaluate(frames)
    torch.testing.assert_close(a.energies, b.energies, rtol=0, atol=1e-10)
    torch.testing.assert_close(a.forces, b.forces, rtol=0, atol=1e-10)
    torch.testing.assert_close(a.stress, b.stress, rtol=0, atol=1e-11, equal_nan=True)
    assert float(a.forces.abs().max()) > 0.1


def test_new_weights_and_statistics_are_seen_at_once():
    made = model()
    ours, theirs = committees([made])
    frame = ethanol(1)[0].frame
    before = ours.evaluate([frame]).forces
    with torch.no_grad():
        made.products[0].symmetric_contractions.contractions[0].weights_max.mul_(1.5)
    after = ours.evaluate([frame]).forces
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, theirs.evaluate([frame]).forces, rtol=0, atol=1e-10)
    set_statistics(made, Statistics(np.ones(4), 9.0, 1.1, -0.2, "given", 4))
    a, b = ours.evaluate([frame]), theirs.evaluate([frame])
    torch.testing.assert_close(a.forces, b.forces, rtol=0, atol=1e-10)
    torch.testing.assert_close(a.energies, b.energies, rtol=0, atol=1e-10)


def test_a_frame_gives_the_same_bits_again_and_its_layout_is_kept():
    ours, _ = committees([model("float32")])
    bound = ours.bind([ethanol(1)[0].frame])
    x = torch.from_numpy(np.array(ethanol(1)[0].frame.positions))
    cells = torch.zeros((1, 3, 3), dtype=torch.float64)
    first = bound(x, cells).forces
    layout = ours.evaluator._layouts[0][1]
    assert torch.equal(first, bound(x, cells).forces)
    assert ours.evaluator._layouts[0][1] is layout
    bound(x + torch.arange(27.0).view(9, 3) * 0.1, cells)
    assert ours.evaluator._layouts[0][1] is not layout


def test_the_model_is_left_alone():
    made = model()
    before = set(made.state_dict()), len(pickle.dumps(made.state_dict()))
    predict(made, batch("float64"), training=True, stress=True)
    assert (set(made.state_dict()), len(pickle.dumps(made.state_dict()))) == before
    assert "forward" not in vars(made)
    told = weakref.ref(made)
    del made
    gc.collect()
    assert told() is None


def test_training_goes_the_same_way_with_either():
    """Ten steps of the real loss in float64: the weights of both stay together."""
    from aims_pax.models.mace import gradients
    from aims_pax.models.mace.ensemble import MemberData

    ends = []
    for way in (predict, predict_by_modules):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gradients, "predict", way)
            made = ensemble((1,), default_dtype="float64", compute_stress=True)
            made.train({0: MemberData(ethanol(5) + copper(5))}, 5)
            ends.append(made.arrays())
    assert any(k.startswith("0/param/") for k in ends[0])
    for k, v in ends[0].items():
        if k.startswith("0/param/"):
            np.testing.assert_allclose(v, ends[1][k], rtol=0, atol=1e-9)
