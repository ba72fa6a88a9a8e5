"""When models are good enough to explore with."""

import math
from dataclasses import replace

import pytest

from aims_pax.core import active_learning
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.warm_up import PATIENCE, WarmUp
from aims_pax.core.work import RunMD, RunTraining, Trained

RULES = ActiveLearningRules(10, 0.0, 0.1, 1, 5, warm_up_epochs=60)


def begun(n_train=20, rules=RULES):
    return active_learning.begin(("a", "a"), rules, n_train, {"a": 5})


def visit(state, mae, rules=RULES):
    (work,) = active_learning.outstanding(state, rules)
    assert isinstance(work, RunTraining)
    return active_learning.step(state, Trained(work, state.n_train, (1.0,), (mae,)), rules)


def test_trajectories_begin_when_the_force_error_no_longer_falls():
    state = begun()
    for mae in (0.3, 0.2, 0.1, 0.0999, 0.1):
        state, effects = visit(state, mae)
    assert "exploration begins after 25 epochs · force MAE 100.0 meV/Å" in [e.text for e in effects]
    assert {type(w) for w in active_learning.outstanding(state, RULES)} == {RunMD}


def test_or_at_the_limit_of_epochs():
    state = begun()
    for k in range(12):
        state, _ = visit(state, 0.9**k)
    assert state.warm_up.done
    assert state.warm_up.epochs == 60


@pytest.mark.parametrize(("n_train", "limit"), [(0, 0), (20, 60), (100, 60), (600, 10), (10**6, 1)])
def test_large_sets_need_fewer_epochs_and_given_models_without_data_none(n_train, limit):
    assert begun(n_train).warm_up.limit == limit


def test_without_such_epochs_the_trajectories_begin_at_once():
    rules = replace(RULES, warm_up_epochs=0)
    assert {type(w) for w in active_learning.outstanding(begun(rules=rules), rules)} == {RunMD}


def test_an_error_that_is_not_finite_is_no_improvement():
    warm = WarmUp(100).trained(5, math.nan)
    assert warm.best == math.inf
    assert warm.trained(PATIENCE - 5, math.nan).done
