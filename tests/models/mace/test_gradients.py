import logging

import numpy as np
import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.models.batch_splitting import batch_splitter
from aims_pax.models.mace import energy_offsets, gradients, losses
from aims_pax.models.mace.build import build_model
from aims_pax.models.mace.gradients import backward, predicted
from aims_pax.models.mace.graphs import GraphCache, collate
from aims_pax.models.mace.inference import Committee
from aims_pax.models.mace.losses import Loss, predict
from aims_pax.models.mace.member import Member
from aims_pax.models.mace.statistics import measure
from aims_pax.models.mace.training import TrainingPlan, training_round
from tests.models.mace import tiny
from tests.models.mace.tiny import copper, ethanol, settings, water

ELEMENTS = (1, 6, 8, 29)
STORE = GraphCache(ELEMENTS, 3.5, torch.float64)
MIXED = STORE.of([*ethanol(3, 0), *copper(2, 0), *water(3, 1)])
CPU = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"


@pytest.fixture(autouse=True)
def _forget():
    batch_splitter.cache_clear()
    yield
    batch_splitter.cache_clear()


def member(**changes) -> Member:
    chosen = settings(default_dtype="float64", compute_stress=True, **changes)
    made = Member("m_3", 3, build_model(chosen, ELEMENTS, 3), chosen)
    made.freeze(measure(MIXED, ELEMENTS, scaling="rms_forces_scaling", dtype=torch.float64))
    return made


def small_machine(monkeypatch, edges: int, error=None) -> list[int]:
    """Predictions of more edges than that fail; the list: edges of all that were tried."""
    tried = []

    def limited(model, batch, **how):
        tried.append(batch.edges.shape[1])
        if tried[-1] > edges:
            raise error or RuntimeError(CPU)
        return predict(model, batch, **how)

    monkeypatch.setattr(gradients, "predict", limited)
    return tried


