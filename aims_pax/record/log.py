"""The log for the user: one line per decision, on the terminal and in `logs/`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from aims_pax.errors import SetupError

ROOT = logging.getLogger("aims_pax")
LINE = logging.Formatter("%(asctime)s · %(message)s", "%Y-%m-%d %H:%M:%S")
WARNING_LINE = logging.Formatter("%(asctime)s · %(levelname)s · %(message)s", "%Y-%m-%d %H:%M:%S")


class _Lines(logging.Formatter):
    """Plain lines; the level is shown only for warnings and errors."""

    def format(self, record: logging.LogRecord) -> str:
        return (WARNING_LINE if record.levelno >= logging.WARNING else LINE).format(record)


class ConsoleHandler(logging.Handler):
    """Lines on the terminal, above a live display when there is one."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            return  # an error that ends the run is printed once, at the end, on standard error
        style = "yellow" if record.levelno >= logging.WARNING else None
        text = record.getMessage()
        if self.console.is_terminal:
            self.console.print(text, style=style, markup=False, highlight=False)
        else:
            self.console.print(_Lines().format(record), markup=False, highlight=False, soft_wrap=True)


class _LogFile(logging.FileHandler):
    """A log file. If it cannot be written, no traceback is printed: writing the run's own files reports the error."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextlib.contextmanager
def to_console(console: Console, level: str) -> Iterator[None]:
    """Log messages of aims-PAX from this level on are also printed on this console, inside the block."""
    handler = ConsoleHandler(console)
    before, propagate = ROOT.level, ROOT.propagate
    ROOT.setLevel(level)
    ROOT.addHandler(handler)
    ROOT.propagate = False
    try:
        yield
    finally:
        ROOT.removeHandler(handler)
        ROOT.setLevel(before)
        ROOT.propagate = propagate


class _Collector(logging.Handler):
    """Appends the text of each warning to a list, once."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        if (text := record.getMessage()) not in self.texts:
            self.texts.append(text)


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """The warnings of aims-PAX inside the block, in this list instead of on the terminal."""
    texts: list[str] = []
    handler, propagate = _Collector(texts), ROOT.propagate
    ROOT.addHandler(handler)
    ROOT.propagate = False
    try:
        yield texts
    finally:
        ROOT.removeHandler(handler)
        ROOT.propagate = propagate


@contextlib.contextmanager
def only_errors(name: str) -> Iterator[None]:
    """Inside the block this logger, and those below it without a level of their own, log nothing but errors.

    name: of the logger; "" is the root logger, which other packages use. Not for blocks of several threads at once.
    """
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Log messages inside the block are appended to the file, tracebacks included.

    Raises SetupError when the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"cannot write the log {path}: {error.strerror}; fix MISC.log_dir") from error
    handler.setFormatter(_Lines())
    ROOT.addHandler(handler)
    try:
        yield
    finally:
        ROOT.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
