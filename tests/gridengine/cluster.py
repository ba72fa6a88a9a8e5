"""A real Grid Engine on one machine, for tests: sge_qmaster and sge_execd on loopback, one host, some slots.

    python -m tests.gridengine.cluster install     Debian's packages (root); nothing is started by apt
    python -m tests.gridengine.cluster up          brings a cluster up and prints how to use it
    python -m tests.gridengine.cluster down        takes it down again

Its root, cell, spool and accounting lie in one folder and are found through SGE_ROOT, its ports through
SGE_QMASTER_PORT and SGE_EXECD_PORT: only the programs are those of the system. The daemons run as root, and root
submits (min_uid 0, else the queue falls into an error state).
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

from tests.batch.machine import bring_up, free_ports, runs

PACKAGES = ("gridengine-master", "gridengine-exec", "gridengine-client")
PROGRAMS = ("sge_qmaster", "sge_execd", "qsub", "qstat", "qdel", "qacct", "qconf")
DAEMONS = "/usr/sbin:/usr/local/sbin:/sbin"
POLICY = Path("/usr/sbin/policy-rc.d")
FOLDER = Path("/tmp/aims-pax-gridengine")  # of `up` and `down`; tests get a folder of their own
SYSTEM = Path("/var/lib/gridengine")  # programs by architecture
INIT = Path("/usr/share/gridengine/scripts/init_cluster")
ANSWERS = """\
gridengine-common shared/gridenginemaster string {host}
gridengine-common shared/gridenginecell string default
gridengine-common shared/gridengineconfig boolean false
gridengine-client shared/gridenginemaster string {host}
"""
BOOTSTRAP = """\
admin_user              none
default_domain          none
ignore_fqdn             false
spooling_method         berkeleydb
spooling_lib            libspoolb
spooling_params         {folder}/spooldb
binary_path             /usr/sbin
qmaster_spool_dir       {folder}/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
"""
EXEC_HOST = """\
hostname {host}
load_scaling NONE
complex_values NONE
user_lists NONE
xuser_lists NONE
projects NONE
xprojects NONE
usage_scaling NONE
report_variables NONE
"""
PARALLEL = """\
pe_name smp
slots 999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule $pe_slots
control_slaves FALSE
job_is_first_task TRUE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""
QUEUE = """\
qname {name}
hostlist {host}
seq_no 0
load_thresholds NONE
suspend_thresholds NONE
nsuspend 1
suspend_interval 00:05:00
priority 0
min_cpu_interval 00:05:00
processors UNDEFINED
qtype BATCH
ckpt_list NONE
pe_list smp
rerun FALSE
slots {slots}
tmpdir /tmp
shell /bin/bash
prolog NONE
epilog NONE
shell_start_mode unix_behavior
starter_method NONE
suspend_method NONE
resume_method NONE
terminate_method NONE
notify 00:00:10
owner_list NONE
user_lists NONE
xuser_lists NONE
subordinate_list NONE
complex_values NONE
projects NONE
xprojects NONE
calendar NONE
initial_state default
"""
LIMITS = ("rt", "cpu", "fsize", "data", "stack", "core", "rss", "vmem")
OURS = ("SGE_ROOT", "SGE_CELL", "SGE_QMASTER_PORT", "SGE_EXECD_PORT")


class NoGridEngineError(Exception):
    """Why there is no Grid Engine here."""


def install() -> None:
    """Debian's packages, when they are missing and we may. Raises NoGridEngineError with the reason otherwise."""
    os.environ["PATH"] += ":" + DAEMONS
    missing = [p for p in PROGRAMS if shutil.which(p) is None]
    if os.geteuid() != 0:
        raise NoGridEngineError("its daemons are started by root")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise NoGridEngineError(f"{', '.join(missing)} missing, and there is no apt-get")
    guard = not POLICY.exists()
    if guard:  # keeps apt from starting daemons that have no configuration
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        answers = ANSWERS.format(host=socket.gethostname())
        subprocess.run(["debconf-set-selections"], input=answers, text=True, check=True, env=environment)
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(
                ["apt-get", *command], env=environment, capture_output=True, text=True, timeout=300
            )
        if done.returncode:
            raise NoGridEngineError(f"apt-get install failed: {done.stderr.strip()[-300:]}")
    except (OSError, subprocess.SubprocessError) as error:
        raise NoGridEngineError(f"apt-get install failed: {error}") from error
    finally:
        if guard:
            POLICY.unlink()


