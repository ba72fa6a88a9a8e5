"""Members that learn a difference: built, loaded with their baseline, sent to other processes, refused without it."""

import json
import pickle
import sys

import numpy as np
import pytest
import yaml

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, LabelledFrame
from aims_pax.md.propagate import advance
from aims_pax.md.state import MDState
from aims_pax.models.base import MemberData
from aims_pax.models.delta import DeltaModel, baseline_file, is_difference
from aims_pax.models.kinds import kind_of_file, model_kind
from aims_pax.parallel.dynamics import EnsembleSource, MDPool
from aims_pax.potential import calculate
from aims_pax.potentials.baseline import Baseline
from aims_pax.potentials.delta_kind import TARGET, DeltaKind, baseline_of, without_atoms_of
from tests.cheap_baseline import Cheap
from tests.md.settings import langevin
from tests.models.linear_model import LinearMember, LinearModel
from tests.models.mace import tiny
from tests.settings.folders import MACE, PROJECT, read
from tests.worlds import rattled, water

CHEAP = {"factory": "tests.cheap_baseline:Cheap", "kwargs": {"scale": 0.8}}
LINEAR = "tests.models.linear_model:KIND"
DOUBLE = {"default_dtype": "float64", "inference": "torch"}
OFFSET = """\
from tests.cheap_baseline import Cheap

class Offset(Cheap):
    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        for name in ("energy", "free_energy"):
            self.results[name] -= 7.0 * len(self.atoms)
"""


def settings(folder, baseline=CHEAP, energies=None, model=None):
    text = PROJECT + f"  baseline: {json.dumps(baseline)}\n"
    if model is not None:
        text += yaml.safe_dump({"MODEL": {"kind": model}})
    return read(folder, text, MACE + f"ARCHITECTURE:\n  atomic_energies: {json.dumps(energies)}\n")


@pytest.fixture
def offset(tmp_path):
    """A baseline of the user's own whose atoms have −7 eV."""
    (tmp_path / "offset_module.py").write_text(OFFSET)
    yield {"factory": "offset_module:Offset"}
    sys.modules.pop("offset_module", None)


def linear(folder, path=None, baseline=CHEAP):
    """A quick model of differences of water, and its file."""
    frames = [LabelledFrame(f, calculate(f, Cheap(scale=1.0))) for f in rattled(water(), 12, 0.05)]
    model = DeltaModel(
        LinearModel([LinearMember("one", 1)], (1, 8)), Baseline(baseline, folder), (LINEAR, None)
    )
    model.train({0: MemberData(frames[:10], frames[10:])}, 1)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(0, path)
    return model


def mace(tmp_path):
    return DeltaModel(tiny.ensemble(**DOUBLE), Baseline(CHEAP, tmp_path), ("mace", None))


def test_it_is_its_inner_kind_but_for_title_files_and_exports():
    inner, kind = model_kind(LINEAR), DeltaKind(LINEAR)
    assert (kind.title, kind.suffix) == (f"Δ-learning {inner.title}", ".delta.linear.npz")
    assert (kind.keys, kind.has_spread, kind.has_stress) == (inner.keys, True, False)
    assert (kind.trains_in_processes, kind.moves_in_processes, kind.begins_from_files) == (
        False,
        False,
        False,
    )
    default = DeltaKind()
    assert (default.suffix, default.forms) == (".delta.model", ())
    assert default.trains_in_processes
    assert default.moves_in_processes
    assert default.begins_from_files


# ---------------------------------------------------------------- built


def test_it_builds_its_inner_kind_with_the_baseline_of_the_settings(tmp_path):
    built = DeltaKind(LINEAR).build(settings(tmp_path, model=LINEAR), (3, 4), (1, 8))
    assert isinstance(built.inner, LinearModel)
    assert [m.seed for m in built.members] == [3, 4]
    assert built.kind == (LINEAR, None)
    assert DeltaKind(LINEAR).recorded(built) == Baseline(CHEAP, tmp_path).record()


