"""Members that begin from one foundation model: its forces at first, honest disagreement, offsets of the new labels."""

import logging

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from aims_pax.errors import SettingsError
from aims_pax.frames import Label, LabelledFrame
from aims_pax.models.base import MemberData
from aims_pax.models.mace.architecture import architecture
from aims_pax.models.mace.build import elements_of, model_atomic_energies, read_model
from aims_pax.models.mace.fine_tuning import epoch_graphs, weighted_graphs
from aims_pax.models.mace.foundation_ensemble import ensemble_from_foundation, replay_structures
from aims_pax.models.mace.inference import Committee
from aims_pax.models.mace.mace_import import quiet
from aims_pax.models.mace.statistics import CORRECTED, smallest_correction
from aims_pax.models.mace.training_workers import TrainingPool
from aims_pax.settings.foundation import FoundationSettings, recipe_training
from aims_pax.settings.mace import (
    ArchitectureSettings,
    GeneralSettings,
    MaceMiscSettings,
    MaceSettings,
    TrainingSettings,
)
from tests.models.mace.published import published
from tests.models.mace.tiny import ensemble, ethanol, water
from tests.models.mace.tiny import settings as tiny_settings
from tests.sweeps import thinned

HCO = (1, 6, 8)
TRAIN, VALID = ethanol(8, 0, noise=0.02), ethanol(2, 1, noise=0.02)
FRAMES = [f.frame for f in ethanol(4, 2)]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("foundation") / "foreign.model"
    with quiet():
        torch.save(published("MP-0, OFF: residual"), path)
    return path


def settings(model, architecture=None, training=None, dtype="float32", **foundation):
    section = FoundationSettings(model=str(model) if not isinstance(model, dict) else model, **foundation)
    return MaceSettings(
        general=GeneralSettings(name_exp="fine", default_dtype=dtype),
        architecture=ArchitectureSettings(**architecture or {}),
        training=recipe_training(section, TrainingSettings(compile="never", **training or {})),
        misc=MaceMiscSettings(),
        foundation=section,
    )


def begun(model, seeds=(1, 2), elements=HCO, **changes):
    return ensemble_from_foundation(settings(model, **changes), seeds, elements)


def shifted(frames, by=(-13.6, -1000.0, -2000.0)):
    """The same forces with energies of another method: other energies of the atoms H, C, O."""
    offsets = dict(zip((1, 6, 8), by, strict=True))
    return [
        LabelledFrame(
            f.frame, Label(f.label.energy + sum(offsets[int(z)] for z in f.frame.numbers), f.label.forces)
        )
        for f in frames
    ]


@pytest.mark.parametrize(("dtype", "tolerance"), thinned([("float64", 1e-9), ("float32", 1e-5)], 2))
def test_before_the_first_step_forces_are_those_of_maces_own_calculator(model_file, dtype, tolerance):
    from mace.calculators import MACECalculator

    tuned = begun(model_file, differ_by=["data"], dtype=dtype)
    tuned.train([MemberData(TRAIN)] * 2, 0)  # measures the offsets only
    forces = tuned.potential().evaluate(FRAMES).forces.numpy()
    with quiet():
        calculator = MACECalculator(model_paths=str(model_file), device="cpu", default_dtype=dtype)
        expected = []
        for frame in FRAMES:
            atoms = frame.to_atoms()
            atoms.calc = calculator
            expected.append(atoms.get_forces())
    size = np.abs(np.concatenate(expected)).max()
    for member in forces:
        np.testing.assert_allclose(member, np.concatenate(expected), rtol=0, atol=tolerance * max(1, size))


