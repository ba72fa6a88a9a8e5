"""Nothing is paid twice, nothing bad gets in, and what goes wrong is counted by its class."""

import json
import pickle
import threading
import time
from concurrent.futures import wait
from dataclasses import dataclass, field

import numpy as np
import pytest

from aims_pax.errors import Crashed, NotConverged, SetupError, Unphysical
from aims_pax.frames import Frame, Label
from aims_pax.labelling.executors.base import WorkerDied
from aims_pax.labelling.executors.inline import InlineExecutor
from aims_pax.labelling.factory import KINDS, make_executor
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.labelling.references.fhi_aims import AimsReference
from aims_pax.settings.control_in import read_control
from tests import worlds
from tests.labelling.labellers import Scripted, calculator, labeller, of_two_controls, same

FRAMES = worlds.rattled(worlds.ethanol(), 6)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


class Kept:
    """An executor that stays open for the next test: worker processes take seconds to start."""

    def __init__(self, executor):
        self.executor = executor
        self.capacity = executor.capacity
        self.outlives = executor.outlives
        self.submit = executor.submit
        self.inherit = executor.inherit

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


@pytest.fixture(scope="module", params=KINDS)
def kept(request, tmp_path_factory):
    with make_executor(request.param, 2, tmp_path_factory.mktemp("logs") / "parsl") as executor:
        yield Kept(executor)


# one contract, every executor -----------------------------------------------------------------------------

TROUBLED = """
from ase.calculators.emt import EMT
class Troubled(EMT):
    def calculate(self, atoms, *rest):
        if atoms.positions[0, 2] > 5:
            raise RuntimeError("SCF not converged")
        super().calculate(atoms, *rest)
"""


def test_the_contract_of_the_labeller(tmp_path, folder, kept):
    """Labels, store, reuse, failures and counts are the same wherever the work runs."""
    name = f"troubled_{getattr(kept.executor, 'kind', 'inline')}"
    (tmp_path / f"{name}.py").write_text(TROUBLED)
    reference = CalculatorReference(f"{name}:Troubled", {}, tmp_path)
    good = worlds.rattled(worlds.crystal(), 3)
    bad = good[0].moved(good[0].positions + np.array([0, 0, 10]))
    crowded = good[0].moved(good[0].positions * 0.1)
    truth = calculator(worlds.EMT)
    with labeller(reference, folder, kept) as it:
        assert it.capacity == kept.capacity
        futures = [it.submit(f) for f in good]
        for frame, future in zip(good, futures, strict=True):
            assert same(future.result(60), truth.label(frame))
            assert same(it.store.get(frame.id), future.result())
        with pytest.raises(NotConverged, match="SCF not converged"):
            it.submit(bad).result(60)
        with pytest.raises(Unphysical, match="apart"):
            it.submit(crowded).result(60)
        assert it.submit(good[1]).result(0).energy == futures[1].result().energy
        calls = it.calls
        assert (calls.begun, calls.finished, calls.reused, calls.refused) == (4, 3, 1, 1)
        assert calls.failed == {"NotConverged": 1}
        assert calls.seconds > 0
        assert bad.id not in it.store
    told = json.loads((it.store.folder / "method.json").read_text())
    assert told["factory"] == f"{name}:Troubled"
    assert {p.suffix for p in it.store.folder.iterdir()} == {".json"}
    assert [(e["frame"], e["class"]) for e in it.quarantine.entries()] == [
        (bad.id, "NotConverged"),
        (crowded.id, "Unphysical"),
    ]


def test_tblite_says_the_same_wherever_it_runs(folder, kept):
    xtb = calculator(worlds.XTB)
    with labeller(xtb, folder, kept) as it:
        found = [f.result(60) for f in [it.submit(frame) for frame in FRAMES[:4]]]
    for frame, label in zip(FRAMES, found, strict=False):
        here = xtb.label(frame)
        assert abs(label.energy - here.energy) < 1e-9
        np.testing.assert_allclose(label.forces, here.forces, atol=1e-9)


def test_a_task_dropped_before_it_begins_never_runs_wherever_it_would(tmp_path, folder, kept):
    """Two tasks keep the workers busy; the third is dropped while it waits."""
    if kept.capacity == 1:
        pytest.skip("inline tasks are done when they are handed out")
    text = "import time\nfrom ase.calculators.emt import EMT\n"
    text += "def make():\n    time.sleep(0.5)\n    return EMT()\n"
    (tmp_path / f"sleepy_{kept.executor.kind}.py").write_text(text)
    frames = worlds.rattled(worlds.crystal(), 4)
    reference = CalculatorReference(f"sleepy_{kept.executor.kind}:make", {}, tmp_path)
    with labeller(reference, folder, kept) as it:
        futures = [it.submit(f) for f in frames]
        it.drop(frames[2].id)
        for n in (0, 1, 3):
            assert futures[n].result(60)
        until(lambda: it.calls.begun == it.calls.finished == 3)
        assert frames[2].id not in it.store


