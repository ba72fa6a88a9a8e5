import logging
import urllib.error

import numpy as np
import pytest
import torch

from aims_pax.errors import SettingsError, SetupError
from aims_pax.models.mace import foundation
from aims_pax.models.mace.fast_forward import FastEvaluator
from aims_pax.models.mace.mace_import import foundation_models
from aims_pax.potential import Potential
from tests.models.mace.tiny import ensemble, water


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "own.model"
    ensemble([1]).save(0, path)
    return path


def test_a_local_file_becomes_a_potential(model_file):
    potential = foundation.load_foundation_model(str(model_file), "cpu", "float64")
    assert isinstance(potential, Potential)
    assert potential.elements == (1, 6, 8, 29)
    assert potential.members == 1
    direct = ensemble([1]).potential().labels([water(1)[0].frame])[0]
    np.testing.assert_allclose(potential.labels([water(1)[0].frame])[0].forces, direct.forces, atol=1e-5)


def test_a_relative_path_starts_in_the_working_folder(model_file):
    assert foundation.load_foundation_model("own.model", folder=model_file.parent).members == 1


def test_a_published_size_goes_through_maces_download(model_file, monkeypatch):
    asked = []
    monkeypatch.setattr(
        foundation_models(), "download_mace_mp_checkpoint", lambda size: asked.append(size) or str(model_file)
    )
    assert foundation.load_foundation_model("small").members == 1
    assert asked == ["small"]


def test_without_network_the_error_names_the_way_out(monkeypatch, tmp_path):
    from aims_pax.potentials.factory import make_potential

    def no_network(size):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(foundation_models(), "download_mace_mp_checkpoint", no_network)
    with pytest.raises(SetupError, match=r"initial_foundational_size to its path"):
        foundation.load_foundation_model("medium")
    with pytest.raises(SetupError, match=r"set SAMPLERS\.0\.potential to its path"):
        make_potential("small", tmp_path, "SAMPLERS.0.potential")


def test_what_is_neither_size_nor_file_is_named_with_the_choices(tmp_path):
    with pytest.raises(SettingsError, match=r"'tiny'.*small, medium, large"):
        foundation.load_foundation_model("tiny", folder=tmp_path)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.model")
    with pytest.raises(SettingsError, match="holds list"):
        foundation.load_foundation_model("list.model", folder=tmp_path)


def test_members_cannot_begin_from_the_difference_to_a_baseline(model_file):
    """They would begin from weights that miss nearly the whole energy."""
    from aims_pax.settings.foundation import FoundationSettings

    path = model_file.with_name("own.delta.model")
    path.write_bytes(model_file.read_bytes())
    with pytest.raises(SettingsError, match=r"FOUNDATION\.model: .*holds only the difference to a baseline"):
        foundation.foundation_module(FoundationSettings(model=str(path)), "cpu", None)


def test_an_element_it_does_not_know_is_named(model_file):
    from aims_pax.frames import Frame

    with pytest.raises(SettingsError, match="does not know Au"):
        foundation.load_foundation_model(str(model_file)).labels([Frame([79], [[0, 0, 0]])])


def test_a_file_is_evaluated_natively_where_it_can_be_and_checked_against_torch(tmp_path, caplog):
    pytest.importorskip("symmetrix", reason="the extra fast is not installed")
    ensemble([1], max_ell=3, num_channels=4).save(0, tmp_path / "own.model")
    frames = [water(1)[0].frame]
    with caplog.at_level(logging.INFO):
        quick = foundation.load_foundation_model("own.model", folder=tmp_path, inference="auto").labels(
            frames
        )[0]
    assert "foundation model: native (symmetrix-xl" in caplog.text
    slow = foundation.load_foundation_model("own.model", folder=tmp_path).labels(frames)[0]
    np.testing.assert_allclose(quick.forces, slow.forces, rtol=0, atol=1e-5 + 1e-6 * abs(slow.forces).max())


