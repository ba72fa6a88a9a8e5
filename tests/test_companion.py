"""A process that answers questions: its answers, its errors, its end."""

import os
import signal
import time

import pytest

from aims_pax.companion import Companion, CompanionLost
from aims_pax.errors import Abandoned, SettingsError


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
            case ("die", number):
                os.kill(os.getpid(), number)
        return question


@pytest.fixture
def companion():
    made = Companion("tests.test_companion:Clerk", 1, {"AIMS_PAX_TEST": "yes"})
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
    companion._connection.send(None)
    assert companion.receive() == 1
    assert companion.ask("how many") == 2


def test_a_killed_process_is_told_with_its_signal(companion):
    assert not companion.lost
    with pytest.raises(CompanionLost, match="SIGKILL"):
        companion.ask(("die", signal.SIGKILL))
    assert companion.lost
    with pytest.raises(CompanionLost):
        companion.ask("how many")


def test_it_ends_with_its_driver_and_leaves_interrupts_to_it(companion):
    companion.ask("how many")
    os.kill(companion.process.pid, signal.SIGINT)
    assert companion.ask("how many") == 2
    companion._connection.close()
    assert companion.process.wait(10) == 0