# store and repetition -------------------------------------------------------------------------------------


def test_a_second_labeller_pays_nothing(folder):
    with labeller(calculator(worlds.XTB), folder) as it:
        first = [it.submit(f).result() for f in FRAMES]
    with labeller(calculator(worlds.XTB), folder) as it:
        second = [it.submit(f).result() for f in FRAMES]
        assert it.calls.begun == 0
        assert it.calls.reused == len(FRAMES)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


def test_another_method_pays_again(folder):
    with labeller(calculator(worlds.XTB), folder) as it:
        it.submit(FRAMES[0]).result()
    gfn2 = {**worlds.XTB, "kwargs": {**worlds.XTB["kwargs"], "method": "GFN2-xTB"}}
    with labeller(calculator(gfn2), folder) as it:
        it.submit(FRAMES[0]).result()
        assert it.calls.finished == 1


def test_a_torn_label_is_computed_again(folder):
    with labeller(calculator(worlds.XTB), folder) as it:
        label = it.submit(FRAMES[0]).result()
        path = it.store.path(FRAMES[0].id)
        path.write_bytes(path.read_bytes()[:30])
        assert same(it.submit(FRAMES[0]).result(), label)
        assert it.calls.finished == 2


@dataclass(frozen=True)
class Slow:
    """Waits for a gate; counts. Only for executors in this process."""

    gate: threading.Event = field(default_factory=threading.Event)
    asked: list = field(default_factory=list)
    quick = True

    def describe(self):
        return {"type": "slow"}

    def check(self):
        pass

    def label(self, frame):
        self.asked.append(frame.id)
        assert self.gate.wait(20)
        return Label(-1.0, np.zeros((len(frame), 3)))

    def stop(self):
        self.gate.set()


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_frame_in_flight_is_not_computed_twice(folder):
    slow = Slow()
    with labeller(slow, folder, "threads") as it:
        futures = [it.submit(FRAMES[0]) for _ in range(5)]
        assert len({id(f) for f in futures}) == 1
        slow.gate.set()
        wait(futures)
    assert slow.asked == [FRAMES[0].id]


def test_what_is_dropped_before_it_begins_never_runs(folder):
    slow = Slow()
    with labeller(slow, folder, "threads", 1) as it:
        first, second, third = (it.submit(f) for f in FRAMES[:3])
        until(lambda: slow.asked)
        it.drop(FRAMES[1].id)
        assert second.cancelled()
        slow.gate.set()
        third.result(10)
        assert first.result(10)
        assert it.calls.begun == it.calls.finished == 2
        assert FRAMES[1].id not in it.store
    assert slow.asked == [FRAMES[0].id, FRAMES[2].id]


def test_what_is_dropped_while_it_runs_is_stored(folder):
    slow = Slow()
    with labeller(slow, folder, "threads", 1) as it:
        it.submit(FRAMES[0])
        until(lambda: slow.asked)
        it.drop(FRAMES[0].id)
        slow.gate.set()
        until(lambda: FRAMES[0].id in it.store)
        until(lambda: it.calls.finished == 1)
        assert it.submit(FRAMES[0]).result(0)
        assert it.calls.reused == 1


def test_what_is_dropped_and_wanted_again_runs_once(folder):
    slow = Slow()
    with labeller(slow, folder, "threads", 1) as it:
        it.submit(FRAMES[0])
        queued = it.submit(FRAMES[1])
        until(lambda: slow.asked)
        it.drop(FRAMES[0].id)
        it.drop(FRAMES[1].id)
        running, again = it.submit(FRAMES[0]), it.submit(FRAMES[1])
        assert queued.cancelled()
        slow.gate.set()
        assert running.result(10)
        assert again.result(10)
    assert slow.asked == [FRAMES[0].id, FRAMES[1].id]


def test_what_two_wait_for_is_not_lost_when_one_drops_it(folder):
    slow = Slow()
    with labeller(slow, folder, "threads", 1) as it:
        it.submit(FRAMES[1])
        future = it.submit(FRAMES[0])
        assert it.submit(FRAMES[0]) is future
        it.drop(FRAMES[0].id)
        slow.gate.set()
        assert future.result(10)


