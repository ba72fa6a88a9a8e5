"""The event loop in an environment of numbers: nothing torch, everything that can be interrupted."""

import random
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

import pytest

from aims_pax.core import active_learning, convergence
from aims_pax.core.rules import ActiveLearningRules, ConvergenceRules
from aims_pax.core.work import AddToDataset, Advanced, Rewind, RunMD, RunTraining, Trained
from aims_pax.engine.event_loop import EventLoop
from aims_pax.engine.interrupts import InterruptMonitor, RunInterrupted
from aims_pax.errors import Abandoned, NotConverged, SetupError
from aims_pax.record.checkpoint import from_plain, to_plain
from aims_pax.wire_names import name_in_files
from tests.sweeps import thinned

RULES = ActiveLearningRules(
    skip_step=10, c_x=0.0, valid_ratio=0.1, epochs_per_worker=2, epochs_per_visit=1, max_steps=400
)


class Killed(BaseException):
    """The process died here."""


class Paper:
    """A journal on no disk."""

    def __init__(self):
        self.lines = []

    def write(self, stage, kind, content, **more):
        self.lines.append((kind, content))


class Numbers:
    """A environment in which a frame is a name, an uncertainty a random number, and a label a sleep."""

    def __init__(self, seed, pool=None, fails=0.0, die_at=None, trainer_process=None, loses=0.0):
        self.loses, self.answers = loses, 0
        self.seed, self.pool, self.fails, self.die_at = seed, pool, fails, die_at
        self.trainer_process, self.trains_in_background = trainer_process, trainer_process is not None
        self.begun, self.installed, self.dropped, self.moved_meanwhile = [], [], [], 0
        self.capacity, self.name = 2, "explore"
        self.store, self.computed, self.committed, self.added, self.turns = {}, [], None, {}, []
        self.events = 0
        self.most_in_flight = 0
        self.running = 0
        self.handed_out = []

    def _tick(self):
        self.events += 1
        if self.die_at is not None and self.events >= self.die_at:
            self.die_at = None
            raise Killed

    def submit(self, work):
        self._tick()
        if work.frame in self.store:
            future = Future()
            future.set_result(self.store[work.frame])
            return future
        self.running += 1
        self.most_in_flight = max(self.most_in_flight, self.running)
        if self.pool:
            self.handed_out.append(self.pool.submit(self._compute, work.frame))
            return self.handed_out[-1]
        future = Future()
        try:
            future.set_result(self._compute(work.frame))
        except NotConverged as error:
            future.set_exception(error)
        return future

    def _compute(self, frame):
        try:
            if self.pool:
                time.sleep(0.002)
            if random.Random(frame).random() < self.fails:
                raise NotConverged("dice")
            self.computed.append(frame)
            self.store[frame] = f"label of {frame}"
            return self.store[frame]
        finally:
            self.running -= 1

    def drop(self, work):
        pass

    def begin_training(self, work):
        self._tick()
        self.begun.append(work)
        return self.trainer_process.submit(self._fit, work)

    def _fit(self, work):
        time.sleep(0.004)
        return f"weights of {work.visit}"

    def finish_training(self, work, future):
        self.answers += 1
        if random.Random(self.answers).random() < self.loses:
            self.begun.remove(work)
            return None
        assert future.result() == f"weights of {work.visit}"
        self.installed.append(work)
        return Trained(work, 10**6, (1.0, 1.0), (0.1, 0.1))

    def drop_training(self, work):
        self.dropped.append(work)

    def keep(self, work, label):
        assert label == f"label of {work.frame}"

    def error_of(self, work):
        return None

    def turn(self, works, stop):
        self._tick()
        self.turns.append(name_in_files(type(works[0])))
        self.moved_meanwhile += len(self.begun) > len(self.installed)
        for work in works:
            if isinstance(work, RunTraining):
                assert not self.trains_in_background
                yield Trained(work, 10**6, (1.0, 1.0), (0.1, 0.1))
            elif isinstance(work, RunMD):
                name = f"{work.trajectory}-{work.end}-{work.n_rewinds}"
                yield Advanced(work, work.end, name, (random.Random(f"{self.seed}{name}").random(),))

    def apply(self, effect):
        self._tick()
        if isinstance(effect, AddToDataset):
            assert effect.frame in self.store
            self.added[effect.frame] = effect.split
        else:
            assert isinstance(effect, Rewind)

    def commit(self, state):
        self._tick()
        self.committed = to_plain(state)

    def label_seconds(self):
        return 1.0

    def show(self, state, doing):
        pass


def begin(n=4):
    return active_learning.begin(("a",) * n, RULES, 10, {"a": 5})


def drive(environment, state=None, watch=None, rules=RULES):
    loop = EventLoop(
        active_learning, state or begin(), rules, environment, Paper(), watch or InterruptMonitor()
    )
    return loop.run(), loop


