"""Figures of a diffusion model."""

import numpy as np

from aims_pax.report.figures.diffusion import histogram_panel, loss_panel, picture_panel
from tests.models.diffusion.structures import adsorbates, trimers


def test_every_atom_is_a_disc_and_a_cell_an_outline():
    for frames, lines in ((trimers(9), 0), (adsorbates(3), 3)):
        svg = picture_panel(frames, "samples", "Samples", png=True).svg
        assert svg.count("<path") - 3 * min(len(frames), 8) - 1 == lines  # one is the background


def test_densities_and_losses_are_tables_too():
    rng = np.random.default_rng(0)
    table = histogram_panel("d", "D", "Å", rng.normal(size=500), rng.normal(1, 1, 500)).table
    widths = np.diff(table["from"]).mean()
    assert 0.97 < table["data"].sum() * widths < 1.01
    assert loss_panel([(1, 0.9, np.nan), (2, 0.8, 0.7)]).table["epoch"].tolist() == [1, 2]
