from dataclasses import replace

import numpy as np
import pytest
import torch

from aims_pax.models.mace import energy_offsets, training
from aims_pax.models.mace.build import build_model
from aims_pax.models.mace.energy_offsets import SAMPLE, refit, residuals, sample_graphs
from aims_pax.models.mace.graphs import GraphCache
from aims_pax.models.mace.losses import Loss
from aims_pax.models.mace.member import Member
from aims_pax.models.mace.statistics import measure
from aims_pax.models.mace.training import TrainingPlan, training_round, validate, visit_arrays
from tests.models.mace.tiny import copper, ethanol, settings, water

HCO = (1, 6, 8)
STORE = GraphCache(HCO, 3.5, torch.float32)
TRAIN, VALID = STORE.of(ethanol(60, 0, noise=0.02)), STORE.of(ethanol(8, 1, noise=0.02))
GIVEN = {1: -499.0, 6: -501.0, 8: -502.0}


def member(graphs=TRAIN, elements=HCO, given=None, store=STORE, **changes) -> Member:
    made = Member("m_3", 3, build_model(settings(**changes), elements, 3), settings(**changes))
    made.freeze(measure(graphs, elements, scaling="rms_forces_scaling", dtype=torch.float32, given=given))
    return made


def visits(made: Member, n: int = 3, data=TRAIN) -> list[training.MemberResult]:
    loss = Loss(made.settings)
    return [training_round(made, data, VALID, TrainingPlan(2, ("train", k)), loss) for k in range(n)]


@pytest.mark.parametrize("given", [None, GIVEN], ids=["E0 by least squares", "E0 given"])
def test_energies_are_right_after_every_visit_and_not_many_epochs_later(monkeypatch, given):
    made = member(given=given)
    found = visits(made)
    monkeypatch.setattr(training, "refit", lambda *_: None)
    left = visits(member(given=given))
    for with_, without in zip(found[1:], left[1:], strict=True):
        assert with_.energy_mae < 0.2 * without.energy_mae
    assert found[-1].force_mae == pytest.approx(left[-1].force_mae, rel=0.2)
    mean = np.mean(residuals(made, TRAIN)) / 9
    assert abs(mean) < found[-1].energy_mae  # what is left is no common offset


def test_what_is_validated_is_what_is_handed_on():
    made = member()
    result = visits(made, 1)[0]
    again = validate(made, VALID, Loss(made.settings))
    assert (again.loss, again.energy_mae) == (result.valid_loss, result.energy_mae)


def test_a_visit_that_does_not_validate_refits_at_its_end():
    made = member()
    E0 = made.statistics.E0
    training_round(made, TRAIN, [], TrainingPlan(1, ("train", 0)), Loss(made.settings))
    assert not np.array_equal(made.statistics.E0, E0)
    assert np.mean(residuals(made, sample_graphs(TRAIN, SAMPLE)[0])) == pytest.approx(0, abs=2e-3)


def test_given_atomic_energies_stay_and_the_shift_moves():
    made = member(given=GIVEN)
    shift = made.statistics.shift
    visits(made, 1)
    np.testing.assert_array_equal(made.statistics.E0, list(GIVEN.values()))
    assert made.statistics.shift != shift
    assert float(made.model.scale_shift.shift) == made.statistics.shift


def test_a_plain_model_with_given_energies_has_nothing_to_refit():
    made = member(given=GIVEN, model="MACE")
    before = made.statistics
    refit(made, TRAIN)
    assert made.statistics is before


def test_forces_do_not_notice():
    made = member()
    before = validate(made, VALID, Loss(made.settings))
    made.shift_offsets(E0=made.statistics.E0 + 1.0)
    refit(made, TRAIN, SAMPLE)
    after = validate(made, VALID, Loss(made.settings))
    assert after.force_mae == before.force_mae


def test_the_energies_asked_for_alone_are_those_that_come_with_forces():
    from aims_pax.models.mace.graphs import collate
    from aims_pax.models.mace.losses import energies, predict

    for changes in ({}, {"pair_repulsion": True}, {"radial_type": "chebyshev"}, {"model": "MACE"}):
        made = member(**changes)
        batch = collate(TRAIN[:3], made.statistics.E0, made.device)
        told = predict(made.model, batch, training=False, stress=False).energy
        torch.testing.assert_close(energies(made.model, batch), told.detach(), rtol=1e-6, atol=1e-5)