def test_a_stage_runs_to_its_end_and_every_frame_it_asked_for_is_labelled_once():
    environment = Numbers(1)
    state, _ = drive(environment)
    assert state.stopped.startswith("max_MD_steps")
    assert (
        len(environment.computed)
        == len(set(environment.computed))
        == len(environment.added)
        == state.n_added
        > 5
    )


def test_with_threads_no_more_than_capacity_plus_one_jobs_are_handed_out():
    with ThreadPoolExecutor(2) as pool:
        environment = Numbers(2, pool)
        drive(environment, begin(12))
    assert 1 < environment.most_in_flight <= environment.capacity + 1


def test_moving_and_training_take_turns_when_both_are_outstanding():
    environment = Numbers(3)
    drive(environment)
    turns = "".join(t[0] for t in environment.turns)
    assert "TT" not in turns.replace("AT", "").replace("TA", "") or turns.count("T") < turns.count("A")
    assert "TAT" in turns


def test_a_failed_label_is_an_event_and_does_not_end_the_run():
    state, _ = drive(Numbers(4, fails=0.4))
    assert state.stopped
    assert any(t.n_rewinds for t in state.trajectories)


def test_an_error_of_the_setup_ends_the_run_after_saving():
    environment = Numbers(5)

    def missing(frame):
        raise SetupError("no binary")

    def submit(work):
        future = Future()
        future.set_exception(SetupError("no binary"))
        return future

    environment.submit = submit
    with pytest.raises(SetupError, match="no binary"):
        drive(environment)
    assert environment.committed is not None


def test_the_snapshot_that_leads_to_a_label_is_written_before_it_is_handed_out():
    environment = Numbers(6)
    submit = environment.submit

    def checked(work):
        saved = from_plain(active_learning.State, environment.committed)
        assert work in active_learning.outstanding(saved, RULES)
        return submit(work)

    environment.submit = checked
    drive(environment)


def test_training_beside_lets_the_others_move_on_and_runs_one_visit_at_a_time():
    with ThreadPoolExecutor(1) as trainer:
        environment = Numbers(3, trainer_process=trainer)
        state, _ = drive(environment)
    assert state.stopped.startswith("max_MD_steps")
    assert "Train" not in environment.turns
    assert [w.visit for w in environment.begun] == list(range(state.visit))
    assert environment.installed == environment.begun
    assert environment.moved_meanwhile > 10
    assert all(t.status == "done" for t in state.trajectories)


def test_a_visit_whose_process_died_is_begun_again():
    with ThreadPoolExecutor(1) as trainer:
        environment = Numbers(3, trainer_process=trainer, loses=0.3)
        begin_training, tries = environment.begin_training, []
        environment.begin_training = lambda work: tries.append(work) or begin_training(work)
        state, _ = drive(environment)
    assert [w.visit for w in environment.installed] == list(range(state.visit))
    assert len(tries) > len(environment.installed)


def test_a_lost_visit_is_begun_again_where_training_is_and_never_in_this_process():
    """Also when its process has gone before anything else happens; Numbers.turn refuses to train."""

    class AtOnce:
        def submit(self, function, *args):
            future = Future()
            future.set_result(function(*args))
            return future

    environment = Numbers(3, trainer_process=AtOnce(), loses=0.5)
    state, _ = drive(environment)
    assert [w.visit for w in environment.installed] == list(range(state.visit))
    assert environment.answers > len(environment.installed)


def test_a_visit_nobody_wants_any_more_is_dropped_and_its_weights_are_not_installed():
    rules = replace(RULES, max_train=14)
    with ThreadPoolExecutor(1) as trainer:
        environment = Numbers(9, trainer_process=trainer)
        drive(environment, rules=rules)
    assert environment.dropped
    assert environment.installed + environment.dropped == environment.begun


def test_training_that_fails_beside_ends_the_run_with_its_reason_and_keeps_the_snapshot():
    with ThreadPoolExecutor(1) as trainer:
        environment = Numbers(3, trainer_process=trainer)

        def broken(work):
            raise SetupError("the GPU is gone")

        environment._fit = broken
        with pytest.raises(SetupError, match="the GPU is gone"):
            drive(environment)
    saved = from_plain(active_learning.State, environment.committed)
    assert any(isinstance(w, RunTraining) for w in active_learning.outstanding(saved, RULES))


