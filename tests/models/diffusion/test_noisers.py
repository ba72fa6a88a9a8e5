"""Priors, pairings, and what noise leaves in place."""

import numpy as np
import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.models.diffusion.atoms_graph import AtomsGraph, batch_graphs
from aims_pax.models.diffusion.noisers import named_noisers
from tests.models.diffusion.structures import adsorbates, trimers

TRICLINIC = np.array([[4.0, 0, 0], [1.7, 3.1, 0], [-0.9, 1.1, 5.2]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chi2(values: np.ndarray, bins: int) -> float:
    """p of the hypothesis that numbers in [0, 1) are uniform."""
    from scipy.stats import chisquare

    return float(chisquare(np.histogram(values, bins, (0, 1))[0]).pvalue)


def test_the_prior_of_a_triclinic_cell_is_uniform_in_fractional_coordinates():
    graph = AtomsGraph([18] * 40, np.zeros((40, 3)), TRICLINIC, (True,) * 3)
    batch, pos, _ = batch_graphs([graph] * 200)
    noiser, _ = named_noisers(["CellPositions"])
    drawn = noiser.prior(batch, pos, 1.0, generator()).numpy()
    f = drawn @ np.linalg.inv(TRICLINIC)
    assert f.min() >= 0
    assert f.max() < 1
    assert all(chi2(f[:, k], 20) > 0.01 for k in range(3))
    wrong = (TRICLINIC @ f.T).T @ np.linalg.inv(TRICLINIC) % 1  # cell @ f instead of f @ cell
    assert min(chi2(wrong[:, k], 20) for k in range(3)) < 1e-6


def test_the_confined_prior_is_uniform_between_the_walls_and_in_the_cell():
    graphs = [AtomsGraph.from_frame(f, (1.0, 4.0)) for f in adsorbates(3000)]
    batch, pos, _ = batch_graphs(graphs)
    noiser, _ = named_noisers(["ConfinedCellPositions"])
    drawn = noiser.settled(batch, noiser.prior(batch, pos, 1.0, generator(1)))
    assert torch.equal(drawn[~batch.free], pos[~batch.free])
    free = drawn[batch.free].numpy()
    flat = free * [1, 1, 0] @ np.linalg.inv(graphs[0].cell)
    assert all(chi2(flat[:, k], 20) > 0.01 for k in range(2))
    assert chi2((free[:, 2] - 1) / 3, 20) > 0.01


def test_noise_in_open_space_leaves_the_centre_of_mass_and_fixed_atoms():
    noiser, _ = named_noisers(["Positions"])
    batch, pos, _ = batch_graphs([AtomsGraph.from_frame(f) for f in trimers(10)])
    pos = noiser.settled(batch, pos)
    noised = noiser.noised(batch, pos, torch.full((10,), 2.0, dtype=torch.float64), generator())
    assert batch.mean(noised).abs().max() < 1e-12
    assert (noised - pos).std() > 1


@pytest.mark.parametrize("name", ["CellPositions", "ConfinedCellPositions"])
def test_structures_stay_inside_however_large_the_noise(name):
    batch, pos, _ = batch_graphs([AtomsGraph.from_frame(f, (1.0, 4.0)) for f in adsorbates(50)])
    noiser, _ = named_noisers([name])
    noised = noiser.noised(batch, pos, torch.full((50,), 30.0, dtype=torch.float64), generator())
    assert torch.equal(noised[~batch.free], pos[~batch.free])
    f = noised[batch.free] @ torch.linalg.inv(batch.cell[0])
    assert f[:, :2].min() >= -1e-9
    assert f[:, :2].max() <= 1 + 1e-9
    if name == "ConfinedCellPositions":
        assert noised[batch.free, 2].min() >= 1
        assert noised[batch.free, 2].max() <= 4


def test_the_amplitude_is_the_size_of_the_displacement():
    """The network's target has a variance of order one at every noise level."""
    batch, pos, _ = batch_graphs([AtomsGraph.from_frame(f, (1.0, 4.0)) for f in adsorbates(400)])
    noiser, _ = named_noisers(["ConfinedCellPositions"])
    for s in (0.05, 0.5, 1.5):
        sigma = torch.full((400,), s, dtype=torch.float64)
        d = noiser.displacement(batch, noiser.noised(batch, pos, sigma, generator()), pos, sigma)
        ratio = float(d[batch.free].square().mean().sqrt() / noiser.amplitude(batch, sigma, 1.0)[0])
        assert 0.6 < ratio < 1.4


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["Positions", "CellPositions"], "all noise 'pos'"),
        (["Types", "Types"], "all noise 'x'"),
        (["CellPosition"], "nearest: CellPositions"),
        ([], "expected at least one"),
    ],
)
def test_noisers_of_the_same_key_do_not_go_together(names, said):
    with pytest.raises(SettingsError, match=said):
        named_noisers(names)


def test_types_mask_free_atoms_with_their_probability():
    _, types = named_noisers(["Positions", "Types"])
    free = torch.arange(20000) % 2 == 0
    seen = types.noised(torch.zeros(20000, dtype=torch.long), free, torch.full((20000,), 0.3), 5, generator())
    assert not (seen[~free] == 5).any()
    assert float((seen[free] == 5).double().mean()) == pytest.approx(0.3, abs=0.02)
