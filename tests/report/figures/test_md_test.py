"""Figures of the MD test."""

import re
import xml.etree.ElementTree as ET

from aims_pax.report.figures.md_test import md_test_figure
from aims_pax.report.figures.style import NAMES
from tests.report.md_tests import md_results


def test_three_figures_in_the_colours_of_the_theme_with_their_numbers():
    panels = md_test_figure(md_results({300: ["", "a bond broke"], 450: [""]}), png=True)
    assert [p.name for p in panels] == ["md_temperature", "md_total_energy", "md_distances"]
    for p in panels:
        ET.fromstring(p.svg)
        assert not set(re.findall(r"#[0-9a-f]{6}\b", p.svg)) & set(NAMES)
        assert len({len(column) for column in p.table.values()}) == 1
        assert p.png.startswith(b"\x89PNG")
    assert [words for _, words in panels[0].legend] == ["300 K", "450 K"]


def test_what_was_not_observed_is_not_drawn():
    assert md_test_figure({}) == []
    found = md_results(constant_energy=[], distances=[])
    for one in found["trajectories"]:
        one["t_ps"] = one["T_K"] = []
    assert md_test_figure(found) == []
