"""Compiled steps in the cache on disk: made once, loaded by others, and whatever fails ends in eager training."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from aims_pax.models.mace import compile_cache, compiled_step
from aims_pax.models.mace.ensemble import Ensemble, MemberData
from aims_pax.models.mace.fast_forward import evaluate_fast, fast_mace
from aims_pax.models.mace.training_workers import TrainingPool
from tests.models.mace.micro import ELEMENTS, MICRO, batch, micro, micro_and_traced
from tests.models.mace.tiny import copper, settings, water


@pytest.fixture(scope="module")
def model():
    return micro_and_traced()[0]


@pytest.fixture(scope="module")
def traced():
    return micro_and_traced()[1]


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """No memory of earlier visits, an empty cache."""
    monkeypatch.setenv("AIMS_PAX_CACHE", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr(compile_cache, "_headers", lambda: tmp_path / "headers")
    for name, value in (("_known", {}), ("_said", set()), ("_notes", [])):
        monkeypatch.setattr(compile_cache, name, value)
    yield tmp_path / "compiled" / compile_cache._processor()
    compile_cache._active.clear()


def pair():
    return [batch(water(2)), batch(water(1))]


def prepared(model, how="wait"):
    """What a visit is told: (step, kinds of notes)."""
    compile_cache.prepare(model, pair, how, strain=True)
    return compile_cache.step_of(fast_mace(model)), [kind for kind, _ in compile_cache.taken_notes()]


def test_never_and_not_ready_are_eager_without_a_word(fresh, model):
    assert prepared(model, "never") == (None, [])
    assert prepared(model, "ready") == (None, [])


def test_waiting_compiles_once_and_leaves_a_mark_for_other_processes(fresh, monkeypatch, model, traced):
    made = []
    monkeypatch.setattr(compile_cache, "Step", lambda quick: made.append(quick) or traced)
    step, notes = prepared(model)
    assert (step, notes) == (traced, ["compiled"])
    assert prepared(model) == (step, [])
    assert prepared(model, "never") == (None, [])
    assert len(made) == 1
    assert compile_cache.is_ready(compile_cache.signature(fast_mace(model)))
    monkeypatch.setattr(compile_cache, "_known", {})
    monkeypatch.setattr(compile_cache, "_gain", lambda *_: 1.8)
    assert prepared(model, "ready") == (compile_cache.step_of(fast_mace(model)), ["compiled"])


def test_what_is_slower_is_not_used_by_auto(fresh, monkeypatch, model, traced):
    monkeypatch.setattr(compile_cache, "Step", lambda _: traced)
    monkeypatch.setattr(compile_cache, "_gain", lambda *_: 0.7)
    compile_cache.cache_folder()
    (fresh / compile_cache.signature(fast_mace(model))).touch()
    assert prepared(model, "ready") == (None, ["slow"])


def test_a_failing_compiler_leaves_training_eager_with_one_line(fresh, monkeypatch, caplog):
    def backend(graph, inputs):
        raise RuntimeError("no such instruction")

    made = []

    def failing(quick):
        made.append(quick)
        return compiled_step.Step(quick, backend)

    monkeypatch.setattr(compile_cache, "Step", failing)
    e = Ensemble.build(settings(**MICRO, compile="always"), [1, 2], (1, 8))
    assert e.compiled == "wait"
    with caplog.at_level(logging.INFO, logger="aims_pax"):
        e.train({m: MemberData(water(3)) for m in (0, 1)}, 1, words=("visit",))
    said = [r.message for r in caplog.records if "uncompiled" in r.message]
    assert len(said) == 1
    assert "no such instruction" in said[0]
    assert len(made) == 1
    plain = Ensemble.build(settings(**MICRO, compile="never"), [1, 2], (1, 8))
    plain.train({m: MemberData(water(3)) for m in (0, 1)}, 1, words=("visit",))
    for name, array in plain.arrays().items():
        np.testing.assert_array_equal(e.arrays()[name], array)


def test_a_mismatch_leaves_training_eager_and_says_which_gradient_and_by_how_much(
    fresh, monkeypatch, model, traced
):
    def wrong(quick, graph, *, strain):
        e, F, s = traced(quick, graph, strain=strain)
        return e, F.detach(), s

    monkeypatch.setattr(compile_cache, "Step", lambda _: wrong)
    compile_cache.prepare(model, pair, "wait", strain=True)
    assert compile_cache.step_of(fast_mace(model)) is None
    ((kind, text),) = compile_cache.taken_notes()
    assert kind == "failed"
    assert "gradient of" in text


def test_without_a_compiler_training_is_eager(fresh, monkeypatch, model):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compile_cache.reason_against() == "there is no C++ compiler (g++)"
    assert prepared(model) == (None, ["failed"])


@pytest.mark.slow
def test_what_a_training_process_has_to_say_is_in_the_log_once(fresh, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    e = Ensemble.build(settings(**MICRO, compile="always"), [1, 2], (1, 8))
    data = {m: MemberData(water(3)) for m in (0, 1)}
    with caplog.at_level(logging.INFO, logger="aims_pax"), TrainingPool(2) as pool:
        for n in (0, 1):
            e.take(e.train_elsewhere(pool, data, 1, words=("visit", n)).result(200))
    said = [r.message for r in caplog.records if "uncompiled" in r.message]
    assert said == [
        "training runs uncompiled, the compiled step cannot be used: Unavailable: there is no C++ compiler (g++)"
    ]


def test_code_is_never_loaded_from_folders_others_may_write_to(fresh, monkeypatch, tmp_path):
    assert compile_cache.reason_against() is None
    for folder in (fresh, fresh.parent):
        folder.chmod(0o777)
        assert f"{folder}: others may write" in compile_cache.reason_against()
        assert not compile_cache.is_ready("anything")
        folder.chmod(0o700)
    headers = tmp_path / "shared"
    headers.mkdir()
    headers.chmod(0o770)
    monkeypatch.setattr(compile_cache, "_headers", lambda: headers)
    assert f"{headers}: others may write" in compile_cache.reason_against()


def test_another_processor_has_a_folder_of_its_own(fresh, monkeypatch):
    here = compile_cache.cache_folder()
    monkeypatch.setattr(compile_cache, "_processor", lambda: "another")
    assert compile_cache.cache_folder() != here


def test_readouts_with_other_nonlinearities_are_another_graph():
    two = MICRO | {"num_interactions": 2}  # the last readout is the one that has a gate
    models = [
        Ensemble.build(settings(**two, gate=gate), [1], (1, 8)).members[0].model for gate in ("silu", "tanh")
    ]
    assert len({compile_cache.signature(fast_mace(model)) for model in models}) == 2


def test_sizes_that_would_be_compiled_anew_are_evaluated_eagerly(fresh, model):
    class Refuses:
        def __call__(self, *_, **__):
            raise RuntimeError("Detected recompile when torch.compile stance is 'fail_on_recompile'")

    quick, graph = fast_mace(model), batch(water(2))
    compile_cache._active[quick] = Refuses()
    ours = compile_cache.evaluate_trained(quick, graph, strain=True)
    assert torch.equal(ours[1], evaluate_fast(quick, graph, training=True, strain=True)[1])


class Broken(torch.autograd.Function):
    """The identity, until its gradient is asked for."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("expected size 3==3, stride 9==4 at dim=0")


