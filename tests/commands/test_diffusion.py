"""`aims-PAX diffusion train` and `sample`: from a file to structures, and every mistake in one line."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml

from aims_pax.commands.diffusion import (
    SampleRequest,
    load_diffusion,
    sample_diffusion,
    train_diffusion,
)
from aims_pax.errors import RunInterrupted, SettingsError
from aims_pax.labelled_data import structure_text
from aims_pax.models.diffusion.generation import GenerationFailed, value_to_steer_towards
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


def test_atomic_numbers_are_a_formula(folder):
    by_formula, by_numbers = (
        sample_diffusion(folder, request(folder, n=1, **keys))
        for keys in ({}, {"formula": None, "atomic_numbers": [79, 46]})
    )
    assert by_formula == by_numbers
    with pytest.raises(SettingsError, match="formula and atomic_numbers: give one of them"):
        sample_diffusion(folder, request(folder, atomic_numbers=[79, 46]))


def test_a_property_steers_and_others_are_refused(folder):
    _, content = load_diffusion(folder)
    about = content.architecture, content.data
    assert value_to_steer_towards(*about, {}) is None
    assert value_to_steer_towards(*about, {"energy": -0.5}) == -0.5
    with pytest.raises(SettingsError, match="gap: not a property of this model; it was trained with energy"):
        value_to_steer_towards(*about, {"gap": 1.0})
    for wrong in (float("nan"), float("inf"), True, "low"):
        with pytest.raises(SettingsError, match="energy: expected a finite number"):
            value_to_steer_towards(*about, {"energy": wrong})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"sampler": "heunn"}, "sampler: 'heunn'.*heun"),
        ({"relax": 5}, "need a potential"),
        ({"formula": "AuFe"}, "Fe: the model was trained on"),
        ({"template": None}, "give the template"),
        ({"formula": "AuPd+"}, "cannot be read"),
        ({"formula": "Au0"}, "cannot be read"),
        ({"formula": None, "n_atoms": 0}, "n_atoms: expected at least 1"),
        ({"n": 0}, "n: expected at least 1"),
        ({"retries": -1}, "retries: expected at least 0"),
        ({"steps": 0}, "steps: expected at least 2"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"max_force": -1.0, "potential": "ase.calculators.emt:EMT"}, "max_force: expected a number > 0"),
        ({"guidance": float("nan"), "properties": {"energy": -0.5}}, "guidance: expected a number"),
        ({"ff_zeta": 2.0}, "no effect without ff_guidance"),
        ({"properties": (("energy", -0.5), ("energy", -0.4))}, "given twice"),
        ({"cell": [1, 2, 3], "template": None}, "nine numbers"),
        ({"cell": [5, 0, 0, 0, float("nan"), 0, 0, 0, 20], "template": None}, "finite numbers"),
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


def test_structures_that_passed_are_written_when_it_is_stopped(folder, tmp_path, monkeypatch):
    from aims_pax.models.diffusion.structure_guard import StructureGuard

    monkeypatch.setattr(StructureGuard, "refusal", lambda self, graph: None)
    steps = []

    def stop():
        steps.append(1)
        if len(steps) > 9:  # in the second batch of 6 levels each
            raise RunInterrupted("stopped by the user (Ctrl-C)", 3)

    asked = request(folder, output=tmp_path / "a.xyz", n=5, batch_size=2)
    with pytest.raises(RunInterrupted):
        sample_diffusion(folder, asked, stop)
    assert len(ase.io.read(tmp_path / "a.xyz", ":")) == 2


def test_few_structures_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "a.xyz").write_text("".join(structure_text(f.to_atoms()) for f in trimers(20)))
    with pytest.raises(SettingsError, match="20 structures of Ar3"):
        train_diffusion(tmp_path / "a.xyz", settings(log_dir=str(tmp_path / "logs")))
    assert not (tmp_path / "logs").exists()


def test_a_template_holds_fixed_atoms_only_and_an_unknown_one_is_said(folder, caplog):
    whole = adsorbates(1)[0]
    with pytest.raises(SettingsError, match=r"2 of its atoms \(the first: 2\) are not fixed"):
        sample_diffusion(folder, request(folder, template=whole))
    two = whole.chosen(np.array([0, 0]), np.stack([whole.positions[0], whole.positions[0] + [2.5, 2.5, 0]]))
    with caplog.at_level("WARNING"):
        sample_diffusion(folder, request(folder, template=two, n=1))
    assert "template: Cu2; the fixed atoms of the training structures are Cu" in caplog.text
    assert "cell is not that" not in caplog.text
    one = whole.chosen(np.array([0]), whole.positions[:1])
    for factors, said in (((2, 1, 1), False), ((1, 1, 1.5), False), ((1.3, 1, 1), True)):
        with caplog.at_level("WARNING"):
            sample_diffusion(
                folder,
                request(folder, template=replace(one, cell=one.cell * np.array(factors)[:, None]), n=1),
            )
        assert ("its cell is not that of the training structures" in caplog.text) == said


def test_a_singlet_is_not_a_statement_about_the_template(folder, caplog):
    whole = adsorbates(1)[0]
    for spin, said in ((1, False), (3, True)):
        template = replace(whole.chosen(np.array([0]), whole.positions[:1]), charge=0.0, spin=spin)
        with caplog.at_level("WARNING"):
            sample_diffusion(folder, request(folder, template=template, n=1))
        assert ("template: its spin" in caplog.text) == said


def test_walls_that_are_impossible_are_named_once(folder):
    with pytest.raises(SettingsError, match=r"^new structures: confinement: expected the lower height first"):
        sample_diffusion(folder, request(folder, confinement=(3.0, 1.0)))


def test_a_part_of_a_file_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(SettingsError, match=r"ase convert -n 0:150 .*a\.xyz part\.xyz"):
        train_diffusion(f"{tmp_path}/a.xyz@0:150", settings())


def test_a_file_is_replaced_only_on_purpose(folder, tmp_path):
    out = tmp_path / "made.xyz"
    out.write_text("mine")
    with pytest.raises(SettingsError, match="exists already"):
        sample_diffusion(folder, request(folder, output=out, n=1))
    assert out.read_text() == "mine"
    sample_diffusion(folder, request(folder, output=str(out), n=1, overwrite=True))
    assert len(ase.io.read(out, ":")) == 1


def test_the_value_to_steer_towards_is_no_label_of_the_samples(folder, tmp_path):
    out = tmp_path / "made.xyz"
    sample_diffusion(folder, request(folder, output=out, n=1, properties={"energy": -0.5}))
    (atoms,) = ase.io.read(out, ":")
    assert atoms.calc is None
    assert atoms.info["target_energy"] == -0.5


def written(path: Path, frames, **info) -> Path:
    texts = []
    for frame in frames:
        atoms = frame.to_atoms()
        atoms.info |= info
        texts.append(structure_text(atoms))
    path.write_text("".join(texts))
    return path


def test_the_charge_of_all_structures_is_that_of_samples_and_different_ones_are_refused(tmp_path):
    charged = [replace(f, charge=-1.0, spin=2) for f in trimers(100)]
    asked = settings(epochs=1, log_dir=str(tmp_path / "logs"))
    folder = train_diffusion(str(written(tmp_path / "a.xyz", charged)), asked)
    (frame,) = sample_diffusion(folder, SampleRequest(n=1, formula="Ar3", retries=500, steps=4))
    assert (frame.charge, frame.spin) == (-1, 2)
    mixed = [*charged[:50], *trimers(100)[50:]]
    with pytest.raises(SettingsError, match=r"charge: the structures have different ones \(-1, 0\)"):
        train_diffusion(written(tmp_path / "b.xyz", mixed), asked)
    with pytest.raises(SettingsError, match="write it as charge"):
        train_diffusion(written(tmp_path / "c.xyz", trimers(100), Charge=-1), asked)


def test_an_emptied_checkpoint_and_one_without_weights_are_said(folder, tmp_path):
    import torch

    copy = tmp_path / "version_0"
    shutil.copytree(folder, copy)
    path = copy / "checkpoints" / "last_model.ckpt"
    path.write_bytes(b"")
    with pytest.raises(SettingsError, match="damaged"):
        load_diffusion(copy)
    for content in ({"format": 1, "average": [1]}, {"format": 1}):
        torch.save(content, path)
        with pytest.raises(SettingsError, match="not a checkpoint of"):
            load_diffusion(copy)
    with pytest.raises(SettingsError, match=r"there are best_model.ckpt, last_model.ckpt"):
        load_diffusion(copy, "first.ckpt")


@pytest.mark.parametrize(
    ("section", "name", "value", "said"),
    [
        ("architecture", "feature_size", "abc", "architecture.feature_size"),
        ("architecture", "feature_size", 16, "not those of the architecture"),
        ("data", "nearest", None, "data.nearest"),
        ("data", "nearest", {"Cu-Cu": "abc"}, "data.nearest"),
        ("data", "radius", "abc", "data.radius"),
        ("data", "loneliest", None, "data.loneliest"),
        ("data", "cell", [[1, 2], [3]], "data.cell"),
        ("data", "property_range", [1], "data.property_range"),
        ("settings", "lr", "fast", "settings.lr"),
        ("settings", "foo", 1, "settings.foo"),
    ],
)
def test_an_edited_hparams_is_said_with_the_place(folder, tmp_path, section, name, value, said):
    copy = tmp_path / "version_0"
    shutil.copytree(folder, copy)
    path = copy / "hparams.yaml"
    values = yaml.safe_load(path.read_text())
    values[section][name] = value
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(SettingsError, match=said):
        load_diffusion(copy)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), section: None}))
    with pytest.raises(SettingsError, match=f"{section}: expected keys with values"):
        load_diffusion(copy)


def test_the_file_of_positions_is_kept_or_refused(tmp_path, caplog):
    frames = [replace(f, fixed=None) for f in adsorbates(100)]
    (tmp_path / "a.xyz").write_text("".join(structure_text(f.to_atoms()) for f in frames))
    asked = settings(noisers=("Types",), cutoff=4.5, epochs=1, log_dir=str(tmp_path / "logs"))
    model = train_diffusion(tmp_path / "a.xyz", asked)
    wider = replace(frames[0], cell=frames[0].cell * 1.2)
    (tmp_path / "where.xyz").write_text(structure_text(wider.to_atoms()))
    given = SampleRequest(n=1, positions=tmp_path / "where.xyz", steps=4, retries=500)
    (made,) = sample_diffusion(model, given)
    np.testing.assert_allclose(made.cell, wider.cell, atol=1e-6)
    np.testing.assert_allclose(made.positions, wider.positions, atol=1e-6)
    assert "cell: it is not that of the training structures" in caplog.text
    with pytest.raises(SettingsError, match="positions: their cell is not that of cell"):
        sample_diffusion(model, replace(given, cell=frames[0].cell.ravel().tolist()))
    charged = replace(wider, charge=1, spin=1, fixed=np.ones((3, 3), bool))
    sample_diffusion(model, replace(given, positions=charged))
    assert "positions: its charge, fixed are not those of the new structures" in caplog.text


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"confinement": (100, 110)}, r"confinement: 100 … 110 Å is outside the cell, .* 0 to 14 Å"),
        ({"output": "/proc/nowhere/a.xyz"}, "output: /proc/nowhere: "),
    ],
)
def test_what_would_be_found_only_after_sampling_is_said_before(folder, keys, said):
    with pytest.raises(SettingsError, match=said):
        sample_diffusion(folder, request(folder, **keys))
