"""Parsl's interchange (the message broker between driver and workers), as a process that ends with its driver.

    python -m aims_pax.labelling.executors.parsl_interchange DRIVER [linger]      # DRIVER: its process id

Ctrl-C at a terminal reaches the whole foreground group, but only the driver may react to it: so this process has its
own session. When the driver has ended, it ends. With `linger` it first waits until the workers have finished their
tasks: a calculation on a cluster is expensive, and its result goes into the store. Meanwhile it hands out no new
tasks and drains each pool of workers. Signals that ask a run to end reach every process of a scheduler's job; this
process ignores them, the driver handles them.

When the scheduler reports that a block has ended, the driver holds its pool, and the pool's tasks are lost at once,
not only when heartbeats fail.
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

ALONE = signal.SIGURG  # sent by a driver that leaves; by default it does nothing
DELIVERY = 2.0  # s to deliver the last messages


class OwnedInterchange(Interchange):
    """An interchange that checks in each turn of its loop whether its driver still runs."""

    def __init__(self, driver: int, linger: bool, **config: Any) -> None:
        super().__init__(**config)
        self.driver = driver
        self.linger = linger
        self.alone = False  # the driver has sent ALONE
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
            manager["draining"] = True  # Parsl ends it once it has no tasks
        if self._ready_managers:
            self.alone_since = None
        elif self.alone_since is None:
            self.alone_since = time.monotonic()
        elif time.monotonic() - self.alone_since > DELIVERY:
            os._exit(0)


def run_interchange() -> None:
    os.setsid()
    # given to it: a driver that died during the imports above is no parent any more
    driver = int(sys.argv[1])
    for kind in STOP_SIGNALS:
        signal.signal(kind, signal.SIG_IGN)
    config = pickle.load(sys.stdin.buffer)
    own = OwnedInterchange(driver, "linger" in sys.argv[2:], **config)

    def leave(*_: object) -> None:
        own.alone = True

    signal.signal(ALONE, leave)
    own.start()


if __name__ == "__main__":
    run_interchange()
