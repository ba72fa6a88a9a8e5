"""Trains members in separate processes, with results bit-identical to training in this process.

A worker is a `WorkerProcess` that lives as long as the pool. It stores the models and graphs it has received, so that
later only weights, plans and new frames are sent.
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
from aims_pax.models.base import MemberData, MemberResult, TrainingProcessLost
from aims_pax.models.mace import compile_cache
from aims_pax.models.mace.graphs import GraphCache, LabelledGraph
from aims_pax.models.mace.member import Member
from aims_pax.models.mace.optimiser import Arrays
from aims_pax.models.mace.serialisation import packed_graphs, packed_member, unpacked, unpacked_graphs
from aims_pax.models.mace.training import TrainingPlan, copy_graphs, visit_arrays
from aims_pax.settings.devices import only
from aims_pax.worker_process import WorkerProcess, WorkerProcessLost, own_threads

if TYPE_CHECKING:
    from aims_pax.settings.mace import MaceSettings


@dataclass(frozen=True, eq=False)
class TrainingRound:
    """One member's visit as sent to a worker. state: `Member.arrays()`. train, valid, copies: frame ids, in order.

    frames: {id: frame} that the worker may not have yet. model: the pickled module, if the worker does not have it;
    replay: sent with it.
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
    replay: bytes | None = None
    copies: tuple[str, ...] = ()
    copy_weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Visited:
    """The result of a worker: new state, for `Member.load`, and errors. notes: (kind, text) for the main log."""

    state: Arrays
    result: MemberResult
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Place:
    """Resources of a worker: number of threads, and a torch device (None: that of the settings).

    A numbered CUDA card is the N-th of those visible to this process, and the only one visible to the worker.
    """

    threads: int = 1
    device: str | None = None

    def environment(self) -> dict[str, str]:
        """Environment variables of the process, in addition to those of the main process."""
        return only(self.device or "", os.environ)

    def settled(self, settings: MaceSettings) -> MaceSettings:
        """The settings with this place's device."""
        if self.device is None:
            return settings
        kind = self.device.partition(":")[0]
        misc = settings.misc.model_copy(update={"device": "cuda" if kind == "cuda" else self.device})
        return settings.model_copy(update={"misc": misc})


class TrainingWorker:
    """The worker's side. It stores between visits: members by name, frames by id, graphs for each kind of model."""

    def __init__(self) -> None:
        own_threads()
        self.members: dict[str, Member] = {}
        self.frames: dict[str, LabelledFrame] = {}
        self.graphs: dict[Any, GraphCache] = {}

    def __call__(self, visit: TrainingRound, stop: Callable[[], bool]) -> Visited:
        """Train from `visit.state`. `stop()` is called before each batch; Abandoned is raised if it returns True."""
        self.frames.update(visit.frames)
        if visit.model is not None:
            self.members[visit.name] = unpacked(visit.model, visit.name, visit.seed, visit.settings)
            if visit.replay is not None:
                self.members[visit.name].replay = unpacked_graphs(visit.replay)
        member = self.members[visit.name]
        member.settings = visit.settings
        train, valid = (self._of(member, ids) for ids in (visit.train, visit.valid))
        copies = copy_graphs(self._of(member, visit.copies), visit.copy_weight)
        state, result = visit_arrays(member, visit.state, train, valid, visit.plan, stop, copies)
        return Visited(state, result, tuple(compile_cache.taken_notes()))

    def _of(self, member: Member, ids: Sequence[str]) -> list[LabelledGraph]:
        weights = dict(member.settings.training.config_type_weights)
        key = member.elements, float(member.model.r_max), member.dtype, tuple(sorted(weights.items()))
        store = self.graphs.setdefault(key, GraphCache(*key[:3], weights))
        return [g for g in store.of([self.frames[i] for i in ids]) if not g.isolated]


