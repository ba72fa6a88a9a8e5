"""Whether training is compiled, when, and where what was compiled is kept.

    compile aside (a process of lowest priority) → cache on disk → a visit begins: trace, load, compare → Step

Compiling costs minutes, loading what another process compiled a fraction of that. Every process that trains looks
for itself; the gradients are compared with those of eager evaluation before anything is used, and whatever goes
wrong ends in eager training and one line that says why. The cache holds executable code: it lies in a folder of
the user that nobody else may write to, never in a run's.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import logging
import os
import pickle
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import torch

from aims_pax.models.mace import compiled_step
from aims_pax.models.mace.compiled_step import Step
from aims_pax.models.mace.fast_forward import FastMace, evaluate_fast, fast_mace
from aims_pax.models.mace.mace_import import MaceModel, quiet
from aims_pax.models.mace.serialisation import packed_member

if TYPE_CHECKING:
    from aims_pax.models.mace.graphs import EdgeBatch

log = logging.getLogger(__name__)

CompileMode = Literal[
    "never", "ready", "wait"
]  # ready: if it lies in the cache; wait: compile here if it does not
CHANGING = ("atomic_energies", "scale_shift")  # buffers that say nothing about the graph
ROUNDS = 3  # steps of either kind that are timed


class Unavailable(Exception):
    """Nothing can be compiled here."""


_active: WeakKeyDictionary[FastMace, Step] = WeakKeyDictionary()
_signatures: WeakKeyDictionary[FastMace, str] = WeakKeyDictionary()
_known: dict[str, Step | None] = {}  # None: tried, and given up
_notes: list[tuple[str, str]] = []
_said: set[str] = set()


def step_of(quick: FastMace) -> Step | None:
    """What the present visit trains this model with; None: eagerly."""
    return _active.get(quick)


def prepare(
    model: MaceModel, batches: Callable[[], Sequence[EdgeBatch]], how: CompileMode, *, strain: bool
) -> None:
    """Decide for a visit that begins. batches: real ones of two sizes, to compare gradients on.

    Never raises for what compiling may meet: training is eager then, and `taken_notes` says why.
    """
    quick = fast_mace(model)
    if quick is not None:
        _active.pop(quick, None)
    if how == "never":
        return
    if quick is None:
        _note("unsupported", "training stays eager: MACE's own modules evaluate this architecture")
        return
    key = signature(quick)
    if key not in _known:
        if how == "ready" and not is_ready(key):
            return
        try:
            _known[key] = _obtain(quick, key, batches(), choose=how == "ready", strain=strain)
        except Exception as error:  # whatever it is, training goes on without
            log.debug("compiling", exc_info=True)
            _known[key] = None
            _note("failed", f"training stays eager, compiled it cannot be used: {_short(error)}")
    step = _known[key]
    if step is not None:
        _active[quick] = step


def evaluate_trained(quick: FastMace, graph: EdgeBatch, *, strain: bool) -> compiled_step.EnergyForcesStrain:
    """`fast.evaluate` with `training`, compiled where the present visit is."""
    step = step_of(quick)
    if step is not None:
        try:
            return step(quick, graph, strain=strain)
        except RuntimeError as error:
            if "recompile" not in str(error).lower():
                raise
            log.debug("sizes that were not compiled: %s", _short(error))
    return evaluate_fast(quick, graph, training=True, strain=strain)


def given_up(model: MaceModel, error: Exception) -> bool:
    """Train this model eagerly from now on, because of this error; False when it was not compiled anyway."""
    quick = fast_mace(model)
    if quick is None or _active.pop(quick, None) is None:
        return False
    log.debug("a compiled step", exc_info=error)
    _known[signature(quick)] = None
    _note("failed", f"training is eager from now on, a compiled step has failed: {_short(error)}")
    return True


def taken_notes() -> list[tuple[str, str]]:
    """(kind, text) of what there was to say since the last time."""
    notes = list(_notes)
    _notes.clear()
    return notes


def say(notes: Iterable[tuple[str, str]]) -> None:
    """Log what processes have to say; of what several say only the first."""
    for kind, text in notes:
        if kind not in _said:
            _said.add(kind)
            log.info("%s", text)


def signature(quick: FastMace) -> str:
    """What a compiled graph depends on: architecture, constants, precision, versions. No weights."""
    model = quick.model
    if quick not in _signatures:
        digest = hashlib.sha256(
            f"{torch.__version__} {_code()} {quick.plan.dtype} {quick.plan.device} {_gates(quick)}".encode()
        )
        for module in model.modules():
            digest.update(type(module).__name__.encode())
        for name, p in model.named_parameters():
            digest.update(f"{name} {tuple(p.shape)} {p.requires_grad}".encode())
        for name, b in model.named_buffers():
            if not name.startswith(CHANGING):
                digest.update(name.encode() + b.detach().cpu().contiguous().numpy().tobytes())
        _signatures[quick] = digest.hexdigest()[:32]
    return _signatures[quick]


def _gates(quick: FastMace) -> str:
    """The readouts' nonlinearities by some of their values: they leave no trace in names and shapes."""
    x = torch.linspace(-2, 2, 5, dtype=quick.plan.dtype, device=quick.plan.device)
    with torch.no_grad():
        return " ".join("none" if gate is None else str(gate(x).tolist()) for gate in quick.plan.gates)


