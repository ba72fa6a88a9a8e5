import math

import pytest

from aims_pax.report.formatting import calibration_sentence, missing_test_frames, plural


@pytest.mark.parametrize(
    ("rank", "ratio", "said"),
    [
        (0.9, 1.2, "The spread of the models shows well where m0 is wrong (rank correlation ρ = 0.90), and how "
                   "much: its error is 1.2 × the spread."),
        (0.64, 3.0, "The spread of the models shows roughly where m0 is wrong (rank correlation ρ = 0.64), but not "
                    "how much: its error is 3.0 × the spread."),
        (0.1, 0.4, "The spread of the models hardly shows where m0 is wrong (rank correlation ρ = 0.10); "
                   "its error is 0.4 × the spread."),
        (math.nan, 1.0, ""),
    ],
)  # fmt: skip
def test_what_an_uncertainty_is_worth(rank, ratio, said):
    assert calibration_sentence(rank, ratio, "m0") == said


def test_test_frames_that_did_not_come_to_be_are_missed():
    assert missing_test_frames(20, 20) == missing_test_frames(0, 0) == ""
    assert missing_test_frames(3, 20).startswith("3 of the 20 test frames that n_test asks for")
    assert missing_test_frames(0, 1).startswith("0 of the 1 test frame that")


def test_one_is_no_plural():
    assert [plural(1, "system"), plural(2, "system"), plural(3, "trajectory")] == [
        "1 system", "2 systems", "3 trajectories"
    ]  # fmt: skip