def test_the_atoms_of_the_baseline_are_subtracted_from_the_energies_of_atoms_that_are_given(offset, tmp_path):
    given = settings(tmp_path, offset, {"H": -13.5, "O": -2040.0, "C": -1030.0})
    baseline = Baseline.of_run(given)
    assert baseline.atomic_energy(1) == pytest.approx(calculate_atom(1) - 7.0)
    found = without_atoms_of(baseline, given, (1, 8)).model.atomic_energies
    assert found == pytest.approx({"H": -13.5 - calculate_atom(1) + 7, "O": -2040 - calculate_atom(8) + 7})
    assert given.model.atomic_energies["H"] == -13.5


def calculate_atom(number):
    return calculate(Frame([number], [[0, 0, 0]]), Cheap(scale=0.8)).energy


def test_energies_of_atoms_that_are_not_given_or_not_yet_known_stay_so(offset, tmp_path):
    for energies in (None, "reference"):
        asked = settings(tmp_path, offset, energies)
        assert without_atoms_of(Baseline.of_run(asked), asked, (1, 8)) is asked


@pytest.mark.parametrize("energies", ["reference", {"Fe": -34000.0}])
def test_a_baseline_without_the_atom_is_refused_also_before_the_energies_are_known(energies, tmp_path):
    asked = settings(tmp_path, CHEAP, energies)
    said = (
        r"subtracted, and .*Cheap\(scale=0\.8\) gives none of Fe \(.*No EMT-potential for Fe.*remove the key"
    )
    with pytest.raises(SettingsError, match=said):
        without_atoms_of(Baseline.of_run(asked), asked, (26,))
    with pytest.raises(SettingsError, match=said):
        DeltaKind(LINEAR).build(asked, (1,), (26,))


# ---------------------------------------------------------------- files


def saved(tmp_path, folder="results"):
    model = mace(tmp_path)
    path = tmp_path / folder / "tiny_1.delta.model"
    path.parent.mkdir()
    model.save(0, path)
    return model, path


def test_a_file_holds_the_difference_and_its_neighbour_says_to_what(tmp_path):
    model, path = saved(tmp_path)
    known = json.loads(path.with_name("tiny_1.delta.json").read_text())
    assert known["baseline"] == CHEAP
    assert "holds only the difference" in known["about"]
    assert is_difference(path)
    kind = kind_of_file(path)
    assert isinstance(kind, DeltaKind)
    both, alone = kind.load([path], "cpu", "float64"), model_kind("mace").load([path], "cpu", "float64")
    ours = model.potential([0]).labels([water()])[0]
    assert both.labels([water()])[0].energy == pytest.approx(ours.energy, abs=1e-6)
    assert abs(alone.labels([water()])[0].energy - ours.energy) > 0.1
    assert kind.load_named(path.name, path.parent, "cpu", "float64").labels([water()])[
        0
    ].energy == pytest.approx(ours.energy, abs=1e-6)


def test_a_file_without_its_neighbour_or_with_a_changed_baseline_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("from tests.cheap_baseline import Cheap\n")
    own = Baseline({"factory": "mine:Cheap"}, tmp_path)
    model = DeltaModel(tiny.ensemble(**DOUBLE), own, ("mace", None))
    path = tmp_path / "results" / "committee" / "one.delta.model"
    path.parent.mkdir(parents=True)
    model.save(0, path)
    kind = kind_of_file(path)
    assert np.isfinite(kind.load([path], "cpu", "float64").labels([water()])[0].energy)
    (tmp_path / "mine.py").write_text("from tests.cheap_baseline import Cheap  # changed\n")
    with pytest.raises(
        SettingsError, match=r"the baseline is mine:Cheap\(\); mine.py is missing or has changed"
    ):
        kind.load([path], "cpu", "float64")
    baseline_file(path).unlink()
    with pytest.raises(SettingsError, match=r"one\.delta\.json, which says what the baseline is, is missing"):
        kind_of_file(path).load([path], "cpu", "float64")


def test_models_of_several_baselines_are_no_committee(tmp_path):
    paths = [tmp_path / "a.delta.linear.npz", tmp_path / "b.delta.linear.npz"]
    for scale, path in zip((0.8, 0.7), paths, strict=True):
        linear(tmp_path, path, {**CHEAP, "kwargs": {"scale": scale}})
    assert baseline_of(paths[1:]).described == "tests.cheap_baseline:Cheap(scale=0.7)"
    with pytest.raises(SettingsError, match=r"different baselines: .*a\.delta.*, .*b\.delta"):
        baseline_of(paths)


