"""A real Slurm on one machine, for tests: munged, slurmctld and several slurmd on loopback.

    python -m tests.slurm.cluster install     Debian's packages (root); nothing is started by apt
    python -m tests.slurm.cluster up          brings a cluster up and prints how to use it
    python -m tests.slurm.cluster down        takes it down again

Everything lies in one folder and is found through SLURM_CONF: no file of the system is touched, no systemd and
no cgroups are needed, and a user without root can run it where the packages are installed. Debian's build allows
several slurmd on a host; each is a node of its own, and killing one is a node failure.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.batch.machine import bring_up, free_ports, kill_tree, processes, runs

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
DAEMONS = "/usr/sbin:/usr/local/sbin:/sbin"
POLICY = Path("/usr/sbin/policy-rc.d")
FOLDER = Path("/tmp/aims-pax-slurm")  # of `up` and `down`; tests get a folder of their own

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmctldPort={port}
# no cgroups, no binding: works in plain containers
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
# believe the sizes below, not the hardware
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,batch_sched_delay=0,sched_interval=2
ReturnToService=2
JobRequeue=1
# failures are noticed soon (sites: 300, 120, 300, 30 s)
SlurmdTimeout=15
SlurmctldTimeout=15
MinJobAge=60
KillWait=5
MessageTimeout=10
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
NodeName=DEFAULT CPUs={cpus} CoresPerSocket={cpus} Sockets=1 RealMemory=4000 State=UNKNOWN
NodeName=dev[1-{nodes}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{first}-{last}]
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 State=UP
"""


class NoSlurmError(Exception):
    """Why there is no Slurm here."""


def install() -> None:
    """Debian's packages, when they are missing and we may. Raises NoSlurmError with the reason otherwise."""
    os.environ["PATH"] += ":" + DAEMONS
    missing = [p for p in PROGRAMS if shutil.which(p) is None]
    if not missing:
        return
    if os.geteuid() != 0:
        raise NoSlurmError(f"{', '.join(missing)} missing, and only root may install {', '.join(PACKAGES)}")
    if shutil.which("apt-get") is None:
        raise NoSlurmError(f"{', '.join(missing)} missing, and there is no apt-get")
    guard = not POLICY.exists()
    if guard:  # keeps apt from starting daemons that have no configuration
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
            told = subprocess.run(
                ["apt-get", *command], env=environment, capture_output=True, text=True, timeout=300
            )
        if told.returncode:
            raise NoSlurmError(f"apt-get install failed: {told.stderr.strip()[-300:]}")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoSlurmError(f"apt-get install failed: {error}") from error
    finally:
        if guard:
            POLICY.unlink()