def test_forces_are_the_gradient_after_training(model_file):
    tuned = begun(model_file, dtype="float64")
    tuned.train([MemberData(TRAIN, VALID)] * 2, 3)
    potential = tuned.potential([0])
    frame = FRAMES[0]
    forces = potential.evaluate([frame]).forces[0].numpy()
    for atom, axis in ((0, 0), (4, 2)):
        step = np.zeros((len(frame), 3))
        step[atom, axis] = 1e-4
        up, down = (
            float(potential.evaluate([frame.moved(frame.positions + s * step)]).energies) for s in (1, -1)
        )
        assert forces[atom, axis] == pytest.approx(-(up - down) / 2e-4, abs=1e-6 * (1 + abs(forces).max()))


def test_it_has_the_elements_of_the_data_alone_and_the_card_shows_its_architecture(model_file, caplog):
    with caplog.at_level(logging.INFO):
        tuned = begun(model_file)
    assert tuned.elements == HCO
    assert [m.name for m in tuned.members] == ["fine_1", "fine_2"]
    said = tuned.describe(0)
    assert (said["r_max"], said["num_channels"], said["interaction_first"]) == (
        4.5,
        4,
        "RealAgnosticInteractionBlock",
    )
    assert "foreign.model, head Default: elements H C O, r_max 4.5 Å" in caplog.text
    assert "recipe naive: lr 0.002, weight_decay 0, ema_decay 0.999, clip_grad 1" in caplog.text
    assert "MACE's own modules" not in caplog.text


@pytest.mark.parametrize("written", [{"charge": 1}, {"spin": 2}])
def test_a_charge_that_the_model_does_not_read_is_refused(model_file, written):
    with pytest.raises(SettingsError, match=r"charge and spin have no effect, because .* does not read them"):
        begun(model_file, **written)


def test_keys_that_contradict_the_model_are_refused(model_file):
    with pytest.raises(
        SettingsError, match=r"ARCHITECTURE\.r_max: 5\.5 in mace\.yaml, 4\.5 in .*foreign\.model"
    ):
        begun(model_file, architecture={"r_max": 5.5, "num_channels": 4})
    with pytest.raises(SettingsError, match=r"radial_MLP: \(64, 64\) in mace.yaml, \(12, 12\) in"):
        begun(model_file, architecture={"radial_MLP": [64, 64]})
    assert begun(model_file, architecture={"r_max": 4.5, "gate": "silu", "radial_type": "bessel"}).members


@pytest.mark.parametrize("way", thinned(["data", "readout"], 2))
def test_members_differ_by_what_the_settings_say_and_only_by_their_seed(model_file, way):
    one, again = (begun(model_file, seeds=(1, 2), differ_by=[way]) for _ in range(2))
    before = one.members[0].model.readouts[1].linear_1.weight.detach().clone()
    same = torch.equal(before, one.members[1].model.readouts[1].linear_1.weight)
    assert same == (way == "data")
    for tuned in (one, again):
        tuned.train([MemberData(TRAIN)] * 2, 1)
    forces = one.potential().evaluate(FRAMES).forces
    assert float((forces[0] - forces[1]).abs().max()) > 1e-4
    assert torch.equal(forces, again.potential().evaluate(FRAMES).forces)


# ---------------------------------------------------------------- energies


def test_the_energy_zero_is_moved_by_the_residuals_of_the_foundation_and_nothing_is_averaged(
    model_file, caplog
):
    labelled = [*shifted(ethanol(6, 0)), *shifted(water(3, 1))]
    with caplog.at_level(logging.INFO):
        tuned = begun(model_file, differ_by=["data"], dtype="float64")
        tuned.train([MemberData(labelled)] * 2, 0)
    original = read_model(model_file, "cpu", torch.float64)
    old = model_atomic_energies(original).numpy()[[0, 1, 3]]
    statistics = tuned.members[0].statistics
    assert statistics.source == CORRECTED
    assert (statistics.scale, statistics.avg_num_neighbors) == (pytest.approx(1.3), pytest.approx(7.3))
    frames = [f.frame for f in labelled]
    composition = np.array([[(f.numbers == z).sum() for z in HCO] for f in frames], float)
    direct = Committee([original]).evaluate(frames).energies[0].numpy()
    residual = np.array([f.label.energy for f in labelled]) - direct
    np.testing.assert_allclose(statistics.E0 - old, smallest_correction(composition, residual), atol=1e-6)
    assert "2 of 3 elements determined" in caplog.text
    found = tuned.potential([0]).evaluate(frames).energies[0].numpy()
    assert np.abs(np.array([f.label.energy for f in labelled]) - found).max() < 0.1 * np.abs(residual).max()


