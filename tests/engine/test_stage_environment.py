"""What all stages share: candidates, labels, losses, snapshots."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from aims_pax.core import relabel
from aims_pax.core.work import AddToDataset, KeepBest, RequestLabel, RunTraining
from aims_pax.dataset import Dataset
from aims_pax.engine.candidates import Candidate
from aims_pax.engine.stage_environment import LOSS_COLUMNS, StageEnvironment, group_arrays
from aims_pax.errors import RestartError
from aims_pax.frames import Label, LabelledFrame
from aims_pax.models.base import EpochResult, MemberResult
from aims_pax.record.folder import RunFolder
from aims_pax.settings import read_settings
from tests.projects import write_project
from tests.worlds import rattled, water

FRAMES = rattled(water(), 4)
IDS = tuple(f.id for f in FRAMES)
STORED = [LabelledFrame(f, Label(-1.0, np.zeros((3, 3))), {"system": "water"}) for f in FRAMES]
RULES = relabel.RecalculateRules(IDS, IDS, 2)


class Weights:
    """A learner whose weights are one number."""

    members = (SimpleNamespace(name="a"), SimpleNamespace(name="b"))

    def __init__(self):
        self.version, self.value = 3, 1.5

    def arrays(self):
        return {"value": np.array(self.value)}

    def restore(self, arrays):
        self.value = float(arrays["value"])


@pytest.fixture
def environment(tmp_path):
    """The shared part of a stage, as that of a fresh process in the same folder each time."""

    def make(**misc):
        settings = read_settings(write_project(tmp_path, {"MISC": misc}))
        labeller = SimpleNamespace(
            capacity=1,
            method_of=lambda system: f"method of {system}",
            calls=SimpleNamespace(seconds=0.0, finished=0),
        )
        run = SimpleNamespace(
            settings=settings, folder=RunFolder(settings), dataset=Dataset(tmp_path / "data"), ensemble=Weights(),
            labeller=labeller, background_training=None, settings_hash="5e77",
        )  # fmt: skip
        made = StageEnvironment(run, relabel)
        made.rules = RULES
        return made

    return make


def test_a_stage_goes_on_with_what_its_last_snapshot_needs(environment):
    before = environment()
    assert before.restore(relabel.State) is None
    assert before.fresh
    for frame in FRAMES:
        before.add_candidate(Candidate(frame, {"system": "water"}))
    before.run.dataset.add(STORED[0], "train")
    state = relabel.State(opened=2, open=IDS[1:3])
    before.commit(state)
    before.run.dataset.add(STORED[3], "valid")  # after the snapshot: it will be added again
    after = environment()
    assert len(after.run.dataset.entries) == 2
    after.run.ensemble.value, after.run.ensemble.version = 0.0, 0
    assert after.restore(relabel.State) == state
    assert not after.fresh
    assert (after.run.ensemble.value, after.run.ensemble.version) == (1.5, 3)
    assert set(after.candidates) == set(IDS[1:3]), "only frames that are asked for"
    assert after.candidates[IDS[1]].origin == {"system": "water"}
    assert after.frame(IDS[1]) == FRAMES[1]
    assert [e.frame for e in after.run.dataset.entries] == [IDS[0]]
    assert after.entries == 1


def test_what_was_added_after_the_end_of_a_stage_stays(environment):
    before = environment()
    before.commit(relabel.State(opened=4, stopped="4 structures answered"))
    before.run.dataset.add(STORED[0], "train")
    after = environment()
    assert after.restore(relabel.State).stopped
    assert len(after.run.dataset.entries) == 1


def test_without_create_restart_nothing_is_written(environment):
    made = environment(create_restart=False)
    made.add_candidate(Candidate(FRAMES[0]))
    made.commit(relabel.State())
    assert not (made.run.folder.restart / "recalculate").exists()
    assert made.candidates == {}
    assert environment().restore(relabel.State) is None


def test_a_frame_is_found_among_the_candidates_or_in_the_dataset_or_nowhere(environment):
    made = environment()
    made.add_candidate(Candidate(FRAMES[0], {"step": 5}))
    made.run.dataset.add(STORED[1], "train")
    assert made.candidate(IDS[0]).origin == {"step": 5}
    assert made.candidate(IDS[1]) == Candidate(FRAMES[1])
    with pytest.raises(RestartError, match=f"frame {IDS[2]} is neither in the restart nor in the dataset"):
        made.candidate(IDS[2])


def test_a_label_is_stored_with_the_method_and_the_settings_that_made_it(environment):
    made = environment()
    made.add_candidate(Candidate(FRAMES[0], {"system": "water", "step": 5}))
    assert made.keep(RequestLabel(IDS[0]), Label(-2.0, np.zeros((3, 3)))) is None
    made.apply(AddToDataset(IDS[0], "valid", 1))
    (stored,) = made.run.dataset.valid(1)
    assert stored.label.energy == -2.0
    assert stored.origin == {
        "system": "water", "step": 5, "source": "reference", "method": "method of water", "settings": "5e77"
    }  # fmt: skip
    made.candidates.clear()
    made.add_candidate(Candidate(FRAMES[0], {"system": "water"}))
    assert made.labelled(IDS[0]) is stored, "this method has labelled it already"
    assert made.keep(RequestLabel(IDS[0]), Label(-2.0, np.zeros((3, 3)))) == "valid"


def test_an_effect_that_is_not_of_this_stage_is_our_mistake(environment):
    with pytest.raises(TypeError, match="has no meaning in stage recalculate"):
        environment().apply(KeepBest(0))


def test_the_mean_time_of_a_label_is_known_after_the_first(environment):
    made = environment()
    assert made.label_seconds() == 1.0
    made.run.labeller.calls.seconds, made.run.labeller.calls.finished = 30.0, 4
    assert made.label_seconds() == 7.5


def result(name, mae):
    history = tuple(EpochResult(k, 1.0, 0.5, 0.01, mae + k) for k in (1, 2))
    return MemberResult(name, 2, 1.0, 0.5, 0.01, mae, None, history)


def test_losses_of_a_visit_are_appended_and_told_in_one_line(environment, caplog):
    caplog.set_level(logging.INFO)
    made = environment()
    trained = made._trained(RunTraining(4, 2), [result("a", 0.1), result("b", 0.3)], 17)
    assert (trained.n_train, trained.valid_loss, trained.force_mae) == (17, (0.5, 0.5), (0.1, 0.3))
    assert "training visit 5 · validation: force MAE 200.0 meV/Å · energy 10.00 meV/atom" in caplog.text
    made._trained(RunTraining(5, 2), [result("a", 0.2)], 18)
    head, *rows = (made.run.folder.losses / "a.csv").read_text().splitlines()
    assert head + "\n" == LOSS_COLUMNS
    assert rows == [
        f"recalculate,{v},{e},1,0.5,0.01,{m}"
        for v, e, m in ((4, 1, 1.1), (4, 2, 2.1), (5, 1, 1.2), (5, 2, 2.2))
    ]


def test_of_convergence_every_tenth_visit_is_told(environment, caplog):
    caplog.set_level(logging.INFO)
    made = environment()
    for visit in range(21):
        made._trained(RunTraining(visit, 1, member=1), [result("b", 0.1)], 5)
    assert [r.getMessage().split(" · ")[0] for r in caplog.records] == [f"b visit {n}" for n in (1, 11, 21)]


def test_arrays_are_grouped_by_the_first_two_parts_of_their_names():
    grouped = group_arrays(
        {"md/0/a/b": 1, "md/0/c": 2, "md/1/c": 3, "frame/7f/cell": 4, "short/name": 5, "x": 6}
    )
    assert grouped == {"md": {"0": {"a/b": 1, "c": 2}, "1": {"c": 3}}, "frame": {"7f": {"cell": 4}}}