def test_leaving_ends_what_runs_and_forgets_what_waits(folder):
    slow = Slow()
    begun = time.monotonic()
    with labeller(slow, folder, "threads", 1) as it:
        futures = [it.submit(f) for f in FRAMES]
        until(lambda: slow.asked)
    assert time.monotonic() - begun < 5
    assert len(slow.asked) == 1
    assert all(f.cancelled() for f in futures)


def test_ctrl_c_in_an_inline_calculation_leaves_nothing_half_done(folder):
    class Interrupted(Slow):
        def label(self, frame):
            raise KeyboardInterrupt

    with labeller(Interrupted(), folder) as it:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                it.submit(FRAMES[0])
        assert it.calls.begun == 0


# failures -------------------------------------------------------------------------------------------------


def good(n=9):
    return Label(-1.0, np.zeros((n, 3)))


def outcomes(answers, folder):
    frames = worlds.rattled(worlds.ethanol(), len(answers), seed=7)
    with labeller(Scripted(list(answers)), folder) as it:
        return [type(it.submit(f).exception()).__name__ for f in frames], it.calls, it


def test_a_nan_label_is_a_failure_and_never_stored(folder):
    nan = Label(-1.0, np.full((9, 3), np.nan))
    kinds, calls, it = outcomes([nan, good(8), Label(1e9, np.zeros((9, 3))), good()], folder)
    assert kinds == ["NotFinite", "WrongShape", "Unphysical", "NoneType"]
    assert calls.failed == {"NotFinite": 1, "WrongShape": 1, "Unphysical": 1}
    assert len(list(it.store.ids())) == 1


def test_a_frame_with_nan_costs_no_call(folder):
    frame = FRAMES[0]
    broken = Frame(frame.numbers, np.full((9, 3), np.nan))
    with labeller(Scripted([]), folder) as it:
        assert isinstance(it.submit(broken).exception(), Unphysical)
        assert (it.calls.begun, it.calls.refused) == (0, 1)


def test_the_first_five_failing_alike_stop_the_run_and_say_what_to_do(folder):
    answers = [Crashed(f"exit code 2: step {i}", f"/calc/{i}") for i in range(9)]
    kinds, calls, it = outcomes(answers, folder)
    assert kinds == ["Crashed"] * 4 + ["SetupError"] * 5
    assert calls.begun == 5  # nothing is paid after the verdict
    error = it._broken
    for words in ("no reference calculation has worked", "step 4", "/calc/4", "by hand"):
        assert words in str(error)


def test_hard_structures_after_a_restart_do_not_mean_that_nothing_works(folder):
    assert outcomes([good()], folder)[0] == ["NoneType"]
    frames = worlds.rattled(worlds.ethanol(), 9, seed=8)
    with labeller(Scripted([NotConverged("b")] * 9), folder) as it:
        assert {type(it.submit(f).exception()) for f in frames} == {NotConverged}
    with labeller(Scripted([Crashed("no licence")] * 9), folder) as it:
        errors = [it.submit(f).exception() for f in worlds.rattled(worlds.ethanol(), 9, seed=9)]
    assert "no reference calculation has worked since this start: the last 5 failed" in str(errors[-1])


def test_different_failures_or_one_success_do_not_stop_the_run(folder):
    mixed = [Crashed("a"), NotConverged("b")] * 5
    assert set(outcomes(mixed, folder)[0]) == {"Crashed", "NotConverged"}
    later = [good(), *(NotConverged("b") for _ in range(30))]
    assert "SetupError" not in outcomes(later, folder / "2")[0]


def test_a_program_that_stops_working_later_stops_the_run_too(folder):
    kinds, _, it = outcomes([good(), *(Crashed("gone") for _ in range(25))], folder)
    assert kinds[1:20] == ["Crashed"] * 19
    assert kinds[20:] == ["SetupError"] * 6
    assert "has stopped working" in str(it._broken)


def test_a_setup_error_is_everybodys_at_once(folder):
    kinds, calls, _ = outcomes([SetupError("no binary"), good(), good()], folder)
    assert kinds == ["SetupError"] * 3
    assert calls.begun == 1


class Mortal(InlineExecutor):
    """Loses its first tasks with their workers."""

    def __init__(self, deaths):
        self.deaths = deaths

    def submit(self, function, *args):
        self.deaths -= 1
        return super().submit(function, *args) if self.deaths < 0 else super().submit(self.die)

    @staticmethod
    def die():
        raise WorkerDied("signal 9")


