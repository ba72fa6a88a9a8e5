import numpy as np
import pytest
import torch
from mace.calculators import MACECalculator
from scipy.spatial.transform import Rotation

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.models.mace import inference
from aims_pax.potential import Potential, calculate
from tests.models.mace.tiny import copper, ethanol, slab, triclinic, water

MOLECULE, CRYSTAL = ethanol(1)[0].frame, copper(1)[0].frame
MIXED = [MOLECULE, CRYSTAL, triclinic(), slab(), water(1)[0].frame]


def tensors(frames):
    positions = torch.from_numpy(np.concatenate([f.positions for f in frames]))
    return positions, torch.from_numpy(np.stack([f.cell for f in frames]))


def energy(committee, frame: Frame) -> float:
    return committee.labels([frame])[0].energy


def test_a_committee_is_a_potential(committee):
    assert isinstance(committee, Potential)
    assert committee.elements == (1, 6, 8, 29)


@pytest.mark.parametrize(("dtype", "atol", "rtol"), [("float32", 1e-5, 1e-6), ("float64", 1e-10, 0)])
def test_forces_and_stress_are_those_of_mace_calculator(request, dtype, atol, rtol):
    committee = request.getfixturevalue("committee" if dtype == "float64" else "committee32")
    evaluation = committee.evaluate(MIXED)
    ends = np.cumsum([len(f) for f in MIXED])[:-1]
    for m, model in enumerate(committee.evaluator.owners):
        calculator = MACECalculator(models=model, device="cpu", default_dtype=dtype)
        parts = np.split(evaluation.forces[m].numpy(), ends)
        for k, frame in enumerate(MIXED):
            told = calculate(frame, calculator)
            np.testing.assert_allclose(
                parts[k], told.forces, rtol=0, atol=atol + rtol * abs(told.forces).max()
            )
            assert evaluation.energies[m, k] == pytest.approx(told.energy, abs=atol, rel=1e-6)
            if frame.periodic:
                np.testing.assert_allclose(evaluation.stress[m, k], told.stress, rtol=0, atol=atol)
            else:
                assert torch.isnan(evaluation.stress[m, k]).all()


@pytest.mark.parametrize("frame", [MOLECULE, triclinic(), slab()], ids=["molecule", "triclinic", "slab"])
def test_forces_are_minus_the_derivative_of_the_energy(committee, frame):
    forces, d = committee.labels([frame])[0].forces, 1e-4
    for atom, axis in [(0, 0), (1, 1), (len(frame) - 1, 2)]:
        step = np.zeros_like(frame.positions)
        step[atom, axis] = d
        up, down = (energy(committee, frame.moved(frame.positions + s * step)) for s in (1, -1))
        assert forces[atom, axis] == pytest.approx(-(up - down) / (2 * d), abs=1e-6)


@pytest.mark.parametrize("frame", [CRYSTAL, triclinic()], ids=["cubic", "triclinic"])
def test_stress_is_the_derivative_of_the_energy_with_strain(committee, frame):
    stress, d = committee.labels([frame])[0].stress, 1e-4
    volume = abs(np.linalg.det(frame.cell))
    for a, b in [(0, 0), (2, 2), (0, 1), (1, 2)]:
        strain = np.zeros((3, 3))
        strain[a, b] += d / 2
        strain[b, a] += d / 2
        up, down = (
            energy(committee, frame.moved(frame.positions @ F, frame.cell @ F))
            for F in (np.eye(3) + strain, np.eye(3) - strain)
        )
        assert stress[a, b] == pytest.approx((up - down) / (2 * d * volume), abs=1e-6)


def test_energy_and_forces_turn_and_move_with_the_structure(committee):
    R = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    for frame in (MOLECULE, triclinic()):
        label = committee.labels([frame])[0]
        turned = committee.labels([frame.moved(frame.positions @ R + [3.0, -50.0, 7.0], frame.cell @ R)])[0]
        assert turned.energy == pytest.approx(label.energy, abs=1e-6)  # frames are rounded to 1e-8 Å
        np.testing.assert_allclose(turned.forces, label.forces @ R, atol=1e-5)


def test_equal_atoms_can_be_exchanged(committee):
    order = np.random.default_rng(0).permutation(len(MOLECULE))
    shuffled = Frame(MOLECULE.numbers[order], MOLECULE.positions[order])
    label, other = committee.labels([MOLECULE, shuffled])
    assert other.energy == pytest.approx(label.energy, abs=1e-9)
    np.testing.assert_allclose(other.forces, label.forces[order], atol=1e-9)


def test_lattice_translations_of_single_atoms_change_nothing(committee):
    frame = triclinic()
    moved = frame.moved(frame.positions + np.array([[2, -1, 3], [0, 0, 0]]) @ frame.cell)
    np.testing.assert_allclose(
        committee.labels([moved])[0].forces, committee.labels([frame])[0].forces, atol=1e-5
    )


def test_a_batch_gives_what_single_structures_give(committee):
    together = committee.labels(MIXED)
    for frame, label in zip(MIXED, together, strict=True):
        alone = committee.labels([frame])[0]
        assert alone.energy == pytest.approx(label.energy, abs=1e-9)
        np.testing.assert_allclose(alone.forces, label.forces, atol=1e-9)


def test_labels_are_the_mean_of_the_members(committee):
    evaluation = committee.evaluate(MIXED[:2])
    labels = committee.labels(MIXED[:2])
    assert labels[1].energy == pytest.approx(float(evaluation.energies[:, 1].mean()))
    np.testing.assert_allclose(labels[0].forces, evaluation.forces[:, : len(MOLECULE)].mean(0))
    assert labels[0].stress is None
    np.testing.assert_allclose(labels[1].stress, evaluation.stress[:, 1].mean(0))
    assert not torch.equal(evaluation.forces[0], evaluation.forces[1])