class Cluster:
    """A context manager; inside, SLURM_CONF of this process and its children is this cluster's."""

    def __init__(self, folder: Path | None = None, nodes: int = 4, cpus: int = 16) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="aims-pax-slurm-"))
        self.nodes = tuple(f"dev{i + 1}" for i in range(nodes))
        self.cpus = cpus
        self.conf = self.folder / "slurm.conf"
        self._before = os.environ.get("SLURM_CONF")

    def __enter__(self) -> Self:
        install()
        bring_up(self.up, self.down, NoSlurmError)
        return self

    def __exit__(self, *exception: object) -> None:
        self.down()

    # ------------------------------------------------------------ the whole

    def up(self) -> None:
        """Start what does not run. Raises NoSlurmError when a daemon does not come up."""
        for name in ("ctld", "spool", *(f"spool/{n}" for n in self.nodes)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # munged refuses a folder that others can write to
        if not self.conf.exists():
            self._configure()
        os.environ["SLURM_CONF"] = str(self.conf)
        self._munge()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self.until(lambda: all(s in ("idle", "allocated", "mixed") for s in self.states().values()), 60)

    def down(self) -> None:
        """Cancel all jobs, stop all daemons, forget everything."""
        with suppress(Exception):
            self.run("scancel", "--user", str(os.geteuid()))
            self.until(lambda: not self.jobs(), 20)
        for name in (*self.nodes, "slurmctld", "munged"):
            self._stop(name)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._before is None:
            os.environ.pop("SLURM_CONF", None)
        else:
            os.environ["SLURM_CONF"] = self._before

    # ------------------------------------------------------------ faults and repairs

    def start_controller(self) -> None:
        if self._pid("slurmctld") is None:
            self._daemon("slurmctld", "-f", str(self.conf))
        self.until(lambda: "UP" in self.run("scontrol", "ping"), 60)

    def stop_controller(self) -> None:
        self._stop("slurmctld")

    def start_node(self, node: str) -> None:
        if self._pid(node) is None:
            self._daemon("slurmd", "-f", str(self.conf), "-N", node)

    def kill_node(self, node: str) -> None:
        """A node failure: its slurmd and all its job steps are gone at once."""
        pid = self._pid(node)
        assert pid is not None, f"{node} does not run"
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for step in self._steps(node):
            kill_tree(step)
        (self.folder / f"{node}.pid").unlink(missing_ok=True)

    def _steps(self, node: str) -> list[int]:
        """The slurmstepd of a node, by their sockets in its spool folder: dev1_23.0."""
        names = [p.name for p in (self.folder / "spool" / node).glob(f"{node}_*")]
        titles = {f"slurmstepd: [{n.removeprefix(f'{node}_').split('.')[0]}." for n in names}
        return [pid for pid, line in processes().items() if line.startswith(tuple(titles))]

    # ------------------------------------------------------------ looking

    def run(self, *words: str, check: bool = False) -> str:
        """The output of a command. check: raise CalledProcessError when it fails, as without a controller."""
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=check).stdout

    def jobs(self) -> dict[str, str]:
        """Job id → state of everything that waits or runs."""
        lines = self.run("squeue", "--noheader", "--format=%A %T", check=True).split("\n")
        return dict(line.split(maxsplit=1) for line in lines if line.strip())

    def state(self, job: str) -> str:
        """The state of a job, also after its end."""
        return self.run("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}").strip()

    def node_of(self, job: str) -> str:
        return self.run("squeue", "--noheader", "--states=all", "--format=%N", f"--jobs={job}").strip()

    def states(self) -> dict[str, str]:
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %T", check=True).split("\n")
        return {line.split()[0]: line.split()[1] for line in lines if line.strip()}

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with suppress(subprocess.SubprocessError):  # Slurm does not answer just now
                if condition():
                    return
            if time.monotonic() > deadline:
                raise NoSlurmError(f"not within {seconds} s; {self._log()}")
            time.sleep(0.1)

    # ------------------------------------------------------------ daemons

    def _configure(self) -> None:
        ports = free_ports(len(self.nodes) + 1)
        text = CONFIGURATION.format(
            host=socket.gethostname().split(".")[0], user=_user(), folder=self.folder, port=ports[0],
            nodes=len(self.nodes), cpus=self.cpus, first=ports[1], last=ports[-1],
        )  # fmt: skip
        self.conf.write_text(text)

    def _munge(self) -> None:
        if self._pid("munged") is not None:
            return
        key = self.folder / "munge.key"
        if not key.exists():
            key.write_bytes(os.urandom(128))
            key.chmod(0o600)
        files = {"key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log",
                 "seed-file": "munge.seed", "socket": "munge.socket"}  # fmt: skip
        self._daemon("munged", "--force", *(f"--{k}={self.folder / v}" for k, v in files.items()))
        self.until((self.folder / "munge.socket").exists, 10)

    def _daemon(self, *words: str) -> None:
        program = shutil.which(words[0])
        told = subprocess.run(
            [str(program), *words[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
        )
        if told.returncode:
            raise NoSlurmError(f"{' '.join(words)}: {(told.stderr or told.stdout).strip()[-300:]}")

    def _pid(self, name: str) -> int | None:
        try:
            pid = int((self.folder / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if runs(pid) else None

    def _stop(self, name: str) -> None:
        pid = self._pid(name)
        for sign, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 2)):
            if pid is None:
                return
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and runs(pid):
                time.sleep(0.02)
            if not runs(pid):
                (self.folder / f"{name}.pid").unlink(missing_ok=True)
                return

    def _log(self) -> str:
        with suppress(OSError):
            return (self.folder / "slurmctld.log").read_text()[-400:]
        return "no slurmctld.log"


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


def main(words: Sequence[str]) -> None:
    cluster = Cluster(FOLDER)
    match list(words):
        case ["install"]:
            try:
                install()
            except NoSlurmError as error:
                sys.exit(f"no Slurm: {error}")
        case ["up"]:
            install()
            cluster.up()
            print(f"export SLURM_CONF={cluster.conf}")
        case ["down"]:
            os.environ["SLURM_CONF"] = str(cluster.conf)
            cluster.down()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