def test_a_compiled_step_that_fails_in_its_gradient_is_repeated_eagerly_with_one_line(
    fresh, monkeypatch, caplog
):
    class Breaks:
        calls = 0

        def __call__(self, quick, graph, *, strain):
            self.calls += 1
            e, forces, dE = evaluate_fast(quick, graph, training=True, strain=strain)
            return (e if self.calls <= 2 else Broken.apply(e)), forces, dE  # two comparisons go well

    monkeypatch.setattr(compile_cache, "Step", lambda quick: Breaks())
    weights = []
    for how in ("wait", "never"):
        e = Ensemble.build(settings(**MICRO), [1], (1, 8))
        e.compiled = how
        with caplog.at_level(logging.INFO, logger="aims_pax"):
            e.train({0: MemberData(water(3))}, 2, words=("visit",))
        weights.append(e.members[0].arrays())
    assert all(
        np.array_equal(weights[0][k], weights[1][k], equal_nan=True)
        for k in weights[0]
        if k.startswith("param")
    )
    said = [r.message for r in caplog.records if "uncompiled" in r.message]
    assert len(said) == 1
    assert "a compiled step has failed: RuntimeError: expected size" in said[0]


def test_running_out_of_memory_is_not_taken_for_that(fresh, model):
    class Full:
        def __call__(self, *_, **__):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    compile_cache._active[fast_mace(model)] = Full()
    with pytest.raises(RuntimeError, match="allocate memory"):
        compile_cache.evaluate_trained(fast_mace(model), batch(water(2)), strain=True)


