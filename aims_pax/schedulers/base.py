"""The interface to batch schedulers: jobs, the header of a job script, and the job that this process runs in.

    jobs        submit, states, alive, jobs_named, cancel
    header      read_header (reads the user's header), script_head (the header of a block's job script)
    own job     own_job, seconds_left, allotted_cores, allocation_slots, step_environment, launch_failed

A scheduler is one subclass of `Scheduler` in one module, listed in `registry`, or in the entry points of another
package (group `aims_pax.schedulers`). No other code of aims-PAX depends on a particular scheduler.

Conventions for all schedulers: a job is named PROJECT.TOKEN.NUMBER, and the token identifies the run. A job that has
ended is never restarted under the same id. SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU ask the run to save its state
and end with exit code 75; for ends without such a signal (SIGKILL at the end of the walltime), `seconds_left` must
know the time in advance.
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
    """A scheduler answered with an error. `passing`: temporary, a later attempt may succeed."""

    def __init__(self, text: str, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


class Phase(Enum):
    """The phases of a job from `submit` to its end."""

    WAITING = "waiting"
    HELD = "held"  # suspended, or held until a user releases it
    RUNNING = "running"
    ENDING = "ending"  # accepts no more work, but has not ended yet
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    FAILED = "failed"


ENDED = frozenset({Phase.COMPLETED, Phase.CANCELLED, Phase.TIMEOUT, Phase.FAILED})


@dataclass(frozen=True)
class JobState:
    """The phase of a job, and the scheduler's own name of the state, for log lines."""

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
    """What aims-PAX uses of a user's header. walltime: s, inf for no limit, None if the header does not set it.

    tasks: MPI processes or slots of the block; with `per_node`, of each of its nodes. cores_of_task: cores of each.
    whole_nodes: whether the block gets all cores of its nodes, whatever it asks for.
    replaced: options of the header that aims-PAX sets itself, as written by users.
    """

    walltime: float | None = None
    nodes: int | None = None
    tasks: int | None = None
    replaced: tuple[str, ...] = ()
    per_node: bool = False
    cores_of_task: int = 1
    whole_nodes: bool = False

    def cores(self, nodes: int) -> int | None:
        """Cores that the header asks for; None if it leaves them open. nodes: see `processes`."""
        processes = self.processes(nodes)
        return None if processes is None or self.whole_nodes else processes * self.cores_of_task

    def processes(self, nodes: int) -> int | None:
        """MPI processes of a block; nodes: of the block, if the header does not set them."""
        return self.tasks if self.tasks is None or not self.per_node else self.tasks * (self.nodes or nodes)


