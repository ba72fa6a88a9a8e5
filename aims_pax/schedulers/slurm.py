"""Slurm. Checked against 22.05 on a real cluster of one machine: tests/slurm."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from aims_pax.errors import SetupError
from aims_pax.schedulers.base import (
    OPEN_MPI_UNBOUND,
    TASKS,
    BlockHeader,
    JobState,
    NamedJob,
    Phase,
    Refused,
    Scheduler,
    option_number,
    scheduler_command,
    submitted_job,
    takes_all_cores,
)
from aims_pax.schedulers.slurm_header import block_walltime, option, sbatch_options, without_options

# temporary errors: the controller is unreachable or busy; the settings are not wrong
PASSING = re.compile(
    r"contact slurm controller|connect(ion)? (refused|failure|timed out)|socket timed out|timed out|"
    r"temporarily (unavailable|disabled)|zero bytes|try again|resource busy|submit ?job|jobs? limit|"
    r"communication connection|persist_conn|backup mode",
    re.IGNORECASE,
)
PHASES = {
    "PENDING": Phase.WAITING, "CONFIGURING": Phase.WAITING, "REQUEUED": Phase.WAITING,
    "REQUEUE_FED": Phase.WAITING, "REQUEUE_HOLD": Phase.HELD, "RESV_DEL_HOLD": Phase.HELD,
    "SUSPENDED": Phase.HELD, "STOPPED": Phase.HELD,
    "COMPLETING": Phase.ENDING, "STAGE_OUT": Phase.ENDING,
    "COMPLETED": Phase.COMPLETED, "CANCELLED": Phase.CANCELLED, "REVOKED": Phase.CANCELLED,
    "TIMEOUT": Phase.TIMEOUT, "DEADLINE": Phase.TIMEOUT, "PREEMPTED": Phase.TIMEOUT,
    "BOOT_FAIL": Phase.FAILED, "LAUNCH_FAILED": Phase.FAILED, "SPECIAL_EXIT": Phase.FAILED,
    "FAILED": Phase.FAILED, "NODE_FAIL": Phase.FAILED, "OUT_OF_MEMORY": Phase.FAILED,
}  # fmt: skip
# options of a block that aims-PAX sets, also if they come from the environment: see `own_lines`
OURS = ("job-name", "output", "error", "input", "open-mode", "time", "requeue", "no-requeue", "array", "wait",
        "signal", "batch", "clusters", "deadline", "wrap")  # fmt: skip
# set in the script of a block, or removed from it
WRITTEN = {
    "job-name",
    "output",
    "error",
    "open-mode",
    "time",
    "requeue",
    "no-requeue",
    "signal",  # before the walltime: it would kill FHI-aims, and its structure would count as failed
}
REPLACED = {"job-name", "output", "error", "open-mode", "requeue", "signal"}  # worth a warning
REFUSED = {
    "array": "a block is one job",
    "wait": "sbatch would not return before the block has ended",
    "test-only": "sbatch would submit nothing",
    "clusters": "blocks run on the cluster that squeue shows here",
    "wrap": "a block runs aims-PAX's workers",
    "quiet": "sbatch would not print the id of the block",
    "time-min": "Slurm could end a block long before its --time",
}
VARIABLES = {"time": "TIMELIMIT", "array": "ARRAY_INX", "mem": "MEM_PER_NODE", "switches": "REQ_SWITCH"}
# variables of the job, step or MPI process in which this process runs, and defaults of squeue and scancel, which
# could hide jobs or make scancel wait for confirmation
OF_JOBS = ("SLURM_", "SLURMD_", "SQUEUE_", "SCANCEL_", "SRUN_", "PMI_", "PMIX_", "PMI2_", "OMPI_", "PRTE_")
# options of Open MPI, unless mpirun has set them for this process
OF_USERS = (
    "OMPI_MCA_",
    "PRTE_MCA_",
    "PMIX_MCA_",
)
NO_STEP = re.compile(
    r"srun: .*(unable to (confirm allocation|contact slurm controller|create step(?!.*more processors))"
    r"|connection failure|connect failure|socket timed out|zero bytes|temporarily disabled)",
    re.IGNORECASE,
)
ENDED_STEP = re.compile(
    r"CANCELLED AT \S+ DUE TO (TIME LIMIT|PREEMPTION|NODE FAILURE|JOB REQUEUE)|srun: error: Node failure on"
)


class Slurm(Scheduler):
    """sbatch, squeue, scancel; srun starts steps inside a job."""

    name = "slurm"
    title = "Slurm"
    directive = "#SBATCH"
    example = "#SBATCH --time=12:00:00"
    query = "squeue"
    submitter = "sbatch"
    job_variable = "SLURM_JOB_ID"
    cores_variable = "SLURM_CPUS_ON_NODE"
    mpi_launcher = "srun"
    starts_steps = True
    kill_wait = 8.0  # srun must stay alive until its ranks have ended; KillWait is longer at most sites

    def check(self) -> None:
        try:
            self._run("squeue", "--version")
        except Refused as error:  # installed, but not configured
            raise SetupError(f"CLUSTER.type: slurm: {' '.join(str(error).split())}") from error

    def at_login(self, environment: Mapping[str, str] = os.environ) -> bool:
        """Requires an answer of a cluster with nodes: the commands alone are on many machines."""
        return super().at_login(environment) and self._has_nodes()

    def _has_nodes(self) -> bool:
        try:
            counts = self._run("sinfo", "--noheader", "--format=%D").split()
        except (Refused, SetupError):  # not configured, or no cluster answers
            return False
        return any(count.isdigit() and int(count) > 0 for count in counts)

    # ------------------------------------------------------------ jobs

    def submit(self, script: Path, header: str) -> str:
        environment = clean_environment(sbatch_options(header))
        answer = self._run("sbatch", "--parsable", str(script), environment=environment)
        return submitted_job("sbatch", answer, r"(\d+)(;\S+)?")

    def states(self, jobs: Iterable[str]) -> dict[str, JobState]:
        asked = sorted(set(jobs))
        if not asked:
            return {}
        try:
            text = self._run(
                "squeue", "--noheader", "--states=all", "--format=%A %T", f"--jobs={','.join(asked)}"
            )
        except Refused as error:
            if "invalid job id" not in str(error).lower():
                raise
            text = ""
        known = dict(line.split()[:2] for line in text.splitlines() if len(line.split()) > 1)
        return {job: job_state(known.get(job, "COMPLETED")) for job in asked}

    def jobs_named(self, part: str) -> dict[str, NamedJob]:
        text = self._run("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%A %T %j")
        rows = [line.split(maxsplit=2) for line in text.splitlines()]
        return {r[0]: NamedJob(r[2], job_state(r[1])) for r in rows if len(r) == 3 and part in r[2]}

    def cancel(self, jobs: Iterable[str]) -> None:
        if asked := sorted(set(jobs)):
            self._run("scancel", "--quiet", *asked)

    def _run(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        done = scheduler_command(
            words, "CLUSTER.type: slurm", clean_environment() if environment is None else environment
        )
        if done.returncode:
            raise refused(
                f"{words[0]}: {(done.stderr or done.stdout).strip() or f'exit code {done.returncode}'}"
            )
        return done.stdout

    # ------------------------------------------------------------ the header of a job script

    def read_header(self, header: str) -> BlockHeader:
        options = sbatch_options(header)
        for name, why in REFUSED.items():
            if name in options:
                raise ValueError(f"{why}: remove --{name}")
        nodes, whole = options.get("nodes"), options.get("ntasks")
        each = options.get("cpus-per-task", "")
        tasks = whole or options.get("ntasks-per-node") or options.get("tasks-per-node")
        return BlockHeader(
            block_walltime(header),
            int(nodes) if nodes is not None and nodes.isdigit() else None,
            int(tasks) if tasks is not None and tasks.isdigit() else None,
            tuple(f"--{name}" for name in sorted(REPLACED & set(options))),
            per_node=whole is None,
            cores_of_task=int(each) if each.isdigit() else 1,
            whole_nodes="exclusive" in options,
        )

    def own_lines(self, header: str, name: str, files: Path, nodes: int) -> list[str]:
        stem = str(files).replace("%", "%%")  # sbatch replaces % patterns, e.g. by the job id
        own = {"job-name": name, "output": f"{stem}.out", "error": f"{stem}.err", "open-mode": "append"}
        lines = [f"#SBATCH {option(key, value)}" for key, value in own.items()]
        lines.append("#SBATCH --no-requeue")  # otherwise Slurm could rerun it under the same id
        if "nodes" not in sbatch_options(header):
            lines.append(f"#SBATCH --nodes={nodes}")
        limit = block_walltime(header)
        if limit is not None:
            lines.append(f"#SBATCH --time={_clock(limit)}")
        return lines

    def without_ours(self, line: str) -> str | None:
        return without_options(line, WRITTEN)

    def not_passed_on(self, header: str) -> list[str]:
        ours = {_variable(name) for name in (*OURS, *sbatch_options(header))}
        return [f"{name}={value}" for name, value in sorted(os.environ.items()) if name in ours]

    # ------------------------------------------------------------ the job that this process runs in

    def seconds_left(self, environment: Mapping[str, str]) -> float | None:
        job = self.own_job(environment)
        if job is None:
            return None
        if environment.get("SLURM_JOB_END_TIME", "").isdigit():
            return max(float(environment["SLURM_JOB_END_TIME"]) - time.time(), 1.0)
        # without the user's own output formats; for a heterogeneous job squeue prints one line per component
        plain = {
            k: v for k, v in environment.items() if k != "SLURM_TIME_FORMAT" and not k.startswith("SQUEUE_")
        }
        answer = subprocess.run(
            ["squeue", "-h", "-j", job, "-o", "%e"], capture_output=True, text=True, timeout=10, env=plain
        ).stdout
        ends = [datetime.fromisoformat(line).timestamp() for line in answer.split()]
        return max(min(ends) - time.time(), 1.0)

    def allocation_slots(self, launch: str, environment: Mapping[str, str]) -> int:
        """>>> job = {"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": "16(x2)", "SLURM_NTASKS": "32"}
        >>> launches = ("srun -n 8 a", "srun -n 4 -c 4 a", "srun -N 1 --ntasks-per-node=8 a", "srun a")
        >>> [Slurm().allocation_slots(launch, job) for launch in launches]
        [4, 2, 4, 1]
        """
        written = environment.get("SLURM_JOB_CPUS_PER_NODE") or environment.get("SLURM_CPUS_ON_NODE") or "1"
        cpus = sum(int(n) * int(times or 1) for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", written))
        per_node = option_number(launch, "--ntasks-per-node", "--tasks-per-node") or 0
        nodes = option_number(launch, "-N", "--nodes") or int(environment.get("SLURM_JOB_NUM_NODES", 1))
        default = int(environment.get("SLURM_NTASKS", cpus if takes_all_cores(launch) else 1))
        tasks = option_number(launch, *TASKS) or per_node * nodes or default
        each = option_number(launch, "-c", "--cpus-per-task") or int(
            environment.get("SLURM_CPUS_PER_TASK", 1)
        )
        return max(1, cpus // (tasks * each))

    def step_environment(self, environment: Mapping[str, str], shared: bool) -> dict[str, str]:
        """Each step gets only the cores it requests (--exact); all steps share the memory of the job."""
        result = dict(environment)
        result.pop("SLURM_NTASKS_PER_NODE", None)  # belongs to the job; a step with fewer tasks would fail
        if shared:
            for name in ("SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU"):
                result.pop(name, None)
            result.update(SLURM_EXACT="1", SLURM_MEM_PER_NODE="0")
            for name in OPEN_MPI_UNBOUND:  # for mpirun; srun binds the ranks of its step itself
                result.setdefault(name, "none")
        return result

    def launch_failed(self, errors: str) -> bool:
        return NO_STEP.search(errors) is not None

    def ended_program(self, errors: str) -> bool:
        return ENDED_STEP.search(errors) is not None

    def launcher_outputs(self, words: Sequence[str]) -> list[str]:
        """srun -o FILE, -oFILE, --output FILE, --output=FILE."""
        if not any(word.rsplit("/", 1)[-1] == "srun" for word in words):
            return []
        found = []
        for i, word in enumerate(words):
            following = words[i + 1] if i + 1 < len(words) else ""
            if word in ("-o", "--output"):
                found.append(following)
            elif word.startswith("--output="):
                found.append(word.partition("=")[2])
            elif word.startswith("-o") and not word.startswith("--") and len(word) > 2:
                found.append(word[2:])
        return [name for name in found if name and "%" not in name]


def refused(text: str) -> Refused:
    """The exception for an error message of Slurm."""
    return Refused(text, passing=bool(PASSING.search(text)))


def job_state(word: str) -> JobState:
    """The state of a job from the word that squeue shows; unknown words (newer versions) count as running."""
    return JobState(PHASES.get(word, Phase.RUNNING), word)


def clean_environment(written: Iterable[str] = ()) -> dict[str, str]:
    """Our environment without variables that sbatch, squeue and scancel read as options, and without those of a job.

    written: long names of options in the block's header, which variables would override.
    """
    ours = {_variable(name) for name in (*OURS, *written)}
    needed = ("SLURM_CONF",) if "OMPI_COMM_WORLD_SIZE" in os.environ else ("SLURM_CONF", *OF_USERS)
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(needed) or not (name in ours or name.startswith(OF_JOBS))
    }


def _variable(option: str) -> str:
    """The environment variable from which sbatch reads an option.

    >>> _variable("mem-per-cpu"), _variable("time")
    ('SBATCH_MEM_PER_CPU', 'SBATCH_TIMELIMIT')
    """
    return f"SBATCH_{VARIABLES.get(option, option.upper().replace('-', '_'))}"


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "UNLIMITED"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24}-{hours % 24:02d}:{minutes:02d}:{seconds:02d}"
