"""The network turns with the structure, and does not depend on the order of the atoms."""

import numpy as np
import torch

from aims_pax.models.diffusion.atoms_graph import AtomsGraph, batch_graphs
from aims_pax.models.diffusion.denoiser import Architecture, Denoiser


def model(noisers=("Positions", "Types"), **keys) -> Denoiser:
    torch.manual_seed(0)
    made = Denoiser(Architecture(noisers, (6, 8, 18), sigma_data=2.0, n_blocks=2, **keys))
    torch.nn.init.normal_(made.network.vector.weight)
    return made.eval()


def answer(made: Denoiser, pos, x, cell=None, walls=None):
    graph = AtomsGraph(
        x, pos, np.zeros((3, 3)) if cell is None else cell, cell is not None, confinement=walls
    )
    batch, p, numbers = batch_graphs([graph])
    with torch.no_grad():
        d, scores = made(batch, p, made.classes_of(numbers), torch.tensor([0.7], dtype=torch.float64))
    return d.numpy(), None if scores is None else scores.numpy()


def turn(seed: int = 1) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


X = np.array([18, 18, 6, 8, 6])
POS = np.random.default_rng(0).normal(size=(5, 3)) * 2
POS -= POS.mean(0)


def test_molecules_equivariance_and_permutations():
    made, R = model(), turn()
    d, scores = answer(made, POS, X)
    turned, same = answer(made, POS @ R, X)
    assert abs(turned - d @ R).max() < 1e-6 * max(1, abs(d).max())
    assert abs(same - scores).max() < 1e-5
    order = [3, 0, 4, 2, 1]
    permuted, others = answer(made, POS[order], X[order])
    assert abs(permuted - d[order]).max() < 1e-6 * max(1, abs(d).max())
    assert abs(others - scores[order]).max() < 1e-5
    assert abs(d).max() > 0.1


def test_crystals_equivariance_translations_and_images():
    made, R = model(("CellPositions",), cutoff=4.0), turn(2)
    cell = np.array([[5.0, 0, 0], [1.0, 5.5, 0], [0.3, -0.4, 6.0]])
    d, _ = answer(made, POS, X, cell)
    for pos, box, expected in (
        (POS @ R, cell @ R, d @ R),
        (POS + np.array([0.3, 2.0, -1.0]), cell, d),
        (POS + np.array([[1], [0], [-2], [0], [3]]) * cell[1], cell, d),
    ):
        assert abs(answer(made, pos, X, box)[0] - expected).max() < 2e-6 * max(1, abs(d).max())
    assert abs(d.sum(0)).max() < 1e-5, "no force on the whole"


def test_a_turn_about_z_is_all_that_walls_leave():
    made = model(("ConfinedCellPositions",), cutoff=4.0)
    cell = np.diag([6.0, 6.0, 20.0])
    pos = POS + np.array([0, 0, 5])
    about_z = np.array([[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1]])
    d, _ = answer(made, pos, X, cell, (0.0, 12.0))
    turned, _ = answer(made, pos @ about_z, X, cell @ about_z, (0.0, 12.0))
    assert abs(turned - d @ about_z).max() < 2e-6 * max(1, abs(d).max())
    higher, _ = answer(made, pos + np.array([0, 0, 2]), X, cell, (0.0, 12.0))
    assert abs(higher - d).max() > 1e-3, "the height between the walls is seen"


def test_structures_of_a_batch_do_not_see_each_other():
    made = model()
    graphs = [AtomsGraph(X, POS), AtomsGraph(X[:3], POS[:3] - POS[:3].mean(0))]
    batch, p, numbers = batch_graphs(graphs)
    with torch.no_grad():
        d, _ = made(batch, p, made.classes_of(numbers), torch.tensor([0.7, 0.7], dtype=torch.float64))
    alone = answer(made, graphs[1].pos, graphs[1].x)[0]
    assert abs(d[5:].numpy() - alone).max() < 1e-6
