"""Estimated time left, and durations and activities in words, for live view and `aims-PAX status`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

DOING = {  # activity of a run → its name in texts
    "moving": "dynamics",
    "training": "training",
    "sampling": "first structures",
    "waiting": "waiting for labels",
    "saving": "saving",
    "starting": "starting",
    "other": "other",
}
CERTAIN = 0.04  # share of the way to a limit that must be done before a time left is given


@dataclass(frozen=True)
class Limit:
    """A limit that ends a stage. first, now: amount used when the clock started, and now; most: the limit or inf.

    since: s of work until it began to be used: training before exploration brings no label nearer.
    """

    name: str
    first: float
    now: float
    most: float
    since: float = 0.0

    @property
    def share(self) -> float:
        """The share used, since the clock was started, of what was left until the limit, 0 … 1; 0 without a limit."""
        way = self.most - self.first
        return (self.now - self.first) / way if 0 < way < math.inf else 0.0


def time_left(seconds: float, limits: Iterable[Limit]) -> tuple[str, float]:
    """(the limit that will be reached first, s until then), from the seconds worked so far; ("", NaN) when unknown.

    t_left = t (1 − p) / p, where p is the share of the way to the nearest limit done in the time t.
    """
    nearest = max(limits, key=lambda limit: limit.share, default=None)
    if nearest is None or not CERTAIN <= nearest.share < 1:
        return "", math.nan
    used = max(0.0, seconds - nearest.since)
    return f"{nearest.name} {nearest.most:g}", used * (1 - nearest.share) / nearest.share


def rounded_seconds(seconds: float) -> str:
    """A duration for estimates: whole minutes from 90 s on."""
    return duration(60.0 * round(seconds / 60)).replace(" 00 s", "") if seconds >= 90 else duration(seconds)


def duration(seconds: float) -> str:
    """`45 s`, `2 min 20 s`, `3 h 05 min`, `2 d 4 h`; `—` when it is not known."""
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
