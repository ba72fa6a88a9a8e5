"""What every family of models promises, whoever it is: the same tests for all of them."""

import pickle

import numpy as np
import pytest

from aims_pax.core.uncertainty import atomic_spread
from aims_pax.errors import Abandoned, RestartError, SettingsError
from aims_pax.frames import Frame
from aims_pax.models.base import MemberData
from aims_pax.models.kinds import kind_of_run
from aims_pax.settings import read_settings
from tests.models.mace import tiny
from tests.projects import write_project

LINEAR = "tests.models.linear_model"
BASELINE = {
    "factory": "ase.calculators.lj:LennardJones",
    "kwargs": {"sigma": 0.9, "epsilon": 0.8, "rc": 3.4, "smooth": True},
}
FAMILIES = {  # MODEL.kind, members, REFERENCE.baseline
    "mace": ("mace", 2),
    "mace with a baseline": ("mace", 2, BASELINE),
    "gp": ("gp", 1),
    "gp with a baseline": ("gp", 1, BASELINE),
    "linear with a spread": (f"{LINEAR}:KIND", 1),
    "linear with a baseline": (f"{LINEAR}:KIND", 1, BASELINE),
    "linear committee": (f"{LINEAR}:COMMITTEE", 2),
}
DATA = {m: MemberData(tiny.water(8, seed=m), tiny.water(3, seed=9)) for m in range(2)}
FRAMES = [f.frame for f in tiny.water(3, seed=5)]


class Family:
    """A kind with the settings of a folder."""

    def __init__(self, folder, kind, members, baseline=None):
        base = {"REFERENCE": {"baseline": baseline}} if baseline else {}
        double = {"GENERAL": {"default_dtype": "float64"}, "MISC": {"inference": "torch"}}
        self.settings = read_settings(write_project(folder, {"MODEL": {"kind": kind}, **base}, double))
        self.kind, self.members = kind_of_run(self.settings), members

    def build(self, first=1):
        return self.kind.build(self.settings, tuple(range(first, first + self.members)), (1, 8))

    def trained(self):
        model = self.build()
        model.train(self.data(), 2, words=("train", 0))
        return model

    def data(self):
        return {m: DATA[m] for m in range(self.members)}


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def family(request, tmp_path_factory):
    return Family(tmp_path_factory.mktemp("family"), *request.param)


@pytest.fixture
def model(family):
    return family.trained()


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        assert np.array_equal(value, other[name], equal_nan=value.dtype.kind == "f"), name


def numpy(evaluation):
    parts = (evaluation.energies, evaluation.forces, evaluation.spread)
    return [None if x is None else np.asarray(x, float) for x in parts]


def test_members_are_named_after_the_experiment_and_their_seeds(family):
    model = family.build()
    assert [(m.name, m.seed) for m in model.members] == [
        (f"tiny_{s}", s) for s in range(1, family.members + 1)
    ]
    assert (len(model), set(model.elements), model.trained) == (family.members, {1, 8}, False)
    with pytest.raises(SettingsError, match="needs a different seed"):
        family.kind.build(family.settings, (1, 1), (1, 8))


def test_forces_are_minus_the_gradient_of_the_energy(family, model):
    frame, h = FRAMES[0], 1e-4
    for m in range(family.members):
        potential = model.potential(members=[m])
        steps = np.eye(9).reshape(9, 3, 3) * h
        moved = [frame.moved(frame.positions + sign * step) for step in steps for sign in (1, -1)]
        up, down = np.array([label.energy for label in potential.labels(moved)]).reshape(9, 2).T
        forces = potential.labels([frame])[0].forces
        assert np.abs(forces).max() > 0.01
        assert forces.ravel() == pytest.approx(-(up - down) / (2 * h), rel=1e-6, abs=2e-5)


def test_energies_do_not_depend_on_place_orientation_or_numbering_and_forces_turn_along(model):
    frame = FRAMES[0]
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    order = np.array([2, 0, 1])
    E, F, spread = numpy(model.potential().evaluate([frame]))
    turned = numpy(model.potential().evaluate([frame.moved(frame.positions @ Q.T + [3.0, -1.0, 0.5])]))
    renumbered = Frame(frame.numbers[order], frame.positions[order])
    other = numpy(model.potential().evaluate([renumbered]))
    assert turned[0] == pytest.approx(E, abs=1e-6)
    assert turned[1] == pytest.approx(F @ Q.T, abs=1e-5)
    assert other[0] == pytest.approx(E, abs=1e-6)
    assert other[1] == pytest.approx(F[:, order], abs=1e-5)
    if spread is not None:
        assert turned[2] == pytest.approx(spread, rel=1e-5)
        assert other[2] == pytest.approx(spread[order], rel=1e-5)


