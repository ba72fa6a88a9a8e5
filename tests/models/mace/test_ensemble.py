import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mace.calculators import MACECalculator

from aims_pax.errors import Abandoned, RestartError, SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models import evaluate
from aims_pax.models.mace import Ensemble, MemberData
from aims_pax.potential import calculate
from tests.models.mace import tiny
from tests.models.mace.tiny import copper, ethanol, settings, water

HCO = (1, 6, 8)
DATA = [MemberData(ethanol(6, 0), ethanol(3, 1)), MemberData(ethanol(6, 2), ethanol(3, 3))]
FRAMES = [f.frame for f in ethanol(2, 9)]


def build(seeds=(1, 2), elements=HCO, **changes) -> Ensemble:
    return Ensemble.build(settings(**changes), seeds, elements)


@pytest.fixture(scope="module")
def _shared():
    return build(), build()


@pytest.fixture
def pair(_shared):
    """Two equal ensembles as just built (built once; put back by their first arrays)."""
    for e in _shared:
        if not hasattr(e, "first"):
            e.first = e.arrays()
        e.restore(e.first)
        for member in e.members:
            member.settings = e.settings = settings()
        e._frozen = []
    return _shared


@pytest.fixture
def one(pair):
    return pair[0]


def same(a, b):
    return a.keys() == b.keys() and all(
        np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f") and a[k].dtype == b[k].dtype for k in a
    )


def test_members_are_named_after_experiment_and_seed():
    assert [m.name for m in build([7, 3], (1,)).members] == ["tiny_7", "tiny_3"]
    assert [(m.name, m.seed) for m in build({"a": 11}, (1,)).members] == [("tiny_11", 11)]
    with pytest.raises(SettingsError, match="needs a different seed"):
        build([1, 1])


def test_an_untrained_ensemble_has_no_predictions(one):
    assert not one.trained
    with pytest.raises(RuntimeError, match="not been trained"):
        one.potential()


def test_training_changes_version_and_predictions_and_reports_each_member(one):
    results = one.train(DATA, 1)
    first = one.potential().labels(FRAMES)
    assert [r.name for r in results] == ["tiny_1", "tiny_2"]
    assert all(np.isfinite([r.train_loss, r.valid_loss, r.energy_mae, r.force_mae]).all() for r in results)
    assert one.version == 1
    one.train({1: DATA[1]}, 1)
    assert one.version == 2
    second = one.potential().labels(FRAMES)
    assert not np.array_equal(first[0].forces, second[0].forces)


def test_copies_are_in_the_loss_with_their_weight_and_neither_in_scale_nor_in_offsets(pair):
    plain, other = pair
    far = [replace(f, label=replace(f.label, energy=f.label.energy + 1000)) for f in water(3, seed=30)]
    labels = dict(enumerate(DATA))
    copied = {m: replace(own, copies=far, copy_weight=0.0) for m, own in labels.items()}
    plain.train(labels, 0)
    other.train(copied, 0)
    for one, two in zip(plain.members, other.members, strict=True):
        assert one.statistics.scale == two.statistics.scale
        assert one.statistics.shift == two.statistics.shift
        assert np.array_equal(one.statistics.E0, two.statistics.E0)
    losses = []
    for weight in (0.0, 1.0):
        for data in (labels, copied):
            weighted = {m: replace(own, copy_weight=weight) for m, own in data.items()}
            other.restore(plain.arrays())
            losses.append(other.train(weighted, 1, words=("same",))[0].train_loss)
    assert losses[0] == losses[2]
    assert losses[1] < losses[0] < losses[3]


def test_only_named_members_are_trained(one):
    one.train(DATA, 1)
    before = one.arrays()
    assert [r.name for r in one.train({1: DATA[1]}, 1)] == ["tiny_2"]
    after = one.arrays()
    first = [{k: a for k, a in arrays.items() if k.startswith("0/")} for arrays in (before, after)]
    assert same(*first)
    assert any(not np.array_equal(after[k], before[k]) for k in before if k.startswith("1/param/"))


