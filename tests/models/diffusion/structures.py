"""Small structures and models for the tests of diffusion."""

from __future__ import annotations

import functools

import numpy as np

from aims_pax.frames import Frame
from aims_pax.models.diffusion.atoms_graph import AtomsGraph
from aims_pax.models.diffusion.training import DiffusionTrainer
from aims_pax.models.diffusion.training_data import architecture_for, graphs_for, summarise
from aims_pax.settings.diffusion import DiffusionSettings

CELL = np.array([[5.0, 0, 0], [1.5, 5.2, 0], [0, 0, 14.0]])


def trimers(n: int, seed: int = 0, width: float = 0.05) -> list[Frame]:
    """Equilateral triangles of argon, 3.8 Å, each turned at random, with Gaussian displacements."""
    rng = np.random.default_rng(seed)
    corners = 3.8 / 3**0.5 * np.array([[np.cos(a), np.sin(a), 0] for a in 2 * np.pi * np.arange(3) / 3])
    frames = []
    for _ in range(n):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        frames.append(Frame([18] * 3, corners @ turn + width * rng.normal(size=(3, 3))))
    return frames


def adsorbates(n: int, seed: int = 0) -> list[Frame]:
    """A fixed copper atom in an oblique periodic cell and a gold and a palladium atom around their sites."""
    rng = np.random.default_rng(seed)
    at = np.array([[0, 0, 0], [1.0, 1.2, 2.2], [4.0, 3.8, 2.4]])
    frames = []
    for _ in range(n):
        moved = at + 0.1 * rng.normal(size=(3, 3)) * np.array([[0], [1], [1]])
        frames.append(Frame([29, 79, 46], moved, CELL, (True, True, False), fixed=[True, False, False]))
    return frames


def settings(**keys: object) -> DiffusionSettings:
    return DiffusionSettings(**{"epochs": 2, "batch_size": 16, "feature_size": 8, "n_blocks": 2, **keys})


CONFINED = {"confinement": (1.0, 4.0), "cutoff": 4.5}


def graphs(frames: list[Frame], **keys: object) -> list[AtomsGraph]:
    return graphs_for([(f, {}) for f in frames], settings(**keys))


@functools.cache
def trained(kind: str = "trimers", epochs: int = 2):
    """(denoiser, summary, graphs) of a quick training."""
    keys = (
        {}
        if kind == "trimers"
        else {**CONFINED, "noisers": ("auto", "Types") if kind == "types" else ("auto",)}
    )
    frames = trimers(120) if kind == "trimers" else adsorbates(120)
    own = graphs(frames, **keys)
    trainer = DiffusionTrainer(architecture_for(own, settings(**keys)), settings(epochs=epochs, **keys))
    while not trainer.ended:
        trainer.run_epoch(own)
    return trainer.model(), summarise(own), own
