"""Many failures alike are one error with advice."""

import pytest

from aims_pax.errors import Crashed, LabelError, NotConverged, TimedOut, failure_name
from aims_pax.labelling.systematic_failure import CRASHES_IN_A_ROW, FIRST_FAILURES, systematic


def test_failures_of_one_class_before_any_success_are_the_reference_s_fault():
    streak = [NotConverged(f"cycle {k}", f"/calc/{k}") for k in range(FIRST_FAILURES)]
    assert systematic(streak[:-1], 0) is None
    text = str(systematic(streak, 0))
    assert text.startswith(
        f"no reference calculation has worked: the last {FIRST_FAILURES} failed in the same way (NotConverged). "
        f"The last reason: cycle {FIRST_FAILURES - 1}. Its files: /calc/{FIRST_FAILURES - 1}. Help the SCF cycle"
    )
    assert "Its files" not in str(systematic([NotConverged("no")] * FIRST_FAILURES, 0))


def test_one_failure_of_another_class_among_the_last_ones_proves_nothing():
    mixed = [Crashed("a"), TimedOut("b"), *[Crashed("a")] * (FIRST_FAILURES - 2)]
    assert systematic(mixed, 0) is None
    assert systematic([*mixed, Crashed("a")], 0) is None
    assert systematic([*mixed, Crashed("a"), Crashed("a")], 0) is not None, "the last ones count"


def test_after_a_success_only_many_crashes_in_a_row_count():
    crashes = [Crashed("gone")] * CRASHES_IN_A_ROW
    assert systematic(crashes[1:], 1) is None
    assert str(systematic(crashes, 1)).startswith("the reference has stopped working: the last 20 failed")
    assert systematic([NotConverged("hard")] * 100, 1) is None, "hard structures, perhaps"


@pytest.mark.parametrize("kind", LabelError.__subclasses__(), ids=failure_name)
def test_there_is_advice_for_every_class_of_failure(kind):
    text = str(systematic([kind("so")] * FIRST_FAILURES, 0))
    assert text.partition("The last reason: so. ")[2].endswith(".")
