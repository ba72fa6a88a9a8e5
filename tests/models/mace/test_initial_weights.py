"""Initial weights of another seed without building: what torch's own modules draw, and what cannot be repeated."""

import pytest
import torch
from torch import nn

from aims_pax.models.mace.initial_weights import InitialWeights, recorded_draws


class Quarter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.randn(7)  # an example of something
        self.weight = nn.Parameter(torch.randn(3, 5) / 4)
        self.bias = nn.Parameter(torch.zeros(5))
        self.register_buffer("table", torch.arange(5.0))


class Transformed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 5).exp())


class Uniform(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 5))


class Shuffled(Quarter):
    def __init__(self) -> None:
        super().__init__()
        torch.randperm(4)


def built(make, seed):
    """The module, its draws and the state of the generator after them."""
    torch.manual_seed(seed)
    with recorded_draws() as draws:
        module = make()
    return module, draws, torch.get_rng_state()


@pytest.mark.parametrize(
    "make",
    [
        Quarter,
        lambda: nn.Linear(4, 3),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 3), nn.Embedding(5, 2)),
        lambda: Quarter().double(),
    ],
    ids=["quarter", "linear", "several", "other type"],
)
@pytest.mark.parametrize("seed", [1, 2**40])
def test_another_seed_gives_the_weights_of_a_new_module(make, seed):
    with torch.random.fork_rng(devices=[]):
        module, draws, after = built(make, 5)
        found = InitialWeights.found(module, draws, 5, after)
        if make().state_dict()["weight" if hasattr(module, "weight") else "0.weight"].dtype == torch.float64:
            assert found is None  # drawn in another type
            return
        new, _, _ = built(make, seed)
        drawn = found.drawn(seed)
    assert set(drawn) == {n for n, p in new.named_parameters() if p.std() > 0}
    assert all(torch.equal(drawn[name], new.state_dict()[name]) for name in drawn)


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.randn(1).exp())


@pytest.mark.parametrize("make", [Transformed, Uniform, Shuffled, Scalar])
def test_what_cannot_be_repeated_is_built(make):
    with torch.random.fork_rng(devices=[]):
        assert InitialWeights.found(*built(make, 5)[:2], 5, built(make, 5)[2]) is None


def test_generators_of_their_own_are_no_draws():
    with recorded_draws() as draws:
        torch.randn(3, generator=torch.Generator().manual_seed(1))
        torch.empty(3).normal_(generator=torch.Generator().manual_seed(1))
    assert draws == []
