"""Training in separate processes while the trajectories move with the previous weights.

The members of this process do not change until the result of a visit arrives; then all change at once, so that MD
and snapshots always use weights of one version.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aims_pax.core.work import RunTraining
from aims_pax.models.base import ForceFieldModel, MemberData, MemberResult, ProcessPool, TrainingProcessLost
from aims_pax.models.kinds import kind_of_run
from aims_pax.parallel.core_allocation import processes
from aims_pax.worker_process import FailureCounter

if TYPE_CHECKING:
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)


class BackgroundTraining:
    """Training visits that run in other processes. `seconds`: total duration of the finished visits."""

    def __init__(self, ensemble: ForceFieldModel, pool: ProcessPool) -> None:
        self.ensemble, self.pool = ensemble, pool
        self.seconds = 0.0
        self._stops: dict[RunTraining, threading.Event] = {}
        self._begun: dict[RunTraining, float] = {}
        self._patience = FailureCounter(
            "lower CLUSTER.training.workers, TRAINING.batch_size or MISC.memory_limit (mace.yaml)"
        )

    def begin(self, work: RunTraining, data: Mapping[int, MemberData], **how: Any) -> Future[Any]:
        """Start a visit of the members in `data` from their present state. Keywords as in `Learner.train`."""
        self._stops[work] = stop = threading.Event()
        self._begun[work] = time.monotonic()
        return self.ensemble.train_elsewhere(self.pool, data, work.epochs, stop=stop.is_set, **how)

    def finish(self, work: RunTraining, future: Future[Any]) -> list[MemberResult] | None:
        """Load the result into the members. None when a process died and the visit must be repeated.

        Raises SetupError when processes die repeatedly.
        """
        self._stops.pop(work)
        self.seconds += time.monotonic() - self._begun.pop(work)
        try:
            visited = future.result()
        except TrainingProcessLost as error:
            self._patience.lost(error)
            if error.killed:
                self.pool.shrink()
            smaller = ", with half the memory for each process" if error.killed else ""
            log.warning("%s: the visit is repeated%s", error, smaller)
            return None
        self._patience.answered()
        return self.ensemble.take(visited)

    def drop(self, work: RunTraining) -> None:
        """Cancel a visit; the processes stop at their next batch."""
        self._stops.pop(work).set()
        self._begun.pop(work)


def _half() -> float:
    """Halve the CPU memory limit of evaluations; returns the other half, for training (bytes)."""
    from aims_pax.models import memory_budget

    half = memory_budget.limit() / 2
    memory_budget.allow(half, written=memory_budget.is_set_by_user())
    return half


@contextmanager
def background_training(settings: Settings, ensemble: ForceFieldModel) -> Iterator[BackgroundTraining | None]:
    """The background training, or None if training and MD alternate in this process.

    They alternate with `executor: inline` (bit for bit reproducible), on one core, on a single GPU, and for a kind of
    model that does not train in other processes.
    """
    profile, kind = settings.cluster.training, kind_of_run(settings)
    if profile is not None and not kind.trains_in_processes:
        log.warning("CLUSTER.training has no effect: %s models train in the driver's process", kind.title)
    devices = () if profile is None or profile.devices is None else profile.devices
    n = processes(settings, len(ensemble))
    if n == 0:
        yield None
        return
    threads = 1 if profile is None else profile.threads
    own = BackgroundTraining(ensemble, kind.training_pool(n, threads, devices, _half()))
    log.info("training in %d process%s in parallel with the dynamics", n, "" if n == 1 else "es")
    with own.pool:
        own.pool.warm()
        yield own
