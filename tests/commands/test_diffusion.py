"""`aims-PAX diffusion train` and `sample`: from a file to structures, and every mistake in one line."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest

from aims_pax.commands.diffusion import (
    SampleRequest,
    load_diffusion,
    property_value,
    sample_diffusion,
    train_diffusion,
)
from aims_pax.errors import SettingsError
from aims_pax.labelled_data import structure_text
from aims_pax.models.diffusion.generation import GenerationFailed
from tests.models.diffusion.structures import CONFINED, adsorbates, settings, trimers


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model of slabs, with types and a property, hardly trained."""
    here = tmp_path_factory.mktemp("diffusion")
    texts = []
    for k, frame in enumerate(adsorbates(100)):
        atoms = frame.to_atoms()
        atoms.info["energy"] = -0.01 * k
        texts.append(structure_text(atoms))
    (here / "data.xyz").write_text("".join(texts))
    asked = settings(
        **CONFINED, noisers=("auto", "Types"), conditioning="energy", epochs=4, log_dir=str(here / "logs")
    )
    ase.io.write(here / "slab.xyz", adsorbates(1)[0].to_atoms()[:1])
    return train_diffusion(here / "data.xyz", asked)


def request(folder: Path, **keys) -> SampleRequest:
    given = {
        "n": 3,
        "formula": "AuPd",
        "template": folder.parents[1] / "slab.xyz",
        "retries": 200,
        "steps": 6,
    }
    return SampleRequest(**{**given, **keys})


def test_samples_have_the_template_the_formula_and_their_origin(folder, tmp_path):
    out = tmp_path / "made.xyz"
    frames = sample_diffusion(
        folder, request(folder, output=out, properties=(("energy", -0.5),), guidance=1.0)
    )
    read = ase.io.read(out, ":")
    assert len(frames) == len(read) == 3
    for frame, atoms in zip(frames, read, strict=True):
        assert frame.numbers[0] == 29
        assert sorted(frame.numbers.tolist()) == [29, 46, 79]
        assert (frame.positions[0] == 0).all()
        assert np.allclose(frame.positions, atoms.positions)
        assert atoms.info["energy" if "energy" in atoms.info else "seed"] in (-0.5, 42)


def test_a_property_steers_and_others_are_refused(folder):
    _, content = load_diffusion(folder)
    assert property_value(content, ()) is None
    assert property_value(content, (("energy", -0.5),)) == -0.5
    with pytest.raises(SettingsError, match="gap: not a property of this model; it was trained with energy"):
        property_value(content, (("gap", 1.0),))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"sampler": "heunn"}, "sampler: 'heunn'.*heun"),
        ({"relax": 5}, "need a potential"),
        ({"formula": "AuFe"}, "Fe: the model was trained on"),
        ({"template": None}, "give the template"),
        ({"confinement": (0.0, 90.0), "cell": [5, 0, 1, 0, 5, 0, 0, 0, 20], "template": None}, "xy plane"),
    ],
)
def test_what_cannot_be_sampled_is_said(folder, keys, said):
    with pytest.raises(SettingsError, match=said):
        sample_diffusion(folder, request(folder, **keys))


def test_structures_that_passed_are_written_when_too_many_are_refused(folder, tmp_path, monkeypatch):
    from aims_pax.models.diffusion.structure_guard import StructureGuard

    calls = []

    def second(self, graph):
        calls.append(1)
        return None if len(calls) == 2 else "too close: for the test"

    monkeypatch.setattr(StructureGuard, "refusal", second)
    with pytest.raises(GenerationFailed, match="1 of 6 structures passed; refused: too close 5"):
        sample_diffusion(folder, request(folder, output=tmp_path / "a.xyz", retries=1))
    assert len(ase.io.read(tmp_path / "a.xyz", ":")) == 1


def test_few_structures_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "a.xyz").write_text("".join(structure_text(f.to_atoms()) for f in trimers(20)))
    with pytest.raises(SettingsError, match="20 structures of Ar3"):
        train_diffusion(tmp_path / "a.xyz", settings(log_dir=str(tmp_path / "logs")))
    assert not (tmp_path / "logs").exists()
