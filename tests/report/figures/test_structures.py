import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from aims_pax.report.figures.structures import SHOWN, uncertain_structures


def views(text):
    """[(name, what is drawn, caption)] of the canvases."""
    found = re.findall(
        r'<h3>([^<]*)</h3><canvas[^>]*data-atoms="([^"]*)"></canvas><figcaption>(.*?)</figcaption>', text
    )
    return [(name, json.loads(html.unescape(atoms)), caption) for name, atoms, caption in found]


def test_the_most_uncertain_frames_come_first_and_each_system_is_among_them(run):
    drawn = views(uncertain_structures(run))
    assert len(drawn) == SHOWN
    assert {name for name, *_ in drawn[:2]} == {"copper", "water"}
    said = [float(re.search(r"<b>([\d.]+) eV/Å</b>", caption)[1]) for *_, caption in drawn]
    assert said[0] >= said[1]
    known = {(s.info.get("trajectory"), s.info.get("step")) for s in run.structures}
    labelled = [float(t.uncertainty[k]) for t in run.trajectories for k in np.flatnonzero(t.labelled)
                if (str(t.index), str(t.steps[k])) in known]  # fmt: skip
    assert said[0] == pytest.approx(max(labelled), rel=1e-2)


def test_water_is_drawn_with_its_two_bonds_about_its_middle(run):
    water = next(atoms for name, atoms, _ in views(uncertain_structures(run)) if name == "water")
    assert len(water["p"]) == 3
    np.testing.assert_allclose(np.mean(water["p"], axis=0), 0, atol=1e-3)
    oxygen = water["r"].index(max(water["r"]))
    assert all(oxygen in bond for bond in water["b"])
    assert len(water["b"]) == 2
    assert water["c"][oxygen] == "#ff0d0d"  # as in Jmol


def test_without_labels_or_with_structures_too_large_there_is_nothing(run):
    assert uncertain_structures(replace(run, trajectories=())) == ""
    large = tuple(replace(s, n_atoms=401) for s in run.structures)
    assert uncertain_structures(replace(run, structures=large)) == ""


def test_names_of_systems_are_escaped(run):
    odd = tuple(replace(s, info={**s.info, "system": "<b>&"}) for s in run.structures)
    text = uncertain_structures(replace(run, structures=odd))
    assert "<h3>&lt;b&gt;&amp;</h3>" in text
    assert "<b>&" not in text
