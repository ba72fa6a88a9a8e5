"""PBS Professional and OpenPBS: qsub, qstat, qdel.

Written from the manuals of PBS Professional 2021 to 2024 and tested on recorded outputs. It has not run on a real
cluster. Torque is not supported: its qstat has no JSON output.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aims_pax.schedulers.base import (
    BlockHeader,
    JobState,
    NamedJob,
    Phase,
    Refused,
    Scheduler,
    check_version,
    clock_seconds,
    redirection,
    scheduler_command,
    submitted_job,
)
from aims_pax.schedulers.header_lines import HeaderOption, HeaderSyntax, refuse, replaced, resources

ARGUMENTS = {
    **dict.fromkeys("aAcCeijJklmMNopPqrRSuvW", 1),
    **dict.fromkeys("fGhIVXz", 0),
}
SYNTAX = HeaderSyntax("#PBS", "qsub", ARGUMENTS, {}, joined=True)
OURS = {"N", "o", "e", "j", "k", "r", "R"}
REFUSED = {
    "J": "a block is one job",
    "I": "a block has no terminal",
    "X": "a block has no terminal",
    "G": "a block has no terminal",
    "f": "qsub would not return before the block has ended",
    "z": "qsub would not print the id of the block",
    "C": "the lines of a block must begin with #PBS",
}
PHASES = {
    "Q": Phase.WAITING, "W": Phase.WAITING, "T": Phase.WAITING, "M": Phase.WAITING, "H": Phase.HELD,
    "S": Phase.HELD, "U": Phase.HELD, "R": Phase.RUNNING, "B": Phase.RUNNING, "E": Phase.ENDING,
    "F": Phase.COMPLETED, "X": Phase.COMPLETED,
}  # fmt: skip
WALLTIME, DELETED = -29, 91  # values of Exit_status and of substate
PASSING = re.compile(
    r"cannot connect|connection (refused|timed out)|timed? ?out|no permission to connect|communication failure|"
    r"would exceed .*limit|too many|try again|temporarily|premature end of message|invalid credential",
    re.IGNORECASE,
)
NO_HISTORY = re.compile(r"not configured to maintain job history", re.IGNORECASE)
FORGOTTEN = re.compile(r"unknown job ?id|job has finished", re.IGNORECASE)


class PBSPro(Scheduler):
    """qsub, qstat and qdel of PBS Professional."""

    name = "pbs"
    title = "PBS Pro"
    directive = "#PBS"
    example = "#PBS -l walltime=12:00:00"
    query = "qstat"
    submitter = "qsub"
    job_variable = "PBS_JOBID"
    cores_variable = "NCPUS"
    tested = False
    gives_nodes = False

    def check(self) -> None:
        check_version(["qstat", "--version"], f"CLUSTER.type: {self.name}", "pbs_version", self.title)

    def at_login(self, environment: Mapping[str, str] = os.environ) -> bool:
        """Requires a configuration of PBS: Grid Engine also has a qsub."""
        configured = environment.get("PBS_CONF_FILE") or Path("/etc/pbs.conf").exists()
        return bool(configured) and super().at_login(environment)

    # ------------------------------------------------------------ jobs

    def submit(self, script: Path, header: str) -> str:
        return submitted_job("qsub", self._run("qsub", str(script)), r"(\d+\S*)")

    def states(self, jobs: Iterable[str]) -> dict[str, JobState]:
        asked = sorted(set(jobs))
        if not asked:
            return {}
        try:
            listed = self._listed("-x", *asked)
        except Refused as error:
            if not NO_HISTORY.search(str(error)):
                raise
            listed = self._listed(*asked)
        found = {job: pbs_state(entry) for job, entry in listed.items()}
        return {job: found.get(job, JobState(Phase.COMPLETED, "gone")) for job in asked}

    def jobs_named(self, part: str) -> dict[str, NamedJob]:
        user = getpass.getuser()
        found = {}
        for job, entry in self._listed().items():
            name, owner = str(entry.get("Job_Name", "")), str(entry.get("Job_Owner", "")).partition("@")[0]
            state = pbs_state(entry)
            if owner == user and part in name and not state.ended:
                found[job] = NamedJob(name, state)
        return found

    def cancel(self, jobs: Iterable[str]) -> None:
        if asked := sorted(set(jobs)):
            self._run("qdel", *asked, forgotten=True)

    def _listed(self, *words: str) -> dict[str, dict[str, Any]]:
        """Job → its attributes in qstat."""
        return pbs_jobs(self._run("qstat", "-f", "-F", "json", *words, forgotten=True))

    def _command(self, *words: str) -> Any:
        return scheduler_command(words, f"CLUSTER.type: {self.name}")

    def _run(self, *words: str, forgotten: bool = False) -> str:
        """The output of a command. forgotten: a job that no longer exists is not an error."""
        done = self._command(*words)
        text = str(done.stderr)
        if done.returncode and not (forgotten and FORGOTTEN.search(text)):
            text = " ".join(text.split()) or f"exit code {done.returncode}"
            raise Refused(f"{words[0]}: {text}", passing=bool(PASSING.search(text)))
        return str(done.stdout)

    # ------------------------------------------------------------ the header of a job script

    def read_header(self, header: str) -> BlockHeader:
        options = self._options(header)
        refuse(options, REFUSED)
        for option in options:
            if option.name == "W" and re.search(
                r"(^|,)block=(true|t|yes|y|1)(,|$)", option.value, re.IGNORECASE
            ):
                raise ValueError("qsub would not return before the block has ended: remove -W block=true")
        asked = resources(option.value for option in options if option.name == "l")
        if "min_walltime" in asked:
            raise ValueError(
                "PBS could end a block long before its walltime: remove min_walltime, set walltime"
            )
        limit = asked.get("walltime")
        return BlockHeader(
            None if limit is None else clock_seconds(limit),
            tasks=_processes(asked.get("select", "")),
            replaced=replaced(options, OURS),
        )

    def script_head(self, header: str, name: str, files: Path, nodes: int) -> list[str]:
        return directives_first(super().script_head(header, name, files, nodes), self.directive, files)

    def own_lines(self, header: str, name: str, files: Path, nodes: int) -> list[str]:
        # -r n: otherwise it could be rerun under the same id
        return [f"#PBS -N {name}", "#PBS -r n", "#PBS -o /dev/null", "#PBS -e /dev/null"]

    def without_ours(self, line: str) -> str | None:
        return SYNTAX.without(line, OURS)

    @staticmethod
    def _options(header: str) -> list[HeaderOption]:
        return [option for line in SYNTAX.lines(header) for option in SYNTAX.options(line)]

    # ------------------------------------------------------------ the job that this process runs in

    def seconds_left(self, environment: Mapping[str, str]) -> float | None:
        job = self.own_job(environment)
        entry = {} if job is None else self._listed(job).get(job, {})
        limit, start = entry.get("Resource_List", {}).get("walltime"), entry.get("stime")
        if job is None or (entry and limit is None):
            return None
        if start is None:
            raise ValueError("qstat does not report when this job began")
        began = time.mktime(time.strptime(str(start), "%a %b %d %H:%M:%S %Y"))
        return max(began + clock_seconds(str(limit)) - time.time(), 1.0)


def directives_first(lines: list[str], directive: str, files: Path) -> list[str]:
    """Move the option lines of a job script before its first command, the redirection of output to our files."""
    shebang, *others = lines
    ahead = [line for line in others if line.startswith(directive)]
    return [shebang, *ahead, redirection(files), *(line for line in others if not line.startswith(directive))]


def pbs_jobs(text: str) -> dict[str, dict[str, Any]]:
    """Job → its attributes, from the output of `qstat -f -F json`."""
    if not text.strip():
        return {}
    try:
        found = _loaded(text).get("Jobs", {})
    except ValueError as error:
        raise Refused(f"qstat: its output is not JSON: {error}", passing=True) from error
    return found if isinstance(found, dict) else {}


def _loaded(text: str) -> Any:
    """The object of a JSON text. Variables and names of any user's job may make it invalid: see _repaired."""
    try:
        return json.loads(text, strict=False)  # some versions do not escape tabs in Variable_List
    except ValueError:
        return json.loads(_repaired(text), strict=False)


