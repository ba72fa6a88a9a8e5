import pytest

from aims_pax.report.figures import style


@pytest.fixture
def undrawn(monkeypatch):
    """Panels without their SVG, which takes most of the time: for tests of numbers and words alone."""
    monkeypatch.setattr(style, "svg_of", lambda figure, name, title: "")
