"""The pool of workers in a block."""

import pickle

import zmq


def test_a_pool_waits_for_its_workers_when_its_driver_is_gone():
    from aims_pax.labelling.executors.parsl_pool import FOR_EVER, OrphanProofPool

    class Queue:
        n = 0

        def qsize(self):
            return self.n

    pool = OrphanProofPool.__new__(OrphanProofPool)
    pool.pending_task_queue, pool._tasks_in_progress = Queue(), {}
    pool.heartbeat_threshold = 60
    assert pool.heartbeat_threshold == 60
    pool._tasks_in_progress[0] = "a calculation"
    assert pool.heartbeat_threshold == FOR_EVER
    pool._tasks_in_progress.clear()
    pool.pending_task_queue.n = 1
    assert pool.heartbeat_threshold == FOR_EVER


def test_a_heartbeat_that_nobody_takes_does_not_block():
    from aims_pax.labelling.executors.parsl_pool import OrphanProofPool

    sent = []

    class Full:
        def send(self, content, flags):
            sent.append((pickle.loads(content), flags))
            raise zmq.Again

    OrphanProofPool.heartbeat_to_incoming(Full())
    assert sent == [({"type": "heartbeat"}, zmq.NOBLOCK)]


def test_a_pool_is_made_as_parsl_s_command_says(monkeypatch):
    """`None` is a word there; a pool reads its arguments from the text of a job script."""
    from parsl.executors.high_throughput import process_worker_pool

    from aims_pax.labelling.executors import parsl_pool

    words = (
        "-a 127.0.0.1 --port 7 -p 0 -c 0.001 -m None --poll 100 --max_workers_per_node=3 --block_id=5 --uid u "
        "--logdir /logs --hb_period=5 --hb_threshold=60 --drain_period=90 --cert_dir None --cpu-affinity none"
    )
    given = {}
    monkeypatch.setattr(parsl_pool, "OrphanProofPool", lambda **known: given.update(known))
    parsl_pool._pool(process_worker_pool.get_arg_parser().parse_args(words.split()))
    assert (given["port"], given["max_workers_per_node"], given["block_id"]) == ("7", 3, "5")
    assert (given["mem_per_worker"], given["cert_dir"], given["drain_period"]) == (None, None, 90)
    assert (given["heartbeat_period"], given["heartbeat_threshold"]) == (5, 60)