def _repaired(text: str) -> str:
    r"""A JSON text of qstat without its known mistakes: github.com/openpbs/openpbs 1255, 2049, 2603.

    >>> print(_repaired('"A":007,\n"B":.5,\n"C":12,\n"D":"it\\\'s"'))
    "A":"007",
    "B":".5",
    "C":12,
    "D":"it's"
    """
    text = re.sub(r"\\(.)", lambda m: m[0] if m[1] in '"\\/bfnrtu' else m[1], text)
    return re.sub(r'^(\s*"[^"]*"\s*:\s*)([-+.\w]+)(?=,?\s*$)', _quoted_unless_valid, text, flags=re.MULTILINE)


def _quoted_unless_valid(found: re.Match[str]) -> str:
    valid = re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?|true|false|null", found[2], re.ASCII)
    return found[0] if valid else f'{found[1]}"{found[2]}"'


def pbs_state(entry: Mapping[str, Any]) -> JobState:
    """The state of a job from its attributes.

    >>> [pbs_state({"job_state": "F", "Exit_status": code}).phase.value for code in (0, 1, -29)]
    ['completed', 'failed', 'timeout']
    """
    letter, code = str(entry.get("job_state", "")), entry.get("Exit_status")
    phase = PHASES.get(letter, Phase.RUNNING)
    if phase != Phase.COMPLETED:
        return JobState(phase, f"{phase.value} ({letter})")
    if entry.get("substate") == DELETED:
        return JobState(Phase.CANCELLED, "deleted")
    if code == WALLTIME:
        return JobState(Phase.TIMEOUT, "walltime exceeded")
    return JobState(Phase.FAILED, f"exit status {code}") if code else JobState(phase, "finished")


def _processes(select: str) -> int | None:
    """The processes of all chunks: their mpiprocs, else their ncpus; None if a chunk has neither.

    >>> _processes("2:ncpus=16:mpiprocs=8+1:ncpus=4"), _processes("ncpus=16"), _processes("1")
    (20, 16, None)
    """
    total = 0
    for chunk in select.split("+"):
        many = re.match(r"\s*(\d+)(:|$)", chunk)
        each = re.search(r"mpiprocs=(\d+)", chunk) or re.search(r"ncpus=(\d+)", chunk)
        if each is None:
            return None
        total += (int(many[1]) if many else 1) * int(each[1])
    return total
