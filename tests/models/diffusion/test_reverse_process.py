"""With an exact denoiser every sampler gives the distribution of the data."""

from __future__ import annotations

import pytest
import torch

from aims_pax.models.diffusion.atoms_graph import AtomsGraph, BatchedGraphs, batch_graphs
from aims_pax.models.diffusion.noise_kernels import reflected_displacement, wrapped_displacement
from aims_pax.models.diffusion.noise_schedule import NoiseSchedule
from aims_pax.models.diffusion.noisers import named_noisers
from aims_pax.models.diffusion.reverse_process import CORRECTOR, REVERSE_SAMPLERS, ReverseProcess

N = 600
STEPS = {"heun": 30, "heun_ode": 30, "ddim": 250, "em": 300, "pc": 120}
CELL = [[4.0, 0, 0], [1.5, 4.2, 0], [0, 0, 12.0]]
WELL = torch.tensor([1.0, 2.0, 4.2], dtype=torch.float64)  # place of the free atom


def one_atom(name: str) -> AtomsGraph:
    """A free atom, and a fixed one: where the free one is where space has no cell, else at the origin."""
    periodic = name != "Positions"
    return AtomsGraph(
        x=[18, 10],
        pos=[[0, 0, 0] if periodic else WELL.tolist(), WELL.tolist()],
        cell=CELL if periodic else [[0, 0, 0]] * 3,
        pbc=periodic,
        mask=[True, False],
        confinement=(2.0, 6.4) if name.startswith("Confined") else None,
    )


def exact(name: str, well: float):
    """D − x of a Gaussian of this width around WELL, noised with the kernel of the noiser."""

    def denoise(batch: BatchedGraphs, pos: torch.Tensor, classes: torch.Tensor, sigma: torch.Tensor):
        s = float(sigma[0])
        wide = (s**2 + well**2) ** 0.5
        x = pos[batch.free]
        middle = WELL.expand(len(x), 3)
        if name == "Positions":
            found = middle - x
        else:
            flat = torch.tensor([1.0, 1.0, name == "CellPositions"], dtype=torch.float64)
            found = wrapped_displacement(x * flat, middle * flat, wide, batch.cell[0], flat.bool())
            if name != "CellPositions":
                found[:, 2] = reflected_displacement(x[:, 2], middle[:, 2], wide, 2.0, 6.4)
        d = torch.zeros_like(pos)
        d[batch.free] = found * (s / wide) ** 2
        return d, None

    return denoise


@pytest.mark.parametrize("sampler", REVERSE_SAMPLERS)
@pytest.mark.parametrize("name", ["Positions", "CellPositions", "ConfinedCellPositions"])
@pytest.mark.parametrize("well", [pytest.param(0.1, marks=pytest.mark.slow), 0.3])
def test_an_atom_in_a_gaussian_well_has_its_standard_deviation(name, sampler, well):
    noiser, _ = named_noisers([name])
    batch, pos, classes = batch_graphs([one_atom(name)] * N)
    schedule = NoiseSchedule("ve", 0.01, 5.0, 1.0)
    process = ReverseProcess(exact(name, well), noiser, schedule, sampler, STEPS[sampler])
    found, _ = process.run(batch, pos, classes, torch.Generator().manual_seed(1))
    assert torch.equal(found[~batch.free], pos[~batch.free]), "fixed atoms do not move"
    off = found[batch.free] - WELL
    if name != "Positions":
        flat = torch.tensor([True, True, name == "CellPositions"])
        cell = batch.cell[0]
        off = off - torch.round(off @ torch.linalg.inv(cell)) * flat @ cell
    statistical = 3 / (6 * N) ** 0.5
    assert float(off.std()) == pytest.approx(well, rel=0.03 + 0.5 * statistical)
    assert abs(off.mean(0)).max() < 5 * well / N**0.5


def test_the_corrector_keeps_the_noised_density_not_its_square():
    noiser, _ = named_noisers(["Positions"])
    batch, pos, classes = batch_graphs([one_atom("Positions")] * 8 * N)
    process = ReverseProcess(exact("Positions", 0.3), noiser, NoiseSchedule("ve", 0.01, 5.0, 1.0), "pc")
    sigma, g = torch.tensor(0.4, dtype=torch.float64), torch.Generator().manual_seed(2)
    for _ in range(int(20 / CORRECTOR)):
        pos = process.corrected(batch, pos, classes, sigma, g)
    assert float((pos[batch.free] - WELL).std()) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_both_schedules_give_the_same_law(sde):
    noiser, _ = named_noisers(["Positions"])
    batch, pos, classes = batch_graphs([one_atom("Positions")] * N)
    process = ReverseProcess(
        exact("Positions", 0.3), noiser, NoiseSchedule(sde, 0.01, 5.0, 1.0), "heun_ode", 60
    )
    found, _ = process.run(batch, pos, classes, torch.Generator().manual_seed(1))
    assert float((found[batch.free] - WELL).std()) == pytest.approx(0.3, rel=0.03)


def test_a_normal_truncated_to_the_walls_would_give_a_distribution_that_is_too_narrow():
    """Why the kernel in z is reflected: the score of the truncated kernel is (z₀ − z)/σ², its law no diffusion."""
    noiser, _ = named_noisers(["ConfinedCellPositions"])
    batch, pos, classes = batch_graphs([one_atom("ConfinedCellPositions")] * N)

    def truncated(batch, pos, classes, sigma):
        d, _ = exact("ConfinedCellPositions", 0.1)(batch, pos, classes, sigma)
        s = float(sigma[0])
        d[:, 2] = torch.where(batch.free, (WELL[2] - pos[:, 2]) * s**2 / (s**2 + 0.01), 0.0)
        return d, None

    process = ReverseProcess(truncated, noiser, NoiseSchedule("ve", 0.01, 5.0, 1.0), "heun_ode", 60)
    found, _ = process.run(batch, pos, classes, torch.Generator().manual_seed(1))
    assert float((found[batch.free] - WELL)[:, 2].std()) < 0.07


def test_elements_are_revealed_with_the_composition_asked_for():
    _, types = named_noisers(["Types"])
    graphs = [AtomsGraph(x=[29] * 6, pos=torch.rand(6, 3).numpy())] * 20
    batch, pos, _ = batch_graphs(graphs)

    def likes_the_first(batch, pos, classes, sigma):
        return torch.zeros_like(pos), torch.tensor([3.0, 0.0, 0.0]).expand(len(pos), 3)

    process = ReverseProcess(likes_the_first, None, NoiseSchedule("ve", 0.01, 5.0, 1.0), masked=3)
    left = torch.tensor([[2, 3, 1]] * 20)
    masked = torch.full((120,), 3)
    _, classes = process.run(batch, pos, masked, torch.Generator().manual_seed(0), left.clone())
    counts = [torch.bincount(classes[batch.graph == b], minlength=3).tolist() for b in range(20)]
    assert counts == [[2, 3, 1]] * 20
    _, free = process.run(batch, pos, masked, torch.Generator().manual_seed(0))
    share = float((free == 0).double().mean())
    assert share == pytest.approx(0.909, abs=0.08)  # e³/(e³ + 2)
    assert types is not None
