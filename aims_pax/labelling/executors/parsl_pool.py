"""A pool of workers in a block: Parsl's pool, changed so that no calculation is lost when the driver ends.

    python -m aims_pax.labelling.executors.parsl_pool …      arguments of Parsl's process_worker_pool

Parsl's pool kills its workers after a minute without messages from the interchange, which ends with the machine or the
job of the driver. This pool first lets the workers finish their tasks (labels go into the store) and then ends.
Exit code 3: nothing answers at the addresses given.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from contextlib import suppress
from typing import Any

import zmq
from parsl.executors.high_throughput import process_worker_pool as parsl_pool
from parsl.log_utils import set_file_logger

from aims_pax.labelling.executors.block_program import UNREACHABLE

FOR_EVER = 10**9  # s


class OrphanProofPool(parsl_pool.Manager):
    """A pool that waits for its workers when the interchange has ended."""

    _threshold = 60

    @property
    def heartbeat_threshold(self) -> int:  # Parsl reads it in each turn of its loop
        return FOR_EVER if self._busy() else self._threshold

    @heartbeat_threshold.setter
    def heartbeat_threshold(self, seconds: int) -> None:
        self._threshold = seconds

    def _busy(self) -> bool:
        with suppress(NotImplementedError):  # macOS has no qsize
            if self.pending_task_queue.qsize():
                return True
        return len(self._tasks_in_progress) > 0

    @staticmethod
    def heartbeat_to_incoming(task_incoming: zmq.Socket[Any]) -> None:
        """Send a heartbeat without blocking: Parsl's blocks forever once a thousand messages are undelivered."""
        with suppress(zmq.Again):
            task_incoming.send(pickle.dumps({"type": "heartbeat"}), zmq.NOBLOCK)


def run_pool(words: list[str]) -> int:
    arguments = parsl_pool.get_arg_parser().parse_args(words)
    parsl_pool.args = arguments  # its methods read this global
    logs = f"{arguments.logdir}/block-{arguments.block_id}/{arguments.uid}"
    os.makedirs(logs, exist_ok=True)
    set_file_logger(f"{logs}/manager.log", level=logging.DEBUG if arguments.debug else logging.INFO)
    try:
        _pool(arguments).start()
    except ConnectionError as error:
        print(f"{arguments.addresses}, port {arguments.port}: {error}", file=sys.stderr)
        return UNREACHABLE
    return 0


def _pool(a: Any) -> OrphanProofPool:
    return OrphanProofPool(
        port=a.port,
        addresses=a.addresses,
        address_probe_timeout=int(a.address_probe_timeout),
        uid=a.uid,
        block_id=a.block_id,
        cores_per_worker=float(a.cores_per_worker),
        mem_per_worker=None if a.mem_per_worker == "None" else float(a.mem_per_worker),
        max_workers_per_node=int(a.max_workers_per_node),
        prefetch_capacity=int(a.prefetch_capacity),
        heartbeat_threshold=int(a.hb_threshold),
        heartbeat_period=int(a.hb_period),
        drain_period=None if a.drain_period == "None" else int(a.drain_period),
        poll_period=int(a.poll),
        cpu_affinity=a.cpu_affinity,
        enable_mpi_mode=a.enable_mpi_mode,
        mpi_launcher=a.mpi_launcher,
        available_accelerators=a.available_accelerators,
        cert_dir=None if a.cert_dir == "None" else a.cert_dir,
        log_config=None,
    )


if __name__ == "__main__":
    sys.exit(run_pool(sys.argv[1:]))
