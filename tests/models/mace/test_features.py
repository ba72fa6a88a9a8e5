import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.models.mace import foundation
from aims_pax.models.mace.features import calculator_features, calculator_of
from aims_pax.models.mace.load_committee import load_committee
from tests.models.mace.tiny import copper, ethanol, water


@pytest.fixture(scope="module")
def file(member_files):
    return member_files[0]


@pytest.fixture(scope="module")
def calculator(file):
    return calculator_of(file.name, "cpu", file.parent)


def test_every_atom_has_the_scalar_channels_of_all_layers(calculator):
    found = calculator_features(calculator, [x.frame for x in ethanol(3)])
    assert found.shape == (3, 9, 2 * 8)  # layers × channels
    assert found.dtype == np.float64
    assert calculator_features(calculator, [x.frame for x in water(1)]).shape == (1, 3, 16)


def test_they_do_not_turn_with_the_structure_and_are_renumbered_with_its_atoms(calculator):
    frame = ethanol(1)[0].frame
    R = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    order = np.random.default_rng(0).permutation(len(frame))
    turned = frame.moved(frame.positions @ R + [3.0, -1.0, 2.0])
    (mine,), (other,) = (calculator_features(calculator, [f]) for f in (frame, turned))
    np.testing.assert_allclose(other, mine, rtol=0, atol=1e-6)  # frames are rounded to 1e-8 Å
    (shuffled,) = calculator_features(calculator, [Frame(frame.numbers[order], frame.positions[order])])
    np.testing.assert_allclose(shuffled, mine[order], rtol=0, atol=1e-10)


def test_equal_surroundings_have_equal_features_and_different_ones_not(calculator):
    far = Frame([8, 8, 8, 1], [[0, 0, 0], [20.0, 0, 0], [40.0, 0, 0], [40.0, 0, 1.0]])
    one, other, bonded, _ = calculator_features(calculator, [far])[0]
    np.testing.assert_array_equal(one, other)
    assert np.abs(one - bonded).max() > 1e-3


def test_the_name_of_a_published_model_is_downloaded_unless_it_is_a_file(file, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(foundation, "_download", lambda size, key: asked.append(size) or file)
    assert calculator_of("small", "cpu", tmp_path).r_max == 3.5
    assert asked == ["small"]
    assert calculator_of(str(file), "cpu", tmp_path).r_max == 3.5
    assert asked == ["small"]


def test_a_file_that_is_only_called_like_a_size_is_not_opened(file, monkeypatch, tmp_path):
    """The potential is the published model; its features must not come from another one, nor run what is in a file."""
    monkeypatch.setattr(foundation, "_download", lambda size, key: file)
    (tmp_path / "small").write_bytes(b"not ours")
    assert calculator_of("small", "cpu", tmp_path).r_max == 3.5
    with pytest.raises(SettingsError, match="not a readable MACE"):
        calculator_of("./small", "cpu", tmp_path)
    with pytest.raises(SettingsError, match="neither a size"):
        calculator_of("smal", "cpu", tmp_path)


def test_a_committee_gives_the_same_features_for_structures_of_any_size(calculator, file):
    committee = load_committee([file], dtype="float64")
    frames = [x.frame for x in (*ethanol(2), *water(1), *copper(1))]
    found = committee.atom_features(frames)
    assert [f.shape for f in found] == [(len(f), 16) for f in frames]
    for frame, mine in zip(frames, found, strict=True):
        np.testing.assert_allclose(mine, calculator_features(calculator, [frame])[0], rtol=0, atol=1e-8)


def test_the_features_of_several_members_are_those_of_the_first(file, member_files):
    frames = [x.frame for x in ethanol(2)]
    alone, both = (load_committee(files) for files in ([file], member_files[:2]))
    for a, b in zip(alone.atom_features(frames), both.atom_features(frames), strict=True):
        np.testing.assert_array_equal(a, b)
