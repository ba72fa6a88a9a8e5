"""The log of a run: what it sets for itself ends with it."""

import io
import logging

from rich.console import Console

from aims_pax.record.log import ROOT, to_console


def test_what_a_run_says_appears_and_the_logger_is_as_before():
    out = io.StringIO()
    before = (ROOT.level, ROOT.propagate, list(ROOT.handlers))
    with to_console(Console(file=out), "INFO"):
        logging.getLogger("aims_pax.somewhere").info("hello")
        logging.getLogger("aims_pax.somewhere").debug("too much")
    logging.getLogger("aims_pax.somewhere").info("later")
    (line,) = out.getvalue().splitlines()
    assert line.endswith("hello")
    assert (ROOT.level, ROOT.propagate, list(ROOT.handlers)) == before
