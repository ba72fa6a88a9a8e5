"""Parsl's switchboard between driver and workers, as a process that knows whose it is.

    python -m aims_pax.labelling.executors.parsl_interchange [linger]

Ctrl-C at a terminal reaches the whole foreground group, and only the driver may decide what it means: so this
process has a session of its own. When the driver is gone, it ends; `linger`: not before the workers have
finished what they had begun, for a calculation on a cluster is expensive and its result goes into the store. It
hands out nothing new then, tells each pool of workers to leave as soon as it is idle, and ends last. Signals that
ask a run to end reach every process of a scheduler's job; here they are left to the driver.

The driver holds a pool whose block has ended, as the scheduler says: its tasks are lost now, not when heartbeats stay
away.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from typing import Any

from parsl.executors.high_throughput.interchange import Interchange

from aims_pax.processes import STOP_SIGNALS

ALONE = signal.SIGURG  # from a driver that leaves; by default it does nothing
DELIVERY = 2.0  # s for the last messages to leave


class OwnedInterchange(Interchange):
    """Looks at each turn of its loop whether its driver is still there."""

    def __init__(self, driver: int, linger: bool, **config: Any) -> None:
        super().__init__(**config)
        self.driver = driver
        self.linger = linger
        self.alone = False  # the driver has said that it leaves
        self.alone_since: float | None = None

    def expire_bad_managers(self, *arguments: Any) -> None:
        for manager in self._ready_managers.values():
            if not manager["active"]:
                manager["last_heartbeat"] = 0.0
        super().expire_bad_managers(*arguments)

    def process_tasks_to_send(self, *arguments: Any) -> None:
        if os.getppid() == self.driver and not self.alone:
            super().process_tasks_to_send(*arguments)
            return
        if not self.linger:
            os._exit(0)
        self.pending_task_queue.clear()
        for manager in self._ready_managers.values():
            manager["draining"] = True  # Parsl sends it away once it has no tasks
        if self._ready_managers:
            self.alone_since = None
        elif self.alone_since is None:
            self.alone_since = time.monotonic()
        elif time.monotonic() - self.alone_since > DELIVERY:
            os._exit(0)


def run_interchange() -> None:
    os.setsid()
    driver = os.getppid()
    for kind in STOP_SIGNALS:
        signal.signal(kind, signal.SIG_IGN)
    config = pickle.load(sys.stdin.buffer)
    own = OwnedInterchange(driver, "linger" in sys.argv[1:], **config)

    def leave(*_: object) -> None:
        own.alone = True

    signal.signal(ALONE, leave)
    own.start()


if __name__ == "__main__":
    run_interchange()
