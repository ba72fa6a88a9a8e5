"""Molecular dynamics on several cores: each process moves its share of the trajectories.

They move with all members of the committee, or with a calculator (`calculator_dynamics`):

    weights of version v ─┬─ process 0: trajectories 0, 2, … ─┬─ results in the order of the states
                          └─ process 1: trajectories 1, 3, … ─┘

Each trajectory has its own noise stream (`md.noise`), so it moves as in one process, except for the last digits of
float32 forces, which depend on the other structures in the batch.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from aims_pax.errors import Abandoned
from aims_pax.md.bias import UncertaintyBias
from aims_pax.md.propagate import MDOutcome, advance
from aims_pax.md.state import MDState
from aims_pax.models.base import ForceFieldModel
from aims_pax.models.kinds import DEFAULT, kind_of_run, model_kind
from aims_pax.parallel.core_allocation import moving_processes
from aims_pax.potential import Potential
from aims_pax.worker_process import FailureCounter, WorkerProcess, WorkerProcessLost, own_threads

if TYPE_CHECKING:
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)

LOWER = 5  # niceness of these processes


class LoadedForces(Protocol):
    """What moves the atoms, in a worker."""

    def potential(self) -> Potential:
        """The potential with the newest weights."""
        ...


class SerialisedForces(Protocol):
    """What moves the atoms, on its way to a worker."""

    def load(self) -> LoadedForces:
        """Rebuild it. Raises SettingsError, SetupError."""
        ...


class ForceSource(Protocol):
    """What moves the atoms, in the driver."""

    @property
    def version(self) -> int:
        """Changes when the weights do."""
        ...

    def serialised(self) -> SerialisedForces:
        """Everything a new worker needs but the weights."""
        ...

    def weights(self) -> tuple[Mapping[str, Any], ...] | None:
        """The present weights of every member; None if there are none that change."""
        ...


@dataclass(frozen=True, eq=False)
class SerialisedEnsemble:
    """The serialised members and the name of their kind, whose module may be in `folder`."""

    kind: str
    folder: Path
    members: Any

    def load(self) -> ForceFieldModel:
        return model_kind(self.kind, self.folder).unserialise(self.members)


class EnsembleSource:
    """A committee. kind, folder: see `model_kind`."""

    def __init__(self, ensemble: ForceFieldModel, kind: str = DEFAULT, folder: Path = Path()) -> None:
        self.ensemble, self.kind, self.folder = ensemble, kind, folder

    @property
    def version(self) -> int:
        return self.ensemble.version

    def serialised(self) -> SerialisedEnsemble:
        members = model_kind(self.kind, self.folder).serialise(self.ensemble)
        return SerialisedEnsemble(self.kind, self.folder, members)

    def weights(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(self.ensemble.inference_arrays(m) for m in range(len(self.ensemble)))


@dataclass(frozen=True, eq=False)
class MDTask:
    """The task of one process: `md.advance` on its trajectories. Models and weights are sent only when they are new.

    memory: bytes that its evaluations may use; written: whether the user has set this limit.
    """

    states: tuple[MDState, ...]
    n_steps: int
    md: tuple[Any, ...]
    length: float | None
    driving_members: tuple[int, ...] | None
    version: int
    memory: float = math.inf
    written: bool = False
    models: SerialisedForces | None = None
    weights: tuple[Mapping[str, Any], ...] | None = None
    bias: tuple[UncertaintyBias | None, ...] | None = None


class MDPool:
    """n processes that move trajectories. A context manager; they start at `warm` or with the first task.

    memory: bytes that all their evaluations together may use. After a
    process was killed the limit is halved, so fewer trajectories move in one batch; if it happens again, the number of
    processes is halved too.
    """

    def __init__(
        self,
        source: ForceSource,
        n: int,
        threads: int = 1,
        memory: float = math.inf,
        written: bool = False,
    ) -> None:
        self.source, self.n, self.threads = source, n, threads
        self.memory, self.written = memory, written
        self._killed = 0
        self._companions: list[WorkerProcess | None] = [None] * n
        self._versions = [-1] * n  # of the weights in each process
        self._patience = FailureCounter("lower MISC.memory_limit (mace.yaml) or CLUSTER.dynamics.workers")

    def __enter__(self) -> MDPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Abandon running tasks and end the processes."""
        for companion in self._companions:
            if companion is not None and not companion.lost:
                companion.process.kill()
                companion.close()

    def warm(self) -> None:
        """Start the processes now: their imports take seconds."""
        for k in range(self.n):
            self._companion(k)

    def advance(
        self,
        states: Sequence[MDState],
        n_steps: int,
        md: Sequence[Any],
        *,
        stop: Callable[[], bool] = lambda: False,
        length: float | None = None,
        driving_members: Sequence[int] | None = None,
        bias: Sequence[UncertaintyBias | None] | None = None,
    ) -> list[MDOutcome]:
        """`md.advance` with the potential of the source. Raises Abandoned; SetupError when processes die repeatedly."""
        while True:
            try:
                moved = self._together(states, n_steps, md, stop, length, driving_members, bias)
            except WorkerProcessLost as error:
                if stop():  # the signal that stops the run may have ended them too
                    raise Abandoned from error
                self._patience.lost(error)
                how = self._shrink() if error.killed else ""
                log.warning("molecular dynamics: %s; the steps are repeated%s", error, how)
                continue
            self._patience.answered()
            self._killed = 0
            return moved

    def _shrink(self) -> str:
        """Reduce the memory limit after a process was killed, probably for memory; returns a text for the log."""
        from aims_pax.models import memory_budget

        self._killed += 1
        known = self.memory if self.memory < math.inf else memory_budget.available_memory()
        self.memory, self.written = known / 2, False
        if self._killed > 1 and self.n > 1:
            idle = self._companions[self.n // 2 :]
            self.n //= 2
            self._companions, self._versions = self._companions[: self.n], self._versions[: self.n]
            for companion in idle:
                if companion is not None:
                    companion.close()
        share = self.memory / self.n / memory_budget.GB
        return f", in {self.n} process{'es' if self.n > 1 else ''} with at most {share:.2g} GB each"

    def _together(
        self,
        states: Sequence[MDState],
        n_steps: int,
        md: Sequence[Any],
        stop: Callable[[], bool],
        length: float | None,
        driving_members: Sequence[int] | None,
        bias: Sequence[UncertaintyBias | None] | None,
    ) -> list[MDOutcome]:
        parts = {
            k: part for k, part in enumerate(split_trajectories([len(s) for s in states], self.n)) if part
        }
        asked: list[int] = []
        results: dict[int, MDOutcome] = {}
        wrong: list[BaseException] = []
        for k, part in parts.items():
            own = None if driving_members is None else tuple(driving_members[i] for i in part)
            biases = None if bias is None else tuple(bias[i] for i in part)
            try:
                self._send(
                    k,
                    tuple(states[i] for i in part),
                    n_steps,
                    tuple(md[i] for i in part),
                    length,
                    own,
                    biases,
                )
                asked.append(k)
            except WorkerProcessLost as error:
                wrong.append(error)
        for k in asked:  # all of them, even if one has failed: each must be idle before the next task
            companion = self._companions[k]
            assert companion is not None
            try:
                results |= zip(parts[k], companion.receive(stop), strict=True)
            except Exception as error:
                wrong.append(error)
        if wrong:
            raise next((e for e in wrong if not isinstance(e, WorkerProcessLost | Abandoned)), wrong[0])
        return [results[i] for i in range(len(states))]

    def _send(
        self,
        k: int,
        states: tuple[MDState, ...],
        n_steps: int,
        md: tuple[Any, ...],
        length: float | None,
        driving_members: tuple[int, ...] | None,
        bias: tuple[UncertaintyBias | None, ...] | None,
    ) -> None:
        companion, version = self._companion(k), self.source.version
        models = self.source.serialised() if self._versions[k] < 0 else None
        weights = self.source.weights() if self._versions[k] != version else None
        memory = self.memory / self.n
        companion.send(
            MDTask(
                states,
                n_steps,
                md,
                length,
                driving_members,
                version,
                memory,
                self.written,
                models,
                weights,
                bias,
            )
        )
        self._versions[k] = version

    def _companion(self, k: int) -> WorkerProcess:
        companion = self._companions[k]
        if companion is None or companion.lost:
            level = logging.INFO if k == 0 else logging.WARNING  # the others would log the same
            companion = WorkerProcess(
                "aims_pax.parallel.dynamics:MDWorker", self.threads, level=level, forked=self.threads == 1
            )
            self._companions[k], self._versions[k] = companion, -1
        return companion


class MDWorker:
    """State of a process between tasks: what moves the atoms, with the newest weights it has received."""

    def __init__(self) -> None:
        own_threads()
        os.nice(LOWER)  # reference calculations and training have priority on busy cores
        self.forces: LoadedForces | None = None

    def __call__(self, leg: MDTask, stop: Callable[[], bool]) -> list[MDOutcome]:
        from aims_pax.models import memory_budget

        if leg.models is not None:
            self.forces = leg.models.load()
        assert self.forces is not None
        if leg.weights is not None:
            ensemble = cast(ForceFieldModel, self.forces)
            for member, arrays in enumerate(leg.weights):
                ensemble.set_inference_arrays(member, arrays)
        memory_budget.allow(leg.memory, written=leg.written)
        return advance(
            leg.states, self.forces.potential(), leg.n_steps, leg.md,
            stop=stop, length=leg.length, driving_members=leg.driving_members, bias=leg.bias,
        )  # fmt: skip


def split_trajectories(sizes: Sequence[int], n: int) -> list[list[int]]:
    """The trajectories of each of n processes, ascending; the largest are assigned first, to the least loaded process.

    >>> split_trajectories([9, 9, 21, 9], 2)
    [[2], [0, 1, 3]]
    """
    load, parts = [0] * n, [[] for _ in range(n)]  # type: tuple[list[int], list[list[int]]]
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        k = load.index(min(load))
        parts[k].append(i)
        load[k] += sizes[i]
    return [sorted(part) for part in parts]


@contextmanager
def md_pool(settings: Settings, ensemble: ForceFieldModel, trajectories: int) -> Iterator[MDPool | None]:
    """The processes that move trajectories, or None if this process moves them.

    None with `executor: inline` (bit for bit reproducible), on a GPU, when training leaves no core, and for a kind of
    model that cannot be sent to other processes.
    """
    n, profile = moving_processes(settings, trajectories), settings.cluster.dynamics
    kind = kind_of_run(settings)
    if profile is not None and not kind.moves_in_processes:
        log.warning(
            "CLUSTER.dynamics has no effect: %s models move atoms in the driver's process", kind.title
        )
    if n <= 1:
        yield None
        return
    from aims_pax.models import memory_budget

    threads = 1 if profile is None else profile.threads
    memory = memory_budget.limit(), memory_budget.is_set_by_user()
    source = EnsembleSource(ensemble, kind.target or settings.model.kind, settings.folder)
    with MDPool(source, n, threads, *memory) as own:
        log.info("molecular dynamics in %d processes", n)
        own.warm()
        yield own
