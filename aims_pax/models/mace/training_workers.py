"""Members trained in processes of their own, one thread each, with the bits of training in this process.

A worker is a `WorkerProcess` that lives as long as the pool: it keeps the models and the graphs it has seen, so that
later only weights, plans and new frames travel.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from aims_pax.errors import Abandoned
from aims_pax.frames import LabelledFrame
from aims_pax.models import memory_budget
from aims_pax.models.base import MemberResult, TrainingProcessLost
from aims_pax.models.mace import compile_cache
from aims_pax.models.mace.graphs import GraphCache, LabelledGraph
from aims_pax.models.mace.member import Member
from aims_pax.models.mace.optimiser import Arrays
from aims_pax.models.mace.serialisation import packed_member, unpacked
from aims_pax.models.mace.training import TrainingPlan, visit_arrays
from aims_pax.settings.devices import only
from aims_pax.worker_process import WorkerProcess, WorkerProcessLost, own_threads

if TYPE_CHECKING:
    from aims_pax.settings.mace import MaceSettings


@dataclass(frozen=True, eq=False)
class TrainingRound:
    """One member's visit as it travels. state: `Member.arrays()`. train, valid: frame ids, in order.

    frames: by id those the worker may not have yet. model: the pickled module, where it is new there.
    """

    name: str
    seed: int
    settings: MaceSettings
    state: Arrays
    train: tuple[str, ...]
    valid: tuple[str, ...]
    plan: TrainingPlan
    frames: Mapping[str, LabelledFrame] = field(default_factory=dict)
    model: bytes | None = None


@dataclass(frozen=True, eq=False)
class Visited:
    """What comes back: the new state, for `Member.load`, and the result. notes: for the driver's log, (kind, text)."""

    state: Arrays
    result: MemberResult
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a worker computes: threads of its process, and a torch device, or None: that of the settings.

    A numbered CUDA card is the N-th of those this process sees, and the only one that its own process sees.
    """

    threads: int = 1
    device: str | None = None

    def environment(self) -> dict[str, str]:
        """What the process gets besides the driver's."""
        return only(self.device or "", os.environ)

    def settled(self, settings: MaceSettings) -> MaceSettings:
        """The settings with this place's device."""
        if self.device is None:
            return settings
        kind = self.device.partition(":")[0]
        misc = settings.misc.model_copy(update={"device": "cuda" if kind == "cuda" else self.device})
        return settings.model_copy(update={"misc": misc})


class TrainingWorker:
    """What a worker keeps between visits: members by name, frames by id, graphs for each kind of model."""

    def __init__(self) -> None:
        own_threads()
        self.members: dict[str, Member] = {}
        self.frames: dict[str, LabelledFrame] = {}
        self.graphs: dict[Any, GraphCache] = {}

    def __call__(self, visit: TrainingRound, stop: Callable[[], bool]) -> Visited:
        """Train from `visit.state`. Raises Abandoned when `stop()`, looked at before each batch."""
        self.frames.update(visit.frames)
        if visit.model is not None:
            self.members[visit.name] = unpacked(visit.model, visit.name, visit.seed, visit.settings)
        member = self.members[visit.name]
        member.settings = visit.settings
        train, valid = (self._of(member, ids) for ids in (visit.train, visit.valid))
        state, result = visit_arrays(member, visit.state, train, valid, visit.plan, stop)
        return Visited(state, result, tuple(compile_cache.taken_notes()))

    def _of(self, member: Member, ids: Sequence[str]) -> list[LabelledGraph]:
        weights = dict(member.settings.training.config_type_weights)
        key = member.elements, float(member.model.r_max), member.dtype, tuple(sorted(weights.items()))
        store = self.graphs.setdefault(key, GraphCache(*key[:3], weights))
        return [g for g in store.of([self.frames[i] for i in ids]) if not g.isolated]


class Worker:
    """The driver's end of one process, and what that process knows."""

    def __init__(self, place: Place, memory: float = math.inf) -> None:
        self.place = place
        maker = "aims_pax.models.mace.training_workers:TrainingWorker"
        share = {memory_budget.ENVIRONMENT: str(memory)} if memory < math.inf else {}
        self.companion = WorkerProcess(maker, place.threads, place.environment() | share)
        self.frames: dict[str, LabelledFrame] = {}
        self.members: dict[str, Member] = {}

    def visit(self, visit: TrainingRound, member: Member, stop: Callable[[], bool]) -> Visited:
        """Send it with what is new there, wait for the answer. Raises TrainingProcessLost, or what it raised."""
        new = {i: f for i, f in visit.frames.items() if self.frames.get(i) is not f}
        model = None if self.members.get(visit.name) is member else packed_member(member.model)
        settings = self.place.settled(visit.settings)
        try:
            self.companion.send(replace(visit, frames=new, model=model, settings=settings))
            self.frames.update(new)
            self.members[visit.name] = member
            visited: Visited = self.companion.receive(stop)
        except WorkerProcessLost as error:
            text = f"the process that trained {visit.name} has ended ({error.how})"
            raise TrainingProcessLost(text, error.killed) from error
        compile_cache.say(visited.notes)
        return visited