class Cluster:
    """A context manager; inside, SGE_ROOT of this process and its children is this cluster's.

    queues: name → slots, of queues on the one host.
    """

    def __init__(self, folder: Path | None = None, queues: dict[str, int] | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="aims-pax-sge-"))
        self.queues = queues or {"all.q": 8}
        self.host = socket.gethostname()
        self.common = self.folder / "default" / "common"
        self._before = {name: os.environ.get(name) for name in OURS}

    def __enter__(self) -> Self:
        install()
        bring_up(self.up, self.down, NoGridEngineError)
        return self

    def __exit__(self, *exception: object) -> None:
        self.down()

    # ------------------------------------------------------------ the whole

    def up(self) -> None:
        """Start what does not run. Raises NoGridEngineError when a daemon does not come up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        ports = self.folder / "ports"
        if not ports.exists():
            ports.write_text(" ".join(map(str, free_ports(2))))
        master, execution = ports.read_text().split()
        values = (str(self.folder), "default", master, execution)
        os.environ.update(zip(OURS, values, strict=True))
        if not self.common.exists():
            self._initialise()
        self.start_master()
        self._configure()
        self.start_execution()
        self.until(lambda: set(self.states().values()) == {""}, 60)

    def down(self) -> None:
        """End all jobs, stop all daemons, forget everything."""
        with suppress(Exception):
            self.run("qdel", "-f", "-u", "*")
            self.until(lambda: not self.jobs(), 20)
        self._stop("execd/execd.pid")
        self._stop("qmaster/qmaster.pid")
        shutil.rmtree(self.folder, ignore_errors=True)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    # ------------------------------------------------------------ faults and repairs

    def start_master(self) -> None:
        if self._pid("qmaster/qmaster.pid") is None:
            self._daemon("sge_qmaster")
        self.until(lambda: self.run("qconf", "-sh", check=True), 60)

    def stop_master(self) -> None:
        """Nobody answers any more; jobs go on."""
        self._stop("qmaster/qmaster.pid")

    def start_execution(self) -> None:
        if self._pid("execd/execd.pid") is None:
            self._daemon("sge_execd")

    # ------------------------------------------------------------ looking

    def run(self, *words: str, check: bool = False) -> str:
        """The output of a command. check: raise CalledProcessError when it fails, as without a master."""
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=check).stdout

    def jobs(self) -> dict[str, str]:
        """Job id → state of everything that waits or runs."""
        lines = self.run("qstat", "-u", "*", check=True).splitlines()[2:]
        return {line.split()[0]: line.split()[4] for line in lines}

    def states(self) -> dict[str, str]:
        """Queue → its states: "" when all is well, u without its daemon, E after a job that could not start."""
        rows = [line.split() for line in self.run("qstat", "-f", check=True).splitlines() if "@" in line]
        return {row[0].partition("@")[0]: row[5] if len(row) > 5 else "" for row in rows}

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with suppress(subprocess.SubprocessError):  # the master does not answer just now
                if condition():
                    return
            if time.monotonic() > deadline:
                raise NoGridEngineError(f"not within {seconds} s; {self._log()}")
            time.sleep(0.1)

    # ------------------------------------------------------------ daemons

    def _initialise(self) -> None:
        """The folder as a root of Grid Engine with one cell; programs are those of the system."""
        self.common.mkdir(parents=True)
        for name in ("bin", "lib", "util", "utilbin"):
            (self.folder / name).symlink_to(SYSTEM / name)
        for name in ("qmaster", "execd", "spooldb"):
            (self.folder / name).mkdir()
        (self.common / "bootstrap").write_text(BOOTSTRAP.format(folder=self.folder))
        (self.common / "act_qmaster").write_text(self.host + "\n")
        # Grid Engine must call this machine by one name
        (self.common / "host_aliases").write_text(f"{self.host} localhost\n")
        words = [str(INIT), str(self.folder), "default", str(self.folder / "spooldb"), "root"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise NoGridEngineError(f"init_cluster: {(done.stderr or done.stdout).strip()[-300:]}")

    def _configure(self) -> None:
        """Once more changes nothing."""
        for option in ("-ah", "-as"):
            self.run("qconf", option, self.host)
        spool = self.folder / "execd"
        self._change(
            "conf", min_uid="0", min_gid="0", execd_spool_dir=str(spool), loglevel="log_info",
            reporting_params="accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00",
        )  # fmt: skip
        self._change(
            "sconf", schedule_interval="0:0:2", flush_submit_sec="1", flush_finish_sec="1", job_load_adjustments="NONE",
        )  # fmt: skip
        self._add("-Ae", EXEC_HOST.format(host=self.host))
        self._add("-Ap", PARALLEL)
        for name, slots in self.queues.items():
            limits = "".join(f"s_{n} INFINITY\nh_{n} INFINITY\n" for n in LIMITS)
            self._add("-Aq", QUEUE.format(name=name, host=self.host, slots=slots) + limits)

    def _change(self, what: str, **values: str) -> None:
        lines = self.run("qconf", f"-s{what}", check=True).replace("\\\n", " ").splitlines()
        rows = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
        text = "".join(f"{row[0]} {values.get(row[0], row[1] if len(row) > 1 else '')}\n" for row in rows)
        name = {"conf": "global"}.get(what, what)
        path = self.folder / name
        path.write_text(text)
        self.run("qconf", f"-M{what}", str(path), check=True)

    def _add(self, option: str, text: str) -> None:
        path = self.folder / "added"
        path.write_text(text)
        self.run("qconf", option, str(path))

    def _daemon(self, program: str) -> None:
        done = subprocess.run(
            [str(shutil.which(program))], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            raise NoGridEngineError(f"{program}: {(done.stderr or done.stdout).strip()[-300:]}")

    def _pid(self, name: str) -> int | None:
        for path in (self.folder / name, *self.folder.glob(f"execd/*/{Path(name).name}")):
            with suppress(OSError, ValueError):
                pid = int(path.read_text())
                if runs(pid):
                    return pid
        return None

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
                return

    def _log(self) -> str:
        with suppress(OSError):
            return (self.folder / "qmaster" / "messages").read_text()[-400:]
        return "no messages of the master"


def main(words: Sequence[str]) -> None:
    cluster = Cluster(FOLDER)
    match list(words):
        case ["install"]:
            try:
                install()
            except NoGridEngineError as error:
                sys.exit(f"no Grid Engine: {error}")
        case ["up"]:
            install()
            cluster.up()
            print("export " + " ".join(f"{name}={os.environ[name]}" for name in OURS))
        case ["down"]:
            if FOLDER.exists():
                install()
                master, execution = (FOLDER / "ports").read_text().split()
                os.environ.update(zip(OURS, (str(FOLDER), "default", master, execution), strict=True))
                cluster.down()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