def test_one_that_cannot_be_native_is_left_to_torch_even_if_the_members_must_be(model_file, caplog):
    with caplog.at_level(logging.INFO):
        potential = foundation.load_foundation_model(str(model_file), inference="native")
        assert potential.labels([water(1)[0].frame])[0].finite
    assert "foundation model: torch, because symmetrix does not know" in caplog.text
    assert isinstance(potential.evaluator, FastEvaluator)


def test_a_file_that_is_only_called_like_a_size_is_not_opened(model_file, tmp_path, monkeypatch):
    """`small` is a size; a file of that name in the working folder was not named. Opening it would run its content."""
    asked = []
    monkeypatch.setattr(
        foundation_models(), "download_mace_mp_checkpoint", lambda size: asked.append(size) or str(model_file)
    )
    (tmp_path / "small").write_bytes(b"not ours")
    assert foundation.load_foundation_model("small", folder=tmp_path).members == 1
    assert asked == ["small"]
    with pytest.raises(SettingsError, match="not a readable MACE"):
        foundation.load_foundation_model("./small", folder=tmp_path)


def test_every_published_name_is_stored_where_maces_functions_store_it(monkeypatch, tmp_path):
    """Their downloads find the file that is there already: nothing is fetched, and the file is opened."""
    from aims_pax.settings.callables import CHARGED_MODELS, FOUNDATION_ONLY, PUBLISHED_MODELS

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(foundation_models(), "_urlretrieve_with_timeout", None)
    monkeypatch.setattr(foundation_models(), "module_dir", str(tmp_path))
    for name in (*PUBLISHED_MODELS, *FOUNDATION_ONLY):
        assert foundation.stored_file(name) is None
        place = foundation._place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.save(name, place)
        assert (
            foundation.foundation_file(name, others=FOUNDATION_ONLY) == place == foundation.stored_file(name)
        )
        if name in foundation.ORGANIC_MODELS or name == "omol":
            make = {"anicc": "mace_anicc", "omol": "mace_omol"}.get(name, "mace_off")
            words = [] if name in ("anicc", "omol") else [name.removeprefix("off-")]
            found = getattr(foundation_models(), make)(*words, device="cpu", return_raw_model=True)
            assert found == name
    for name in CHARGED_MODELS:
        with pytest.raises(SettingsError, match="reads the total charge and spin"):
            foundation.foundation_file(name)


def test_layers_of_cuequivariance_are_converted_back_or_the_way_out_is_named(
    model_file, tmp_path, monkeypatch
):
    """The package is not installed here: a layer of its name stands in, and MACE's converter is replaced."""
    import mace.cli.convert_cueq_e3nn as converter

    from aims_pax.models.mace.build import read_model
    from aims_pax.settings.foundation import FoundationSettings

    model = read_model(model_file, "cpu", None)
    Layer = type("Linear", (torch.nn.Identity,), {"__module__": "cuequivariance_torch.primitives"})
    trained = read_model(model_file, "cpu", None)
    trained.extra = Layer()
    monkeypatch.setattr(foundation, "read_model", lambda *args, **kwargs: trained)
    asked = []
    monkeypatch.setattr(converter, "run", lambda source, **kwargs: asked.append((source, kwargs)) or model)
    section = FoundationSettings(model=str(model_file))
    assert foundation.foundation_module(section, "cpu", None)[0] is model
    assert asked == [(trained, {"device": "cpu", "return_model": True})]
    monkeypatch.setattr(converter, "run", lambda *_, **__: 1 / 0)
    with pytest.raises(
        SettingsError, match=r"layers of cuEquivariance.*ZeroDivisionError.*mace_cueq_to_e3nn"
    ):
        foundation.foundation_module(section, "cpu", None)
    monkeypatch.undo()
    monkeypatch.setattr(torch, "load", lambda *_, **__: __import__("cuequivariance_of_nowhere"))
    with pytest.raises(
        SettingsError, match=r"needs the package cuequivariance_of_nowhere, which is not installed"
    ):
        read_model(model_file, "cpu", None)
