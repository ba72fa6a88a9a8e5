"""Steps of active learning for the tests of its modules: a move of a trajectory, a label, a visit of training."""

from aims_pax.core import active_learning
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.work import Advanced, Labelled, RequestLabel, RunMD, RunTraining, Trained

RULES = ActiveLearningRules(
    skip_step=10, c_x=0.0, valid_ratio=0.1, epochs_per_worker=2, epochs_per_visit=1, max_steps=1000
)


def fresh(n=1, rules=RULES, n_train=20, systems=("a",)):
    names = tuple(systems[i % len(systems)] for i in range(n))
    return active_learning.begin(names, rules, n_train, dict.fromkeys(systems, 5))


def moves(state, rules=RULES):
    return {w.trajectory: w for w in active_learning.outstanding(state, rules) if isinstance(w, RunMD)}


def move(state, i=0, uncertainty=(0.1,), rules=RULES, frame=None, fault=None, step=None):
    work = moves(state, rules)[i]
    step = work.end if step is None else step
    event = Advanced(work, step, frame or f"f{i}-{step}", uncertainty, fault)
    return active_learning.step(state, event, rules)


def warmed(n=1, rules=RULES, **kwargs):
    """Past the ten evaluations without a threshold; δ is then about 0.1."""
    state = fresh(n, rules, **kwargs)
    for k in range(10):
        state, _ = move(state, k % n, rules=rules)
    return state


def labelled(state, rules=RULES):
    work = next(w for w in active_learning.outstanding(state, rules) if isinstance(w, RequestLabel))
    return active_learning.step(state, Labelled(work), rules)


def trained(state, rules=RULES, n_train=None, mae=0.05):
    work = next(w for w in active_learning.outstanding(state, rules) if isinstance(w, RunTraining))
    event = Trained(work, state.n_train if n_train is None else n_train, (1.0,), (mae,))
    return active_learning.step(state, event, rules)
