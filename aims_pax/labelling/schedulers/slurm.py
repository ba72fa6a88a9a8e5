"""Slurm's commands, as far as they are needed: the state of jobs, ending them, and the allocation we are in."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping

from aims_pax.errors import SetupError

# the controller is away or wants us to wait: not a mistake in anybody's settings
PASSING = re.compile(
    r"contact slurm controller|connect(ion)? (refused|failure|timed out)|socket timed out|timed out|"
    r"temporarily (unavailable|disabled)|zero bytes|try again|resource busy|submit ?job|jobs? limit|"
    r"communication connection|persist_conn|backup mode",
    re.IGNORECASE,
)
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}
# options of a block that are ours, wherever they come from: see `blocks.job_script`
OURS = ("job-name", "output", "error", "input", "open-mode", "time", "requeue", "no-requeue", "array", "wait",
        "signal", "batch", "clusters", "deadline", "wrap")  # fmt: skip
VARIABLES = {"time": "TIMELIMIT", "array": "ARRAY_INX", "mem": "MEM_PER_NODE", "switches": "REQ_SWITCH"}
# variables of the job, the step or the MPI process that we are ourselves, and defaults of squeue and scancel: a
# filter hides jobs, and scancel may wait for an answer
OF_JOBS = ("SLURM_", "SLURMD_", "SQUEUE_", "SCANCEL_", "SRUN_", "PMI_", "PMIX_", "PMI2_", "OMPI_", "PRTE_")
TIMEOUT = 30.0  # s for one command; busy controllers take several


class Refused(Exception):
    """Slurm answered with an error. `passing`: it may be gone in a minute."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.passing = bool(PASSING.search(text))


def run_slurm(*words: str, environment: Mapping[str, str] | None = None) -> str:
    """The output of a command of Slurm's. Raises Refused, or SetupError when there is no such command."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            env=clean_environment() if environment is None else environment,
        )
    except FileNotFoundError:
        raise SetupError(
            f"CLUSTER.type: slurm: there is no {words[0]} on this machine; start aims-PAX where jobs can be "
            "submitted, or use type: local"
        ) from None
    except subprocess.TimeoutExpired:
        raise Refused(f"{words[0]}: timed out after {TIMEOUT:g} s") from None
    if done.returncode:
        raise Refused(f"{words[0]}: {(done.stderr or done.stdout).strip() or f'exit code {done.returncode}'}")
    return done.stdout


def available() -> bool:
    """Whether this machine has Slurm's commands."""
    return shutil.which("squeue") is not None


def at_login(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is where people log in, as far as can be seen: jobs can be submitted, and this is none."""
    return (
        shutil.which("sbatch", path=environment.get("PATH")) is not None and "SLURM_JOB_ID" not in environment
    )


def submit(script: str, written: Iterable[str] = ()) -> str:
    """The id of the job that `sbatch` makes of a script. written: see `clean_environment`."""
    said = run_slurm("sbatch", "--parsable", script, environment=clean_environment(written))
    return said.strip().split("\n")[-1].split(";")[0]


def states(jobs: Iterable[str]) -> dict[str, str]:
    """Job → state in capitals; a job that Slurm has forgotten is COMPLETED. Raises Refused."""
    asked = sorted(set(jobs))
    if not asked:
        return {}
    try:
        text = run_slurm(
            "squeue", "--noheader", "--states=all", "--format=%A %T", f"--jobs={','.join(asked)}"
        )
    except Refused as error:
        if "invalid job id" not in str(error).lower():
            raise
        text = ""
    known = dict(line.split()[:2] for line in text.splitlines() if len(line.split()) > 1)
    return {job: known.get(job, "COMPLETED") for job in asked}


def alive(jobs: Iterable[str]) -> set[str]:
    """Those that wait or run; all of them when Slurm does not answer."""
    jobs = set(jobs)
    try:
        return {job for job, state in states(jobs).items() if state not in ENDED}
    except (Refused, SetupError):
        return jobs


def jobs_named(part: str) -> dict[str, tuple[str, str]]:
    """Job → (name, state) of our waiting and running jobs with this in their name. Raises Refused."""
    text = run_slurm("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%A %T %j")
    rows = [line.split(maxsplit=2) for line in text.splitlines()]
    return {r[0]: (r[2], r[1]) for r in rows if len(r) == 3 and part in r[2]}


def cancel(jobs: Iterable[str]) -> None:
    """End jobs; ended ones do not matter. Raises Refused."""
    if asked := sorted(set(jobs)):
        run_slurm("scancel", "--quiet", *asked)


def clean_environment(written: Iterable[str] = ()) -> dict[str, str]:
    """Ours, without what sbatch, squeue and scancel would take for options or what a job says of itself.

    written: options that the block's header has (long names), which the environment would override.
    """
    ours = {_variable(name) for name in (*OURS, *written)}
    return {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not (name in ours or name.startswith(OF_JOBS))
    }


def overridden(written: Iterable[str] = ()) -> list[str]:
    """What is set in the environment for sbatch and does not reach it, NAME=value, for a warning."""
    ours = {_variable(name) for name in (*OURS, *written)}
    return [f"{name}={value}" for name, value in sorted(os.environ.items()) if name in ours]


def _variable(option: str) -> str:
    """The variable by which sbatch takes an option from the environment.

    >>> _variable("mem-per-cpu"), _variable("time")
    ('SBATCH_MEM_PER_CPU', 'SBATCH_TIMELIMIT')
    """
    return f"SBATCH_{VARIABLES.get(option, option.upper().replace('-', '_'))}"


def steps_environment(environment: Mapping[str, str], shared: bool) -> dict[str, str]:
    """For launch commands: inside a job, `srun` starts a step there.

    shared: several steps run side by side; each takes what it asks for and no more (--exact), all see the
    memory of the job.
    """
    result = dict(environment)
    if "SLURM_JOB_ID" not in result:
        return result
    result.pop("SLURM_NTASKS_PER_NODE", None)  # of the job; a step with fewer tasks would stumble over it
    if shared:
        for name in ("SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU"):
            result.pop(name, None)
        result.update(SLURM_EXACT="1", SLURM_MEM_PER_NODE="0")
    return result


def allocation_slots(launch: str, environment: Mapping[str, str]) -> int:
    """How many launch commands fit side by side into the allocation this process runs in.

    >>> job = {"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": "16(x2)", "SLURM_NTASKS": "32"}
    >>> [allocation_slots(launch, job) for launch in ("srun -n 8 aims.x", "srun -n 4 -c 4 aims.x", "srun aims.x")]
    [4, 2, 1]
    """
    written = environment.get("SLURM_JOB_CPUS_PER_NODE") or environment.get("SLURM_CPUS_ON_NODE") or "1"
    cpus = sum(int(n) * int(times or 1) for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", written))
    tasks = _number(launch, "-n", "--ntasks", "-np") or int(environment.get("SLURM_NTASKS", 1))
    each = _number(launch, "-c", "--cpus-per-task") or int(environment.get("SLURM_CPUS_PER_TASK", 1))
    return max(1, cpus // (tasks * each))


def _number(command: str, *options: str) -> int | None:
    """The number behind one of these options."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    for i, word in enumerate(words):
        for option in options:
            rest = word.removeprefix(option).removeprefix("=") if word.startswith(option) else None
            if rest == "" and i + 1 < len(words):
                rest = words[i + 1]
            if rest is not None and rest.isdigit():
                return int(rest)
    return None
