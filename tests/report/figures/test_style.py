"""Figures as SVG and PNG, and what a long series keeps."""

import xml.etree.ElementTree as ET

import numpy as np

from aims_pax.report.figures.style import drawing, envelope, panel, thinned


def test_words_keep_their_digits_and_ids_do_not_repeat():
    with drawing() as (figure, axes):
        axes.plot([0, 1], [0.00123, 0.00456])
        axes.annotate("0.001234 & <x>", (0.5, 0.002))
        one = panel(figure, "one", 'a "title" <b>')
    assert "0.001234 &amp; &lt;x>" in one.svg or "0.001234 &amp; &lt;x&gt;" in one.svg
    assert "&quot;title&quot; &lt;b&gt;" in one.svg
    root = ET.fromstring(one.svg)
    assert root.get("width") is None
    assert 'id="figure' not in one.svg


def test_a_png_is_made_when_asked():
    with drawing() as (figure, axes):
        axes.plot([0, 1])
        assert panel(figure, "one", "title", [("#0072b2", "line")], png=True).png.startswith(b"\x89PNG")


def test_peaks_survive_thinning():
    y = np.sin(np.arange(100_000) / 900)
    y[54_321] = 7.0
    y[777] = -7.0
    x, kept = envelope(np.arange(100_000), y, 250)
    assert len(x) <= 500
    assert (kept.max(), kept.min()) == (7.0, -7.0)
    assert (np.diff(x) > 0).all()
    k = thinned(1000, 10)
    assert len(k) == 10
    assert (k[0], k[-1]) == (0, 999)
