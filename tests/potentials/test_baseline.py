"""The baseline: its labels are stored and checked; where it fails or jumps, one frame or trajectory suffers."""

import json
import pickle

import numpy as np
import pytest
import torch

from aims_pax.errors import LabelError, NotConverged, SettingsError, SetupError, Unsupported
from aims_pax.frames import Frame
from aims_pax.potential import CalculatorPotential
from aims_pax.potentials.baseline import STEP, Baseline
from tests.cheap_baseline import Cheap
from tests.worlds import crystal, rattled, water

MODULE = "tests.cheap_baseline"
STRETCHED = water().moved(water().positions * 1.6)


def baseline(tmp_path, name="Cheap", store=True, **kwargs):
    spec = {"factory": f"{MODULE}:{name}", "kwargs": kwargs}
    return Baseline(spec, tmp_path, store=tmp_path / "data" / "baseline" if store else None)


def calls(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def counted(tmp_path, monkeypatch):
    monkeypatch.setenv("CHEAP", str(tmp_path / "calls.log"))
    return tmp_path / "calls.log"


def bound(base, frames):
    made = base.bind(frames)

    def call(moved=frames, **asked):
        x = torch.tensor(np.concatenate([f.positions for f in moved]))
        return made(x, torch.tensor(np.stack([f.cell for f in moved])), **asked)

    return call


def test_labels_are_those_of_the_calculator_and_are_computed_once(tmp_path, counted):
    frames = rattled(water(), 3)
    first = baseline(tmp_path)
    said = [first.label(f) for f in frames]
    truth = CalculatorPotential(lambda: Cheap(scale=0.8)).labels(frames)
    assert [a.energy for a in said] == [b.energy for b in truth]
    n = calls(counted)
    assert n == 2 * 3 + 3, "each label is checked by a second evaluation"
    first.label(frames[0])
    again = baseline(tmp_path)
    assert all(np.array_equal(again.label(f).forces, a.forces) for f, a in zip(frames, said, strict=True))
    assert [b.energy for b in again.labels(frames)] == [a.energy for a in said]
    assert calls(counted) == n
    baseline(tmp_path, scale=0.7).label(frames[0])
    assert calls(counted) == n + 2, "another baseline has other labels"
    (method,) = {
        p.parent
        for p in (tmp_path / "data" / "baseline" / "labels").glob("*/*.json")
        if again.identity in str(p)
    }
    assert json.loads((method / "method.json").read_text())["baseline"]["factory"] == f"{MODULE}:Cheap"


def test_a_module_of_the_user_that_was_edited_is_another_baseline(tmp_path):
    (tmp_path / "mine.py").write_text("from ase.calculators.emt import EMT\n")
    one = Baseline({"factory": "mine:EMT"}, tmp_path).identity
    (tmp_path / "mine.py").write_text("from ase.calculators.emt import EMT  # changed\n")
    assert Baseline({"factory": "mine:EMT"}, tmp_path).identity != one


def test_a_frame_on_which_it_fails_is_one_sentence_and_the_others_have_labels(tmp_path):
    base = baseline(tmp_path, "Failing")
    base.prepare([water(), STRETCHED])
    with pytest.raises(
        NotConverged, match=rf"^REFERENCE.baseline fails on H2O \({STRETCHED.id[:6]}\): .*not converged"
    ):
        base.label(STRETCHED)
    assert np.isfinite(base.label(water()).energy)
    with pytest.raises(LabelError):
        base.labels([water(), STRETCHED])


def test_a_missing_module_or_wrong_arguments_concern_every_frame(tmp_path):
    with pytest.raises(SettingsError, match=r"REFERENCE.baseline: .*cannot import no_such_module"):
        Baseline({"factory": "no_such_module:X"}, tmp_path).label(water())
    with pytest.raises((SettingsError, SetupError), match="no_such_argument"):
        baseline(tmp_path, "without_arguments", no_such_argument=1).label(water())


def test_charge_and_spin_that_it_cannot_be_given_are_refused(tmp_path):
    ion = Frame(water().numbers, water().positions, charge=1.0, spin=2)
    with pytest.raises(Unsupported, match=r"REFERENCE\.baseline: H2O has charge 1"):
        baseline(tmp_path).label(ion)


def test_charge_reaches_a_baseline_that_takes_it(tmp_path):
    pytest.importorskip("tblite")
    base = Baseline(
        {"factory": "tblite.ase:TBLite", "kwargs": {"method": "GFN1-xTB", "verbosity": 0}}, tmp_path
    )
    ion = Frame(water().numbers, water().positions, charge=1.0, spin=2)
    assert base.label(ion).energy > base.label(water()).energy + 5


@pytest.mark.parametrize("name", ["Jumping", "Inconsistent"])
def test_a_label_whose_energy_jumps_is_not_learnt(tmp_path, name):
    d = water().positions[1] - water().positions[0]
    edge = float(np.linalg.norm(d))
    base = baseline(tmp_path, name, **({"reach": edge} if name == "Jumping" else {}))
    frames = [water(), *rattled(water(), 6, 0.02)]
    base.prepare(frames)
    said = [str(base._failed[f.id]) for f in frames if f.id in base._failed]
    assert said
    assert all(
        f"energy and forces do not belong together: {STEP} Å along the forces" in text for text in said
    )
    assert np.isfinite(baseline(tmp_path, "Jumping", reach=5.0).label(water()).energy)


def test_in_dynamics_a_structure_on_which_it_fails_gets_nan_and_the_others_their_forces(tmp_path, caplog):
    base, frames = baseline(tmp_path, "Failing", store=False), [water(), crystal()]
    call = bound(base, frames)
    said = call(stress=True)
    truth = base.labels(frames)
    assert said.energies[0].tolist() == pytest.approx([t.energy for t in truth])
    assert said.stress[0, 1].numpy() == pytest.approx(truth[1].stress)
    broken = call([STRETCHED, crystal()], stress=True)
    assert np.isnan(broken.forces[0, :3].numpy()).all()
    assert broken.forces[0, 3:].numpy() == pytest.approx(truth[1].forces)
    call([STRETCHED, crystal()])
    assert caplog.text.count("the trajectory returns to its last labelled frame") == 1
    assert call().energies[0].tolist() == pytest.approx([t.energy for t in truth])


def test_in_dynamics_a_jump_that_a_new_calculator_repeats_gets_nan(tmp_path, caplog):
    d = np.linalg.norm(water().positions[1] - water().positions[0])
    call = bound(baseline(tmp_path, "Jumping", store=False, reach=float(d) + 0.005), [water(), water()])
    step = np.zeros((3, 3))
    step[1] = 0.01 * (water().positions[1] - water().positions[0]) / d
    call()
    assert np.isfinite(call([water(), water().moved(water().positions - step)]).energies.numpy()).all()
    said = call([water(), water().moved(water().positions + step)])
    assert np.isnan(said.energies[0].numpy()).tolist() == [False, True]
    assert "the energy of H2O jumps between two MD steps" in caplog.text


def test_structures_that_are_no_steps_of_a_trajectory_are_not_compared(tmp_path):
    """A calculator may be asked for one structure after the other, for example those of a test set."""
    base, frames = baseline(tmp_path, store=False), rattled(water(), 12, 0.25)
    call, truth = bound(base, [water()]), base.labels(frames)
    for frame, true in zip(frames, truth, strict=True):
        said = call([frame])
        assert said.energies.item() == pytest.approx(true.energy, abs=1e-9)
        assert said.forces[0].numpy() == pytest.approx(true.forces, abs=1e-9)


def test_in_dynamics_a_state_that_only_the_old_calculator_is_in_is_left(tmp_path):
    call = bound(baseline(tmp_path, "Jumping", store=False, reach=9.0, after=3), [water()])
    energies = [call().energies.item() for _ in range(7)]
    assert energies == pytest.approx([energies[0]] * 7, abs=1e-9)


def test_a_model_file_is_a_baseline_and_is_evaluated_for_all_structures_at_once(tmp_path):
    from tests.models.mace import tiny

    ensemble = tiny.ensemble((1,), elements=(1, 8), default_dtype="float64")
    ensemble.save(0, tmp_path / "cheap.model")
    base = Baseline("cheap.model", tmp_path)
    truth = ensemble.potential().labels(rattled(water(), 2))
    for frame, true in zip(rattled(water(), 2), truth, strict=True):
        assert base.label(frame).energy == pytest.approx(true.energy, abs=1e-6)
    said = bound(base, rattled(water(), 2))()
    assert said.energies[0].tolist() == pytest.approx([t.energy for t in truth], abs=1e-6)
    assert base.identity != Baseline("other.model", tmp_path).identity
    with pytest.raises(SettingsError, match=r"REFERENCE\.baseline: .*does not know Cu"):
        base.label(crystal())


def test_another_process_gets_it_without_labels_and_computes_the_same(tmp_path):
    base = baseline(tmp_path)
    said = base.label(water())
    other = pickle.loads(pickle.dumps(base))
    assert other.store is None
    assert np.array_equal(other.labels([water()])[0].forces, said.forces)


def test_isolated_atoms_have_energies_or_it_is_said_why_not(tmp_path):
    pytest.importorskip("tblite")
    xtb = Baseline(
        {"factory": "tblite.ase:TBLite", "kwargs": {"method": "GFN1-xTB", "verbosity": 0}}, tmp_path
    )
    assert -15 < xtb.atomic_energy(1) < -9
    with pytest.raises(SettingsError, match=r"No EMT-potential for Fe"):
        baseline(tmp_path).atomic_energy(26)


@pytest.mark.parametrize("name", ["small", "so3lr"])
def test_a_file_that_is_only_called_like_a_model_does_not_change_the_baseline(tmp_path, name):
    before = Baseline(name, tmp_path).identity
    (tmp_path / name).write_bytes(b"not meant")
    assert Baseline(name, tmp_path).identity == before
