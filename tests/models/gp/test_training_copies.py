"""Copies of a member's own training set, used while the process is better than the member, found again by a restart."""

import json
from types import SimpleNamespace

import numpy as np

from aims_pax.errors import Crashed
from aims_pax.frames import LabelledFrame
from aims_pax.models.base import MemberData, MemberResult
from aims_pax.models.gp import training_copies
from aims_pax.models.gp.training_copies import GROWTH, TrainingCopies, learnt_size
from aims_pax.settings.augmentation import AugmentationSettings
from aims_pax.surrogate_labels import is_surrogate_copy
from tests.models.gp import systems

DATA = systems.h2(np.linspace(0.95, 2.0, 12))
VALID = systems.h2([1.03, 1.57])
SETS = MemberData(DATA, VALID)


class Judged:
    """Members with a validation error that the test sets; structures longer than `fails` cannot be learnt."""

    baseline = None

    def __init__(self, force_mae=1.0, fails=np.inf):
        self.members, self.force_mae, self.fails = [SimpleNamespace(name="tiny_1")], force_mae, fails

    def validate(self, data):
        assert [list(own.valid) for own in data.values()] == [VALID]
        return [MemberResult("tiny_1", 0, np.nan, 1.0, 0.0, self.force_mae, None)]

    def check_frames(self, frames):
        pass

    def check_frame(self, frame):
        if np.ptp(frame.positions[:, 0]) > self.fails:
            raise Crashed("too long")


def asked(**changes):
    return AugmentationSettings(kind="gpr", **changes)


def ids(data):
    return [x.id for x in data.copies]


def test_copies_of_the_training_set_with_the_labels_of_a_process_that_never_saw_the_validation_set(tmp_path):
    found = TrainingCopies(asked(weight=0.3), tmp_path).added(Judged(), 0, SETS, SETS, grows=False)
    assert (found.train, found.valid, found.copy_weight) == (DATA, VALID, 0.3)
    assert 30 < len(found.copies) <= 4 * len(DATA)
    assert all(map(is_surrogate_copy, found.copies))
    assert {x.origin["parent"] for x in found.copies} <= {x.id for x in DATA}
    true = [systems.labelled(x.frame.to_atoms(), systems.LennardJones).label for x in found.copies]
    error = np.array([x.label.energy - t.energy for x, t in zip(found.copies, true, strict=True)])
    assert abs(error).max() < 0.05
    other = MemberData(DATA, [LabelledFrame(v.frame, systems.h2([1.2])[0].label) for v in VALID])
    assert other.valid[0].label.energy != VALID[0].label.energy
    (tmp_path / "other").mkdir()
    member = Judged()
    member.validate = lambda data: [MemberResult("tiny_1", 0, np.nan, 1.0, 0.0, 1.0, None)]
    again = TrainingCopies(asked(weight=0.3), tmp_path / "other").added(member, 0, other, other, grows=False)
    assert [x.label.energy for x in again.copies] == [x.label.energy for x in found.copies]


def test_no_copies_where_the_process_is_not_better_than_the_member(tmp_path, caplog):
    caplog.set_level("INFO")
    copies, member = TrainingCopies(asked(), tmp_path), Judged(force_mae=1e-6)
    assert copies.added(member, 0, SETS, SETS, grows=False) is SETS
    assert "no copies: the process is not good enough" in caplog.text
    member.force_mae = np.nan  # no validation frames
    assert copies.added(member, 0, SETS, SETS, grows=False) is SETS
    member.force_mae = 10.0
    assert copies.added(member, 0, SETS, SETS, grows=False).copies
    member.force_mae = 1e-6
    assert copies.added(member, 0, SETS, SETS, grows=False) is SETS
    used = [json.loads(line) for line in (tmp_path / "augmentation/used.jsonl").read_text().splitlines()]
    assert [bool(entry["copies"]) for entry in used] == [False, True, False]
    assert {entry["labels"] for entry in used} == {12}
    assert used[1]["copies"] + sum(used[1]["refused"].values()) == used[1]["wanted"] == 48


