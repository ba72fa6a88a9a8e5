"""Loads packages of foundation models without what they leave behind in this process."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch

log = logging.getLogger(__name__)


@contextlib.contextmanager
def quiet_package() -> Iterator[None]:
    """Inside, packages may print, warn and change torch's default dtype; none of this remains.

    What they print appears in the log at the level debug.
    """
    before, printed = torch.get_default_dtype(), io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)
        for line in filter(str.strip, printed.getvalue().splitlines()):  # also what came before an error
            log.debug("%s", line.strip())