def test_the_potential_answers_for_all_members_alone_together_and_bound(family, model):
    import torch

    potential = model.potential()
    E, F, spread = numpy(potential.evaluate(FRAMES))
    atoms = sum(map(len, FRAMES))
    assert (E.shape, F.shape) == ((family.members, 3), (family.members, atoms, 3))
    assert (spread is not None) == model.has_spread == family.kind.has_spread
    labels = potential.labels(FRAMES)
    assert [label.energy for label in labels] == pytest.approx(E.mean(0), abs=1e-9)
    assert np.concatenate([label.forces for label in labels]) == pytest.approx(F.mean(0), abs=1e-9)
    bound = potential.bind(FRAMES)
    positions = torch.tensor(np.concatenate([f.positions for f in FRAMES]))
    said = numpy(bound(positions, torch.tensor(np.stack([f.cell for f in FRAMES]))))
    for here, there in zip((E, F, spread), said, strict=True):
        assert (here is None) == (there is None)
        assert here is None or there == pytest.approx(here, abs=1e-9)
    for m in range(family.members):
        assert model.potential(members=[m]).labels(FRAMES)[0].energy == pytest.approx(E[m, 0], abs=1e-9)


def test_every_atom_has_a_spread_of_zero_or_more(model):
    _, F, own = numpy(model.potential().evaluate(FRAMES))
    spread = atomic_spread(F, own)
    assert spread.shape == (sum(map(len, FRAMES)),)
    assert np.isfinite(spread).all()
    assert spread.min() >= 0
    assert spread.max() > 0


def test_spreads_and_errors_are_those_of_the_potential_and_follow_the_weights(family, model):
    data = DATA[0].valid
    before = model.spreads_and_errors(data)
    model.train(family.data(), 2, words=("train", 1))
    found = model.spreads_and_errors(data)
    assert all(np.any(new[1] != old[1]) for new, old in zip(found, before, strict=True)) or model.fits_at_once
    for one, (spread, error) in zip(data, found, strict=True):
        _, F, own = numpy(model.potential().evaluate([one.frame]))
        assert spread == pytest.approx(atomic_spread(F, own), abs=1e-6)
        assert error == pytest.approx(np.abs(F.mean(0) - one.label.forces), abs=1e-6)


def test_the_whole_state_goes_through_arrays_to_the_last_bit(family, model):
    stored, other = model.arrays(), family.build()
    assert all(isinstance(a, np.ndarray) and a.dtype.kind != "O" for a in stored.values())
    other.restore(stored)
    same(other.arrays(), stored)
    assert (other.version, other.visits) == (model.version, model.visits)
    here, there = (numpy(m.potential().evaluate(FRAMES)) for m in (model, other))
    assert all(one is None or np.array_equal(one, two) for one, two in zip(here, there, strict=True))
    for again in (model, other):
        again.train(family.data(), 1, words=("train", 1))
    same(other.arrays(), model.arrays())
    with pytest.raises(RestartError, match="undo the change"):
        family.build(first=7).restore(stored)


def test_stored_arrays_share_nothing_with_the_model(family, model):
    stored = model.arrays()
    copies = {name: a.copy() for name, a in stored.items()}
    model.train(family.data(), 1, words=("train", 1))
    same(stored, copies)


def test_what_is_stopped_leaves_nothing_behind(family, model):
    before, asked = model.arrays(), []

    def soon():
        asked.append(True)
        return len(asked) > 3

    with pytest.raises(Abandoned):
        model.train(family.data(), 3, words=("train", 1), stop=soon)
    same(model.arrays(), before)


def test_training_counts_versions_and_looks_at_the_validation_set(family, model):
    version, visits = model.version, model.visits
    results = model.train(family.data(), 1, words=("train", 1))
    assert (model.version > version, model.visits) == (True, visits + 1)
    assert [r.name for r in results] == [m.name for m in model.members]
    assert [r.epochs for r in results] == [1] * family.members
    for r in results:
        assert np.isfinite([r.valid_loss, r.energy_mae, r.force_mae]).all()
        assert [e.force_mae for e in r.history][-1:] == [r.force_mae]
    (alone,) = model.validate({0: DATA[0]})
    assert alone.force_mae == pytest.approx(results[0].force_mae, rel=1e-6)


