"""Structures labelled by a potential, as extended XYZ."""

import ase.io
import numpy as np
import pytest

from aims_pax.commands.training_set.extxyz import write_labelled
from aims_pax.frames import Label
from tests.worlds import crystal, rattled, water


def test_structures_come_back_with_the_labels_of_their_potential(tmp_path):
    frames = [*rattled(water(), 2), crystal()]
    rng = np.random.default_rng(0)
    stress = rng.normal(size=(3, 3))
    stress += stress.T
    labels = [
        Label(-1.5 * k, rng.normal(size=(len(f), 3)), stress if f.periodic else None)
        for k, f in enumerate(frames)
    ]
    write_labelled(tmp_path / "out/n=2.xyz", frames, labels, {"step": "md_sampling", "n_molecules": 2})
    found = ase.io.read(tmp_path / "out/n=2.xyz", ":", format="extxyz")
    assert len(found) == 3
    for atoms, frame, label in zip(found, frames, labels, strict=True):
        assert (atoms.info["step"], atoms.info["n_molecules"]) == ("md_sampling", 2)
        np.testing.assert_array_equal(atoms.positions, frame.positions)
        assert atoms.calc.results["energy"] == pytest.approx(label.energy, abs=1e-9)
        np.testing.assert_allclose(atoms.calc.results["forces"], label.forces, atol=1e-8)
        assert ("stress" in atoms.calc.results) == frame.periodic
    assert found[2].calc.results["stress"] == pytest.approx(stress.ravel()[[0, 4, 8, 5, 2, 1]], abs=1e-8)


def test_as_many_labels_as_structures_or_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="zip"):
        write_labelled(tmp_path / "a.xyz", [water()], [], {})
    assert list(tmp_path.iterdir()) == []
