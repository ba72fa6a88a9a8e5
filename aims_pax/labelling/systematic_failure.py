"""When many calculations fail alike, it is not the frames: one error for all, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from aims_pax.errors import Crashed, LabelError, SetupError, failure_name

FIRST_FAILURES = 5  # the first calls all fail alike: nothing will ever work
CRASHES_IN_A_ROW = 20  # later: a program that worked has stopped working


def systematic(streak: Sequence[LabelError], finished: int) -> SetupError | None:
    """One error for all when the last failures are of one class and nothing speaks for the reference."""
    last = streak[-1]
    enough = FIRST_FAILURES if finished == 0 else CRASHES_IN_A_ROW
    alike = len(streak) >= enough and all(type(error) is type(last) for error in streak[-enough:])
    if not alike or (finished and not isinstance(last, Crashed)):
        return None
    since = "no reference calculation has worked" if finished == 0 else "the reference has stopped working"
    where = f" Its files: {last.folder}." if last.folder else ""
    return SetupError(
        f"{since}: the last {enough} failed alike ({failure_name(last)}). The last reason: {last.reason}."
        f"{where} {_advice[failure_name(last)]}"
    )


_advice = {
    "NotConverged": "Loosen or help the SCF cycle (mixing, smearing, more iterations; REFERENCE.retries), then "
    "run again.",
    "Crashed": "Run one calculation by hand to check the program, its command and its input, then run again.",
    "TimedOut": "Raise CLUSTER.job_time_limit or give a calculation more cores, then run again.",
    "Truncated": "Check memory, disk quota and walltime of the reference, then run again.",
    "WrongShape": "Make the reference give forces (and stress where asked), then run again.",
    "NotFinite": "Check the reference's settings on one geometry by hand, then run again.",
    "Mismatch": "Compare the input and the output of one calculation: launch_str may change or mix files.",
    "Unsupported": "Name its arguments of charge and spin (REFERENCE.charge_key, spin_key), or choose another one.",
    "Unphysical": "Check the starting geometry and its units (Å), then run again.",
}
