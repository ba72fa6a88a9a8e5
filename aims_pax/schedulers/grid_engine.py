"""Grid Engine (Son of Grid Engine, Univa, Altair): qsub, qstat, qdel, qacct. Checked against 8.1.9: tests/gridengine.

It allocates slots of parallel environments (`-pe`), not nodes, and has no launcher of its own: launch_str runs on the
first host of a block, and mpirun finds the others. A job that has ended disappears from qstat at once, and appears in
qacct some seconds later. qdel and h_rt kill a job's process group without a warning.
"""

from __future__ import annotations

import getpass
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

from aims_pax.schedulers.base import (
    BlockHeader,
    JobState,
    NamedJob,
    Phase,
    Refused,
    Scheduler,
    check_version,
    redirection,
    scheduler_command,
    submitted_job,
)
from aims_pax.schedulers.grid_engine_header import (
    SYNTAX,
    TIMES,
    block_limit,
    grid_engine_seconds,
    qsub_options,
)
from aims_pax.schedulers.header_lines import refuse, replaced

ACCOUNTING_DELAY = 20.0  # s after which a job that neither qstat nor qacct shows counts as ended
PASSING = re.compile(
    r"commlib error|send (message|error)|unable to contact|got no response|timed? ?out|connection refused|"
    r"try again|temporarily|reading answer list|only \d+ jobs? (are|is) allowed|max_u_jobs|jobs? limit",
    re.IGNORECASE,
)
OURS = {"N", "o", "e", "j", "r"}
REFUSED = {
    "t": "a block is one job",
    "tc": "a block is one job",
    "sync": "qsub would not return before the block has ended",
    "b": "a block is submitted as a script, not as a program",
    "C": "the lines of a block must begin with #$",
    "verify": "qsub would submit nothing",
    "help": "qsub would submit nothing",
    "clear": "it would remove the options that aims-PAX sets for its blocks",
    "now": "a block may wait in the queue",
}
SIGNS = ("NSLOTS", "SGE_TASK_ID", "SGE_ROOT")  # one of these must be set, too: other programs also set JOB_ID
TIMED_OUT = 37  # value of `failed` in the accounting file: h_rt, h_cpu or h_vmem exceeded


class GridEngine(Scheduler):
    """qsub, qstat, qdel and qacct."""

    name = "sge"
    title = "Grid Engine"
    directive = "#$"
    example = "#$ -l h_rt=12:00:00"
    query = "qstat"
    submitter = "qsub"
    job_variable = "JOB_ID"
    cores_variable = "NSLOTS"
    gives_nodes = False

    def __init__(self) -> None:
        self._missed: dict[str, float] = {}  # job → time when it was first missing in qstat and qacct

    def check(self) -> None:
        check_version(["qstat", "-help"], self._key, r"\bS?U?O?GE \d|Grid Engine", self.title)

    def at_login(self, environment: Mapping[str, str] = os.environ) -> bool:
        """Requires SGE_ROOT: PBS also has a qsub."""
        return "SGE_ROOT" in environment and super().at_login(environment)

    # ------------------------------------------------------------ jobs

    def submit(self, script: Path, header: str) -> str:
        return submitted_job("qsub", self._run("qsub", "-terse", str(script)), r"(\d+)")

    def states(self, jobs: Iterable[str]) -> dict[str, JobState]:
        asked = set(jobs)
        if not asked:
            return {}
        known = self._listed()
        found = {job: known[job].state if job in known else self._ended(job) for job in sorted(asked)}
        for job in known.keys() & self._missed.keys():
            del self._missed[job]
        return found

    def jobs_named(self, part: str) -> dict[str, NamedJob]:
        return {job: named for job, named in self._listed().items() if part in named.name}

    def cancel(self, jobs: Iterable[str]) -> None:
        if asked := sorted(set(jobs)):
            try:
                self._run("qdel", *asked)
            except Refused as error:
                if error.passing or not re.search(r"does not exist|do not exist", str(error)):
                    raise

    def job_name(self, name: str) -> str:
        """Names in Grid Engine must not begin with a digit."""
        return f"j{name}" if name[:1].isdigit() else name

    def _listed(self) -> dict[str, NamedJob]:
        return listed_jobs(self._run("qstat", "-u", getpass.getuser(), "-xml"))

    def _ended(self, job: str) -> JobState:
        """The state of a job that qstat does not show."""
        since = self._missed.setdefault(job, time.monotonic())
        try:
            done = scheduler_command(["qacct", "-j", job], self._key)
        except Refused:  # qacct timed out: large accounting file
            done = None
        if done is not None and done.returncode == 0:
            return accounted(done.stdout)
        if time.monotonic() - since < ACCOUNTING_DELAY:
            return JobState(Phase.ENDING, "ending")
        return JobState(Phase.CANCELLED, "gone, not found by qacct")

    @property
    def _key(self) -> str:
        return f"CLUSTER.type: {self.name}"

    def _run(self, *words: str) -> str:
        done = scheduler_command(words, self._key)
        if done.returncode:
            # qdel writes errors to standard output
            text = " ".join(f"{done.stderr}\n{done.stdout}".split()) or f"exit code {done.returncode}"
            raise Refused(f"{words[0]}: {text.removesuffix(' Exiting.')}", passing=bool(PASSING.search(text)))
        return done.stdout

    # ------------------------------------------------------------ the header of a job script

    def read_header(self, header: str) -> BlockHeader:
        options = qsub_options(header)
        refuse(options, REFUSED)
        environments = {option.arguments for option in options if option.name == "pe"}
        if len(environments) > 1:
            raise ValueError("two parallel environments (-pe) are requested; keep one")
        slots = next((words[1] for words in environments), "")
        return BlockHeader(
            block_limit(options),
            tasks=int(slots) if slots.isdigit() else None,
            replaced=replaced(options, OURS),
        )

    def own_lines(self, header: str, name: str, files: Path, nodes: int) -> list[str]:
        # many queues run a script in csh unless it says otherwise
        shell = [] if any(option.name == "S" for option in qsub_options(header)) else ["#$ -S /bin/bash"]
        # not -o and -e: they interpret : , and $ in a path, and the job would stay in the queue in an error state if
        # a node does not have the folder
        return [
            f"#$ -N {name}",
            "#$ -r n",  # otherwise it could be rerun under the same id
            "#$ -o /dev/null",
            "#$ -e /dev/null",
            *shell,
            redirection(files),  # allowed here: #$ lines after commands are read, too
        ]

    def without_ours(self, line: str) -> str | None:
        return SYNTAX.without(line, OURS)

    # ------------------------------------------------------------ the job that this process runs in

    def own_job(self, environment: Mapping[str, str] = os.environ) -> str | None:
        return super().own_job(environment) if any(sign in environment for sign in SIGNS) else None

    def seconds_left(self, environment: Mapping[str, str]) -> float | None:
        """From h_rt and s_rt of the job, or of its queue."""
        job = self.own_job(environment)
        if job is None:
            return None
        start, limits = started_and_limits(self._run("qstat", "-j", job, "-xml"))
        if not limits and (queue := environment.get("QUEUE")):
            limits = queue_limits(self._run("qconf", "-sq", queue))
        limit = min(limits, default=None)
        return None if limit is None else max(start + limit - time.time(), 1.0)