def test_the_smallest_correction_leaves_elements_that_do_not_occur():
    composition = np.array([[6, 2, 0, 1], [6, 2, 0, 1]], float)
    correction = smallest_correction(composition, np.array([-41.0, -41.0]))
    assert composition[0] @ correction == pytest.approx(-41)
    np.testing.assert_allclose(correction, [-6, -2, 0, -1])
    np.testing.assert_allclose(smallest_correction(np.eye(2), np.array([3.0, -5.0])), [3, -5])


def test_energies_of_the_user_are_taken_as_they_are_and_the_shift_follows(model_file):
    given = {"H": -13.0, "C": -1028.0, "O": -2041.0}
    tuned = begun(model_file, architecture={"atomic_energies": given}, differ_by=["data"])
    tuned.train([MemberData(shifted(TRAIN))] * 2, 0)
    statistics = tuned.members[1].statistics
    np.testing.assert_allclose(statistics.E0, [-13, -1028, -2041], rtol=1e-6)
    assert statistics.source == "given"
    assert statistics.shift != pytest.approx(0.2)
    assert statistics.scale == pytest.approx(1.3)


def test_energies_of_the_user_count_also_for_elements_of_the_given_data_alone(model_file):
    given = {"H": -13.0, "C": -1028.0, "O": -2041.0}
    for written, source in (
        (given, "given"),
        ({"H": -13.0, "C": -1028.0}, "given; O: the foundation model, corrected on its residuals"),
    ):
        own = settings(model_file, architecture={"atomic_energies": written}, differ_by=["data"])
        tuned = ensemble_from_foundation(own, (1, 2), (1, 6), others=(1, 6, 8))
        tuned.train([MemberData(shifted(TRAIN))] * 2, 0)
        statistics = tuned.members[0].statistics
        assert statistics.source == source
        np.testing.assert_allclose(statistics.E0[: len(written)], [*written.values()], rtol=1e-6)


# ---------------------------------------------------------------- recipes


