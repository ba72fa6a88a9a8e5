"""Figures as SVG and PNG, and what a long series keeps."""

import re
import xml.etree.ElementTree as ET

import numpy as np

from aims_pax.report.figures.style import drawing, envelope, escaped, panel, thinned


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


def test_short_series_are_left_as_they_are_and_ends_are_kept():
    x, y = np.arange(10), np.arange(10) ** 2
    assert envelope(x, y, 5)[1] is y
    assert thinned(3, 10).tolist() == [0, 1, 2]
    assert thinned(0, 10).tolist() == []


def test_text_is_safe_in_content_and_attributes():
    assert escaped('<a href="x">&\'') == "&lt;a href=&quot;x&quot;&gt;&amp;&#x27;"


def test_equal_markers_are_one_group_with_the_style_written_once():
    with drawing() as (figure, axes):
        axes.plot(range(5), range(5), "o", color="#0072b2")
        svg = panel(figure, "dots", "dots").svg
    assert svg.count("<use ") >= 5
    assert len(re.findall(r"<g style=[^>]*>(?:<use [^>]*/>){5}</g>", svg)) == 1
    assert "var(--blue)" in svg
