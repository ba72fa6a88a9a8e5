"""Recorded evaluations against evaluations: the recorder of the tests computes again what a GPU would replay."""

import logging

import pytest
import torch

from aims_pax.models.mace.cuda_graphs import BEFORE, CudaGraphEvaluator, record_cuda_graph
from aims_pax.models.mace.fast_forward import fast_evaluator
from aims_pax.models.mace.inference import Committee, torch_evaluator
from tests.models.mace import tiny
from tests.models.mace.test_fast_forward import DENSITY, model
from tests.models.mace.tiny import slab

CHANGES = [
    {},
    {"max_L": 2, "correlation": 3},
    {"interaction": DENSITY, "interaction_first": DENSITY},
    {"radial_type": "gaussian"},
    {"pair_repulsion": True},
]


def ethanol(n):
    return [labelled.frame for labelled in tiny.ethanol(n)]


def copper():
    return [labelled.frame for labelled in tiny.copper(1)]


def water(n):
    return [labelled.frame for labelled in tiny.water(n)]


class Recorder:
    """Counts recordings and repetitions; `wrong` is added to the slopes of every repetition."""

    def __init__(self, wrong=0.0):
        self.wrong, self.recorded, self.repeated = wrong, 0, 0

    def __call__(self, work, device):
        self.recorded += 1
        outputs = work()

        def repeat():
            self.repeated += 1
            with torch.no_grad():
                for stored, now in zip(
                    [*outputs[0], *outputs[1]], [x for xs in work() for x in xs], strict=True
                ):
                    stored.copy_(now)
                outputs[1][0].add_(self.wrong)

        return repeat, outputs


def committees(models, record):
    """The same models evaluated with recordings, and without."""
    return (
        Committee(models, evaluator=lambda some, head: CudaGraphEvaluator(fast_evaluator(some), record)),
        Committee(models),
    )


def steps(frames, n, seed=0):
    """Positions of n steps, far enough apart for neighbours to come and go, and cells that change."""
    random = torch.Generator().manual_seed(seed)
    positions = torch.cat([torch.tensor(f.positions) for f in frames])
    cells = torch.stack([torch.tensor(f.cell) for f in frames])
    for k in range(n):
        yield (
            positions + 0.15 * torch.randn(positions.shape, generator=random, dtype=torch.float64),
            cells * (1 + 0.01 * k),
        )


def same(mine, theirs, tight=True):
    close = {"rtol": 1e-12, "atol": 1e-10} if tight else {"rtol": 1e-6, "atol": 2e-5}
    torch.testing.assert_close(mine.energies, theirs.energies, **close)
    torch.testing.assert_close(mine.forces, theirs.forces, **close)
    torch.testing.assert_close(mine.stress, theirs.stress, equal_nan=True, **close)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_replayed_steps_are_those_evaluated(changes, dtype):
    frames = [*ethanol(2), *copper(), slab(), *water(1)]
    record = Recorder()
    recorded, plain = (
        c.bind(frames) for c in committees([model(dtype, seed, **changes) for seed in (1, 2)], record)
    )
    for positions, cells in steps(frames, BEFORE + 10):
        same(
            recorded(positions, cells, stress=True),
            plain(positions, cells, stress=True),
            dtype == "float64",
        )
    assert record.recorded >= 1
    assert record.repeated >= 10


def test_a_slot_that_an_edge_has_left_is_a_dummy_again():
    frames = ethanol(1)
    committee, _ = committees([model()], Recorder())
    bound = committee.bind(frames)
    edges = set()
    for positions, cells in steps(frames, BEFORE + 6):
        bound(positions, cells)
        if (recording := committee.evaluator.recording) is None:
            continue
        layout = recording.layout
        dummies = recording.vectors.norm(dim=1) > 3.5
        assert torch.equal(layout.sender[dummies], layout.receiver[dummies])
        edges.add(int((~dummies).sum()))
    assert len(edges) > 1


def test_the_driving_member_of_each_trajectory_is_recorded_too():
    frames, record = ethanol(3), Recorder()
    recorded, plain = (c.bind(frames) for c in committees([model(seed=seed) for seed in (1, 2)], record))
    for positions, cells in steps(frames, BEFORE + 3):
        asked = {"stress": True, "driving_members": (0, 1, 0)}
        same(recorded(positions, cells, **asked), plain(positions, cells, **asked))
    assert record.recorded == 2
    assert record.repeated >= 6