@pytest.mark.parametrize(
    "loss", ["weighted", "huber", "universal", "l1l2energyforces", "forces_only", "virials"]
)
def test_the_gradient_in_pieces_is_that_of_the_whole_batch(monkeypatch, caplog, loss):
    made = member(loss=loss, stress_weight=100.0)
    function = Loss(made.settings)
    value = backward(made, MIXED, function)
    whole = [None if w.grad is None else w.grad.clone() for w in made.weights]
    total = sum(g.edges.shape[1] for g in MIXED)
    tried = small_machine(monkeypatch, total // 3)
    with caplog.at_level(logging.INFO):
        again = backward(made, MIXED, function)
    assert tried[0] == total
    assert float(again) == pytest.approx(float(value), rel=1e-12)
    top = max(float(g.abs().max()) for g in whole if g is not None)
    for weight, g in zip(made.weights, whole, strict=True):
        if g is None:
            assert weight.grad is None or not weight.grad.any()
        else:
            torch.testing.assert_close(weight.grad, g, rtol=1e-9, atol=1e-11 * top)
    assert [r.message.split(":")[0] for r in caplog.records] == ["validation of tiny", "training of tiny"]


def test_what_did_not_fit_is_remembered_and_said_once(monkeypatch, caplog):
    made = member()
    tried = small_machine(monkeypatch, 200, torch.OutOfMemoryError("CUDA out of memory."))
    with caplog.at_level(logging.INFO):
        backward(made, MIXED, Loss(made.settings))
        lines = len(caplog.records)
        tried.clear()
        backward(made, MIXED, Loss(made.settings))
    assert max(tried) <= 200
    assert len(caplog.records) == lines
    assert "from now on at most" in caplog.text


def test_a_visit_in_pieces_learns_the_same(monkeypatch):
    graphs = STORE.of(ethanol(6, 0))
    one, other = member(), member()
    plan = TrainingPlan(2, ("train", 0))
    a = training_round(one, graphs, graphs[:4], plan, Loss(one.settings))
    small_machine(monkeypatch, 2 * graphs[0].edges.shape[1] + 5)
    b = training_round(other, graphs, graphs[:4], plan, Loss(other.settings))
    assert b.valid_loss == pytest.approx(a.valid_loss, rel=1e-6)
    assert b.train_loss == pytest.approx(a.train_loss, rel=1e-6)


def test_predictions_in_pieces_are_those_of_the_whole_batch(monkeypatch):
    made = member()
    batch = collate(MIXED, made.statistics.E0, made.device)
    told = predict(made.model, batch, training=False, stress=True)
    small_machine(monkeypatch, 400)
    said = predicted(made, MIXED, batch, stress=True)
    for a, b in zip(
        (said.energy, said.forces, said.stress), (told.energy, told.forces, told.stress), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-10)


def test_dynamics_go_on_in_pieces_with_the_same_forces(caplog):
    models = [m.frozen_copy() for m in tiny.ensemble(default_dtype="float64").members]
    frames = [f.frame for f in [*ethanol(3, 0), *copper(2, 0), *water(3, 1)]]
    whole = Committee(models).evaluate(frames)
    committee, tried = Committee(models), []
    real = committee.evaluator

    class Limited:
        members = 2

        def __call__(self, graph, *, strain):
            tried.append(len(graph.sender))
            if tried[-1] > 300:
                raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")
            return real(graph, strain=strain)

    committee.evaluator = Limited()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            said = committee.evaluate(frames)
            torch.testing.assert_close(said.energies, whole.energies, rtol=1e-12, atol=1e-10)
            torch.testing.assert_close(said.forces, whole.forces, rtol=0, atol=1e-10)
            torch.testing.assert_close(said.stress, whole.stress, rtol=0, atol=1e-10, equal_nan=True)
    assert len(caplog.records) == 1
    assert caplog.records[0].message.startswith("dynamics: 8 structures")
    assert sum(n > 300 for n in tried) < len(tried) / 2
    assert max(tried[len(tried) // 2 + 2 :]) <= 300  # the second time nothing fails


def test_driven_dynamics_go_on_in_pieces_too():
    models = [m.frozen_copy() for m in tiny.ensemble(default_dtype="float64").members]
    frames = [f.frame for f in ethanol(4, 0)]
    positions = torch.from_numpy(np.concatenate([f.positions for f in frames]))
    cells = torch.zeros((4, 3, 3), dtype=torch.float64)
    committee = Committee(models)
    told = committee.bind(frames)(positions, cells, driving_members=[0, 0, 0, 1]).forces
    real = committee.alone(0)

    def limited(graph, *, strain):
        if len(graph.ptr) > 2:
            raise MemoryError
        return real(graph, strain=strain)

    committee._ones[0] = limited
    said = committee.bind(frames)(positions, cells, driving_members=[0, 0, 0, 1]).forces
    torch.testing.assert_close(said, told, rtol=0, atol=1e-10)


def test_one_structure_that_does_not_fit_is_one_clear_error(monkeypatch):
    made = member()
    small_machine(monkeypatch, 10)
    with pytest.raises(
        SettingsError, match=r"training of tiny: one structure with \d+ edges .* cpu .*num_channels"
    ) as e:
        backward(made, MIXED[:1], Loss(made.settings))
    assert "\n" not in str(e.value)


def test_other_errors_are_not_taken_for_lack_of_memory(monkeypatch):
    made = member()
    small_machine(monkeypatch, 10, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        backward(made, MIXED, Loss(made.settings))


def test_energy_offsets_come_out_in_pieces_as_well(monkeypatch):
    made = member()
    whole = energy_offsets.residuals(made, MIXED)

    def limited(model, batch):
        if batch.frames > 2:
            raise RuntimeError(CPU)
        return losses.energies(model, batch)

    monkeypatch.setattr(energy_offsets, "energies", limited)
    np.testing.assert_allclose(energy_offsets.residuals(made, MIXED), whole, rtol=0, atol=1e-9)
