"""What every scheduler must do, on a real one: jobs run, are found by name, end, are cancelled, and know themselves."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aims_pax.schedulers.base import JobState, Phase, Refused, Scheduler
from tests.batch.stories import until
from tests.projects import ROOT

TOKEN = "0c0ffee0"
INSIDE = f"""{sys.executable} - <<'END'
import json, os, sys
sys.path.insert(0, {str(ROOT)!r})
from aims_pax.schedulers.usable_cores import cores
from aims_pax.schedulers.registry import own_job, own_scheduler
own = own_scheduler()
print(json.dumps([own.name, own_job(), own.seconds_left(os.environ), own.allotted_cores(os.environ), cores()]))
END
"""


class Jobs:
    """Jobs of one scheduler, made as blocks are: with a header, a name, and files for their output."""

    def __init__(self, scheduler: Scheduler, folder: Path, header: str) -> None:
        self.scheduler = scheduler
        self.folder = folder
        self.header = header
        self.count = 0

    def submit(self, commands: str, header: str | None = None) -> tuple[str, Path]:
        """The id of a job that runs these, and where its output goes (.out, .err)."""
        header = self.header if header is None else header
        self.count += 1
        path = self.folder / f"contract.{TOKEN}.{self.count}"
        head = self.scheduler.script_head(header, path.name, path, 1)
        path.write_text("\n".join([*head, commands, ""]))
        return self.scheduler.submit(path, header), path

    def state(self, job: str) -> JobState:
        return self.scheduler.states([job])[job]

    def end(self, job: str) -> JobState:
        until(lambda: self.state(job).ended, 120)
        return self.state(job)


def check_contract(
    scheduler: Scheduler, folder: Path, header: Callable[[int], str], refused: str | None
) -> None:
    """header: seconds → a header with that walltime. refused: one that the scheduler takes no job with."""
    jobs = Jobs(scheduler, folder, header(300))
    scheduler.check()
    assert scheduler.available()
    assert scheduler.states([]) == {}
    assert scheduler.read_header(header(300)).walltime == 300
    well, path = jobs.submit(f"echo to out; echo to err >&2\n{INSIDE}")
    failed, _ = jobs.submit("exit 7")
    long, _ = jobs.submit(f"touch {shlex.quote(str(folder / 'begun'))}\nsleep 300")
    late, _ = jobs.submit("sleep 100", header(5))
    until((folder / "begun").exists, 120)
    until(lambda: jobs.state(long).phase == Phase.RUNNING, 60)
    named = scheduler.jobs_named(f".{TOKEN}.")
    assert named[long].name == f"contract.{TOKEN}.3"
    assert scheduler.jobs_named(".nobody.") == {}
    assert scheduler.alive([long]) == {long}
    assert jobs.end(well).phase == Phase.COMPLETED
    assert path.with_name(f"{path.name}.err").read_text() == "to err\n"
    first, second = path.with_name(f"{path.name}.out").read_text().splitlines()
    name, job, left, allotted, cores = json.loads(second)
    assert first == "to out"
    assert (name, job) == (scheduler.name, well)
    assert 200 < left <= 300
    assert allotted is None or 1 <= cores <= allotted
    assert jobs.end(failed).phase == Phase.FAILED
    scheduler.cancel([long, well])
    assert jobs.end(long).ended
    until(lambda: scheduler.alive([long, well, failed]) == set(), 60)
    assert jobs.end(late).phase == Phase.TIMEOUT
    until(lambda: scheduler.jobs_named(f".{TOKEN}.") == {}, 60)
    if refused is not None:
        with pytest.raises(Refused) as error:
            jobs.submit("true", refused)
        assert not error.value.passing
