"""What aims-PAX needs of a batch scheduler: jobs, the header of a job script, and the job that a process runs in.

    jobs        submit, states, alive, jobs_named, cancel
    header      read_header (what of the user's header counts), script_head (the head of a block's job script)
    own job     own_job, seconds_left, allotted_cores, allocation_slots, step_environment, launch_failed

A scheduler is one subclass of `Scheduler` in one module, named in `registry`, or in the entry points of another
package (group `aims_pax.schedulers`). Nothing else in aims-PAX knows which scheduler it talks to.

Conventions that all of them keep: a job is named PROJECT.TOKEN.NUMBER, and the token tells which run it belongs to. A
job that ends is never begun again under the same id. SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU ask a driver to
save and end with exit code 75; what comes without a warning (SIGKILL at the end of the walltime) must be known in
advance by `seconds_left`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar

from aims_pax.errors import SetupError

COMMAND_TIMEOUT = 30.0  # s for one command; busy schedulers take several


class Refused(Exception):
    """A scheduler answered with an error. `passing`: it may be gone in a minute."""

    def __init__(self, text: str, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


class Phase(Enum):
    """Where a job is between `submit` and its end."""

    WAITING = "waiting"
    HELD = "held"  # suspended, or waiting for a person
    RUNNING = "running"
    ENDING = "ending"  # takes no work any more; not gone yet
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    FAILED = "failed"


ENDED = frozenset({Phase.COMPLETED, Phase.CANCELLED, Phase.TIMEOUT, Phase.FAILED})


@dataclass(frozen=True)
class JobState:
    """The phase of a job, and the scheduler's own word for it, for log lines."""

    phase: Phase
    word: str

    @property
    def ended(self) -> bool:
        return self.phase in ENDED


@dataclass(frozen=True)
class NamedJob:
    """A waiting or running job."""

    name: str
    state: JobState


@dataclass(frozen=True)
class BlockHeader:
    """What of a user's header counts for us. walltime: s, inf for no limit, None where the header does not say.

    tasks: MPI processes or slots that the header asks for on each node (or in all, where it does not speak of nodes).
    replaced: options of the header that aims-PAX sets itself, as a person writes them.
    """

    walltime: float | None = None
    nodes: int | None = None
    tasks: int | None = None
    replaced: tuple[str, ...] = ()