def test_many_frames_are_labelled_in_batches_of_bounded_size(committee, monkeypatch):
    monkeypatch.setattr(committee, "_edges_at_once", 200)
    chunks = committee._chunks(MIXED * 2)
    assert len(chunks) > 3
    assert [f.id for chunk in chunks for f in chunk] == [f.id for f in MIXED * 2]
    assert len(committee.labels(MIXED * 2)) == 2 * len(MIXED)


def test_a_binding_follows_moving_atoms_and_cells_bit_for_bit(committee32):
    bound = committee32.bind(MIXED)
    positions, cells = tensors(MIXED)
    rng = np.random.default_rng(1)
    for _ in range(8):
        positions = positions + torch.from_numpy(rng.normal(0, 0.05, positions.shape))
        cells = cells * 1.002
        here = bound(positions, cells, stress=True)
        fresh = committee32.bind(MIXED)(positions, cells, stress=True)
        assert torch.equal(here.energies, fresh.energies)
        assert torch.equal(here.forces, fresh.forces)
    assert bound.neighbours.builds < 8 * len(MIXED)
    assert here.forces.shape == (2, len(positions), 3)
    assert here.forces.dtype == torch.float64


def test_a_structure_that_exploded_gets_nan_and_the_others_do_not_notice(committee):
    bound = committee.bind(MIXED)
    positions, cells = tensors(MIXED)
    whole = bound(positions, cells, stress=True)
    positions[len(MOLECULE)] = torch.inf
    broken = bound(positions, cells, stress=True)
    atoms = slice(len(MOLECULE), len(MOLECULE) + len(CRYSTAL))
    assert torch.isnan(broken.energies[:, 1]).all()
    assert torch.isnan(broken.forces[:, atoms]).all()
    assert torch.isnan(broken.stress[:, 1]).all()
    torch.testing.assert_close(broken.energies[:, 2:], whole.energies[:, 2:])
    torch.testing.assert_close(broken.forces[:, atoms.stop :], whole.forces[:, atoms.stop :])


def test_atoms_out_of_reach_of_each_other_feel_nothing(committee):
    alone = Frame([1, 8], [[0, 0, 0], [9.0, 0, 0]])
    label = committee.labels([alone])[0]
    assert np.isfinite(label.energy)
    np.testing.assert_array_equal(label.forces, 0)
    np.testing.assert_array_equal(committee.labels([Frame([8], [[1, 2, 3]])])[0].forces, 0)


def test_coordinates_far_from_the_origin_lose_no_precision_in_float32(committee32):
    here, there = committee32.labels([MOLECULE, MOLECULE.moved(MOLECULE.positions + 20000.0)])
    np.testing.assert_allclose(there.forces, here.forces, atol=2e-5)


def test_an_element_the_models_do_not_know_is_named(committee):
    with pytest.raises(SettingsError, match=r"does not know Au.*knows H C O Cu"):
        committee.bind([Frame([79], [[0, 0, 0]])])


def test_the_evaluator_is_a_seam(committee):
    class Zero:
        members = 1

        def __call__(self, graph: inference.EdgeGraph, *, strain: bool):
            frames = len(graph.ptr) - 1
            return torch.zeros(1, frames), torch.zeros(1, len(graph.species), 3), torch.zeros(1, frames, 3, 3)

    bound = committee.bind(MIXED)
    bound.evaluator, bound.members = Zero(), 1
    assert not bound(*tensors(MIXED)).forces.any()


def test_each_structure_can_be_left_to_one_member(committee):
    bound = committee.bind(MIXED)
    positions, cells = tensors(MIXED)
    everything = bound(positions, cells, stress=True)
    driving_members = (1, 0, 1, 0, 0)
    said = bound(positions, cells, stress=True, driving_members=driving_members)
    assert bound.drives
    assert said.energies.shape == (1, 5)
    for f, member in enumerate(driving_members):
        atoms = bound.frame_of == f
        torch.testing.assert_close(said.energies[0, f], everything.energies[member, f])
        torch.testing.assert_close(said.forces[0, atoms], everything.forces[member, atoms], atol=1e-9, rtol=0)
        torch.testing.assert_close(said.stress[0, f], everything.stress[member, f], equal_nan=True)
    assert not torch.allclose(said.forces[0], everything.forces[0])
    assert bound(positions, cells, driving_members=driving_members).stress is None


def test_a_lost_structure_is_nan_for_its_driver_only(committee):
    bound = committee.bind(MIXED)
    positions, cells = tensors(MIXED)
    positions[0] = torch.nan
    said = bound(positions, cells, driving_members=(0, 0, 1, 1, 0))
    assert torch.isnan(said.energies[0]).tolist() == [True, False, False, False, False]
    assert torch.isfinite(said.forces[0, len(MOLECULE) :]).all()


def test_a_part_of_a_graph_has_its_own_numbering(committee):
    bound = committee.bind(MIXED)
    edges = bound.neighbours(*tensors(MIXED))
    graph = inference.EdgeGraph(
        bound.species, edges.sender, edges.receiver, edges.vectors, bound.frame_of, bound.ptr
    )
    part = inference.cut(graph, (bound.frame_of == 1) | (bound.frame_of == 4))
    assert part.ptr.tolist() == [0, 4, 7]
    assert part.frame_of.tolist() == [0] * 4 + [1] * 3
    alone = committee.bind([CRYSTAL, MIXED[4]])
    told = alone.neighbours(*tensors([CRYSTAL, MIXED[4]]))
    assert torch.equal(part.sender, told.sender)
    assert torch.equal(part.receiver, told.receiver)
    torch.testing.assert_close(part.vectors, told.vectors)