class Worker:
    """The main process's side of one worker process, with a record of what that process stores."""

    def __init__(self, place: Place, memory: float = math.inf) -> None:
        self.place = place
        maker = "aims_pax.models.mace.training_workers:TrainingWorker"
        share = {memory_budget.ENVIRONMENT: str(memory)} if memory < math.inf else {}
        own, forked = place.environment() | share, place.threads == 1 and place.device is None
        self.companion = WorkerProcess(maker, place.threads, own, forked=forked)
        self.frames: dict[str, LabelledFrame] = {}
        self.members: dict[str, Member] = {}

    def visit(self, visit: TrainingRound, member: Member, stop: Callable[[], bool]) -> Visited:
        """Send a visit, with data new to the process, and wait. Raises TrainingProcessLost or the visit's exception."""
        new = {i: f for i, f in visit.frames.items() if self.frames.get(i) is not f}
        new_here = self.members.get(visit.name) is not member
        model = packed_member(member.model) if new_here else None
        replay = packed_graphs(member.replay) if new_here and member.replay else None
        settings = self.place.settled(visit.settings)
        try:
            self.companion.send(replace(visit, frames=new, model=model, replay=replay, settings=settings))
            self.frames.update(new)
            self.members[visit.name] = member
            visited: Visited = self.companion.receive(stop)
        except WorkerProcessLost as error:
            text = f"the process that trained {visit.name} has ended ({error.how})"
            raise TrainingProcessLost(text, error.killed) from error
        compile_cache.say(visited.notes)
        return visited


class TrainingPool:
    """n processes that train members. A context manager; processes start with the first visit, or at `warm`.

    devices: assigned to the processes in turn; empty: that of the settings. memory: bytes that evaluations of all
    processes together may use on the CPU.
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
        """Start the processes now, because their imports take seconds."""
        with self._lock:
            while len(self._all) < self.n:
                self._idle.append(self._new())

    def train(
        self,
        members: Mapping[Member, MemberData],
        plan: TrainingPlan,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[Future[Visited]]:
        """A visit of each member on its data, from its current state.

        Members are not changed: pass the result to `Member.load`. They must have statistics.
        A future raises Abandoned if `stop()`, called in another thread, returns True; TrainingProcessLost when the
        process was killed (the next visit starts a new one); and any exception of the visit itself.
        """
        futures = []
        for member, own in members.items():
            if member.statistics is None:
                raise ValueError(f"{member.name} has no statistics yet")
            visit = TrainingRound(
                name=member.name,
                seed=member.seed,
                settings=member.settings,
                state=member.arrays(),
                train=tuple(f.id for f in own.train),
                valid=tuple(f.id for f in own.valid),
                copies=tuple(f.id for f in own.copies),
                copy_weight=own.copy_weight,
                plan=plan,
                frames={f.id: f for f in [*own.train, *own.valid, *own.copies]},
            )
            futures.append(self._threads.submit(self._visit, visit, member, stop))
        return futures

    def shrink(self) -> None:
        """Halve the memory of each process; called after one was lost, perhaps because memory ran out."""
        with self._lock:
            self.memory /= 2
            idle, self._idle = self._idle, []
            self._all -= set(idle)
        for worker in idle:  # replaced by new ones with less memory
            worker.companion.close()

    def close(self) -> None:
        """Abandon running visits and end the processes."""
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
        """An idle worker, if possible one that already has the member."""
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
        """Start a process with unused resources; the caller holds the lock."""
        taken = [w.place for w in self._all]
        free = [p for p in self._places if self._places.count(p) > taken.count(p)]
        worker = Worker(free[0], self.memory / self.n)
        self._all.add(worker)
        return worker


def together(futures: Mapping[int, Future[Visited]]) -> Future[dict[int, Visited]]:
    """One future for all: done when the last one is; raises the first error in their order, if any."""
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
        except BaseException as error:  # also of a cancelled future: the caller must be notified
            whole.set_exception(error)

    for future in futures.values():
        future.add_done_callback(arrived)
    if not futures:
        whole.set_result({})
    return whole