class Scheduler(ABC):
    """One kind of batch scheduler. Methods that talk to it raise Refused, and SetupError where it is not installed."""

    name: ClassVar[str]  # CLUSTER.type; the header's key is {name}_str
    title: ClassVar[str]  # as people call it: Slurm
    directive: ClassVar[str]  # what a line of the header begins with: #SBATCH
    example: ClassVar[str]  # of a line of the header
    query: ClassVar[str]  # the command that lists jobs: squeue
    submitter: ClassVar[str]  # the command that submits one: sbatch
    job_variable: ClassVar[str]  # in the environment of a job: its id
    cores_variable: ClassVar[str] = ""  # the same: cores of the job on this machine
    tested: ClassVar[bool] = True  # whether it has run jobs of aims-PAX; else only recorded outputs were read
    gives_nodes: ClassVar[bool] = (
        True  # nodes_per_block can be asked for; else the header alone says how many
    )
    mpi_launcher: ClassVar[str | None] = None  # by which Parsl starts a task on several nodes of a block
    starts_steps: ClassVar[bool] = False  # its launcher asks it for a step, and may wait for it for minutes
    kill_wait: ClassVar[float] = 0.0  # s that its launcher needs to see the ranks of a step off

    @property
    def header_key(self) -> str:
        """The key of CLUSTER that holds the header of a block's job script."""
        return f"{self.name}_str"

    # ------------------------------------------------------------ this machine

    def available(self) -> bool:
        """Whether this machine has its commands."""
        return shutil.which(self.query) is not None

    @abstractmethod
    def check(self) -> None:
        """Raise SetupError where there is no such scheduler; it need not answer just now."""

    def at_login(self, environment: Mapping[str, str] = os.environ) -> bool:
        """Whether this is where people log in, as far as can be seen: jobs can be submitted, and this is none."""
        return shutil.which(self.submitter, path=environment.get("PATH")) is not None and not self.own_job(
            environment
        )

    # ------------------------------------------------------------ jobs

    @abstractmethod
    def submit(self, script: Path, header: str) -> str:
        """The id of the job of a script. header: of the user's, whose options the environment must not override."""

    @abstractmethod
    def states(self, jobs: Iterable[str]) -> dict[str, JobState]:
        """Job → state, for each job asked for; one that the scheduler has forgotten has ended."""

    @abstractmethod
    def jobs_named(self, part: str) -> dict[str, NamedJob]:
        """Job → name and state of our waiting and running jobs with this in their name."""

    @abstractmethod
    def cancel(self, jobs: Iterable[str]) -> None:
        """End jobs; ended ones do not matter."""

    def alive(self, jobs: Iterable[str]) -> set[str]:
        """Those that wait or run; all of them when the scheduler does not answer."""
        jobs = set(jobs)
        try:
            return {job for job, state in self.states(jobs).items() if not state.ended}
        except (Refused, SetupError):
            return jobs

    def job_name(self, name: str) -> str:
        """A name of ours as this scheduler takes it; letters, digits and ._- are given."""
        return name

    # ------------------------------------------------------------ the header of a job script

    @abstractmethod
    def read_header(self, header: str) -> BlockHeader:
        """What a user's header says. Raises ValueError for what cannot be read, or cannot be for a block."""

    @abstractmethod
    def own_lines(self, header: str, name: str, files: Path, nodes: int) -> list[str]:
        """Lines of the header that are ours: the job's name, its output in {files}.out and .err, no second start."""

    @abstractmethod
    def without_ours(self, line: str) -> str | None:
        """A line of the user's header without the options that are ours; None when nothing is left of it."""

    def script_head(self, header: str, name: str, files: Path, nodes: int) -> list[str]:
        """The head of a block's job script: ours, then what the user wrote."""
        lines = header.strip().splitlines()
        shebang = lines.pop(0) if lines and lines[0].startswith("#!") else "#!/bin/bash"
        remaining = [self.without_ours(line) if line.startswith(self.directive) else line for line in lines]
        ours = self.own_lines(header, name, files, nodes)
        return [shebang, *ours, *(line for line in remaining if line is not None)]

    def not_passed_on(self, header: str) -> list[str]:
        """What is set in the environment for its commands and does not reach them, NAME=value, for a warning."""
        return []

    # ------------------------------------------------------------ the job that this process runs in

    def own_job(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """The id of the job that this process runs in, or None."""
        return environment.get(self.job_variable) or None

    @abstractmethod
    def seconds_left(self, environment: Mapping[str, str]) -> float | None:
        """Until the end of the walltime of the own job; None where there is none. ValueError, OSError: not known."""

    def allotted_cores(self, environment: Mapping[str, str]) -> int | None:
        """Cores of the own job on this machine, None where it does not say."""
        written = environment.get(self.cores_variable, "")
        return int(written) if self.own_job(environment) and written.isdigit() else None

    def allocation_slots(self, launch: str, environment: Mapping[str, str]) -> int:
        """How many launch commands fit side by side into the job that this process runs in."""
        tasks = option_number(launch, "-n", "-np", "--ntasks") or 1
        return max(1, (self.allotted_cores(environment) or 1) // tasks)

    def step_environment(self, environment: Mapping[str, str], shared: bool) -> dict[str, str]:
        """For launch commands inside a job. shared: several run side by side in it.

        MPI libraries would bind the ranks of each of them to the same first cores.
        """
        result = dict(environment)
        if shared:
            for name, value in UNBOUND.items():
                result.setdefault(name, value)
        return result

    def launch_failed(self, errors: str) -> bool:
        """Whether a launch command's standard error says that the scheduler has not started the program yet."""
        return False

    def launcher_outputs(self, words: Sequence[str]) -> list[str]:
        """Files that its launcher writes a program's standard output to, by the words of a command."""
        return []


# Open MPI 4 and 5, Intel MPI
UNBOUND = {
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "I_MPI_PIN": "0",
}


def scheduler_command(
    words: Sequence[str],
    key: str,
    environment: Mapping[str, str] | None = None,
    read: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """A command of a scheduler's, with its output. key: of the settings that asks for it. read: its standard input.

    Raises Refused when it does not answer in time, SetupError when there is no such command.
    """
    try:
        return subprocess.run(
            words,
            input=read or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_TIMEOUT,
            env=environment,
        )
    except FileNotFoundError:
        raise SetupError(
            f"{key}: there is no {words[0]} on this machine; start aims-PAX where jobs can be submitted, or use "
            "type: local"
        ) from None
    except subprocess.TimeoutExpired:
        raise Refused(f"{words[0]}: timed out after {COMMAND_TIMEOUT:g} s", passing=True) from None


def check_version(words: Sequence[str], key: str, pattern: str, title: str) -> None:
    """Raise SetupError unless a command that prints its version is there, and is this scheduler's."""
    try:
        done = scheduler_command(words, key)
    except Refused as error:
        raise SetupError(f"{key}: {error}") from error
    text = " ".join(f"{done.stdout}\n{done.stderr}".split())
    if not re.search(pattern, text):
        raise SetupError(f"{key}: {words[0]} of this machine is not that of {title}; it says: {text[:200]}")


def redirection(files: Path) -> str:
    """A command: what a script says from here on goes to {files}.out and .err, whatever characters are in the path."""
    return f"exec >>{shlex.quote(f'{files}.out')} 2>>{shlex.quote(f'{files}.err')}"


def option_number(command: str, *options: str) -> int | None:
    """The number behind one of these options.

    >>> option_number("mpirun -np 4 aims.x", "-n", "-np"), option_number("srun --ntasks=8 a", "--ntasks")
    (4, 8)
    """
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


def clock_seconds(text: str) -> float:
    """Seconds of a time as Grid Engine, PBS and LSF write it: seconds, or [[H:]M:]S. Raises ValueError.

    >>> [clock_seconds(t) for t in ("90", "1:30", "12:00:00", "0:1:0")]
    [90.0, 90.0, 43200.0, 60.0]
    """
    parts = text.strip().split(":")
    if not all(re.fullmatch(r"\d*", p, re.ASCII) for p in parts) or len(parts) > 3 or not any(parts):
        raise ValueError(f"{text!r} is not a time: seconds, MM:SS or HH:MM:SS")
    seconds = 0.0
    for part in parts:
        seconds = 60 * seconds + float(part or 0)
    return seconds
