"""Compiles training steps, in the background or at once, and caches them on disk.

    background process of lowest priority → cache on disk → a visit begins: trace, load, compare → Step

Compiling takes minutes, loading from the cache a fraction of that. Each training process looks in the cache itself.
Gradients are compared with uncompiled (eager) ones before a compiled step is used; after any failure training runs
uncompiled, and one line in the log says why. The cache holds executable code: it is in a folder that only the user may
write to, never in the folder of a run.
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

# ready: use it if it is in the cache; wait: compile now if it is not
CompileMode = Literal["never", "ready", "wait"]
CHANGING = ("atomic_energies", "scale_shift")  # buffers that the graph does not depend on
ROUNDS = 3  # steps that are timed, compiled and uncompiled


class Unavailable(Exception):
    """Compiling is not possible here."""


_active: WeakKeyDictionary[FastMace, Step] = WeakKeyDictionary()
_signatures: WeakKeyDictionary[FastMace, str] = WeakKeyDictionary()
_known: dict[str, Step | None] = {}  # None: has failed
_notes: list[tuple[str, str]] = []
_said: set[str] = set()


def step_of(quick: FastMace) -> Step | None:
    """The compiled step with which the current visit trains this model; None: uncompiled."""
    return _active.get(quick)


def prepare(
    model: MaceModel, batches: Callable[[], Sequence[EdgeBatch]], how: CompileMode, *, strain: bool
) -> None:
    """Decide whether a visit uses a compiled step. batches: real ones of two sizes, to compare gradients on.

    Errors of compiling are not raised: training is then uncompiled, and `taken_notes` says why.
    """
    quick = fast_mace(model)
    if quick is not None:
        _active.pop(quick, None)
    if how == "never":
        return
    if quick is None:
        _note("unsupported", "training runs uncompiled: this architecture is evaluated by MACE's own modules")
        return
    key = signature(quick)
    if key not in _known:
        if how == "ready" and not is_ready(key):
            return
        try:
            _known[key] = _obtain(quick, key, batches(), choose=how == "ready", strain=strain)
        except Exception as error:  # after any error training continues uncompiled
            log.debug("compiling", exc_info=True)
            _known[key] = None
            _note("failed", f"training runs uncompiled, the compiled step cannot be used: {_short(error)}")
    step = _known[key]
    if step is not None:
        _active[quick] = step


def evaluate_trained(quick: FastMace, graph: EdgeBatch, *, strain: bool) -> compiled_step.EnergyForcesStrain:
    """`evaluate_fast` with `training=True`, compiled if the current visit is compiled."""
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
    """Train this model uncompiled from now on, because of this error; False if it was not compiled."""
    quick = fast_mace(model)
    if quick is None or _active.pop(quick, None) is None:
        return False
    log.debug("a compiled step", exc_info=error)
    _known[signature(quick)] = None
    _note("failed", f"training runs uncompiled from now on, a compiled step has failed: {_short(error)}")
    return True


def taken_notes() -> list[tuple[str, str]]:
    """(kind, text) of the notes since the last call."""
    notes = list(_notes)
    _notes.clear()
    return notes


def say(notes: Iterable[tuple[str, str]]) -> None:
    """Log the notes of processes, each kind only once."""
    for kind, text in notes:
        if kind not in _said:
            _said.add(kind)
            log.info("%s", text)


def signature(quick: FastMace) -> str:
    """Hash of everything that a compiled graph depends on: architecture, constants, precision, versions; no weights."""
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
    """Some values of the readouts' nonlinearities, which names and shapes do not identify."""
    x = torch.linspace(-2, 2, 5, dtype=quick.plan.dtype, device=quick.plan.device)
    with torch.no_grad():
        return " ".join("none" if gate is None else str(gate(x).tolist()) for gate in quick.plan.gates)


def cache_folder() -> Path:
    """The user's folder for compiled code, made if missing. Raises Unavailable when others can write to it."""
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
            raise Unavailable(
                f"{one}: others may write to it; remove it, or set AIMS_PAX_CACHE to another folder"
            )
    return folder


@cache
def _processor() -> str:
    """Hash of the processor's instruction sets: compiled code depends on them, and machines share home folders."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = [f"flags {platform.processor()}"]
    able = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{platform.machine()} {able}".encode()).hexdigest()[:16]


def _headers() -> Path:
    """The folder in which torch stores precompiled headers; it does not depend on TORCHINDUCTOR_CACHE_DIR."""
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # read when inductor is first imported
    os.environ.setdefault("TORCH_WARM_POOL", "0")
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    except ImportError as error:  # not a public function of torch
        raise Unavailable(f"this version of torch is not supported: {error}") from error
    return Path(default_cache_dir())


def is_ready(key: str) -> bool:
    """Whether the cache holds the compiled step, from this or another process."""
    try:
        return (cache_folder() / key).exists()
    except Unavailable:
        return False


def compiler() -> str | None:
    """The C++ compiler that torch would use; None if there is none."""
    return shutil.which(shlex.split(os.environ.get("CXX") or "g++")[0])


def reason_against() -> str | None:
    """Why compiling is not possible on this machine's CPU; None if it is."""
    try:
        cache_folder()
    except Unavailable as error:
        return str(error)
    return None if compiler() else "there is no C++ compiler (g++)"


