"""The report during a run."""

import logging
from types import SimpleNamespace

import pytest

from aims_pax.engine import live_report
from aims_pax.engine.live_report import EVERY, SHARE, Reporter
from tests.report.folders import advanced, made_up


@pytest.fixture
def clock(monkeypatch):
    """A clock of ours; writing a page takes as long as `clock.page` says."""
    made = SimpleNamespace(now=1000.0, page=0.0, written=[])

    def write(folder, pictures=True):
        made.now += made.page
        made.written.append(pictures)

    monkeypatch.setattr(live_report.time, "monotonic", lambda: made.now)
    monkeypatch.setattr("aims_pax.report.html_page.write_report", write)
    return made


def test_pages_have_at_least_two_minutes_between_them(clock, tmp_path):
    reporter = Reporter(SimpleNamespace(root=tmp_path))
    reporter.due()
    assert clock.written == []
    for _ in range(2):
        clock.now += EVERY
        reporter.due()
        reporter.due()
    assert clock.written == [False, False], "while it runs without pictures"


def test_a_page_that_takes_long_is_written_seldom(clock, tmp_path):
    clock.page = 10.0
    reporter = Reporter(SimpleNamespace(root=tmp_path))
    clock.now += EVERY
    reporter.due()
    clock.now += SHARE * 10.0 - 1
    reporter.due()
    assert len(clock.written) == 1
    clock.now += 2
    reporter.due()
    assert len(clock.written) == 2


def test_a_run_that_wants_no_report_has_none_until_its_end(clock, tmp_path):
    reporter = Reporter(SimpleNamespace(root=tmp_path), wanted=False)
    clock.now += 10 * EVERY
    reporter.due()
    assert clock.written == []
    reporter.write()
    assert clock.written == [True]


def test_the_page_of_a_run_is_written(tmp_path):
    folder = made_up(tmp_path, [advanced(1, 0, 0, 10, 0.1)])
    Reporter(SimpleNamespace(root=folder)).write(pictures=False)
    assert (folder / "report.html").is_file()


def test_an_error_in_the_report_is_a_warning(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    Reporter(SimpleNamespace(root=tmp_path)).write()
    assert "no report: SettingsError: " in caplog.text
    assert "Traceback" in caplog.text