class Scheduler(ABC):
    """One kind of batch scheduler. Methods that run its commands raise Refused, or SetupError if it is missing."""

    name: ClassVar[str]  # CLUSTER.type; the header's key is {name}_str
    title: ClassVar[str]  # its usual name: Slurm
    directive: ClassVar[str]  # start of a header line: #SBATCH
    example: ClassVar[str]  # an example of a header line
    query: ClassVar[str]  # the command that lists jobs: squeue
    submitter: ClassVar[str]  # the command that submits one: sbatch
    job_variable: ClassVar[str]  # environment variable with the id of the job
    cores_variable: ClassVar[str] = ""  # environment variable with the cores of the job on this machine
    tested: ClassVar[bool] = True  # with real jobs; otherwise only with recorded outputs
    gives_nodes: ClassVar[bool] = True  # nodes_per_block sets the number of nodes; otherwise the header does
    mpi_launcher: ClassVar[str | None] = None  # starts a task of Parsl on several nodes of a block
    starts_steps: ClassVar[bool] = False  # whether its launcher requests a job step, which may take minutes
    kill_wait: ClassVar[float] = 0.0  # s that its launcher needs to end the ranks of a step

    @property
    def header_key(self) -> str:
        """The key of CLUSTER that holds the header of a block's job script."""
        return f"{self.name}_str"

    # ------------------------------------------------------------ this machine

    def available(self) -> bool:
        """Whether its commands exist on this machine."""
        return shutil.which(self.query) is not None

    @abstractmethod
    def check(self) -> None:
        """Raise SetupError if the scheduler is not installed; it need not respond at the moment."""

    def at_login(self, environment: Mapping[str, str] = os.environ) -> bool:
        """Whether this is probably a login node: jobs can be submitted, and this process is not in a job."""
        return shutil.which(self.submitter, path=environment.get("PATH")) is not None and not self.own_job(
            environment
        )

    # ------------------------------------------------------------ jobs

    @abstractmethod
    def submit(self, script: Path, header: str) -> str:
        """Submit a script; returns the job id. header: the user's, whose options the environment must not override."""

    @abstractmethod
    def states(self, jobs: Iterable[str]) -> dict[str, JobState]:
        """Job → state, for each of these jobs; a job that the scheduler does not know any more has ended."""

    @abstractmethod
    def jobs_named(self, part: str) -> dict[str, NamedJob]:
        """Job → name and state, for the user's waiting and running jobs whose name contains this part."""

    @abstractmethod
    def cancel(self, jobs: Iterable[str]) -> None:
        """Cancel jobs; jobs that have already ended are ignored."""

    def alive(self, jobs: Iterable[str]) -> set[str]:
        """The jobs that wait or run; all of them if the scheduler does not answer."""
        jobs = set(jobs)
        try:
            return {job for job, state in self.states(jobs).items() if not state.ended}
        except (Refused, SetupError):
            return jobs

    def job_name(self, name: str) -> str:
        """A job name that this scheduler accepts, made from a name of letters, digits and ._-."""
        return name

    # ------------------------------------------------------------ the header of a job script

    @abstractmethod
    def read_header(self, header: str) -> BlockHeader:
        """Read the user's header. Raises ValueError for invalid options, or options not allowed for a block."""

    @abstractmethod
    def own_lines(self, header: str, name: str, files: Path, nodes: int) -> list[str]:
        """Header lines set by aims-PAX: the job's name, its output in {files}.out and .err, no requeueing."""

    @abstractmethod
    def without_ours(self, line: str) -> str | None:
        """A line of the user's header without the options set by aims-PAX; None if nothing is left."""

    def script_head(self, header: str, name: str, files: Path, nodes: int) -> list[str]:
        """The header of a block's job script: our lines, then those of the user."""
        lines = header.strip().splitlines()
        shebang = lines.pop(0) if lines and lines[0].startswith("#!") else "#!/bin/bash"
        remaining = [self.without_ours(line) if line.startswith(self.directive) else line for line in lines]
        ours = self.own_lines(header, name, files, nodes)
        return [shebang, *ours, *(line for line in remaining if line is not None)]

    def not_passed_on(self, header: str) -> list[str]:
        """Environment variables (NAME=value) that are removed for its commands, for a warning."""
        return []

    # ------------------------------------------------------------ the job that this process runs in

    def own_job(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """The id of the job that this process runs in, or None."""
        return environment.get(self.job_variable) or None

    @abstractmethod
    def seconds_left(self, environment: Mapping[str, str]) -> float | None:
        """Seconds until the walltime of our own job ends; None if there is no limit. ValueError, OSError: unknown."""

    def allotted_cores(self, environment: Mapping[str, str]) -> int | None:
        """Cores of our own job on this machine; None if unknown."""
        written = environment.get(self.cores_variable, "")
        return int(written) if self.own_job(environment) and written.isdigit() else None

    def allocation_slots(self, launch: str, environment: Mapping[str, str]) -> int:
        """How many launch commands can run at the same time in our own job."""
        return launch_slots(launch, self.allotted_cores(environment) or 1)

    def step_environment(self, environment: Mapping[str, str], shared: bool) -> dict[str, str]:
        """The environment for launch commands inside a job. shared: several run at the same time.

        Binding is switched off for shared jobs: MPI libraries would bind the ranks of all commands to the same cores.
        """
        result = dict(environment)
        if shared:
            for name, value in UNBOUND.items():
                result.setdefault(name, value)
        return result

    def launch_failed(self, errors: str) -> bool:
        """Whether the standard error of a launch command shows that the scheduler did not start the program."""
        return False

    def ended_program(self, errors: str) -> bool:
        """Whether standard error of a launch command shows that the scheduler ended the program or lost its node."""
        return False

    def launcher_outputs(self, words: Sequence[str]) -> list[str]:
        """Files to which its launcher writes the standard output of a program, from the words of the command."""
        return []


# of version 4, and of version 5
OPEN_MPI_UNBOUND = ("OMPI_MCA_hwloc_base_binding_policy", "PRTE_MCA_hwloc_default_binding_policy")
UNBOUND = {**dict.fromkeys(OPEN_MPI_UNBOUND, "none"), "I_MPI_PIN": "0"}  # Intel MPI


def scheduler_command(
    words: Sequence[str],
    key: str,
    environment: Mapping[str, str] | None = None,
    read: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command of a scheduler. key: settings key, for errors. read: its standard input.

    Raises Refused if it does not end in time, SetupError if the command does not exist.
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


def submitted_job(command: str, output: str, pattern: str) -> str:
    """The job id in the last line that has this form; sites add lines of their own. Raises Refused if there is none.

    >>> submitted_job("qsub", "charged to: mine\\n17.server\\n", r"(\\d+\\S*)")
    '17.server'
    """
    found = [m[1] for line in output.splitlines() if (m := re.fullmatch(pattern, line.strip(), re.ASCII))]
    if not found:
        raise Refused(f"{command}: no job id in its output: {' '.join(output.split()) or 'nothing'}")
    return found[-1]


def check_version(words: Sequence[str], key: str, pattern: str, title: str) -> None:
    """Raise SetupError unless this command prints a version that belongs to this scheduler."""
    try:
        done = scheduler_command(words, key)
    except Refused as error:
        raise SetupError(f"{key}: {error}") from error
    text = " ".join(f"{done.stdout}\n{done.stderr}".split())
    if not re.search(pattern, text):
        raise SetupError(
            f"{key}: {words[0]} on this machine is not that of {title}; its output: {text[:200]}"
        )


def redirection(files: Path) -> str:
    """Shell command that redirects further output of a script to {files}.out and .err; quotes special characters."""
    return f"exec >>{shlex.quote(f'{files}.out')} 2>>{shlex.quote(f'{files}.err')}"


TASKS = ("-n", "-np", "--np", "--ntasks")
# they start a process on every core unless a number is given
ALL_CORES = {"mpirun", "mpiexec", "mpiexec.hydra", "orterun", "prun", "ibrun"}
LAUNCHERS = ALL_CORES | {"srun", "aprun", "jsrun"}


def launch_slots(launch: str, cores: int) -> int:
    """How many of these launch commands fill the cores; an MPI launcher without a number takes all of them.

    >>> commands = ("mpirun -np 4 a", "mpirun --np 8 a", "mpirun a", "mpirun -np $N a", "aims.x")
    >>> [launch_slots(command, 16) for command in commands]
    [4, 2, 1, 1, 16]
    """
    tasks = option_number(launch, *TASKS) or (cores if takes_all_cores(launch) else 1)
    return max(1, cores // tasks)


def launch_cores(launch: str) -> int | None:
    """The cores that a launch command takes; None if it gives no number.

    >>> launch_cores("srun -n 8 -c 2 aims.x"), launch_cores("mpirun -np 4 aims.x"), launch_cores("srun aims.x")
    (16, 4, None)
    """
    tasks = option_number(launch, *TASKS)
    each = option_number(launch, "-c", "--cpus-per-task") if re.search(r"\bsrun\b", launch) else None
    return None if tasks is None else tasks * (each or 1)


def takes_all_cores(launch: str) -> bool:
    """Whether a command uses an MPI launcher, which starts one process per core if it is given no number."""
    return not ALL_CORES.isdisjoint(re.split(r"[\s/;&|()'\"]+", launch))


def option_number(command: str, *options: str) -> int | None:
    """The number after one of these options of the launcher, or of the whole command if it has none.

    >>> option_number("nice -n 19 mpirun -np 4 aims.x", "-n", "-np"), option_number("srun --ntasks=8 a", "--ntasks")
    (4, 8)
    """
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    names = [word.rsplit("/", 1)[-1] for word in words]
    words = words[next((i for i, name in enumerate(names) if name in LAUNCHERS), 0) :]
    for i, word in enumerate(words):
        for option in options:
            rest = word.removeprefix(option).removeprefix("=") if word.startswith(option) else None
            if rest == "" and i + 1 < len(words):
                rest = words[i + 1]
            if rest is not None and rest.isdigit():
                return int(rest)
    return None


def clock_seconds(text: str) -> float:
    """Seconds from a time in the form [[H:]M:]S. Raises ValueError.

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