def test_signatures_tell_architectures_apart_and_members_not(model):
    def of(made):
        return compile_cache.signature(fast_mace(made))

    assert of(model) == of(micro(seed=5))
    others = [micro(num_channels=8), micro(default_dtype="float32"), micro(r_max=4.0), micro(elements=(1, 8))]
    assert len({of(model), *map(of, others)}) == 5


def test_a_process_aside_ends_with_its_driver(fresh):
    code = (
        "import sys, time, torch\n"
        "from aims_pax.models.mace.compile_cache import BackgroundCompile\n"
        "print(BackgroundCompile(torch.nn.Linear(1, 1)).process.pid, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as driver:
        pid = int(driver.stdout.readline())
        os.kill(pid, 0)
        driver.send_signal(signal.SIGKILL)
    _until(lambda: _state(pid) == "Z", 60)


BUSY = (
    "import os, sys, time\n"
    "from aims_pax.models.mace import compile_cache\n"
    "compile_cache.step_back()\n"
    "print(os.sched_getscheduler(0), os.nice(0), flush=True)\n"
    "while True: sum(range(10000))"
)


def _seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux only")
def test_a_process_aside_leaves_a_busy_core_to_others():
    """In a session of its own, as `BackgroundCompile` starts it; sharing one core with somebody else's session."""
    core = min(os.sched_getaffinity(0))

    def start(code):
        return subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )  # fmt: skip

    with start(BUSY) as aside, start("print(flush=True)\nwhile True: sum(range(10000))") as run:
        try:
            assert aside.stdout.readline().split() == [str(os.SCHED_IDLE), "19"]
            run.stdout.readline()
            before = [_seconds(p.pid) for p in (aside, run)]
            time.sleep(3)
            took, left = (_seconds(p.pid) - b for p, b in zip((aside, run), before, strict=True))
        finally:
            aside.kill()
            run.kill()
    assert left > 0.3  # others use the machine, too
    assert took < 0.15 * left


def test_a_process_aside_rests_and_goes_on(fresh):
    aside = compile_cache.BackgroundCompile(torch.nn.Linear(1, 1))
    try:
        aside.rest(True)
        _until(lambda: _state(aside.process.pid) == "T", 10)
        aside.rest(False)
        _until(lambda: _state(aside.process.pid) not in ("T",), 10)
        aside.rest(True)
    finally:
        aside.close()  # also while it rests
    aside.rest(False)  # nothing to do any more


def test_a_process_aside_says_why_it_cannot_compile(fresh, caplog):
    caplog.set_level("INFO", logger="aims_pax")
    aside = compile_cache.BackgroundCompile(torch.nn.Linear(1, 1))
    assert aside.process.wait(60) == 1
    _until(lambda: "MACE's own modules evaluate this architecture" in caplog.text, 10)


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def _until(true, seconds):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(compile_cache.compiler() is None, reason="no C++ compiler")
def test_the_whole_way_aside_then_loaded_by_a_worker_and_by_this_process(fresh):
    """A process aside compiles, a training process and this one load it; the weights stay those of eager visits."""
    ends = {}
    for how in ("never", "ready"):
        e = Ensemble.build(settings(**MICRO, compile="never"), [1, 2], ELEMENTS)
        if how == "ready":
            aside = compile_cache.BackgroundCompile(e.members[0].model)
            assert aside.process.wait(900) == 0
            assert compile_cache.is_ready(compile_cache.signature(fast_mace(e.members[0].model)))
            e.compiled = "wait"  # a model this small is not faster compiled
        data = {m: MemberData(water(6) + copper(3), water(2, 5)) for m in (0, 1)}
        with TrainingPool(1) as pool:
            e.take(e.train_elsewhere(pool, data, 3, words=("visit", 0)).result(900))
        e.train(data, 3, words=("visit", 1))
        ends[how] = e.arrays()
    assert compile_cache.step_of(fast_mace(e.members[0].model)) is not None
    assert compile_cache._said == {"compiled"}
    for k, v in ends["never"].items():
        if "/param/" in k:
            np.testing.assert_allclose(ends["ready"][k], v, rtol=0, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"default_dtype": "float32", "compute_stress": False}, {"max_L": 1, "max_ell": 2, "correlation": 2}],
    ids=str,
)
def test_other_architectures_compile_too(fresh, changes):
    made = micro(**changes)
    dtype = getattr(torch, settings(**MICRO | changes).general.default_dtype)
    compile_cache.prepare(
        made, lambda: [batch(water(3) + copper(2), dtype=dtype), batch(water(1), dtype=dtype)], "wait",
        strain=True,
    )  # fmt: skip
    assert [kind for kind, _ in compile_cache.taken_notes()] == ["compiled"]
