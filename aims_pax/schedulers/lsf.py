"""IBM Spectrum LSF: bsub, bjobs, bkill.

Written from the command reference of LSF 10.1 and tested on recorded outputs. It has not run on a real cluster.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from aims_pax.schedulers.base import (
    BlockHeader,
    JobState,
    NamedJob,
    Phase,
    Refused,
    Scheduler,
    check_version,
    scheduler_command,
)
from aims_pax.schedulers.header_lines import HeaderOption, HeaderSyntax, refuse, replaced
from aims_pax.schedulers.pbs import directives_first

WITH_ARGUMENT = """
    a alloc_flags app b C c clusters cn_cu cn_mem core_isolation csm cu cwd D data datagrp e E Ep env eo eptl ext f F
    freq G g gpu hostfile i is J Jd jobaff jsdl jsdl_strict jsm k L Lp ln_mem ln_slots m M mig n network nnodes notify
    o oo outdir p P pack ptl q Q R rcacct s S sla smt sp stage step_cgroup t T u U ut v w W We wa wt yaml
"""
FLAGS = "ar B datachk H hl I Ip IS ISp ISs Is IX K N Ne r rn ti tty ul x XF Zs"
ARGUMENTS = {**dict.fromkeys(WITH_ARGUMENT.split(), 1), **dict.fromkeys(FLAGS.split(), 0)}
SYNTAX = HeaderSyntax("#BSUB", "bsub", ARGUMENTS, {})
OURS = {"J", "o", "oo", "e", "eo", "r", "rn", "wa", "wt"}  # wa, wt: a warning signal would kill the reference
NO_TERMINAL = "a block has no terminal"
REFUSED = {
    **dict.fromkeys(("I", "Ip", "IS", "ISp", "ISs", "Is", "IX", "tty", "XF"), NO_TERMINAL),
    "K": "bsub would not return before the block has ended",
    **dict.fromkeys(("pack", "jsdl", "jsdl_strict", "yaml"), "a block is one job with its own script"),
    "i": "a block's script reads no input",
    "is": "a block's script reads no input",
}
PHASES = {
    "PEND": Phase.WAITING, "WAIT": Phase.WAITING, "PROV": Phase.WAITING, "FWD_PEND": Phase.WAITING,
    "PSUSP": Phase.HELD, "USUSP": Phase.HELD, "SSUSP": Phase.HELD, "RUN": Phase.RUNNING, "UNKWN": Phase.RUNNING,
    "DONE": Phase.COMPLETED, "EXIT": Phase.FAILED, "ZOMBI": Phase.FAILED,
}  # fmt: skip
LIMITS = ("TERM_RUNLIMIT", "TERM_DEADLINE", "TERM_CPULIMIT", "TERM_PREEMPT", "TERM_WINDOW")
KILLED = ("TERM_OWNER", "TERM_ADMIN", "TERM_FORCE_OWNER", "TERM_FORCE_ADMIN", "TERM_REMOVE_HUNG_JOB")
PASSING = re.compile(
    r"lsf is down|please wait|batch daemon not responding|cannot connect|connection refused|timed? ?out|"
    r"failed in an lsf library call|limit .*(exceeded|reached)|(exceeded|reached) .*limit|try (again )?later",
    re.IGNORECASE,
)
NOTHING = re.compile(r"is not found|no (unfinished |matching )?jobs? found|already finished", re.IGNORECASE)
# variables that make bsub wait, or change the output that is parsed here
OF_BSUB = ("BSUB_BLOCK", "BSUB_QUIET", "BSUB_QUIET2", "BSUB_STDERR", "LSB_BJOBS_FORMAT", "LSB_DISPLAY_YEAR")
FIELDS = "jobid stat exit_code exit_reason job_name delimiter='|'"


class LSF(Scheduler):
    """bsub, bjobs and bkill."""

    name = "lsf"
    title = "LSF"
    directive = "#BSUB"
    example = "#BSUB -W 12:00"
    query = "bjobs"
    submitter = "bsub"
    job_variable = "LSB_JOBID"
    cores_variable = "LSB_DJOB_NUMPROC"
    tested = False
    gives_nodes = False

    def check(self) -> None:
        check_version(["bjobs", "-V"], f"CLUSTER.type: {self.name}", "LSF", self.title)

    # ------------------------------------------------------------ jobs

    def submit(self, script: Path, header: str) -> str:
        answer = self._run("bsub", read=script.read_text())
        found = re.search(r"Job <(\d+)> is submitted", answer)
        if found is None:
            raise Refused(f"bsub: {' '.join(answer.split()) or 'no output'}")
        return found[1]

    def states(self, jobs: Iterable[str]) -> dict[str, JobState]:
        asked = sorted(set(jobs))
        if not asked:
            return {}
        found = lsf_jobs(self._run("bjobs", "-a", "-noheader", "-o", FIELDS, *asked, nothing=True))
        return {job: found[job].state if job in found else JobState(Phase.COMPLETED, "gone") for job in asked}

    def jobs_named(self, part: str) -> dict[str, NamedJob]:
        found = lsf_jobs(self._run("bjobs", "-noheader", "-o", FIELDS, nothing=True))
        return {job: named for job, named in found.items() if part in named.name and not named.state.ended}

    def cancel(self, jobs: Iterable[str]) -> None:
        if asked := sorted(set(jobs)):
            self._run("bkill", *asked, nothing=True)

    def _command(self, *words: str, read: str | None = None) -> tuple[int, str, str]:
        environment = {name: value for name, value in os.environ.items() if name not in OF_BSUB}
        done = scheduler_command(words, f"CLUSTER.type: {self.name}", environment, read)
        return done.returncode, done.stdout, done.stderr

    def _run(self, *words: str, read: str | None = None, nothing: bool = False) -> str:
        """The output of a command. nothing: a missing job is not an error."""
        code, out, err = self._command(*words, read=read)
        if code and not (nothing and NOTHING.search(err + out)):
            text = " ".join((err or out).split()) or f"exit code {code}"
            raise Refused(f"{words[0]}: {text}", passing=bool(PASSING.search(text)))
        return out

    # ------------------------------------------------------------ the header of a job script

    def read_header(self, header: str) -> BlockHeader:
        options = self._options(header)
        refuse(options, REFUSED)
        limits = {option.value for option in options if option.name == "W"}
        if len(limits) > 1:
            raise ValueError(f"-W {' and -W '.join(sorted(limits))} contradict each other; keep one")
        tasks = next((option.value for option in reversed(options) if option.name == "n"), "").partition(",")[
            0
        ]
        return BlockHeader(
            lsf_seconds(limits.pop()) if limits else None,
            tasks=int(tasks) if tasks.isdigit() else None,
            replaced=replaced(options, OURS),
        )

    def script_head(self, header: str, name: str, files: Path, nodes: int) -> list[str]:
        return directives_first(super().script_head(header, name, files, nodes), self.directive, files)

    def own_lines(self, header: str, name: str, files: Path, nodes: int) -> list[str]:
        # -rn: otherwise it could be rerun under the same id
        return [f"#BSUB -J {name}", "#BSUB -rn", "#BSUB -o /dev/null", "#BSUB -e /dev/null"]

    def without_ours(self, line: str) -> str | None:
        return SYNTAX.without(line, OURS)

    def not_passed_on(self, header: str) -> list[str]:
        return [f"{name}={os.environ[name]}" for name in OF_BSUB if name in os.environ]

    @staticmethod
    def _options(header: str) -> list[HeaderOption]:
        return [option for line in SYNTAX.lines(header) for option in SYNTAX.options(line)]

    # ------------------------------------------------------------ the job that this process runs in

    def seconds_left(self, environment: Mapping[str, str]) -> float | None:
        job = self.own_job(environment)
        if job is None:
            return None
        return lsf_time_left(self._run("bjobs", "-noheader", "-o", "time_left", job))


def lsf_jobs(text: str) -> dict[str, NamedJob]:
    """Job → name and state, from the output of `bjobs -o FIELDS`."""
    rows = [line.strip().split("|", 4) for line in text.splitlines()]
    return {row[0]: NamedJob(row[4], lsf_state(row[1], row[2], row[3])) for row in rows if len(row) == 5}


def lsf_state(word: str, code: str = "-", reason: str = "-") -> JobState:
    """The state of a job from the state, exit code and exit reason that bjobs shows.

    >>> [lsf_state("EXIT", "1").phase.value, lsf_state("EXIT", "140", "TERM_RUNLIMIT: job killed").phase.value]
    ['failed', 'timeout']
    """
    phase, cause = PHASES.get(word, Phase.RUNNING), reason.partition(":")[0].strip()
    if phase == Phase.FAILED and cause in LIMITS:
        return JobState(Phase.TIMEOUT, cause)
    if phase == Phase.FAILED and cause in KILLED:
        return JobState(Phase.CANCELLED, cause)
    if phase == Phase.FAILED:
        return JobState(phase, f"{word} {code}" + (f" ({cause})" if cause not in ("", "-") else ""))
    return JobState(phase, word)


def lsf_seconds(text: str) -> float:
    """Seconds from a run limit in the form [hours:]minutes. Raises ValueError.

    >>> lsf_seconds("90"), lsf_seconds("12:00")
    (5400.0, 43200.0)
    """
    found = re.fullmatch(r"(?:(\d+):)?(\d+)", text.strip(), re.ASCII)
    if found is None:
        raise ValueError(
            f"{text!r} is not a run limit of LSF: expected minutes or HH:MM, without the name of a host"
        )
    return 60.0 * (60 * int(found[1] or 0) + int(found[2]))


def lsf_time_left(text: str) -> float | None:
    """Seconds until the run limit, from the field time_left (`1:30 L`); None without a limit. Raises ValueError.

    >>> lsf_time_left("1:30 L"), lsf_time_left("-"), lsf_time_left("0:0 X")
    (5400.0, None, 1.0)
    """
    if text.strip() == "-":
        return None
    found = re.fullmatch(r"(\d+):(\d+)(?:\s+[LEX])?", text.strip())
    if found is None:
        raise ValueError(f"bjobs reports an unknown time_left: {text.strip()!r}")
    return max(60.0 * (60 * int(found[1]) + int(found[2])), 1.0)
