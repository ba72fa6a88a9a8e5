import numpy as np
import pytest
import torch
from e3nn import o3

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.models.mace import build
from aims_pax.models.mace.architecture import contradictions
from aims_pax.models.mace.build import build_model, elements_of, read_model, read_statistics, set_statistics
from aims_pax.models.mace.inference import Committee
from aims_pax.models.mace.initial_weights import InitialWeights
from aims_pax.models.mace.statistics import Statistics
from tests.models.mace.tiny import ELEMENTS, copper, settings, water
from tests.sweeps import thinned

STATISTICS = Statistics(np.array([-1.0, -2.0, -3.0, -4.0]), 9.0, 1.5, 0.25, "given", 4)


@pytest.fixture(scope="module")
def plain():
    return build_model(settings(), ELEMENTS, 1)


def weights(model):
    return torch.cat([p.detach().ravel() for p in model.parameters()])


def test_weights_follow_from_the_seed_alone_and_the_global_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (build_model(settings(), ELEMENTS, s) for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights(one), weights(same))
    assert not torch.equal(weights(one), weights(other))
    assert torch.get_default_dtype() == torch.float32


def test_a_few_architectures_are_remembered(monkeypatch):
    monkeypatch.setattr(build, "_blueprints", {})
    monkeypatch.setattr(build, "BLUEPRINTS", 2)
    for z in (1, 6, 8):
        build_model(settings(), (z,), 1)
    assert ["[1]" in words for words in build._blueprints] == [False, False]
    kept = dict(build._blueprints)
    build_model(settings(), (8,), 2)
    assert build._blueprints == kept


def test_building_prints_nothing(capfd):
    build_model(settings(), (1,), 1)
    assert capfd.readouterr() == ("", "")


VARIANTS = [
    {"model": "MACE", "default_dtype": "float64"},
    {"interaction": "RealAgnosticDensityResidualInteractionBlock", "max_L": 0},
    {"interaction_first": "RealAgnosticInteractionBlock", "gate": "tanh", "MLP_irreps": "4x0e"},
    {"num_interactions": 1, "correlation": 3, "radial_type": "gaussian"},
    {"radial_type": "chebyshev", "radial_MLP": [8, 8], "num_cutoff_basis": 6, "pair_repulsion": True},
]


@pytest.mark.parametrize(
    "changes",
    thinned(
        [{}, VARIANTS[0], {"interaction": "RealAgnosticResidualNonLinearInteractionBlock"}, VARIANTS[3]], 2
    ),
    ids=str,
)
@pytest.mark.parametrize("repeatable", [True, False])
def test_the_second_model_of_an_architecture_is_what_it_would_be_alone(changes, repeatable, monkeypatch):
    chosen = settings(**changes)
    monkeypatch.setattr(build, "_blueprints", {})
    if not repeatable:
        monkeypatch.setattr(InitialWeights, "found", lambda *anything: None)
    build_model(chosen, ELEMENTS, 1)
    (blueprint,) = build._blueprints.values()
    assert (blueprint.weights is not None) == repeatable
    second = build_model(chosen, ELEMENTS, 2)
    monkeypatch.setattr(build, "_blueprints", {})
    alone = build_model(chosen, ELEMENTS, 2)
    assert [(n, p.requires_grad) for n, p in second.named_parameters()] == [
        (n, p.requires_grad) for n, p in alone.named_parameters()
    ]
    one, other = second.state_dict(), alone.state_dict()
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert second.training == alone.training
    frames = [water(1)[0].frame, copper(1)[0].frame]
    for model in (second, alone):
        set_statistics(model, STATISTICS)
    for mine, its in zip(*(Committee([model]).labels(frames) for model in (second, alone)), strict=True):
        assert mine.energy == its.energy
        assert np.array_equal(mine.forces, its.forces)