def listed_jobs(text: str) -> dict[str, NamedJob]:
    """Job → name and state, from the output of `qstat -xml`."""
    found = {}
    for entry in _parsed(text).iter("job_list"):
        word = entry.findtext("state", "")
        found[entry.findtext("JB_job_number", "")] = NamedJob(
            entry.findtext("JB_name", ""), grid_engine_state(word)
        )
    return found


def grid_engine_state(word: str) -> JobState:
    """The state of a job from the letters that qstat shows.

    >>> [grid_engine_state(w).phase.value for w in ("qw", "hqw", "r", "t", "Rr", "dr", "Eqw", "s", "hRwq")]
    ['waiting', 'held', 'running', 'running', 'running', 'ending', 'failed', 'held', 'held']
    """
    if "E" in word:
        phase = Phase.FAILED  # it never runs unless a user clears the error
    elif "d" in word:
        phase = Phase.ENDING
    elif "w" in word:
        phase = Phase.HELD if "h" in word else Phase.WAITING
    elif re.search("[sST]", word):
        phase = Phase.HELD
    else:
        phase = Phase.RUNNING
    return JobState(phase, f"{phase.value} ({word})")


def accounted(text: str) -> JobState:
    """How a job ended, from `qacct -j`; the last record counts, because job numbers are reused."""
    record = text.split("=" * 20)[-1]
    values = dict(re.findall(r"^(\w+)[ \t]+(.*?)\s*$", record, re.MULTILINE))
    failed, code = values.get("failed", "0"), values.get("exit_status", "0").split()[0]
    number = re.match(r"\d*", failed)
    if number is not None and number[0] == str(TIMED_OUT):
        return JobState(Phase.TIMEOUT, "TIMEOUT (h_rt, or another limit)")
    if number is not None and number[0] not in ("", "0"):
        return JobState(Phase.FAILED, f"failed {' '.join(failed.split())}, exit status {code}")
    if code != "0":
        return JobState(Phase.FAILED, f"exit status {code}")
    return JobState(Phase.COMPLETED, "COMPLETED")


def started_and_limits(text: str) -> tuple[float, list[float]]:
    """Start time of a job (s since 1970) and its time limits (s), from `qstat -j JOB -xml`. Raises ValueError."""
    tree = _parsed(text)
    start = float(tree.findtext(".//JAT_start_time") or "nan")
    if start != start:
        raise ValueError("qstat does not report when this job began")
    limits = [
        float(entry.findtext("CE_doubleval") or "inf")
        for entry in tree.iterfind(".//JB_hard_resource_list/qstat_l_requests")
        if entry.findtext("CE_name") in TIMES
    ]
    return (start / 1000 if start > 1e11 else start), limits  # Univa reports ms


def queue_limits(text: str) -> list[float]:
    """Time limits from `qconf -sq QUEUE`; the first value of each counts, others are for single hosts."""
    found = re.findall(rf"^({'|'.join(TIMES)})\s+([^\s,]+)", text, re.MULTILINE)
    limits = [grid_engine_seconds(value) for _, value in found]
    return [limit for limit in limits if limit != float("inf")]


def _parsed(text: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise Refused(f"qstat: its output is not XML: {error}", passing=True) from error