def test_the_best_weights_come_back(family, model):
    best = model.inference_arrays(0)
    before, version = model.potential().labels(FRAMES), model.version
    model.train({0: DATA[1]}, 3, words=("train", 1))
    assert model.potential().labels(FRAMES)[0].energy != before[0].energy
    model.set_inference_arrays(0, best)
    assert model.version > version
    for one, two in zip(before, model.potential().labels(FRAMES), strict=True):
        assert np.array_equal(one.forces, two.forces)
        assert one.energy == two.energy


def test_phases_of_training_and_offsets_leave_a_model_that_works(family, model):
    model.begin_convergence([0])
    model.train({0: DATA[0]}, 1, words=("train", 1))
    model.refit_offsets(family.data())
    model.finish_convergence({0: DATA[0]})
    assert np.isfinite(model.validate({0: DATA[0]})[0].force_mae)


def test_a_saved_file_says_what_the_member_says(family, model, tmp_path):
    paths = [tmp_path / f"{m.name}{family.kind.suffix}" for m in model.members]
    for m, path in enumerate(paths):
        model.deliver(m, path, [-100.0])
        single = family.kind.load([path], "cpu", "float64")
        assert set(single.elements) == set(family.kind.elements_of(path)) == {1, 8}
        for one, two in zip(single.labels(FRAMES), model.potential(members=[m]).labels(FRAMES), strict=True):
            assert one.energy == pytest.approx(two.energy, abs=1e-6)
            assert one.forces == pytest.approx(two.forces, abs=1e-6)
    together = family.kind.load(paths, "cpu", "float64")
    said, ours = (p.evaluate(FRAMES) for p in (together, model.potential()))
    for one, two in zip(numpy(said), numpy(ours), strict=True):
        assert one is None or one == pytest.approx(two, abs=1e-6)
    assert model.check_delivered({0: paths[0]}, FRAMES) is None or "MACE" in family.kind.title


def test_what_it_is_made_of_is_plain(model):
    import json

    json.dumps(model.describe(0))
    zero = model.energy_zero()
    assert zero is None or set(zero.energies) == {1, 8}


def test_what_a_kind_says_it_can_do_it_does_and_refuses_the_rest_in_words(family, model, tmp_path):
    kind = family.kind
    if kind.moves_in_processes:
        other = kind.unserialise(pickle.loads(pickle.dumps(kind.serialise(model))))
        for m in range(len(model)):
            other.set_inference_arrays(m, model.inference_arrays(m))
        one, two = (m.potential().labels(FRAMES)[0] for m in (model, other))
        assert np.array_equal(one.forces, two.forces)
    else:
        with pytest.raises(NotImplementedError, match="in the driver's process only"):
            kind.serialise(model)
    path = tmp_path / f"given{kind.suffix}"
    model.save(0, path)
    if kind.begins_from_files:
        begun = kind.from_files([path], family.settings, (5,))
        assert [m.name for m in begun.members] == ["tiny_5"]
        assert begun.potential().labels(FRAMES)[0].energy == pytest.approx(
            model.potential(members=[0]).labels(FRAMES)[0].energy, abs=1e-6
        )
    else:
        with pytest.raises(SettingsError, match="give initial_train_dataset instead"):
            kind.from_files([path], family.settings, (5,))
    for form in kind.forms:
        assert kind.form_suffix(form)


def test_a_member_that_begins_again_is_trained_as_if_it_had_never_been_trained(family, model):
    """Its other members stay as they are."""
    others = [model.member_arrays(m) for m in range(1, len(model))]
    version = model.version
    model.begin_again(family.build(), [0])
    assert model.version > version
    never = family.build()
    for learner in (model, never):
        learner.train({0: DATA[1]}, 2, words=("train", "again"))
    same(model.inference_arrays(0), never.inference_arrays(0))
    for m, arrays in enumerate(others, 1):
        same(model.member_arrays(m), arrays)


def test_a_share_of_the_present_weights_remains_where_the_kind_says_so(family, model):
    beginning = family.build()
    if not family.kind.mixes_weights:
        with pytest.raises(NotImplementedError, match="cannot keep a share"):
            model.begin_again(beginning, [0], 0.25)
        return
    present, first = (
        {k: v for k, v in m.member_arrays(0).items() if k.startswith("ema/")} for m in (model, beginning)
    )
    model.begin_again(beginning, [0], 0.25)
    for name, mixed in model.member_arrays(0).items():
        if name in present:
            assert mixed == pytest.approx(0.25 * present[name] + 0.75 * first[name], abs=1e-12), name
            assert np.array_equal(mixed, model.member_arrays(0)[name.replace("ema/", "param/")])