def test_a_restart_reads_the_same_copies_and_a_damaged_file_is_made_again(tmp_path, monkeypatch, caplog):
    first = TrainingCopies(asked(), tmp_path).added(Judged(), 0, SETS, SETS, grows=False)
    (file,) = (tmp_path / "augmentation").glob("*.npy")
    content = file.read_bytes()
    file.write_bytes(content[:-30])
    again = TrainingCopies(asked(), tmp_path).added(Judged(), 0, SETS, SETS, grows=False)
    assert "the copies are made again" in caplog.text
    assert file.read_bytes() == content
    monkeypatch.setattr(training_copies.GaussianProcess, "fit", None)  # a second fit would fail
    third = TrainingCopies(asked(), tmp_path).added(Judged(), 0, SETS, SETS, grows=False)
    for other in (again, third):
        assert ids(other) == ids(first)
        for one, two in zip(other.copies, first.copies, strict=True):
            assert one.label.energy == two.label.energy
            assert np.array_equal(one.label.forces, two.label.forces)
            assert one.origin == two.origin


def test_the_process_is_fitted_again_when_the_set_has_grown_by_a_fifth(tmp_path):
    sizes = [learnt_size(n, 5) for n in range(1, 13)]
    assert sizes == [0, 0, 0, 0, 5, 6, 6, 8, 8, 10, 10, 12]
    assert all(n < GROWTH * learnt_size(n, 5) + 2 for n in range(5, 500))
    copies, parents = TrainingCopies(asked(), tmp_path), []
    for n in range(4, 13):
        own = MemberData(DATA[:n], VALID)
        parents.append({x.origin["parent"] for x in copies.added(Judged(), 0, own, own).copies})
    assert [len(p) for p in parents] == [0, *sizes[4:]]
    assert len(list((tmp_path / "augmentation").glob("*.npy"))) == 5


def test_a_visit_on_a_part_of_the_set_has_the_copies_of_that_part(tmp_path):
    part = MemberData(DATA[3:5], VALID)
    found = TrainingCopies(asked(), tmp_path).added(Judged(), 0, part, SETS, grows=False)
    assert {x.origin["parent"] for x in found.copies} == {x.id for x in DATA[3:5]}


def test_too_few_labels_have_no_copies(tmp_path):
    own = MemberData(DATA[:8], VALID)
    assert TrainingCopies(asked(min_labels=9), tmp_path).added(Judged(), 0, own, own) is own
    assert not (tmp_path / "augmentation").exists()


def test_a_set_that_has_grown_too_large_and_one_without_validation_structures_say_why(tmp_path):
    copies = TrainingCopies(asked(until_labels=11), tmp_path)
    small, none = MemberData(DATA[:8], VALID), MemberData(DATA[:8])
    assert copies.added(Judged(), 0, small, small).copies
    assert copies.added(Judged(), 0, SETS, SETS) is SETS
    assert copies.added(Judged(), 0, none, none) is none
    used = [json.loads(line) for line in (tmp_path / "augmentation/used.jsonl").read_text().splitlines()]
    assert [bool(entry["copies"]) for entry in used] == [True, False, False]
    assert [entry["reason"] for entry in used] == ["", training_copies.MANY, training_copies.UNKNOWN]


def test_a_gate_that_opens_and_closes_is_logged_once(tmp_path, caplog):
    caplog.set_level("INFO")
    copies, member = TrainingCopies(asked(), tmp_path), Judged()
    for error in (1.0, 1e-6, 1.0, 1e-6):
        member.force_mae = error
        copies.added(member, 0, SETS, SETS, grows=False)
    assert caplog.text.count("the process is not good enough") == 1
    assert len((tmp_path / "augmentation/used.jsonl").read_text().splitlines()) == 4


def test_a_copy_weighs_as_its_structure_does(tmp_path):
    origin = {"config_type": "outlier", "stage": "given", "system": "H2"}
    own = MemberData([LabelledFrame(x.frame, x.label, origin) for x in DATA], VALID)
    found = TrainingCopies(asked(), tmp_path).added(Judged(), 0, own, own, grows=False)
    assert all(origin.items() <= x.origin.items() for x in found.copies)


def test_copies_that_cannot_be_learnt_are_refused_and_counted(tmp_path):
    found = TrainingCopies(asked(), tmp_path).added(Judged(fails=1.5), 0, SETS, SETS, grows=False)
    assert max(np.ptp(x.frame.positions[:, 0]) for x in found.copies) <= 1.5
    (line,) = (tmp_path / "augmentation/used.jsonl").read_text().splitlines()
    assert json.loads(line)["refused"]["the baseline fails"] > 10
