"""A process that answers questions: its answers, its errors, its end."""

import logging
import os
import signal
import time

import pytest

from aims_pax.errors import Abandoned, SettingsError
from aims_pax.worker_process import WorkerProcess, WorkerProcessLost


class Clerk:
    """What answers in the tests' companion."""

    def __init__(self):
        self.asked = 0

    def __call__(self, question, stop):
        self.asked += 1
        match question:
            case "threads":
                return os.environ["OMP_NUM_THREADS"], os.environ.get("AIMS_PAX_TEST")
            case "how many":
                return self.asked
            case "wrong key":
                raise SettingsError("MD.temperature: expected a number")
            case "a lambda":
                error = ValueError("cannot travel")
                error.because = lambda: None
                raise error
            case "wait":
                while not stop():
                    time.sleep(0.01)
                raise Abandoned
            case "talk":
                logging.getLogger("aims_pax.clerk").info("%d asked", self.asked)
                logging.getLogger("aims_pax.clerk").warning("50% left")
            case ("die", number):
                os.kill(os.getpid(), number)
        return question


@pytest.fixture
def companion():
    made = WorkerProcess("tests.test_worker_process:Clerk", 1, {"AIMS_PAX_TEST": "yes"})
    yield made
    made.close()


def test_it_keeps_what_it_knows_between_questions_and_has_its_own_environment(companion):
    assert companion.ask("how many") == 1
    assert companion.ask(("anything", 1.5)) == ("anything", 1.5)
    assert companion.ask("how many") == 3
    assert companion.ask("threads") == ("1", "yes")


def test_what_it_raises_is_raised_here_and_it_goes_on(companion):
    with pytest.raises(SettingsError, match="expected a number") as caught:
        companion.ask("wrong key")
    assert "in another process" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="ValueError: cannot travel"):
        companion.ask("a lambda")
    assert companion.ask("how many") == 3


def test_an_answer_that_is_not_wanted_is_given_up_and_the_next_question_is_answered(companion):
    began = time.monotonic()
    with pytest.raises(Abandoned):
        companion.ask("wait", stop=lambda: time.monotonic() > began + 0.3)
    assert companion.ask("how many") == 2


def test_a_request_to_stop_that_comes_late_does_no_harm(companion):
    companion.send("how many")
    time.sleep(0.5)
    companion.connection.send(None)
    assert companion.receive() == 1
    assert companion.ask("how many") == 2


def test_a_killed_process_is_told_with_its_signal(companion):
    assert not companion.lost
    with pytest.raises(WorkerProcessLost, match="SIGKILL"):
        companion.ask(("die", signal.SIGKILL))
    assert companion.lost
    with pytest.raises(WorkerProcessLost):
        companion.ask("how many")


def test_what_it_logs_is_logged_here_with_its_answer(companion, caplog, capfd):
    with caplog.at_level(logging.INFO):
        companion.ask("talk")
        companion.ask("how many")
    told = [(r.name, r.levelname, r.getMessage()) for r in caplog.records]
    assert told == [("aims_pax.clerk", "INFO", "1 asked"), ("aims_pax.clerk", "WARNING", "50% left")]
    assert capfd.readouterr().err == ""


def test_files_of_the_folder_it_starts_in_do_not_stand_in_for_modules(tmp_path, monkeypatch):
    (tmp_path / "socket.py").write_text("raise RuntimeError('not the one')")
    monkeypatch.chdir(tmp_path)
    companion = WorkerProcess("tests.test_worker_process:Clerk")
    assert companion.ask("how many") == 1
    companion.close()


def test_one_that_is_told_to_be_quiet_only_warns(caplog):
    quiet = WorkerProcess("tests.test_worker_process:Clerk", level=logging.WARNING)
    with caplog.at_level(logging.INFO):
        quiet.ask("talk")
    quiet.close()
    assert [r.getMessage() for r in caplog.records] == ["50% left"]


def test_what_goes_wrong_while_looking_whether_to_stop_is_no_death(companion):
    def broken():
        raise OSError("a file server that hiccups")

    with pytest.raises(OSError, match="hiccups"):
        companion.ask("wait", broken)
    assert not companion.lost


def test_one_that_works_when_its_driver_dies_ends_too(companion, capfd):
    companion.send("wait")
    time.sleep(0.3)
    companion.connection.close()
    assert companion.process.wait(10) == 0
    assert capfd.readouterr().err == ""


def test_an_answer_nobody_reads_ends_it_without_a_word(companion, capfd):
    companion.ask("how many")
    companion.send("how many")
    time.sleep(0.3)
    companion.connection.close()
    assert companion.process.wait(10) == 0
    assert capfd.readouterr().err == ""


def test_it_ends_with_its_driver_and_leaves_signals_to_it(companion):
    companion.ask("how many")
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGXCPU,
    ):
        os.kill(companion.process.pid, number)
    assert companion.ask("how many") == 2
    companion.connection.close()
    assert companion.process.wait(10) == 0
