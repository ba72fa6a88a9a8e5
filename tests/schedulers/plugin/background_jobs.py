"""A scheduler in one file, as another package would bring it: jobs are processes of this machine, in the background.

[project.entry-points."aims_pax.schedulers"]
background = "background_jobs:BackgroundJobs"

CLUSTER:
  type: background
  background_str: |
    #JOB time=600
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from aims_pax.schedulers.base import BlockHeader, JobState, NamedJob, Phase, Scheduler, redirection

# {job}.name, {job}.code, {job}.cancelled
FOLDER = Path(os.environ.get("BACKGROUND_JOBS", "/tmp/background-jobs"))
RUN = """cd /; timeout --signal=KILL {seconds} bash {script}; echo $? >{folder}/$BACKGROUND_JOB.code"""


class BackgroundJobs(Scheduler):
    """A job is a session of processes; its id is that of the first."""

    name = "background"
    title = "Background"
    directive = "#JOB"
    example = "#JOB time=600"
    query = "bash"
    submitter = "no_such_command"  # there are no login nodes
    job_variable = "BACKGROUND_JOB"
    gives_nodes = False

    def check(self) -> None:
        FOLDER.mkdir(exist_ok=True)

    def submit(self, script: Path, header: str) -> str:
        seconds = self.read_header(header).walltime or 3600
        command = RUN.format(
            seconds=seconds, script=shlex.quote(str(script)), folder=shlex.quote(str(FOLDER))
        )
        start = f"export BACKGROUND_JOB=$$ BACKGROUND_END=$(( $(date +%s) + {seconds:.0f} )); {command}"
        words = ["setsid", "--fork", "bash", "-c", f"echo $$; exec >/dev/null 2>&1; {start}"]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            job = process.stdout.readline().strip()
        (FOLDER / f"{job}.name").write_text(script.name)
        return job

    def states(self, jobs: Iterable[str]) -> dict[str, JobState]:
        return {job: self._state(job) for job in jobs}

    def jobs_named(self, part: str) -> dict[str, NamedJob]:
        names = {path.stem: path.read_text() for path in FOLDER.glob("*.name")}
        found = {job: NamedJob(name, self._state(job)) for job, name in names.items() if part in name}
        return {job: named for job, named in found.items() if not named.state.ended}

    def cancel(self, jobs: Iterable[str]) -> None:
        for job in jobs:
            if not self._state(job).ended:
                (FOLDER / f"{job}.cancelled").touch()
                with suppress(ProcessLookupError):
                    os.killpg(int(job), signal.SIGKILL)
                subprocess.run(["pkill", "-KILL", "-s", job], check=False)

    def _state(self, job: str) -> JobState:
        if (FOLDER / f"{job}.cancelled").exists():
            return JobState(Phase.CANCELLED, "cancelled")
        if not (FOLDER / f"{job}.code").exists():
            there = Path(f"/proc/{job}").exists()
            return JobState(Phase.RUNNING, "runs") if there else JobState(Phase.FAILED, "gone")
        code = (FOLDER / f"{job}.code").read_text().strip()
        if code == "137":
            return JobState(Phase.TIMEOUT, "its time is over")
        return JobState(Phase.COMPLETED if code == "0" else Phase.FAILED, f"exit code {code}")

    def read_header(self, header: str) -> BlockHeader:
        lines = [line for line in header.splitlines() if line.startswith(self.directive)]
        for line in lines:
            if re.fullmatch(r"#JOB time=\d+", line) is None:
                raise ValueError(f"{line!r}: expected #JOB time=SECONDS")
        return BlockHeader(walltime=float(lines[-1].partition("=")[2]) if lines else None)

    def own_lines(self, header: str, name: str, files: Path, nodes: int) -> list[str]:
        return [redirection(files)]

    def without_ours(self, line: str) -> str | None:
        return line

    def seconds_left(self, environment: Mapping[str, str]) -> float | None:
        end = environment.get("BACKGROUND_END")
        return None if end is None else max(float(end) - time.time(), 1.0)
