import numpy as np
import pytest
import torch
from mace.data import AtomicData, config_from_atoms
from mace.modules import compute_avg_num_neighbors
from mace.tools import AtomicNumberTable, torch_geometric

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.mace.graphs import GraphCache
from aims_pax.models.mace.statistics import fit_atomic_energies, fit_offsets, measure
from tests.models.mace.tiny import ELEMENTS, copper, ethanol, water

HCO = (1, 6, 8)


def atom(z: int, energy: float, **electrons: int) -> LabelledFrame:
    return LabelledFrame(Frame([z], [[0, 0, 0]], **electrons), Label(energy, np.zeros((1, 3))))


def graphs(frames, elements=HCO):
    return GraphCache(elements, 3.5, torch.float32).of(frames)


def measured(frames, elements=HCO, scaling="rms_forces_scaling", **options):
    made = graphs(frames, elements)
    return measure(made, elements, scaling=scaling, dtype=torch.float32, **options)


def test_least_squares_finds_the_energies_of_independent_compositions():
    composition = np.array([[2.0, 1, 0], [4, 0, 1], [0, 3, 3], [1, 1, 1]])
    E0 = np.array([-13.6, -1029.0, -2042.0])
    np.testing.assert_allclose(fit_offsets(composition, composition @ E0), E0)


def test_a_single_composition_gets_one_common_shift():
    np.testing.assert_allclose(
        fit_offsets(np.array([[6.0, 2, 1]] * 3), np.array([-90.0, -91.0, -89.0])), -10.0
    )


def test_elements_that_cannot_be_told_apart_share_and_absent_ones_get_the_common_shift():
    composition = np.array([[2.0, 0, 1, 0], [4, 0, 2, 0], [1, 1, 0.5, 0]])
    E0 = fit_offsets(composition, np.array([-30.0, -60.0, -35.0]))
    np.testing.assert_allclose(composition @ E0, [-30.0, -60.0, -35.0])
    common = np.mean([-10.0, -10.0, -14.0])
    assert E0[3] == pytest.approx(common)


def test_given_energies_win_then_isolated_atoms_then_least_squares():
    atoms = [atom(1, -13.0), atom(6, -1000.0), atom(8, -2000.0)]
    made = graphs([*water(3), *atoms])
    E0, source = fit_atomic_energies(made, HCO, {1: -1.0, 6: -2.0, 8: -3.0})
    assert (E0.tolist(), source) == ([-1.0, -2.0, -3.0], "given")
    E0, source = fit_atomic_energies(made, HCO, None)
    assert (E0.tolist(), source) == ([-13.0, -1000.0, -2000.0], "isolated atoms")
    E0, source = fit_atomic_energies(made[:3], HCO, None)
    assert source == "least squares"
    np.testing.assert_allclose(E0, np.mean([f.label.energy for f in water(3)]) / 3)


def test_isolated_atoms_of_some_elements_fix_these_and_the_rest_is_fitted():
    E0, source = fit_atomic_energies(graphs([*water(3), atom(1, -13.0)]), HCO, None)
    assert (E0[0], source) == (-13.0, "least squares; isolated atoms: H")
    assert pytest.approx(np.mean([f.label.energy for f in water(3)])) == E0 @ [2, 0, 1]


def test_ions_and_excited_atoms_are_no_zero_of_energy():
    atoms = [atom(1, -13.0), atom(1, 0.0, charge=1), atom(1, -14.0, charge=-1), atom(6, -1000.0, spin=3)]
    made = graphs([*water(3), *atoms, atom(6, -998.0, spin=1), atom(8, -2000.0)])
    E0, source = fit_atomic_energies(made, HCO, None)
    assert (E0.tolist(), source) == ([-13.0, -1000.0, -2000.0], "isolated atoms")
    alone = fit_atomic_energies(graphs([*water(3), atom(8, -1980.0, charge=1)]), HCO, None)
    np.testing.assert_array_equal(alone[0], fit_atomic_energies(graphs(water(3)), HCO, None)[0])


def test_a_missing_given_energy_is_an_error():
    with pytest.raises(SettingsError, match=r"\[8\]"):
        fit_atomic_energies(graphs(water(1)), HCO, {1: -1.0, 6: -2.0})


def test_every_element_has_a_slot_even_when_its_frames_come_later():
    s = measured(water(3), ELEMENTS)
    assert s.E0.shape == (4,)
    assert np.isfinite(s.E0).all()


def test_scale_is_the_rms_force_or_the_spread_of_energies_or_one():
    frames = ethanol(4)
    rms = np.sqrt(np.mean(np.concatenate([f.label.forces for f in frames]) ** 2))
    assert measured(frames).scale == pytest.approx(rms, rel=1e-5)
    spread = np.std([f.label.energy / 9 for f in frames], ddof=1)
    assert measured(frames, scaling="std_scaling").scale == pytest.approx(spread, rel=1e-3)
    assert measured(frames, scaling="no_scaling").scale == 1.0


def test_forces_that_vanish_leave_energies_unscaled(caplog):
    frame = water(1)[0].frame
    assert measured([LabelledFrame(frame, Label(-3.0, np.zeros((3, 3))))]).scale == 1.0
    assert "not scaled" in caplog.text


def test_the_shift_takes_up_what_given_energies_leave():
    frames = water(4)
    s = measured(frames, given={1: -400.0, 6: 0.0, 8: -400.0})
    assert s.shift == pytest.approx(np.mean([f.label.energy / 3 + 400.0 for f in frames]), rel=1e-6)
    assert measured(frames, given={1: -400.0, 6: 0.0, 8: -400.0}, shifted=False).shift == 0.0
    assert measured(frames).shift == pytest.approx(0, abs=1e-4)


def test_the_mean_number_of_neighbours_is_that_of_mace():
    frames = [*ethanol(2), *copper(1)]
    table = AtomicNumberTable(list(ELEMENTS))
    data = [
        AtomicData.from_config(config_from_atoms(f.to_atoms()), z_table=table, cutoff=3.5) for f in frames
    ]
    loader = torch_geometric.dataloader.DataLoader(data, batch_size=2)
    assert measured(frames, ELEMENTS).avg_num_neighbors == pytest.approx(
        compute_avg_num_neighbors(loader), rel=1e-6
    )
    assert measured(frames, ELEMENTS, count_neighbours=False).avg_num_neighbors == 1.0