def test_the_cost_does_not_grow_with_the_data(monkeypatch):
    looked = []
    real = energy_offsets.energies
    monkeypatch.setattr(
        energy_offsets, "energies", lambda model, batch: looked.append(batch.frames) or real(model, batch)
    )
    counts = []
    for n in (30, 60):
        looked.clear()
        refit(member(), TRAIN[:n], SAMPLE)
        counts.append(sum(looked))
    assert counts == [SAMPLE, SAMPLE]


def test_a_visit_elsewhere_comes_to_the_same_offsets():
    here, there = member(), member()
    state = here.arrays()
    visits(here, 1)
    after, _ = visit_arrays(there, state, TRAIN, VALID, TrainingPlan(2, ("train", 0)))
    own = here.arrays()
    for key in ("statistics/E0", "statistics/numbers", "seen"):
        np.testing.assert_array_equal(after[key], own[key])


def test_a_sample_holds_the_newest_and_every_composition_with_its_weight():
    graphs = [*STORE.of(ethanol(90, 3)), *STORE.of(water(1)), *STORE.of(ethanol(9, 4))]
    chosen, weight = sample_graphs(graphs, 20)
    assert weight.sum() == pytest.approx(100)
    assert graphs[-1] in chosen
    assert graphs[90] in chosen
    assert len(chosen) <= 21
    assert len({g.id for g in chosen}) == len(chosen)
    again, _ = sample_graphs(graphs, 20)
    assert [g.id for g in again] == [g.id for g in chosen]
    few, ones = sample_graphs(graphs[:7], 20)
    assert few == graphs[:7]
    assert (ones == 1).all()


def test_each_composition_comes_back_by_itself():
    elements = (1, 6, 8, 29)
    store = GraphCache(elements, 3.5, torch.float32)
    graphs = [*store.of(ethanol(30, 0, noise=0.01)), *store.of(copper(30, 0, noise=0.01))]
    made = member(graphs, elements)
    refit(made, graphs)
    right = made.statistics.E0
    made.shift_offsets(E0=right + np.array([0.3, 0.3, 0.3, -0.8]))
    refit(made, graphs, SAMPLE)
    moved = made.statistics.E0 - right  # H, C and O cannot be told apart, ethanol and copper can
    assert moved @ [6, 2, 1, 0] / 9 == pytest.approx(0, abs=0.005)
    assert moved @ [0, 0, 0, 4] / 4 == pytest.approx(0, abs=0.005)


def test_noise_of_samples_does_not_add_up_where_compositions_hardly_differ():
    """Energies that scatter by 10 meV an atom on molecules with 30 and 31 equal units: the elements stay."""
    from aims_pax.models.mace.statistics import fit_offsets

    rng = np.random.default_rng(0)
    composition = np.array([[62, 30], [64, 31]] * 12, float)
    E0, free = np.zeros(2), np.zeros(2)
    for _ in range(50):
        noise = rng.normal(0, 0.01, 24) * composition.sum(1)
        E0 = E0 + fit_offsets(composition, noise - composition @ E0, trust=energy_offsets.TRUST)
        free = free + fit_offsets(composition, noise - composition @ free)
    assert abs(E0).max() < 0.05
    assert abs(free).max() > 4 * abs(E0).max()


def test_weights_gone_bad_leave_the_offsets_alone():
    made = member()
    before = made.statistics
    made.set_weights([torch.full_like(w, torch.nan) for w in made.weights])
    refit(made, TRAIN, SAMPLE)
    assert made.statistics is before


def test_without_statistics_there_is_nothing_to_do():
    made = member()
    made.statistics = None
    refit(made, TRAIN)
    assert made.statistics is None


def test_a_file_as_origin_of_the_energies_frees_the_shift_alone():
    made = member()
    made.statistics = replace(made.statistics, source="model file")
    E0 = made.statistics.E0
    refit(made, TRAIN, SAMPLE)
    np.testing.assert_array_equal(made.statistics.E0, E0)


def test_the_shift_takes_what_single_precision_cannot_hold_of_total_energies_of_heavy_elements():
    store = GraphCache((29,), 3.5, torch.float32)
    graphs = [replace(g, energy=g.energy - 535012.37 * len(g)) for g in store.of(copper(10))]  # as of gold
    made = member(graphs, (29,), store=store)
    made.shift_offsets(E0=made.statistics.E0 + 0.4, shift=made.statistics.shift + 0.02)
    refit(made, graphs)
    assert abs(np.mean(residuals(made, graphs)) / 4) < 1e-4
    refit(made, graphs, 4)  # on a sample
    assert abs(np.mean(residuals(made, graphs)) / 4) < 0.02
