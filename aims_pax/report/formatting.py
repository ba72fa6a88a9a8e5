"""Numbers, times and states as text for the user."""

from __future__ import annotations

import math
import time

from aims_pax.report.time_left import DOING as DOING
from aims_pax.report.time_left import duration as duration

ORDERS, ROUGHLY = 0.7, 0.4  # lowest rank correlation at which an uncertainty ranks errors well, roughly
HONEST = 1.5  # largest factor between error and spread at which a spread counts as calibrated
BEST = (
    "the last epoch that was clearly better on the validation frames than the best before "
    "(ACTIVE_LEARNING.convergence_criterion)"
)
STATES = {
    "starting": "starting",
    "running": "running",
    "finished": "finished",
    "stopped": "stopped, not finished",
    "killed": "killed, not finished",
}
STAGES = {
    "pretrain-sample": "pre-training: structures",
    "pretrain": "pre-training",
    "initial": "initial dataset",
    "converge-initial": "convergence on the initial dataset",
    "train-given": "training on the given data",
    "explore": "active learning",
    "converge": "convergence",
    "recalculate": "recalculation",
    "active learning": "active learning",
    "given": "given data",
}


def compact(seconds: float) -> tuple[str, str]:
    """(`3.4`, `min`): a duration in one unit."""
    for unit, size in (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86400.0)):
        if seconds < 99.5 * size or unit == "d":
            return format_number(seconds / size, 2 if seconds < 99.5 * size else 3), unit
    return "—", ""


def moment(seconds: float) -> str:
    """Local date and time, `—` when unknown."""
    if not math.isfinite(seconds) or seconds <= 0:
        return "—"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def format_number(value: float, digits: int = 3) -> str:
    """A number with this many significant digits, without exponent where possible; `—` if it is not finite."""
    if not math.isfinite(value):
        return "—"
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(places, 6)}f}"


def milli(value: float, digits: int = 3) -> str:
    """A value in thousandths of its unit."""
    return format_number(1000 * value, digits)


def milli_with_error(value: float, error: float) -> str:
    """`40.5 ± 4.0`: a value in thousandths of its unit with its standard error; without it where that is unknown."""
    return milli(value) + (f" ± {milli(error, 2)}" if math.isfinite(error) else "")


DELIVERED, MEAN = "the delivered model", "the committee mean"  # whose error is compared with the spread


def calibration_sentence(rank: float, ratio: float, whose: str) -> str:
    """How well the spread of the models predicts the error of one of them, or of their mean.

    rank: Spearman's ρ; ratio: rms error / rms spread; whose: DELIVERED or MEAN. The errors of the mean are smaller than
    those of its members and located differently, so the same spread is calibrated differently for each.
    """
    if not math.isfinite(rank):
        return ""
    how = "shows well" if rank >= ORDERS else "shows roughly" if rank >= ROUGHLY else "hardly shows"
    text = f"The spread of the models {how} where {whose} is wrong (rank correlation ρ = {rank:.2f})"
    if rank < ROUGHLY:
        return f"{text}; its error is {ratio:.1f} × the spread."
    if 1 / HONEST <= ratio <= HONEST:
        return f"{text}, and how much: its error is {ratio:.1f} × the spread."
    return f"{text}, but not how much: its error is {ratio:.1f} × the spread."


def missing_test_frames(n: int, wanted: int) -> str:
    """A sentence if there are fewer test frames than ACTIVE_LEARNING.n_test asks for; else ""."""
    if n >= wanted:
        return ""
    return (
        f"{n} of the {plural(wanted, 'test frame')} that n_test asks for: the run ended before the others were drawn, "
        "or they could not be labelled"
    )


def plural(n: int, what: str) -> str:
    """`1 label`, `12 labels`."""
    plural = f"{what[:-1]}ies" if what.endswith("ry") else f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{n} {what}" if n == 1 else f"{n} {plural}"
