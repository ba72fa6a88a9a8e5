"""Preconditioning, loss, vocabulary."""

import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.models.diffusion.atoms_graph import batch_graphs
from aims_pax.models.diffusion.denoiser import Architecture, Denoiser, all_pairs, size_of_noise, within_cutoff
from aims_pax.models.diffusion.model_files import plain_values
from aims_pax.models.diffusion.noisers import named_noisers
from tests.models.diffusion.structures import CONFINED, adsorbates, graphs, trimers


def test_a_network_that_gives_nothing_is_the_denoiser_of_a_gaussian():
    """At the beginning F = 0, so D = σ_data²/(σ² + σ_data²)·x, and its loss is one."""
    own = graphs(trimers(64))
    noiser, _ = named_noisers(["Positions"])
    data, high = size_of_noise(own, noiser)
    made = Denoiser(Architecture(("Positions",), (18,), sigma_data=data, sigma_max=high))
    batch, pos, numbers = batch_graphs(own)
    sigma = torch.full((64,), 0.5, dtype=torch.float64)
    d, _ = made(batch, noiser.settled(batch, pos), made.classes_of(numbers), sigma)
    expected = -(0.25 / (0.25 + data**2)) * noiser.settled(batch, pos)
    assert torch.allclose(d, expected, atol=1e-6)
    with torch.no_grad():
        loss = made.loss(own, torch.Generator().manual_seed(0))
    assert 0.4 < float(loss) < 1.2


def test_the_vocabulary_is_that_of_the_data():
    made = Denoiser(Architecture(("Positions",), (1, 8, 79)))
    assert made.classes_of(torch.tensor([79, 1, 8])).tolist() == [2, 0, 1]
    assert made.numbers_of(torch.tensor([2, 0, 1])).tolist() == [79, 1, 8]
    with pytest.raises(SettingsError, match=r"Fe: the model was trained on H, O, Au only"):
        made.classes_of(torch.tensor([26]))


def test_an_architecture_survives_as_plain_values():
    before = Architecture(("CellPositions", "Types"), (29, 46), conditioning="energy", classes=1)
    assert plain_values(Architecture, before.plain(), "architecture") == before
    before.check()
    with pytest.raises(SettingsError, match="architecture: unknown key _target_"):
        plain_values(Architecture, {**before.plain(), "_target_": "os.system"}, "architecture")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("feature_size", "abc", "valid integer.*abc"),
        ("vocabulary", ["Cu"], "vocabulary.*Cu"),
        ("vocabulary", [999], "vocabulary"),
        ("feature_size", -3, "feature_size"),
        ("sde", "zz", "sde.*zz"),
        ("spread", 0.0, "spread"),
        ("sigma_data", "x", "sigma_data.*x"),
        ("sigma_min", 0.0, "sigma_min"),
        ("sigma_max", float("nan"), "sigma_min"),
        ("classes", 3, "classes"),
    ],
)
def test_an_impossible_architecture_is_said(name, value, said):
    values = Architecture(("CellPositions", "Types"), (29, 46)).plain()
    with pytest.raises((SettingsError, ValueError), match=said):
        plain_values(Architecture, {**values, name: value}, "architecture").check()


def test_neighbours_are_those_of_free_atoms_with_images():
    own = graphs(adsorbates(2), **CONFINED)
    batch, pos, _ = batch_graphs(own)
    near = within_cutoff(batch, pos, 4.5, 10.0)
    i, _, _ = own[0].edges(4.5)
    assert near.receiver.tolist() == [1, 2, 4, 5]
    assert near.present.sum(1)[:2].tolist() == [(i == 1).sum(), (i == 2).sum()]
    pairs = all_pairs(batch, pos)
    assert pairs.sender.tolist() == [[0, 2], [0, 1], [3, 5], [3, 4]]
    assert torch.allclose(pairs.vectors[0, 0].double(), pos[0] - pos[1], atol=1e-5)


def test_the_loss_of_types_counts_masked_atoms_only():
    own = graphs(adsorbates(8), **CONFINED)
    made = Denoiser(Architecture(("ConfinedCellPositions", "Types"), (29, 46, 79), cutoff=4.5))
    assert torch.isfinite(made.loss(own, torch.Generator().manual_seed(0)))
    batch, _, numbers = batch_graphs(own)
    classes = made.classes_of(numbers)
    scores = torch.zeros(len(classes), 3)
    assert float(made._type_loss(batch, classes, classes, scores)) == 0
    seen = torch.where(batch.free, made.masked, classes)
    assert float(made._type_loss(batch, classes, seen, scores)) == pytest.approx(1.0986, abs=1e-3)  # log 3


def test_a_model_of_before_continues_with_the_levels_that_it_began_with():
    """hparams.yaml without `sigma_centre`: log σ is uniform."""
    values = Architecture(("Positions",), (18,)).plain()
    del values["sigma_centre"]
    schedule = Denoiser(plain_values(Architecture, values, "")).schedule
    drawn = schedule.drawn(64, torch.Generator().manual_seed(0)).log().sort().values
    assert float(drawn.diff().max()) < 2.1 * float(drawn[-1] - drawn[0]) / 63