@pytest.mark.parametrize(
    "changes", thinned([{"num_channels": 6}, {"default_dtype": "float64"}, {"r_max": 4.5}], 3), ids=str
)
def test_another_architecture_is_not_a_copy_of_the_last(changes):
    build_model(settings(), ELEMENTS, 1)
    model = build_model(settings(**changes), ELEMENTS, 1)
    assert next(model.parameters()).dtype == getattr(torch, changes.get("default_dtype", "float32"))
    assert float(model.r_max) == changes.get("r_max", settings().architecture.r_max)
    if "num_channels" in changes:
        assert model.interactions[0].hidden_irreps.count("0e") == 6
    assert elements_of(build_model(settings(), (1, 8), 1)) == (1, 8)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_the_architecture_keys_have_their_effect(changes, plain):
    model = build_model(settings(**changes), ELEMENTS, 1)
    assert str(model) != str(plain) or len(weights(model)) != len(weights(plain))
    set_statistics(model, STATISTICS)
    labels = Committee([model]).labels([water(1)[0].frame, copper(1)[0].frame])
    assert all(label.finite for label in labels)
    hidden = o3.Irreps(str(model.interactions[0].hidden_irreps))
    assert hidden.lmax == (0 if model.num_interactions == 1 else changes.get("max_L", 1))


def test_the_repulsion_pushes_close_atoms_apart(plain):
    on, off = build_model(settings(pair_repulsion=True), ELEMENTS, 1), plain
    set_statistics(on, STATISTICS)
    set_statistics(off, STATISTICS)
    frame = water(1)[0].frame
    close = frame.moved(frame.positions * 0.4)
    difference = Committee([on]).labels([close])[0].energy - Committee([off]).labels([close])[0].energy
    assert difference > 10


def test_plain_mace_gives_a_lone_atom_exactly_its_energy():
    model = build_model(settings(model="MACE"), ELEMENTS, 1)
    set_statistics(model, Statistics(STATISTICS.E0, 9.0, 1.5, 0.0, "given", 4))
    assert Committee([model]).labels([Frame([8], [[0, 0, 0]])])[0].energy == -3.0


def test_a_plain_model_agrees_with_the_settings_it_was_built_with():
    written = settings(model="MACE", interaction_first="RealAgnosticResidualInteractionBlock").architecture
    plain = build_model(settings(model="MACE"), (1, 8), 1)
    assert contradictions(plain, written) == []
    set_statistics(plain, Statistics(np.zeros(2), 9.0, 1.5, 0.25, "given", 2))
    assert {key for key, *_ in contradictions(plain, written)} == {"model", "interaction_first"}


def test_an_impossible_architecture_is_a_settings_error():
    with pytest.raises(SettingsError, match=r"ARCHITECTURE.*cannot build"):
        build_model(settings(max_ell=0, max_L=0), ELEMENTS, 1)


def test_statistics_are_written_into_a_model_and_read_back(plain):
    model = plain
    set_statistics(model, STATISTICS)
    back = read_statistics(model)
    np.testing.assert_array_equal(back.E0, STATISTICS.E0)
    assert (back.avg_num_neighbors, back.scale, back.shift) == (9.0, 1.5, 0.25)
    assert {i.avg_num_neighbors for i in model.interactions} == {9.0}


def test_a_model_file_is_read_and_anything_else_is_refused(tmp_path, plain):
    path = tmp_path / "a.model"
    torch.save(plain, path)
    model = read_model(path, "cpu", torch.float64)
    assert elements_of(model) == ELEMENTS
    assert weights(model).dtype == torch.float64
    with pytest.raises(SettingsError, match="no such file"):
        read_model(tmp_path / "b.model", "cpu", torch.float64)
    torch.save(build_model(settings(radial_type="chebyshev"), (1, 8), 1), path)
    with pytest.raises(
        SettingsError, match="Chebyshev polynomials as radial basis, which have no derivative"
    ):
        read_model(path, "cpu", torch.float64)
    torch.save({"a": 1}, path)
    with pytest.raises(SettingsError, match="a dictionary"):
        read_model(path, "cpu", torch.float64)
    path.write_text("not a model")
    with pytest.raises(SettingsError, match="not a readable MACE"):
        read_model(path, "cpu", torch.float64)
