"""A run in a few numbers."""

import pytest

from aims_pax.report.cost_summary import ledger
from aims_pax.report.load_run import load_run
from tests.report.folders import advanced, made_up


def test_what_was_no_work_is_no_part_of_it(tmp_path):
    begun = {"time": 60, "stage": "run", "kind": "begun", "content": {}}
    run = load_run(made_up(tmp_path, [advanced(0, 0, 0, 10, 0.1), advanced(10, 0, 10, 20, 0.1), begun]))
    words = [what for what, _ in ledger(run)]
    assert "… dynamics" in words
    assert words[-1] == "besides: stopped in between"


def test_the_epoch_that_is_marked_is_the_one_whose_weights_were_kept(folder):
    """A smaller improvement than the margin keeps the earlier weights, whatever the losses say."""
    from aims_pax.report import cost_summary
    from aims_pax.report.load_run import load_run

    run = load_run(folder)
    (c,) = run.convergence
    (kept,) = [e for epochs in run.losses.values() for e in cost_summary.best_epochs(run, epochs)]
    assert kept.force_mae == pytest.approx(c.best_mae)