def cache_folder() -> Path:
    """The user's own folder for compiled code, made on demand. Raises Unavailable when others could write to it."""
    named = os.environ.get("AIMS_PAX_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    whole = Path(named or Path(base) / "aims-pax").expanduser() / "compiled"
    folder = whole / _processor()
    for one in (whole, folder, _headers()):
        try:
            one.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = one.stat()
        except (OSError, RuntimeError) as error:
            raise Unavailable(f"no folder for compiled code: {error}") from error
        if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Unavailable(f"{one}: others may write to it; remove it, or name another in AIMS_PAX_CACHE")
    return folder


@cache
def _processor() -> str:
    """What this machine's processor can do, as a hash: compiled code uses all of it, and homes are shared."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = [f"flags {platform.processor()}"]
    able = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{platform.machine()} {able}".encode()).hexdigest()[:16]


def _headers() -> Path:
    """Where torch keeps compiled headers, whatever folder it was given for the rest."""
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # read when inductor is first imported
    os.environ.setdefault("TORCH_WARM_POOL", "0")
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    except ImportError as error:  # torch does not promise to have it there
        raise Unavailable(f"this torch cannot: {error}") from error
    return Path(default_cache_dir())


def is_ready(key: str) -> bool:
    """Whether it was compiled before, here or elsewhere."""
    try:
        return (cache_folder() / key).exists()
    except Unavailable:
        return False


def compiler() -> str | None:
    """The C++ compiler torch would use, None when there is none."""
    return shutil.which(shlex.split(os.environ.get("CXX") or "g++")[0])


def reason_against() -> str | None:
    """Why nothing can be compiled on this machine's CPU, None when it can."""
    try:
        cache_folder()
    except Unavailable as error:
        return str(error)
    return None if compiler() else "there is no C++ compiler (g++)"


def build(quick: FastMace, key: str) -> Step:
    """Compile, or load what has been compiled; only one process compiles the same thing at a time."""
    folder = cache_folder()
    if quick.plan.device.type == "cpu" and (against := reason_against()):
        raise Unavailable(against)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(
        folder / "torch"
    )  # what is marked as ready lies beside its mark
    with _alone(folder / f"{key}.lock", wanted=not is_ready(key)), quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of itself
        step = Step(quick)
    (folder / key).touch()
    return step


class BackgroundCompile:
    """A process of lowest priority that compiles for a model and leaves the result in the cache.

    It is the first of a session, so that its compilers can be stopped and ended with it. Linux shares processors out
    among sessions first (autogroups) and looks at niceness only within each, so the session gets the lowest as well.
    """

    def __init__(self, model: MaceModel) -> None:
        self._model = packed_member(model)
        code = (
            f"import sys; sys.path[:] = {[str(p) for p in sys.path]!r}; from {__name__} import main; main()"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # its compilers go with it
        )
        self._closed = False
        threading.Thread(target=self._follow, name="compiling", daemon=True).start()

    def rest(self, resting: bool) -> None:
        """Stop it and its compilers while the run is paused; they go on where they were."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.killpg(self.process.pid, signal.SIGSTOP if resting else signal.SIGCONT)

    def close(self) -> None:
        """End it, with the compilers it started; what they have finished stays in the cache."""
        self._closed = True
        if self.process.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _follow(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        began = time.monotonic()
        try:
            pickle.dump(self._model, self.process.stdin)
            self.process.stdin.flush()  # not closed: its end tells the process that we are gone
            said = self.process.stdout.read().decode(errors="replace").strip()
        except OSError as error:
            said = str(error)
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what it never read cannot be flushed any more
                pipe.close()
        if code == 0:
            log.info("training was compiled aside in %.0f s", time.monotonic() - began)
        elif not self._closed:
            log.info("training stays eager, compiling aside failed: %s", said or code)


def compile_main() -> None:
    """What the process aside runs."""
    step_back()
    torch.set_num_threads(1)
    source = sys.stdin.buffer
    model = torch.load(io.BytesIO(pickle.load(source)), "cpu", weights_only=False)  # our own driver's
    threading.Thread(target=_end_with, args=(source,), daemon=True).start()
    quick = fast_mace(model)
    try:
        if quick is None:
            raise Unavailable("MACE's own modules evaluate this architecture")
        build(quick, signature(quick))
    except Exception as error:  # the driver says it
        print(_short(error), flush=True)
        os._exit(1)
    os._exit(0)


def step_back() -> None:
    """This process and its session take processors only where nobody else wants them."""
    os.nice(19)
    with suppress(OSError, AttributeError):  # not Linux
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):  # no autogroups: niceness counts everywhere
        Path("/proc/self/autogroup").write_text("19")


def _end_with(source: io.BufferedIOBase) -> None:
    """The driver is gone when its end of the pipe is."""
    source.read()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _obtain(
    quick: FastMace, key: str, batches: Sequence[EdgeBatch], *, choose: bool, strain: bool
) -> Step | None:
    """The step, compared with eager evaluation. With `choose` None where it is not the faster one."""
    began = time.monotonic()
    step = build(quick, key)
    gain = 1.0
    for batch in batches:

        def ours(batch: EdgeBatch = batch) -> compiled_step.EnergyForcesStrain:
            return step(quick, batch, strain=strain)

        def eagerly(batch: EdgeBatch = batch) -> compiled_step.EnergyForcesStrain:
            return evaluate_fast(quick, batch, training=True, strain=strain)

        compiled_step.compare_gradients(quick, ours, eagerly)
        if choose and batch is batches[0]:
            gain = _gain(quick, ours, eagerly)
    ready = time.monotonic() - began
    if gain < 1:
        _note("slow", f"training stays eager: compiled it takes {1 / gain:.1f} times as long")
        return None
    faster = f", {gain:.1f} times as fast as eager" if choose else ""
    _note("compiled", f"training is compiled from now on (ready after {ready:.0f} s{faster})")
    return step


def _gain(quick: FastMace, ours: compiled_step.Evaluation, eagerly: compiled_step.Evaluation) -> float:
    """Processor time of eager steps over that of compiled ones; of each the shortest."""
    best = []
    for evaluation in (ours, eagerly):
        times = []
        for _ in range(ROUNDS):
            began = time.process_time()
            compiled_step.parameter_gradients(evaluation(), compiled_step.trained(quick))
            times.append(time.process_time() - began)
        best.append(min(times))
    return best[1] / best[0]


@contextmanager
def _alone(path: Path, wanted: bool) -> Iterator[None]:
    """Wait for others that compile the same; without locks (some network file systems) all compile."""
    if not wanted:
        yield
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            log.debug("no locks in %s", path.parent)
        yield


@cache
def _code() -> str:
    """What is traced, as a hash of its source."""
    here = Path(__file__).parent
    names = ("compiled_step.py", "forward.py", "symmetric_contraction.py", "layout.py")
    return hashlib.sha256(b"".join((here / n).read_bytes() for n in names)).hexdigest()


def _note(kind: str, text: str) -> None:
    _notes.append((kind, text))


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:250]}".rstrip(": ")
