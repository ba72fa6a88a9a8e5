"""The report while a run works and at its end. A report that fails is a warning, never the end of a run."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aims_pax.record.folder import RunFolder

log = logging.getLogger(__name__)

EVERY = 120.0  # s between two reports of a live run, at least
SHARE = 50  # and at least so many times what the last one took: 2 % of the run


class Reporter:
    """Rewrites `report.html` now and then."""

    def __init__(self, folder: RunFolder, wanted: bool = True) -> None:
        self.folder, self.wanted = folder, wanted
        self._next = time.monotonic() + EVERY

    def due(self) -> None:
        """Write the page if its time has come; called between turns."""
        if not self.wanted or time.monotonic() < self._next:
            return
        began = time.monotonic()
        self.write(pictures=False)
        now = time.monotonic()
        self._next = now + max(EVERY, SHARE * (now - began))

    def write(self, pictures: bool = True) -> None:
        """Page, and with `pictures` every figure as PNG and its numbers as CSV beside it."""
        from aims_pax.report.html_page import write_report

        try:
            write_report(self.folder.root, pictures=pictures)
        except Exception as error:  # whatever is wrong with a picture, the run is worth more
            log.warning("no report: %s: %s", type(error).__name__, error)
            log.debug("traceback", exc_info=True)
