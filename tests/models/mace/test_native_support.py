"""Each part of a model that symmetrix does not know is named."""

import logging

import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.models.mace.build import build_model
from aims_pax.models.mace.native import Backend, NativeEvaluator, absent
from aims_pax.models.mace.native_support import channels, original_class_name, unsupported_reason
from tests.models.mace.tiny import settings, with_part

BASE = {"max_ell": 3, "correlation": 2, "num_channels": 4}
AGNOSTIC = "RealAgnostic"


UNKNOWN = {
    "max_ell is 2": {"max_ell": 2, "max_L": 1},
    "max_L is 3": {"max_L": 3},
    "num_interactions is 1": {"num_interactions": 1},
    "num_interactions is 3": {"num_interactions": 3},
    "GaussianBasis": {"radial_type": "gaussian"},
    "ChebychevBasis": {"radial_type": "chebyshev"},
    "gate is not silu": {"gate": "tanh"},
    "interaction_first is RealAgnosticResidualNonLinear": {
        "interaction_first": f"{AGNOSTIC}ResidualNonLinearInteractionBlock",
        "interaction": f"{AGNOSTIC}ResidualNonLinearInteractionBlock",
    },
    "interaction is RealAgnosticAtt": {"interaction": f"{AGNOSTIC}AttResidualInteractionBlock"},
    "interaction is RealAgnosticInteraction": {"interaction": f"{AGNOSTIC}InteractionBlock"},
}


@pytest.mark.skipif(absent() is not None, reason="the extra fast is not installed")
@pytest.mark.parametrize(("reason", "changes"), UNKNOWN.items(), ids=UNKNOWN)
def test_an_unknown_architecture_is_left_to_torch_with_the_reason(reason, changes, caplog):
    model = build_model(settings(**(BASE | {"correlation": 1} | changes)), (1, 6), 0)
    assert reason in unsupported_reason(model)
    with caplog.at_level(logging.INFO):
        backend = Backend("auto", "cpu", model)
        assert not isinstance(backend.evaluator([model]), NativeEvaluator)
        backend.evaluator([model])
    assert len(caplog.records) == 1
    assert reason in caplog.text
    with pytest.raises(SettingsError, match=r"MISC\.inference: native"):
        Backend("native", "cpu", model)


@pytest.fixture(scope="module")
def model():
    return build_model(settings(**BASE), (1, 6), 0)


class Another:
    """In place of a part that is not MACE's own."""


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("heads", ["a", "b"], "the model has several heads"),
        ("joint_embedding", None, "the model has embeddings of charge, spin or fields"),
        ("radial_embedding.apply_cutoff", False, "the cutoff is not applied to the radial basis"),
        ("radial_embedding.distance_transform", "Agnesi", "the radial basis transforms distances"),
        ("use_agnostic_product", True, "its products do not depend on the elements"),
        ("atomic_numbers", torch.tensor([6, 1]), "its elements are not in ascending order"),
        ("interactions.1.conv_tp_weights", Another(), "its radial network has another form"),
        ("products.0.symmetric_contractions", Another(), "its contractions were converted for GPUs"),
    ],
)
def test_a_model_with_one_part_that_symmetrix_does_not_know_is_refused_by_it(model, part, value, reason):
    assert unsupported_reason(model) is None
    with with_part(model, part, value):
        assert unsupported_reason(model) == reason
    assert unsupported_reason(model) is None


def test_a_radial_network_with_another_activation_is_refused(model):
    with with_part(model, "interactions.0.conv_tp_weights.layer0.act.f", torch.tanh):
        assert unsupported_reason(model) == "its radial network has another form"


def test_a_class_is_known_by_its_own_name_also_after_torchscript(model):
    scripted = torch.jit.script(torch.nn.Linear(2, 2))
    assert original_class_name(scripted) == "Linear"
    assert original_class_name(model) == "ScaleShiftMACE"
    assert channels(model) == 4
