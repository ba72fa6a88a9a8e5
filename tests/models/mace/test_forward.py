"""The parts of the fast evaluation against MACE's and e3nn's own: harmonics, radial features, atomic energies."""

import numpy as np
import pytest
import torch
from e3nn import o3

from aims_pax.models.mace.build import build_model, set_statistics
from aims_pax.models.mace.forward import MacePlan, UnsupportedModel, check_supported
from aims_pax.models.mace.layout import arrange, pad
from aims_pax.models.mace.mace_import import quiet
from aims_pax.models.mace.statistics import Statistics
from tests.models.mace.tiny import ELEMENTS, settings, with_part


@pytest.fixture(scope="module")
def made():
    """A float64 model with everything that is implemented; no test changes it for good."""
    chosen = settings(default_dtype="float64", max_ell=3, correlation=3)
    model = build_model(chosen, ELEMENTS, 1)
    set_statistics(model, Statistics(np.zeros(4), 7.0, 1.0, 0.0, "given", 4))
    return model


@pytest.fixture(scope="module")
def plan(made):
    return MacePlan(made)


def vectors(n, seed=0, scale=1.5):
    return scale * torch.randn((n, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def molecule(seed=0):
    """Five atoms and all their pairs: species, sender, receiver, vectors from sender to receiver."""
    x = vectors(5, seed, 1.2)
    sender, receiver = torch.tensor([(a, b) for a in range(5) for b in range(5) if a != b]).T
    return torch.tensor([1, 0, 3, 0, 2]), sender, receiver, x[receiver] - x[sender]


def test_spherical_harmonics_are_those_of_e3nn(made, plan):
    species, sender, receiver, v = molecule()
    layout = arrange(species, sender, receiver, len(ELEMENTS))
    Y, _ = plan.geometry(layout, pad(v, layout, plan.r_max))
    theirs = o3.spherical_harmonics([0, 1, 2, 3], v, normalize=True, normalization="component")
    torch.testing.assert_close(Y[layout.slot], theirs, rtol=0, atol=1e-12)
    assert [b.shape[1] for b in plan.by_degree(Y)] == [1, 3, 5, 7]
    torch.testing.assert_close(torch.cat(plan.by_degree(Y), dim=1), Y)


def test_radial_features_are_maces_bessel_functions_and_nothing_beyond_the_cutoff(plan):
    x = torch.linspace(0.3, 5.0, 20, dtype=torch.float64)
    v = x[:, None] * torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
    sender, receiver = torch.zeros(20, dtype=torch.int64), torch.arange(1, 21)
    layout = arrange(torch.zeros(21, dtype=torch.int64), sender, receiver, len(ELEMENTS))
    features = plan.geometry(layout, pad(v, layout, plan.r_max))[1]
    r = x / 3.5
    envelope = 1 - 21 * r**5 + 35 * r**6 - 15 * r**7  # p = 5: Gasteiger et al., ICLR 2020, eq. 8
    waves = [np.sqrt(2 / 3.5) * torch.sin(k * np.pi * r) / x for k in range(1, 7)]
    expected = torch.stack(waves, dim=1) * (envelope * (r < 1))[:, None]
    # MACE stores kπ in float32
    torch.testing.assert_close(features[layout.slot], expected, rtol=0, atol=1e-6)
    dummies = torch.ones(len(features), dtype=torch.bool)
    dummies[layout.slot] = False
    assert not features[dummies].any()


def test_the_energy_of_each_atom_is_that_of_maces_modules(made, plan):
    species, sender, receiver, v = molecule()
    layout = arrange(species, sender, receiver, len(ELEMENTS))
    weights = plan.weights(dict(made.named_parameters()), torch.full((2,), 7.0, dtype=torch.float64))
    ours = plan.node_energies(weights, layout, *plan.geometry(layout, pad(v, layout, plan.r_max)))
    x = torch.zeros((5, 3), dtype=torch.float64)
    with quiet():
        theirs = made(
            {
                "positions": x,
                "node_attrs": torch.nn.functional.one_hot(species, 4).double(),
                "edge_index": torch.stack([sender, receiver]),
                "shifts": v,  # of atoms that all lie at the origin
                "unit_shifts": torch.zeros_like(v),
                "cell": torch.eye(3, dtype=torch.float64),
                "batch": torch.zeros(5, dtype=torch.int64),
                "ptr": torch.tensor([0, 5]),
                "head": torch.zeros(1, dtype=torch.int64),
            },
            compute_force=False,
        )["node_energy"]
    torch.testing.assert_close(ours[layout.rank], theirs, rtol=0, atol=1e-11)
    assert ours.std() > 1e-3


def test_the_mean_number_of_neighbours_divides_the_messages(made, plan):
    few, many = (
        plan.weights(dict(made.named_parameters()), torch.tensor(n, dtype=torch.float64))
        for n in ([2.0, 3.0], [8.0, 3.0])
    )
    torch.testing.assert_close(few.layers[0].linear[0], 4 * many.layers[0].linear[0])
    torch.testing.assert_close(few.layers[1].linear[0], many.layers[1].linear[0])


class ChebychevBasis(torch.nn.Module):
    """By its name."""


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("heads", ["a", "b"], "kind of model"),
        ("joint_embedding", None, "embeddings"),
        ("use_agnostic_product", True, "agnostic product"),
        ("radial_embedding.apply_cutoff", False, "radial cutoff"),
        ("radial_embedding.bessel_fn", ChebychevBasis(), "Chebyshev"),
        ("radial_embedding.trained", torch.nn.Parameter(torch.ones(1)), "trained radial basis"),
        ("interactions.1", torch.nn.Linear(1, 1), "Linear"),
        ("interactions.1.conv_fusion", None, "RealAgnosticResidualInteractionBlock"),
        ("interactions.0.linear", torch.nn.Linear(1, 1), "channels"),
        ("products.0.symmetric_contractions", torch.nn.Linear(1, 1), "symmetric contraction"),
        ("products.1.symmetric_contractions.contractions.0.correlation", 4, "correlation above 3"),
        ("readouts.1", torch.nn.Linear(1, 1), "readouts"),
    ],
)
def test_a_part_that_is_not_implemented_is_refused_by_its_name(made, part, value, reason):
    check_supported(made)
    with with_part(made, part, value), pytest.raises(UnsupportedModel, match=reason):
        MacePlan(made)
    check_supported(made)