def test_new_weights_are_recorded_anew():
    made, frames, record = model(), ethanol(2), Recorder()
    recorded, plain = (c.bind(frames) for c in committees([made], record))
    for epoch in range(3):
        for positions, cells in steps(frames, BEFORE + 2, seed=epoch):
            same(recorded(positions, cells, stress=True), plain(positions, cells, stress=True))
        with torch.no_grad():
            for weight in made.parameters():
                weight.mul_(1.1)
    assert record.recorded == 3


def test_more_neighbours_than_slots_are_recorded_anew():
    frames, record = copper(), Recorder()
    recorded, plain = (c.bind(frames) for c in committees([model()], record))
    for positions, cells in steps(frames, 2 * BEFORE):
        same(recorded(positions, 0.8 * cells, stress=True), plain(positions, 0.8 * cells, stress=True))
        if record.recorded:
            break
    for positions, cells in steps(frames, 3):
        dense = 0.7 * positions, 0.55 * cells
        same(recorded(*dense, stress=True), plain(*dense, stress=True))
    assert record.recorded == 2


def test_structures_that_are_seen_a_few_times_are_not_recorded():
    record = Recorder()
    recorded, _ = committees([model()], record)
    for frames in [*[ethanol(1)] * BEFORE, water(2), *[ethanol(1)] * BEFORE]:
        recorded.evaluate(frames)
    assert record.recorded == 0


def test_a_large_batch_keeps_a_gpu_busy_by_itself(monkeypatch):
    monkeypatch.setattr("aims_pax.models.mace.cuda_graphs.SLOTS", 100)
    frames, record = ethanol(2), Recorder()
    recorded, plain = (c.bind(frames) for c in committees([model()], record))
    for positions, cells in steps(frames, 2 * BEFORE):
        same(recorded(positions, cells, stress=True), plain(positions, cells, stress=True))
    assert record.recorded == 0


def refusing(work, device):
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (refusing, "operation not permitted when stream is capturing"),
        (Recorder(wrong=0.1), "a replay differs by"),
        (Recorder(wrong=float("nan")), "a replay differs by nan"),
    ],
    ids=["cannot be recorded", "wrong", "not a number"],
)
def test_a_recording_that_fails_or_differs_is_not_used(record, reason, caplog):
    caplog.set_level(logging.INFO, logger="aims_pax")
    frames = ethanol(2)
    recorded, plain = (c.bind(frames) for c in committees([model()], record))
    for positions, cells in steps(frames, BEFORE + 4):
        same(recorded(positions, cells, stress=True), plain(positions, cells, stress=True))
    assert [r.message for r in caplog.records if "CUDA graphs" in r.message and reason in r.message] != []
    assert sum("CUDA graphs" in r.message for r in caplog.records) == 1


def test_a_structure_that_cannot_be_evaluated_does_not_end_recordings():
    frames, record = ethanol(2), Recorder()
    recorded, plain = (c.bind(frames) for c in committees([model()], record))
    for positions, cells in steps(frames, BEFORE + 4):
        positions[0] = positions[1]  # two atoms at one place
        same_or_nan(recorded(positions, cells), plain(positions, cells))
    assert record.recorded == 1
    assert record.repeated > 1


def same_or_nan(mine, theirs):
    assert not theirs.forces[:, :9].isfinite().all()
    torch.testing.assert_close(mine.forces, theirs.forces, equal_nan=True, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(mine.energies, theirs.energies, equal_nan=True, rtol=1e-12, atol=1e-10)


def test_only_a_gpu_has_recordings():
    assert not isinstance(torch_evaluator([model()], cuda_graphs=True), CudaGraphEvaluator)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_replays_what_it_evaluates():
    made = model("float32").to("cuda")
    chosen = [
        Committee([made], "cuda", evaluator=lambda some, head, on=on: torch_evaluator(some, head, on))
        for on in (True, False)
    ]
    frames = ethanol(2)
    recorded, plain = (c.bind(frames) for c in chosen)
    for positions, cells in steps(frames, BEFORE + 10):
        on = positions.to("cuda"), cells.to("cuda")
        same(recorded(*on, stress=True), plain(*on, stress=True), tight=False)
    assert chosen[0].evaluator.recording is not None
    assert chosen[0].evaluator._record is record_cuda_graph
