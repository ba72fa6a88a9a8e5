"""The step of the delivery that is under way is known until all is written."""

import pytest

from aims_pax.record.delivery_progress import FILE, REPORT, STEPS, all_written, begin_step, step_under_way


def test_a_step_is_under_way_until_all_is_written(tmp_path):
    assert step_under_way(tmp_path) == ""
    for step in STEPS:
        begin_step(tmp_path, step)
        assert step_under_way(tmp_path) == step
    assert STEPS[-1] == REPORT
    all_written(tmp_path)
    all_written(tmp_path)
    assert step_under_way(tmp_path) == ""


@pytest.mark.parametrize("text", ["", "[]", '{"step": 3}', '{"step": "other"}'])
def test_a_file_that_cannot_be_read_says_nothing(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert step_under_way(tmp_path) == ""
