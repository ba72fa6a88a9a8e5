"""Numbers, times and states as a person reads them."""

from __future__ import annotations

import math
import time

STATES = {"running": "running", "finished": "finished", "stopped": "stopped, not finished"}
STAGES = {
    "initial": "initial dataset",
    "converge-initial": "convergence on the initial dataset",
    "train-given": "training on the given data",
    "explore": "active learning",
    "converge": "convergence",
    "recalculate": "recalculation",
    "active learning": "active learning",
    "given": "given data",
}


def duration(seconds: float) -> str:
    """`45 s`, `2 min 20 s`, `3 h 05 min`, `2 d 4 h`."""
    if not math.isfinite(seconds):
        return "—"
    if seconds < 99.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {s:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def compact(seconds: float) -> tuple[str, str]:
    """(`3.4`, `min`): a duration in one unit."""
    for unit, size in (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86400.0)):
        if seconds < 99.5 * size or unit == "d":
            return number(seconds / size, 2 if seconds < 99.5 * size else 3), unit
    return "—", ""


def moment(seconds: float) -> str:
    """Local date and time, `—` when unknown."""
    if not math.isfinite(seconds) or seconds <= 0:
        return "—"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def number(value: float, digits: int = 3) -> str:
    """Some significant digits without exponents where possible; `—` for none."""
    if not math.isfinite(value):
        return "—"
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(places, 6)}f}"


def milli(value: float, digits: int = 3) -> str:
    """A value in thousandths of its unit."""
    return number(1000 * value, digits)


def counted(n: int, what: str) -> str:
    """`1 label`, `12 labels`."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