def test_the_files_of_a_baseline_are_looked_for_beside_the_model_and_two_folders_above(offset, tmp_path):
    for depth in range(4):
        path = tmp_path / "/".join("abc"[:depth]) / "one.delta.linear.npz"
        linear(tmp_path, path, offset)
        if depth < 3:
            assert baseline_of([path]).folder == tmp_path
        else:
            with pytest.raises(
                SettingsError, match=r"offset_module\.py is missing or has changed \(looked in"
            ):
                baseline_of([path])


def test_a_committee_of_files_predicts_the_sum_by_either_loader(tmp_path):
    path = tmp_path / "one.delta.linear.npz"
    model, kind = linear(tmp_path, path), DeltaKind(LINEAR)
    known = model.potential().labels([water()])[0]
    for load in (kind.load([path], "cpu", "float64"), kind.load_fast([path], "cpu", None, "auto")):
        assert load.labels([water()])[0].energy == pytest.approx(known.energy, abs=1e-9)
        assert load.evaluate([water()]).spread is not None


def test_what_other_programs_cannot_add_is_not_exported_and_it_is_said_what_to_do(tmp_path):
    path = tmp_path / "one.delta.linear.npz"
    said = DeltaKind(LINEAR).no_export(path, "lammps")
    assert said.startswith(
        f"{path}: cannot be exported as lammps: the file holds only the difference to a baseline, "
    )
    linear(tmp_path, path)
    said = DeltaKind(LINEAR).no_export(path, "lammps")
    assert "to the baseline tests.cheap_baseline:Cheap(scale=0.8), which other programs cannot add" in said


def test_a_run_begins_with_models_of_its_own_baseline_only(tmp_path):
    model, path = saved(tmp_path)
    kind = DeltaKind()
    (tmp_path / "run").mkdir()
    begun = kind.from_files([path], settings(tmp_path / "run"), None)
    assert isinstance(begun, DeltaModel)
    before = model.inner.potential([0]).labels([water()])[0]
    np.testing.assert_allclose(begun.inner.potential().labels([water()])[0].forces, before.forces, atol=1e-5)
    other = {**CHEAP, "kwargs": {"scale": 0.7}}
    with pytest.raises(
        SettingsError,
        match=r"is the difference to .*Cheap\(scale=0\.8\), REFERENCE\.baseline is .*Cheap\(scale=0\.7\)",
    ):
        kind.from_files([path], settings(tmp_path / "run", other), None)
    baseline_file(path).unlink()
    with pytest.raises(
        SettingsError, match=r"initial_models: .*give \.delta\.model files of the same baseline"
    ):
        kind.from_files([path], settings(tmp_path / "run"), None)


# ---------------------------------------------------------------- other processes


def test_what_is_sent_to_another_process_makes_the_same_model_there(tmp_path):
    model = mace(tmp_path)
    sent = pickle.loads(pickle.dumps(DeltaKind().serialise(model)))
    other = DeltaKind().unserialise(sent)
    assert other.kind == ("mace", None)
    assert other.baseline.store is None
    ours, theirs = (m.potential().evaluate([water()]) for m in (model, other))
    np.testing.assert_allclose(theirs.forces, ours.forces, atol=1e-9)


def test_other_processes_move_the_sum(tmp_path):
    model = mace(tmp_path)
    states = [MDState.start(f, 300.0, k) for k, f in enumerate(rattled(water(), 2))]
    md = [langevin(300.0, timestep=0.5)] * 2
    with MDPool(EnsembleSource(model, TARGET), 1) as pool:
        far = pool.advance(states, 3, md)
    near = advance(states, model.potential(), 3, md)
    for a, b in zip(far, near, strict=True):
        np.testing.assert_allclose(a.state.positions, b.state.positions, rtol=0, atol=1e-9)
        np.testing.assert_allclose(a.evaluation.forces, b.evaluation.forces, rtol=0, atol=1e-8)
