"""Writes the report during a run and at its end. A report error is logged as a warning and never stops the run."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aims_pax.record.folder import RunFolder

log = logging.getLogger(__name__)

EVERY = 120.0  # s between two reports of a run, at least
SHARE = 50  # and at least 50 times the duration of the last one: 2 % of the run


class Reporter:
    """Rewrites `report.html` at intervals."""

    def __init__(self, folder: RunFolder, wanted: bool = True) -> None:
        self.folder, self.wanted = folder, wanted
        self._next = time.monotonic() + EVERY

    def due(self) -> None:
        """Write the page if it is due; called between turns."""
        if not self.wanted or time.monotonic() < self._next:
            return
        began = time.monotonic()
        self.write(pictures=False)
        now = time.monotonic()
        self._next = now + max(EVERY, SHARE * (now - began))

    def write(self, pictures: bool = True) -> None:
        """Write the page and, with `pictures`, every figure as PNG with its numbers as CSV."""
        from aims_pax.report.html_page import write_report

        try:
            write_report(self.folder.root, pictures=pictures)
        except Exception as error:  # a report error must never stop the run
            log.warning("no report: %s: %s", type(error).__name__, error)
            log.debug("traceback", exc_info=True)
