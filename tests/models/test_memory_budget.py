"""Memory: what is available, what an evaluation needs, and that dynamics stay within the limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from aims_pax.models import memory_budget
from aims_pax.models.batch_splitting import batch_splitter
from aims_pax.models.mace.gradients import backward
from aims_pax.models.mace.graphs import GraphCache
from aims_pax.models.mace.inference import Committee, TorchEvaluator, random_graph
from aims_pax.models.mace.losses import Loss
from tests.models.mace import tiny
from tests.models.mace.test_gradients import ELEMENTS, member
from tests.models.mace.tiny import copper, ethanol, water
from tests.sweeps import thinned

MB = 1e6


pytestmark = pytest.mark.usefixtures("fresh_limits")


def models(**changes):
    return [m.frozen_copy() for m in tiny.ensemble(**changes).members]


# ---------------------------------------------------------------- what there is


def test_a_control_group_leaves_its_limit_less_what_is_used_and_cannot_be_dropped(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/slurm/job_7/step\n")
    for name, most, now, cache in (
        ("slurm", "max", 9e9, 0),
        ("slurm/job_7", 2_000_000_000, 1_500_000_000, 250_000_000),
        ("slurm/job_7/step", 8_000_000_000, 1_000_000_000, 0),
    ):
        folder = tmp_path / "fs" / name
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{now:.0f}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\nactive_file 9\n")
    assert memory_budget._cgroups(own, tmp_path / "fs") == 750_000_000


def test_control_groups_of_version_1_are_read_as_well(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("3:cpu,cpuacct:/job\n5:memory:/job\n")
    folder = tmp_path / "fs" / "memory" / "job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("4000000000")
    (folder / "memory.usage_in_bytes").write_text("1000000000")
    (folder / "memory.stat").write_text("cache 1\ntotal_inactive_file 500000000\n")
    assert memory_budget._cgroups(own, tmp_path / "fs") == 3.5e9
    assert memory_budget._cgroups(tmp_path / "none", tmp_path / "fs") == float("inf")


def test_the_limit_is_half_of_what_is_available_and_the_same_when_asked_again(monkeypatch):
    monkeypatch.setattr(memory_budget, "available_memory", lambda device="cpu": 23.4e9)
    memory_budget.forget_measurement()
    assert memory_budget.limit() == 2.0**33  # the power of two below 11.7 GB
    monkeypatch.setattr(memory_budget, "available_memory", lambda device="cpu": 3e9)
    assert memory_budget.limit() == 2.0**33
    memory_budget.forget_measurement()
    monkeypatch.setenv(memory_budget.ENVIRONMENT, "1234567.0")  # a process that another one has started
    assert memory_budget.limit() == 1234567.0
    assert not memory_budget.is_set_by_user()


def test_this_machine_has_memory_and_says_so():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 50 * MB < memory_budget.available_memory() <= total


# ---------------------------------------------------------------- what an evaluation needs


@pytest.mark.parametrize("by", ["ours", "modules"])
@pytest.mark.parametrize(
    ("shape", "n", "k"),
    [
        ({}, 300, 24),
        ({"num_channels": 24, "max_L": 0, "max_ell": 3, "correlation": 3}, 100, 60),
        ({}, 500, 8),
    ],
)
def test_the_need_of_a_large_evaluation_is_known_from_small_ones(by, shape, n, k):
    chosen = models(inference="torch", **shape)
    evaluator = Committee(chosen).evaluator if by == "ours" else TorchEvaluator(chosen)
    need = memory_budget.measured(lambda n, k: evaluator(random_graph(n, k, 3.5, "cpu"), strain=True), k)
    graph = random_graph(n, k, 3.5, "cpu")
    truth = memory_budget.FOUND * memory_budget.peak(lambda: evaluator(graph, strain=True))
    assert need.atom * n + need.edge * n * k == pytest.approx(truth, rel=0.25)


def test_the_peak_counts_what_lives_at_the_same_time():
    def work():
        a = torch.ones(1000, dtype=torch.float64) * 2
        b = a + 1
        del a
        return (b * 3).sum()

    # two of the vectors at a time, not three
    assert memory_budget.peak(work) == pytest.approx(16_000, abs=9000)


def test_on_a_gpu_memory_released_meanwhile_does_not_hide_the_need(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 500_000)
    work = partial(torch.ones, 1000, dtype=torch.float64)
    for most, peak in ((500_100, 8_000), (590_000, 90_000)):  # after a release; with workspace
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device, most=most: most)
        assert memory_budget.peak(work, "cuda") == peak


# ---------------------------------------------------------------- pieces


def test_a_training_batch_is_cut_before_memory_runs_out(monkeypatch):
    made = member()
    graphs = GraphCache(ELEMENTS, 3.5, torch.float64).of([*ethanol(3, 0), *copper(2, 0), *water(3, 1)])
    loss = Loss(made.settings)
    value = backward(made, graphs, loss)
    whole = [None if w.grad is None else w.grad.clone() for w in made.weights]
    batch_splitter.cache_clear()
    memory_budget.allow(12 * MB, written=True)
    assert float(backward(made, graphs, loss)) == pytest.approx(float(value), rel=1e-12)
    limit = batch_splitter(f"training of {made.settings.general.name_exp}", "cpu").limit
    assert 10 < limit < sum(g.edges.shape[1] for g in graphs)
    for weight, g in zip(made.weights, whole, strict=True):
        if g is not None:
            torch.testing.assert_close(weight.grad, g, rtol=1e-9, atol=1e-9)
    largest = max(g.edges.shape[1] for g in graphs)
    taken = memory_budget.peak(lambda: backward(made, graphs, loss))
    assert limit < largest or taken < 12 * MB


# ---------------------------------------------------------------- the law, by the kernel's count


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("inference", thinned(["torch", "native"], 2))
def test_dynamics_of_a_large_batch_stay_within_the_limit(inference):
    if inference == "native":
        from aims_pax.models.mace.native import absent

        if absent():
            pytest.skip("the extra 'fast' is not installed")
    script = Path(__file__).parents[2] / "benchmarks" / "md_memory.py"

    def peak(limit: float) -> float:
        asked = json.dumps({"inference": inference, "n": 16, "limit": limit})
        done = subprocess.run(
            [sys.executable, script, "--row", asked, "--steps", "1", "--channels", "8", "--repeat", "3"],
            check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])["peak"]

    limit = 0.1 if inference == "torch" else 0.05  # GB; one structure takes a sixth of it
    assert peak(1000.0) > 2.5 * limit
    assert peak(limit) < limit + 0.03  # what libraries load at the first step
