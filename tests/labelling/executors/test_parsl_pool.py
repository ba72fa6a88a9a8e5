"""The pool of workers in a block."""


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