def test_frozen_leaves_the_interactions_and_trains_products_and_readouts(model_file):
    tuned = begun(model_file, recipe="frozen", differ_by=["data"])
    member = tuned.members[0]
    assert {n.partition(".")[0] for n in member.parameters} == {"products", "readouts"}
    before = {n: p.detach().clone() for n, p in member.model.named_parameters()}
    tuned.train([MemberData(TRAIN, VALID)] * 2, 2)
    moved = {n for n, p in member.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert {n.partition(".")[0] for n in moved} == {"products", "readouts"}
    other = begun(model_file, recipe="frozen", differ_by=["data"])
    other.restore(tuned.arrays())
    expected = tuned.potential().evaluate(FRAMES).forces
    assert torch.equal(other.potential().evaluate(FRAMES).forces, expected)


def test_replay_adds_its_share_of_structures_with_the_labels_of_the_foundation(model_file, tmp_path):
    ase.io.write(tmp_path / "others.xyz", [f.frame.to_atoms() for f in water(6, 3)], format="extxyz")
    tuned = ensemble_from_foundation(
        settings(model_file, recipe="replay", replay_data="others.xyz", replay_share=0.25, differ_by=["data"],
                 dtype="float64"),
        (1, 2), HCO, tmp_path,
    )  # fmt: skip
    member = tuned.members[0]
    assert len(member.replay) == 6
    tuned.train([MemberData(shifted(TRAIN))] * 2, 0)
    train = tuned.graphs.of(TRAIN)
    epoch = epoch_graphs(member, weighted_graphs(member, train), ("train", 0))
    replayed = [g for g in epoch if g.relative]
    assert (len(epoch), len(replayed)) == (11, 3)
    assert {g.id for g in epoch_graphs(member, train, ("train", 1)) if g.relative} != {g.id for g in replayed}
    # the labels are its own predictions at the new zero of energy: the loss on them begins at zero
    from aims_pax.models.mace.training import validate

    found = validate(member, member.replay, tuned.loss)
    assert found.energy_mae == pytest.approx(0, abs=1e-9)
    assert found.force_mae == pytest.approx(0, abs=1e-7)
    tuned.train([MemberData(shifted(TRAIN), shifted(VALID))] * 2, 2)


def test_primitive_cells_of_one_atom_are_replayed_and_isolated_atoms_are_not(tmp_path):
    ase.io.write(tmp_path / "others.xyz", [bulk("Cu"), Atoms("Cu")], format="extxyz")
    foundation = FoundationSettings(model="small", recipe="replay", replay_data="others.xyz")
    (frame,) = replay_structures(foundation, tmp_path)
    assert frame.pbc.all()


@pytest.mark.slow
def test_replay_protects_what_lies_outside(tmp_path):
    """Water is not in the new data: its forces move away from those of the foundation, with replay by much less."""
    teacher = ensemble([1], elements=(1, 6, 8), default_dtype="float32")
    teacher.train([MemberData([*ethanol(8, 5), *water(8, 3)])], 12)
    teacher.save(0, tmp_path / "teacher.model")
    ase.io.write(tmp_path / "others.xyz", [f.frame.to_atoms() for f in water(10, 6)], format="extxyz")
    outside = [f.frame for f in water(5, 9)]
    start = teacher.potential().evaluate(outside).forces[0]
    stiffer = [LabelledFrame(f.frame, Label(f.label.energy, 2 * f.label.forces)) for f in ethanol(8, 7)]
    moved = {}
    for recipe in ("naive", "replay"):
        own = {
            "recipe": recipe,
            "replay_data": "others.xyz",
            "differ_by": ["data"],
            "training": {"lr": 0.005},
        }
        tuned = ensemble_from_foundation(settings(tmp_path / "teacher.model", **own), (1,), HCO, tmp_path)
        tuned.train([MemberData(stiffer)], 8)
        moved[recipe] = float((tuned.potential().evaluate(outside).forces[0] - start).abs().mean())
    assert moved["replay"] < 0.6 * moved["naive"], moved


@pytest.mark.slow
def test_training_in_another_process_has_the_same_bits(model_file, tmp_path):
    ase.io.write(tmp_path / "others.xyz", [f.frame.to_atoms() for f in water(3, 3)], format="extxyz")
    made = settings(model_file, recipe="replay", replay_data="others.xyz")
    far, near = (ensemble_from_foundation(made, (1,), HCO, tmp_path) for _ in range(2))
    for tuned in (far, near):
        tuned.train([MemberData(TRAIN)], 0, words=("first", 0))  # measures the offsets
    with TrainingPool(1) as pool:
        visited = far.train_elsewhere(pool, {0: MemberData(TRAIN)}, 1, words=("train", 1)).result(120)
    far.take(visited)
    near.train([MemberData(TRAIN)], 1, words=("train", 1))
    ours, theirs = far.arrays(), near.arrays()
    assert all(np.array_equal(ours[k], theirs[k]) for k in ours if k.startswith("0/param"))


def test_a_begun_ensemble_continues_from_its_snapshot(model_file):
    one = begun(model_file)
    one.train([MemberData(TRAIN, VALID)] * 2, 1)
    other = begun(model_file)
    other.restore(one.arrays())
    for tuned in (one, other):
        tuned.train([MemberData(TRAIN, VALID)] * 2, 1, words=("train", 5))
    ours, theirs = one.arrays(), other.arrays()
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[k], theirs[k], equal_nan=ours[k].dtype.kind == "f") for k in ours)