def test_going_on_after_a_restart_is_bit_for_bit_like_not_having_stopped(pair):
    through, again = pair
    through.train(DATA, 2, patience=2)
    snapshot = through.arrays()
    assert all(a.dtype != object for a in snapshot.values())
    through.train(DATA, 2, patience=2)
    again.restore(snapshot)
    assert same(again.arrays(), snapshot)
    assert again.version == 1
    again.train(DATA, 2, patience=2)
    assert same(through.arrays(), again.arrays())
    for a, b in zip(through.potential().labels(FRAMES), again.potential().labels(FRAMES), strict=True):
        assert a.energy == b.energy
        np.testing.assert_array_equal(a.forces, b.forces)


GO_ON = """
import sys, numpy as np
from tests.models.mace.test_ensemble import DATA, build
folder = sys.argv[1]
ensemble = build()
ensemble.restore(dict(np.load(folder + "/half.npz", allow_pickle=False)))
ensemble.train(DATA, 2)
np.savez(folder + "/there.npz", **ensemble.arrays())
"""


def test_losses_of_other_weights_are_not_compared_after_a_restart(pair):
    before, after = pair
    before.train(DATA, 2)
    for changes, known in (({}, True), ({"forces_weight": 1e5}, False)):
        for member in after.members:
            member.settings = settings(**changes)
        after.restore(before.arrays())
        for member in after.members:
            assert np.isfinite(member.progress.best) == np.isfinite(member.schedule.best) == known


def test_another_process_goes_on_bit_for_bit(one, tmp_path):
    one.train(DATA, 2)
    np.savez(tmp_path / "half.npz", **one.arrays())
    one.train(DATA, 2)
    command = [sys.executable, "-W", "ignore", "-c", GO_ON, str(tmp_path)]
    root = Path(__file__).parents[3]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(command, check=True, cwd=root, env=environment, capture_output=True)
    assert same(one.arrays(), dict(np.load(tmp_path / "there.npz", allow_pickle=False)))


def test_the_snapshot_holds_no_constants(one):
    one.train(DATA, 1)
    arrays = one.arrays()
    weights = sum(a.size for k, a in arrays.items() if "/param/" in k)
    assert sum(a.size for a in arrays.values()) < 6 * weights


def test_a_snapshot_of_other_members_or_another_architecture_is_refused(one):
    arrays = one.arrays()
    with pytest.raises(RestartError, match="tiny_1, tiny_2"):
        build([1, 3], HCO).restore(arrays)
    with pytest.raises(RestartError, match="another architecture"):
        build([1, 2], (1, 8)).restore(arrays)
    with pytest.raises(RestartError, match="default_dtype"):
        build([1, 2], HCO, default_dtype="float64").restore(arrays)


def test_a_stopped_visit_leaves_everything_as_it_was(one):
    one.train(DATA, 1)
    before, calls = one.arrays(), []
    with pytest.raises(Abandoned):
        one.train(DATA, 3, stop=lambda: calls.append(1) or len(calls) > 7)  # in the second member
    assert same(one.arrays(), before)
    one.restore(one.first)
    with pytest.raises(Abandoned):
        one.train(DATA, 1, stop=lambda: True)
    assert not one.trained


def test_statistics_are_frozen_at_the_first_training(one):
    one.train(DATA, 1)
    first = [(m.statistics.scale, m.statistics.avg_num_neighbors) for m in one.members]
    assert first[0] != first[1]  # each from its own training set
    one.train([MemberData(water(3)), MemberData(water(3))], 1)
    assert [(m.statistics.scale, m.statistics.avg_num_neighbors) for m in one.members] == first


def test_a_composition_that_comes_later_refits_the_atomic_energies_before_training():
    later = build([1], (1, 6, 8, 29))
    later.train([DATA[0]], 1)
    metal = [LabelledFrame(f.frame, Label(f.label.energy - 4e4, f.label.forces)) for f in copper(3)]
    both = [MemberData([*DATA[0].train, *metal], [])]
    later.train(both, 0)
    table = evaluate.evaluate_potential(later.potential(), both[0].train)
    assert table.energy_per_atom_mae < 10  # was 1e4


def test_the_log_says_where_atomic_energies_come_from(one, caplog):
    with caplog.at_level(logging.INFO):
        one.train(DATA, 1)
    assert "atomic energies from least squares" in caplog.text


