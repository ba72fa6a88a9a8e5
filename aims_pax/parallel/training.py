"""Training in processes of its own, while the trajectories move on with the weights as they were.

The members of this process do not change until a visit's result is taken; then all change at once, so that MD
and snapshots only ever see whole versions.
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
    """Visits under way outside. `seconds`: how long they took, visit by visit, for the account of time."""

    def __init__(self, ensemble: ForceFieldModel, pool: ProcessPool) -> None:
        self.ensemble, self.pool = ensemble, pool
        self.seconds = 0.0
        self._stops: dict[RunTraining, threading.Event] = {}
        self._begun: dict[RunTraining, float] = {}
        self._patience = FailureCounter(
            "lower CLUSTER.training.workers, TRAINING.batch_size or MISC.memory_limit (mace.yaml)"
        )

    def begin(self, work: RunTraining, data: Mapping[int, MemberData], **how: Any) -> Future[Any]:
        """A visit of the members `data` names, from their state as it is now. Keywords as `Learner.train`."""
        self._stops[work] = stop = threading.Event()
        self._begun[work] = time.monotonic()
        return self.ensemble.train_elsewhere(self.pool, data, work.epochs, stop=stop.is_set, **how)

    def finish(self, work: RunTraining, future: Future[Any]) -> list[MemberResult] | None:
        """Take the result in. None when a process died and the visit is to be repeated.

        Raises SetupError when they keep dying.
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
        """Its result is not wanted any more; the processes stop at their next batch."""
        self._stops.pop(work).set()
        self._begun.pop(work)


def _half() -> float:
    """Bytes: half of what evaluations may take on the CPU is for training, half is left for the dynamics."""
    from aims_pax.models import memory_budget

    half = memory_budget.limit() / 2
    memory_budget.allow(half, written=memory_budget.is_set_by_user())
    return half


@contextmanager
def background_training(settings: Settings, ensemble: ForceFieldModel) -> Iterator[BackgroundTraining | None]:
    """What trains elsewhere, or None where training and MD take turns in this process.

    They take turns with `executor: inline` (bit for bit reproducible), on one core, on a single GPU, and with a kind of
    model that does not train in processes.
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
    log.info("training in %d process%s beside the dynamics", n, "" if n == 1 else "es")
    with own.pool:
        own.pool.warm()
        yield own