def build(quick: FastMace, key: str) -> Step:
    """Compile a step, or load it from the cache; only one process at a time compiles the same step."""
    folder = cache_folder()
    if quick.plan.device.type == "cpu" and (against := reason_against()):
        raise Unavailable(against)
    # next to the files that mark steps as ready
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "torch")
    with _alone(folder / f"{key}.lock", wanted=not is_ready(key)), quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own code
        step = Step(quick)
    (folder / key).touch()
    return step


class BackgroundCompile:
    """A process of lowest priority that compiles the step of a model and stores it in the cache.

    It leads its own session, so that its compilers can be stopped and ended with it. Linux distributes processors first
    among sessions (autogroups) and uses niceness only within each, so the session also gets the lowest priority.
    """

    def __init__(self, model: MaceModel) -> None:
        self._model = packed_member(model)
        code = (
            f"import sys; sys.path[:] = {[str(p) for p in sys.path]!r}; "
            f"from {__name__} import {compile_main.__name__} as main; main()"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that its compilers can be ended with it
        )
        self._closed = False
        threading.Thread(target=self._follow, name="compiling", daemon=True).start()

    def rest(self, resting: bool) -> None:
        """Suspend the process and its compilers while the run is paused (True), or resume them (False)."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.killpg(self.process.pid, signal.SIGSTOP if resting else signal.SIGCONT)

    def close(self) -> None:
        """End the process and its compilers; finished parts stay in the cache."""
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
            self.process.stdin.flush()  # left open: the process ends when this pipe closes
            said = self.process.stdout.read().decode(errors="replace").strip()
        except OSError as error:
            said = str(error)
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # unread data can no longer be flushed
                pipe.close()
        if code == 0:
            log.info("training was compiled in the background in %.0f s", time.monotonic() - began)
        elif not self._closed:
            log.info("training runs uncompiled, compiling in the background failed: %s", said or code)


def compile_main() -> None:
    """The main function of the background process."""
    step_back()
    torch.set_num_threads(1)
    source = sys.stdin.buffer
    model = torch.load(io.BytesIO(pickle.load(source)), "cpu", weights_only=False)  # sent by our main process
    threading.Thread(target=_end_with, args=(source,), daemon=True).start()
    quick = fast_mace(model)
    try:
        if quick is None:
            raise Unavailable("MACE's own modules evaluate this architecture")
        build(quick, signature(quick))
    except Exception as error:  # reported by the main process
        print(_short(error), flush=True)
        os._exit(1)
    os._exit(0)


def step_back() -> None:
    """Give this process and its session the lowest priority: they use only idle processors."""
    os.nice(19)
    with suppress(OSError, AttributeError):  # not Linux
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):  # no autogroups: niceness counts everywhere
        Path("/proc/self/autogroup").write_text("19")


def _end_with(source: io.BufferedIOBase) -> None:
    """End this process group when the main process closes its end of the pipe."""
    source.read()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _obtain(
    quick: FastMace, key: str, batches: Sequence[EdgeBatch], *, choose: bool, strain: bool
) -> Step | None:
    """The step, after comparison with uncompiled evaluation. With `choose`: None if it is slower."""
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
        _note("slow", f"training runs uncompiled: the compiled step takes {1 / gain:.1f} times as long")
        return None
    faster = f", {gain:.1f} times as fast as without" if choose else ""
    _note("compiled", f"training uses the compiled step from now on (ready after {ready:.0f} s{faster})")
    return step


def _gain(quick: FastMace, ours: compiled_step.Evaluation, eagerly: compiled_step.Evaluation) -> float:
    """Processor time of an uncompiled step divided by that of a compiled one, the shortest of each."""
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
    """Wait for other processes that compile the same step; on file systems without locks, all compile."""
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
    """Hash of the source code that is traced."""
    here = Path(__file__).parent
    names = ("compiled_step.py", "forward.py", "symmetric_contraction.py", "layout.py")
    return hashlib.sha256(b"".join((here / n).read_bytes() for n in names)).hexdigest()


def _note(kind: str, text: str) -> None:
    _notes.append((kind, text))


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:250]}".rstrip(": ")