def test_refitting_offsets_centres_the_energies_and_leaves_the_forces(one):
    one.train(DATA, 2)
    before, forces = one.version, one.potential().labels(FRAMES)[0].forces
    one.refit_offsets({k: d.train for k, d in enumerate(DATA)})
    arrays = one.arrays()
    assert one.version > before
    np.testing.assert_array_equal(one.potential().labels(FRAMES)[0].forces, forces)
    for k, d in enumerate(DATA):
        labels = one.potential([k]).labels([f.frame for f in d.train])
        residual = [p.energy - f.label.energy for p, f in zip(labels, d.train, strict=True)]
        assert np.mean(residual) == pytest.approx(0, abs=2e-3)
    one.restore(arrays)
    assert same(one.arrays(), arrays)


def test_with_given_atomic_energies_only_the_shift_moves():
    given = build([1], HCO, atomic_energies=[-499.0, -501.0, -502.0])
    given.train([DATA[0]], 2)
    given.refit_offsets([DATA[0]])
    member = given.members[0]
    assert member.statistics.source == "given"
    np.testing.assert_array_equal(member.statistics.E0, [-499.0, -501.0, -502.0])
    residual = [
        p.energy - f.label.energy
        for p, f in zip(
            given.potential().labels([f.frame for f in DATA[0].train]), DATA[0].train, strict=True
        )
    ]
    assert np.mean(residual) == pytest.approx(0, abs=2e-3)


def test_isolated_atoms_give_the_atomic_energies_and_are_not_trained_on():
    atoms = [LabelledFrame(Frame([z], [[0, 0, 0]]), Label(-490.0 - z, np.zeros((1, 3)))) for z in HCO]
    e = build([1], HCO)
    e.train([MemberData([*DATA[0].train, *atoms], [*DATA[0].valid, atoms[0]])], 1)
    assert e.members[0].statistics.source == "isolated atoms"
    np.testing.assert_array_equal(e.members[0].statistics.E0, [-491.0, -496.0, -498.0])


def test_the_energy_of_an_isolated_atom_stays_when_others_are_fitted():
    hydrogen = LabelledFrame(Frame([1], [[0, 0, 0]]), Label(-13.5, np.zeros((1, 3))))
    e = build([1])
    # with it, two compositions fix H, C and O
    data = [MemberData([hydrogen, *water(6), *ethanol(6)], water(2, 5))]
    e.train(data, 1)
    e.refit_offsets(data)
    zero = e.energy_zero()
    assert (zero.energies[1], zero.source, zero.rank) == (-13.5, "least squares; isolated atoms: H", 3)
    again = build([1])
    again.restore(e.arrays())
    again.train(data, 1)
    assert again.energy_zero().energies[1] == -13.5
    assert again.energy_zero().energies[8] != zero.energies[8]


def test_a_saved_model_is_what_was_validated_and_mace_reads_it(one, tmp_path):
    results = one.train(DATA, 3)
    path = tmp_path / "tiny_1.model"
    one.save(0, path)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny_1.model"]
    calculator = MACECalculator(model_paths=str(path), device="cpu", default_dtype="float32")
    assert calculator.r_max == 3.5
    assert list(calculator.z_table.zs) == [1, 6, 8]
    assert calculator.available_heads == ["Default"]
    told = [calculate(f.frame, calculator) for f in DATA[0].valid]
    ours = one.potential([0]).labels([f.frame for f in DATA[0].valid])
    for a, b in zip(told, ours, strict=True):
        assert a.energy == pytest.approx(b.energy, rel=1e-6)
        np.testing.assert_allclose(a.forces, b.forces, atol=1e-5)
    error = np.mean([np.abs(a.forces - f.label.forces) for a, f in zip(told, DATA[0].valid, strict=True)])
    assert error == pytest.approx(results[0].force_mae, rel=1e-4)


def test_models_from_files_go_on_as_members(one, tmp_path):
    one.train(DATA, 2)
    paths = [tmp_path / "a.model", tmp_path / "b.model"]
    for k, path in enumerate(paths):
        one.save(k, path)
    back = Ensemble.from_models(paths, settings())
    assert [m.name for m in back.members] == ["a", "b"]
    for a, b in zip(back.potential().labels(FRAMES), one.potential().labels(FRAMES), strict=True):
        np.testing.assert_array_equal(a.forces, b.forces)
    before = back.validate(DATA)
    after = back.train(DATA, 5)
    assert after[0].force_mae < before[0].force_mae
    assert [m.name for m in Ensemble.from_models(paths, settings(), [5, 6]).members] == ["tiny_5", "tiny_6"]


