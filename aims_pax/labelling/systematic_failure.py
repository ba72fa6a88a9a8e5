"""When many calculations fail in the same way, the cause is not the frames: raise one error with advice."""

from __future__ import annotations

from collections.abc import Sequence

from aims_pax.errors import Crashed, LabelError, NotConverged, SetupError, failure_name

FIRST_FAILURES = 5  # in a row before any success: the reference does not work
CRASHES_IN_A_ROW = 20  # in a row later: the reference has stopped working


def systematic(streak: Sequence[LabelError], finished: int, earlier: bool = False) -> SetupError | None:
    """A SetupError when the last failures (`streak`) are all of one class and show that the reference is broken.

    finished: labels that have arrived since this start. earlier: whether earlier runs had labels with the same input.
    """
    last = streak[-1]
    enough = FIRST_FAILURES if finished == 0 else CRASHES_IN_A_ROW
    alike = len(streak) >= enough and all(type(error) is type(last) for error in streak[-enough:])
    if not alike or (finished and not isinstance(last, Crashed)):
        return None
    if earlier and not finished and isinstance(last, NotConverged):
        return None  # the same control.in has converged before: these structures are hard, the program works
    since = "no reference calculation has worked" if finished == 0 else "the reference has stopped working"
    since += " since this start" if earlier and finished == 0 else ""
    where = f" Its files: {last.folder}." if last.folder else ""
    return SetupError(
        f"{since}: the last {enough} failed in the same way ({failure_name(last)}). The last reason: {last.reason}."
        f"{where} {_advice[failure_name(last)]}"
    )


_advice = {
    "NotConverged": "Help the SCF cycle converge (mixing, smearing, more iterations; REFERENCE.retries), then "
    "run again.",
    "Crashed": "Run one calculation by hand to check the program, its command and its input, then run again.",
    "TimedOut": "Raise CLUSTER.job_time_limit or give a calculation more cores, then run again.",
    "Truncated": "Check memory, disk quota and walltime of the reference, then run again.",
    "WrongShape": "Make the reference print forces (and stress where requested), then run again.",
    "NotFinite": "Check the reference's settings on one geometry by hand, then run again.",
    "Mismatch": "Compare the input and the output of one calculation: launch_str may change or mix files.",
    "Unsupported": "Name its arguments of charge and spin (REFERENCE.charge_key, spin_key), or choose another one.",
    "Unphysical": "Check the starting geometry and its units (Å), then run again.",
}
