"""`aims-PAX pause`, `resume`, `stop`: write a request file and wait up to 4 s for the run to act on it.

`aims-PAX stop --cancel` also cancels scheduler jobs left over from a run that has ended.
"""

from __future__ import annotations

import time
from pathlib import Path

from aims_pax.errors import SettingsError
from aims_pax.record.lock import Lock
from aims_pax.record.run_requests import ask, asked_for, paused_since

PATIENCE = 4.0  # s to wait for the run before the command returns

NEXT = "at its next MD step or training batch"
DONE = {
    "pause": "paused: aims-PAX resume continues it, aims-PAX stop ends it",
    "resume": "resumed",
    "stop": "stopped; everything is saved, run aims-PAX to continue",
    "cancel": "stopped, its calculations are cancelled; everything is saved, run aims-PAX to continue",
}
ASKED = {
    "pause": f"asked to pause: it will do so {NEXT}",
    "resume": "asked to resume",
    "stop": f"asked to stop: it will do so {NEXT}",
    "cancel": f"asked to stop and to cancel its calculations: it will do so {NEXT}",
}


def request(folder: Path, kind: str, patience: float = PATIENCE) -> str:
    """Write the request, wait at most `patience` seconds for the run to act, and return the result in one line.

    Raises SettingsError when no process works in the folder, or there is nothing to resume.
    """
    if not folder.is_dir():
        from aims_pax.suggestions import no_such

        raise SettingsError(f"{folder}: {no_such(folder, 'folder')}")
    _refuse_starting(folder / "restart", kind)
    if kind == "cancel" and (said := _cancelled(folder)) is not None:
        return said
    _somebody_works(folder, kind)
    lock = Lock(folder / "restart" / "lock")
    idle = paused_since(folder) is None and asked_for(folder) != "pause"
    if kind == "resume" and lock.holder() is not None and idle:
        raise SettingsError("nothing to resume: the run is not paused")
    holder = ask(folder, kind)
    who = f"pid {holder.get('pid')} on {holder.get('host')}"
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if _fulfilled(folder, kind, lock, holder):
            return f"{who}: {DONE[kind]}"
        time.sleep(0.1)
    return f"{who}: {ASKED[kind]}"


def _refuse_starting(restart: Path, kind: str) -> None:
    """Raise SettingsError when a process is about to take the lock; until then it reads no requests."""
    from aims_pax.report.process_of_run import running_process

    process = running_process(restart)
    if process.holder and not process.locked:
        raise SettingsError(
            f"nothing to {kind} yet: pid {process.holder.get('pid')} on {process.holder.get('host')} is starting here; "
            "repeat the command in some seconds, when it works (Ctrl-C in its terminal, or kill, ends it now)"
        )


def _cancelled(folder: Path) -> str | None:
    """Cancel the scheduler jobs left over from a run that has ended; None when the run still works or left none.

    Raises SetupError when the scheduler does not answer.
    """
    restart = folder / "restart"
    if Lock(restart / "lock").holder() is not None or not (restart / "runs.json").exists():
        return None
    from aims_pax.labelling.executors.parsl_blocks import cancel_left

    jobs = cancel_left(restart)
    if not jobs:
        return "nothing to cancel: the blocks of the last run have ended already"
    return f"cancelled: {', '.join(jobs)}; their finished labels are stored"


def _somebody_works(folder: Path, kind: str) -> None:
    """Raise SettingsError with the state of the run when no process works on it."""
    from aims_pax.report.formatting import STATES
    from aims_pax.report.load_run import load_run

    if (
        Lock(folder / "restart" / "lock").holder() is not None
        or not (folder / "restart/journal.jsonl").exists()
    ):
        return
    state = load_run(folder, brief=True).state
    if state not in ("finished", "stopped", "killed"):
        return
    goes_on = "" if state == "finished" else "; run aims-PAX in its folder to continue"
    raise SettingsError(f"nothing to {kind}: this run is {STATES[state]}{goes_on}")


def _fulfilled(folder: Path, kind: str, lock: Lock, holder: dict[str, object]) -> bool:
    if kind in ("stop", "cancel"):
        return lock.holder() != holder
    paused = paused_since(folder) is not None
    return paused if kind == "pause" else not paused