def test_an_architecture_with_empty_parts_can_be_copied_and_saved(tmp_path):
    e = tiny.ensemble([1], HCO, max_L=2, max_ell=1)
    e.save(0, tmp_path / "a.model")
    assert MACECalculator(model_paths=str(tmp_path / "a.model"), device="cpu", default_dtype="float32")
    assert e.potential().labels(FRAMES)[0].finite


def test_models_that_do_not_fit_together_are_refused(one, tmp_path):
    one.train(DATA, 1)
    one.save(0, tmp_path / "a.model")
    other = tiny.ensemble([1], (1, 8))
    other.save(0, tmp_path / "b.model")
    with pytest.raises(SettingsError, match="differ in elements"):
        Ensemble.from_models([tmp_path / "a.model", tmp_path / "b.model"], settings())
    (tmp_path / "more").mkdir()
    one.save(0, tmp_path / "more" / "a.model")
    with pytest.raises(SettingsError, match="same name"):
        Ensemble.from_models([tmp_path / "a.model", tmp_path / "more" / "a.model"], settings())
    with pytest.raises(SettingsError, match="0 files"):
        Ensemble.from_models([], settings())


def test_a_fresh_phase_starts_from_the_averaged_weights_with_everything_else_new(one):
    one.train(DATA, 2)
    before = one.potential().labels(FRAMES)[0].forces
    one.reset_optimiser_and_ema([0, 1])
    np.testing.assert_array_equal(one.potential().labels(FRAMES)[0].forces, before)
    for member in one.members:
        assert member.average.updates == 0
        assert not member.optimiser.state
        assert member.progress.best == np.inf
        assert torch.equal(member.weights[0].detach(), member.average.shadow[0])


def test_best_weights_can_be_kept_and_put_back(one):
    one.train(DATA, 2)
    one.refit_offsets(DATA)
    kept, before = one.inference_arrays(0), one.validate(DATA)[0]
    one.train(DATA, 2)
    one.refit_offsets(DATA)
    version = one.version
    one.set_inference_arrays(0, kept)
    assert one.version > version
    assert one.validate(DATA)[0].valid_loss == before.valid_loss
    assert one.validate(DATA)[0].energy_mae == before.energy_mae


def test_swa_weighs_the_mean_of_the_last_epochs_and_takes_it_only_when_it_is_better(one):
    for member in one.members:
        member.settings = settings(swa=True, lr=0.03)
    one.reset_optimiser_and_ema()
    for _ in range(6):
        one.train(DATA, 3, margin=1e9)
    assert [m.swa.epochs for m in one.members] == [18, 18]
    mean = [t / 18 for t in one.members[0].swa.sum]
    before = one.validate(DATA)
    one.apply_swa(DATA)
    after = one.validate(DATA)
    assert all(a.valid_loss <= b.valid_loss for a, b in zip(after, before, strict=True))
    taken = after[0].valid_loss < before[0].valid_loss
    assert taken == torch.equal(one.members[0].average.shadow[0], mean[0])


def test_stress_is_learnt_when_it_is_asked_for():
    e = build([1], (29,), compute_stress=True, stress_weight=1e5)
    assert e.loss.name == "stress"
    data = [MemberData(copper(6, 0), copper(3, 1))]
    first = e.train(data, 1)[0]
    last = e.train(data, 15)[0]
    assert last.stress_mae < first.stress_mae


def test_nothing_to_train_on_is_an_error(one):
    with pytest.raises(ValueError, match="nothing to train on"):
        one.train([MemberData([]), DATA[1]], 1)


def test_a_label_with_nan_never_reaches_the_weights(one):
    bad = LabelledFrame(FRAMES[0], Label(np.nan, np.zeros((9, 3))))
    before = one.arrays()
    with pytest.raises(ValueError, match="not finite"):
        one.train([MemberData([bad]), DATA[1]], 1)
    assert same(one.arrays(), before)


def test_a_relative_file_of_atomic_energies_is_read_from_the_working_folder(tmp_path):
    (tmp_path / "e0.json").write_text('{"H": -1.5}')
    e = Ensemble.build(settings(atomic_energies="e0.json"), [1], (1,), tmp_path)
    assert e.atomic_energies == {1: -1.5}