# ---------------------------------------------------------------- where it comes from


def test_a_callable_may_return_the_module_or_a_calculator(model_file, tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text(
        "import torch\n\n\ndef module(path):\n    return torch.load(path, weights_only=False)\n\n\n"
        "def calculator(path):\n    from mace.calculators import MACECalculator\n\n"
        "    return MACECalculator(model_paths=path, device='cpu', default_dtype='float64')\n\n\n"
        "def other(path):\n    return 'a name'\n"
    )
    direct = begun(model_file, differ_by=["data"]).members[0].model
    for name in ("module", "calculator"):
        made = settings(
            {"factory": f"own_models:{name}", "kwargs": {"path": str(model_file)}}, differ_by=["data"]
        )
        tuned = ensemble_from_foundation(made, (1,), HCO, tmp_path)
        assert torch.equal(tuned.members[0].weights[0], next(direct.parameters()))
    made = settings({"factory": "own_models:other", "kwargs": {"path": "x"}})
    with pytest.raises(SettingsError, match=r"own_models:other returned str, expected a MACE model"):
        ensemble_from_foundation(made, (1,), HCO, tmp_path)
    with pytest.raises(SettingsError, match=r"FOUNDATION\.model: own_models:module with kwargs \{\}"):
        ensemble_from_foundation(settings("own_models:module"), (1,), HCO, tmp_path)


def test_a_published_name_goes_through_maces_download(model_file, monkeypatch):
    from aims_pax.models.mace.mace_import import foundation_models

    asked = []
    monkeypatch.setattr(
        foundation_models(), "download_mace_mp_checkpoint", lambda name: asked.append(name) or str(model_file)
    )
    assert begun("medium-mpa-0").elements == HCO
    assert asked == ["medium-mpa-0"]


def test_several_heads_the_slow_path_and_the_delivered_file(tmp_path, caplog):
    """MH-like: three heads and non-linear blocks; one head is delivered as an ordinary model."""
    from mace.calculators import MACECalculator

    with quiet():
        torch.save(published("MH: non-linear, three heads", dtype=torch.float32), tmp_path / "mh.model")
    with pytest.raises(SettingsError, match="no head 'pbe'"):
        begun(tmp_path / "mh.model", head="pbe")
    with caplog.at_level(logging.INFO):
        tuned = begun(tmp_path / "mh.model", head="matpes_r2scan")
    assert "MACE's own modules" in caplog.text
    tuned.train([MemberData(TRAIN, VALID)] * 2, 2)
    tuned.save(0, tmp_path / "fine.model")
    delivered = read_model(tmp_path / "fine.model", "cpu", None)
    assert (list(delivered.heads), elements_of(delivered)) == (["Default"], HCO)
    assert architecture(delivered)["interaction"] == "RealAgnosticResidualNonLinearInteractionBlock"
    with quiet():
        calculator = MACECalculator(
            model_paths=str(tmp_path / "fine.model"), device="cpu", default_dtype="float32"
        )
        atoms = FRAMES[0].to_atoms()
        atoms.calc = calculator
        theirs = atoms.get_forces()
    ours = tuned.potential([0]).evaluate([FRAMES[0]]).forces[0].numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * (1 + abs(theirs).max()))


def test_our_own_delivered_file_can_be_a_foundation(model_file, tmp_path):
    first = ensemble([1], elements=(1, 6, 8, 29), default_dtype="float32")
    first.save(0, tmp_path / "own.model")
    tuned = begun(tmp_path / "own.model", differ_by=["data"], dtype="float64")
    tuned.train([MemberData(TRAIN)] * 2, 0)
    expected = first.potential().evaluate(FRAMES)
    found = tuned.potential([0]).evaluate(FRAMES)
    np.testing.assert_allclose(found.forces[0], expected.forces[0], rtol=1e-4, atol=1e-4)
    assert tiny_settings().foundation is None