def test_a_visit_that_fails_beside_one_that_was_taken_in_leaves_no_half_snapshot():
    rules = ConvergenceRules((0, 1), patience=3, margin=0.0, max_epochs=5)

    class Two(Numbers):
        def begin_training(self, work):
            future = Future()
            if (work.member, work.visit) != (1, 1):
                future.set_result("weights")
            else:
                future.set_exception(SetupError("the GPU is gone"))
            return future

        def finish_training(self, work, future):
            self.installed.append((work, future.result()))
            return Trained(work, 10, (1.0,), (0.1,))

        def apply(self, effect):
            """Best weights: not looked at here."""

        def commit(self, state):
            assert len(self.installed) == sum(p.visit for p in state.members), "weights without their event"

    environment = Two(1, trainer_process=True)
    with pytest.raises(SetupError, match="the GPU is gone"):
        EventLoop(
            convergence, convergence.begin(rules), rules, environment, Paper(), InterruptMonitor()
        ).run()
    assert len(environment.installed) == 3


@pytest.mark.parametrize("seed", thinned(range(60), 3))
@pytest.mark.parametrize(("threads", "trainer_process"), [(False, False), (True, False), (True, True)])
def test_killed_anywhere_and_started_again_it_ends_and_pays_no_label_twice(seed, threads, trainer_process):
    dice = random.Random(seed)
    with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as trainer:
        environment = Numbers(
            seed, pool if threads else None, fails=0.1, trainer_process=trainer if trainer_process else None
        )
        state = begin()
        while True:
            environment.die_at, environment.events = dice.randint(1, 200), 0
            try:
                final, _ = drive(environment, state)
                break
            except Killed:
                # a thread dies with its process; what it was computing is not finished
                wait(environment.handed_out)
                if environment.committed is not None:
                    state = from_plain(active_learning.State, environment.committed)
    assert final.stopped
    assert len(environment.computed) == len(set(environment.computed))
    if not threads:
        undisturbed = Numbers(seed, None, fails=0.1)
        expected, _ = drive(undisturbed)
        assert final == expected
        assert environment.added == undisturbed.added


def test_a_signal_stops_between_turns_and_the_rest_is_as_if_undisturbed():
    watch, environment = InterruptMonitor(), Numbers(7)
    turn = environment.turn

    def interrupted(works, stop):
        if len(environment.turns) == 20:
            watch.signal = signal.SIGINT
            environment.turns.append("stopped")
            assert stop()
            raise Abandoned
        return turn(works, stop)

    environment.turn = interrupted
    with pytest.raises(RunInterrupted) as stopped:
        drive(environment, watch=watch)
    assert stopped.value.code == 3
    environment.turn = turn
    final, _ = drive(environment, from_plain(active_learning.State, environment.committed))
    assert final == drive(Numbers(7))[0]


def test_sigterm_asks_to_be_run_again():
    watch = InterruptMonitor()
    watch.signal = signal.SIGTERM
    with pytest.raises(RunInterrupted) as stopped:
        drive(Numbers(8), watch=watch)
    assert stopped.value.code == 75


def test_labels_not_yet_paid_for_are_given_up_when_the_stage_stops():
    rules = replace(RULES, max_train=12)
    with ThreadPoolExecutor(1) as pool:
        environment = Numbers(9, pool)
        environment.capacity = 1
        state, loop = drive(environment, active_learning.begin(("a",) * 30, rules, 10, {"a": 5}), rules=rules)
    kinds = [kind for kind, _ in loop.journal.lines]
    assert "LabelDropped" in kinds
    assert set(environment.added) == set(environment.computed)
    assert active_learning.outstanding(state, rules) == ()


def test_the_time_is_accounted_for():
    _, loop = drive(Numbers(10))
    kind, shares = loop.journal.lines[-1]
    assert kind == "time"
    assert {"moving", "training", "saving", "other"} <= set(shares)
    assert loop.journal.lines[0][0] == "going", "from here on it is this stage that takes the time"


def test_a_pause_is_told_apart_from_work(monkeypatch, caplog):
    """10 s paused inside a turn: no share of the turn, a line of its own in the journal, said in the log."""
    clock = [0.0]
    monkeypatch.setattr("aims_pax.engine.event_loop.time.monotonic", lambda: clock[0])
    watch, environment = InterruptMonitor(), Numbers(10)
    turn = environment.turn

    def resting(works, stop):
        clock[0] += 1.0
        if not watch.paused_seconds:
            clock[0] += 10.0
            watch.paused_seconds = 10.0
            watch.pauses.append((100.0, 110.0))
        return turn(works, stop)

    environment.turn = resting
    with caplog.at_level("INFO", "aims_pax"):
        _, loop = drive(environment, watch=watch)
    kinds = dict(loop.journal.lines)
    assert kinds["paused"] == {"began": 100.0, "ended": 110.0}
    assert [k for k, _ in loop.journal.lines].count("paused") == 1
    assert sum(kinds["time"].values()) == pytest.approx(len(environment.turns))
    assert "of work · dynamics" in caplog.text
    assert "also paused for 10 s" in caplog.text