class TrainingPool:
    """n processes that train members. A context manager; they start with the first work, or at `warm`.

    devices: one for each process, in turn; none: that of the settings. memory: bytes that evaluations of all of them
    together may take on the CPU.
    """

    def __init__(
        self, n: int, threads: int = 1, devices: Sequence[str] = (), memory: float = math.inf
    ) -> None:
        self.n, self.memory = n, memory
        self._places = [Place(threads, devices[k % len(devices)] if devices else None) for k in range(n)]
        self._threads = ThreadPoolExecutor(n, thread_name_prefix="training")
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> TrainingPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm(self) -> None:
        """Start the processes now: they need seconds to import what they train with."""
        with self._lock:
            while len(self._all) < self.n:
                self._idle.append(self._new())

    def train(
        self,
        members: Mapping[Member, tuple[Sequence[LabelledFrame], Sequence[LabelledFrame]]],
        plan: TrainingPlan,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[Future[Visited]]:
        """A visit of each member on its (training, validation) frames, from its state as it is now.

        Members are not changed: give `Member.load` what comes back. They must have their statistics.
        A future raises Abandoned after `stop()`, which is called in another thread; TrainingProcessLost when the
        process was killed (the next visit starts another); and whatever the visit itself raises.
        """
        futures = []
        for member, (train, valid) in members.items():
            if member.statistics is None:
                raise ValueError(f"{member.name} has no statistics yet")
            visit = TrainingRound(
                name=member.name,
                seed=member.seed,
                settings=member.settings,
                state=member.arrays(),
                train=tuple(f.id for f in train),
                valid=tuple(f.id for f in valid),
                plan=plan,
                frames={f.id: f for f in [*train, *valid]},
            )
            futures.append(self._threads.submit(self._visit, visit, member, stop))
        return futures

    def shrink(self) -> None:
        """After a process was lost, perhaps for want of memory: from now on half of it for each."""
        with self._lock:
            self.memory /= 2
            idle, self._idle = self._idle, []
            self._all -= set(idle)
        for worker in idle:  # others take their places, with less
            worker.companion.close()

    def close(self) -> None:
        """Give up what is running and end the processes."""
        with self._lock:
            self._closed = True
            workers = list(self._all)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.companion.process.kill()
        self._threads.shutdown(wait=True)
        for worker in workers:
            worker.companion.close()

    def _visit(self, visit: TrainingRound, member: Member, stop: Callable[[], bool]) -> Visited:
        if stop():
            raise Abandoned
        worker = self._take(visit, member)
        try:
            return worker.visit(visit, member, stop)
        finally:
            with self._lock:
                if worker.companion.lost:
                    self._all.discard(worker)
                else:
                    self._idle.append(worker)

    def _take(self, visit: TrainingRound, member: Member) -> Worker:
        """An idle worker, one that knows the member if possible."""
        with self._lock:
            if self._closed:
                raise Abandoned
            if self._idle:
                known = [w for w in self._idle if w.members.get(visit.name) is member]
                worker = (known or self._idle)[0]
                self._idle.remove(worker)
            else:
                worker = self._new()
            return worker

    def _new(self) -> Worker:
        """Another process, in a place where none computes; the lock is held."""
        taken = [w.place for w in self._all]
        free = [p for p in self._places if self._places.count(p) > taken.count(p)]
        worker = Worker(free[0], self.memory / self.n)
        self._all.add(worker)
        return worker


def together(futures: Mapping[int, Future[Visited]]) -> Future[dict[int, Visited]]:
    """One future of all: done when the last one is, with the first error in their order, if there is any."""
    whole: Future[dict[int, Visited]] = Future()
    whole.set_running_or_notify_cancel()
    left = set(futures.values())
    lock = threading.Lock()

    def arrived(one: Future[Visited]) -> None:
        with lock:
            left.discard(one)
            if left:
                return
        try:
            whole.set_result({m: future.result() for m, future in futures.items()})
        except BaseException as error:  # a cancelled future included: whoever waits has to know
            whole.set_exception(error)

    for future in futures.values():
        future.add_done_callback(arrived)
    if not futures:
        whole.set_result({})
    return whole