@pytest.mark.parametrize(("deaths", "outcome"), [(1, None), (2, "Crashed")])
def test_a_frame_is_tried_again_when_its_worker_died_but_not_for_ever(folder, deaths, outcome):
    with labeller(Scripted([good()]), folder, Mortal(deaths)) as it:
        error = it.submit(FRAMES[0]).exception(5)
        assert (error and type(error).__name__) == outcome
        assert it.calls.begun == 1
        assert it.calls.finished == (outcome is None)


def test_a_mistake_in_our_own_code_is_not_mistaken_for_a_bad_frame(folder):
    kinds, _, _ = outcomes([ZeroDivisionError("ours"), good()], folder)
    assert kinds == ["ZeroDivisionError", "NoneType"]


# FHI-aims through the whole room --------------------------------------------------------------------------


def test_thirty_percent_faults_leave_only_right_labels(tmp_path, folder):
    (tmp_path / "control.in").write_text(worlds.CONTROL)
    faults = "unconverged+unconverged-goodbye+crash+segfault+truncated+nan+stars+huge-force:0.3"
    reference = AimsReference(
        control=read_control(tmp_path / "control.in"),
        species_dir=worlds.write_species(tmp_path / "species"),
        launch=worlds.launch("emt", faults),
        calc_dir=tmp_path / "calc",
    )
    frames = worlds.rattled(worlds.dimer("Cu", 2.5), 30)
    truth = calculator(worlds.EMT)
    with labeller(reference, folder, "threads") as it:
        futures = [it.submit(f) for f in frames]
        failed = {f.id: future.exception(60) for f, future in zip(frames, futures, strict=True)}
        calls = it.calls
    assert sum(calls.failed.values()) + calls.finished == 30
    assert 3 <= sum(calls.failed.values()) <= 18
    assert {f.id for f in frames if failed[f.id] is None} == set(it.store.ids())
    for frame in frames:
        if failed[frame.id] is None:
            label = it.store.get(frame.id)
            exact = truth.label(frame)
            assert abs(label.energy - exact.energy) < 1e-6
            np.testing.assert_allclose(label.forces, exact.forces, atol=1e-6)
        else:
            assert failed[frame.id].folder.endswith(f"{frame.id}.{it.method}.tar.gz")
    packed = list((tmp_path / "calc").iterdir())
    assert [p.name for p in packed] == ["failed"]


def test_leaving_kills_a_running_aims(tmp_path, folder):
    (tmp_path / "control.in").write_text(worlds.CONTROL)
    reference = AimsReference(
        control=read_control(tmp_path / "control.in"),
        species_dir=worlds.write_species(tmp_path / "species"),
        launch=worlds.launch("emt", seconds=300),
        calc_dir=tmp_path / "calc",
    )
    begun = time.monotonic()
    with labeller(reference, folder, "threads") as it:
        future = it.submit(worlds.dimer("Cu", 2.5))
        until(lambda: list((tmp_path / "calc").glob("*/aims.out")))
    assert future.cancelled()
    assert time.monotonic() - begun < 10
    assert list((tmp_path / "calc").iterdir()) == []


def test_errors_cross_processes_with_their_folder():
    error = pickle.loads(pickle.dumps(Crashed("why", "/where")))
    assert (error.reason, error.folder) == ("why", "/where")


def test_an_isolated_atom_has_a_method_of_its_own(tmp_path, folder):
    reference = of_two_controls(tmp_path)
    atom = Frame([29], np.zeros((1, 3)), spin=2, moments=[1.0])
    with labeller(reference, folder, "threads") as it:
        label = it.submit(atom, atom=True).result(30)
        assert same(it.known(atom, atom=True), label)
        assert it.known(atom, "molecule") is None
        names = {it.method_of("cell"), it.method_of("molecule"), it.method_of(atom=True)}
        assert len(names) == 3
        described = json.loads((folder / "labels" / it.method_of(atom=True) / "method.json").read_text())
        assert "k_grid" not in str(described["control"])


def test_labels_of_geometries_with_their_own_control_are_kept_apart(tmp_path, folder):
    reference = of_two_controls(tmp_path)
    with labeller(reference, folder, "threads") as it:
        it.check_elements([29, 8])
        with pytest.raises(SetupError, match="02_He_default"):
            it.check_elements([2])
        assert it.submit(worlds.crystal(), "cell").result(30)
        assert it.submit(worlds.water(), "molecule").result(30)
        assert isinstance(it.submit(worlds.water()).exception(), SetupError)
    assert sorted(len(list(m.glob("*.json"))) for m in (folder / "labels").iterdir()) == [2, 2]
