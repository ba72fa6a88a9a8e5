"""The HDF5 file: the document's keys, whole steps or none, and readable errors."""

from __future__ import annotations

import builtins

import h5py
import numpy as np
import pytest

from aims_pax.errors import RestartError, SetupError
from aims_pax.frames import Frame, Label
from aims_pax.record import hdf5
from aims_pax.record.hdf5 import Hdf5, frames_of, structure_arrays

FRAMES = [Frame([18, 36], [[0, 0, x], [2, 2, 2]], 5 * np.eye(3), True) for x in (0.0, 0.1, 0.2)]
LABELS = [Label(-2.0 - k, np.full((2, 3), k)) for k in range(3)]


def test_structures_have_the_documents_keys_shapes_and_units():
    arrays = structure_arrays(FRAMES, LABELS, np.zeros((3, 2, 7)))
    shapes = {name: a.shape for name, a in arrays.items()}
    assert shapes == {
        "positions (Å)": (3, 2, 3),
        "atomic_numbers": (2,),
        "masses (u)": (2,),
        "cell_vectors (Å)": (3, 3, 3),
        "pbc": (3,),
        "V (Å³∕atom)": (3,),
        "E_pot (eV∕atom)": (3,),
        "forces (eV∕Å)": (3, 2, 3),
        "feature_vectors": (3, 2, 7),
    }
    assert arrays["E_pot (eV∕atom)"].tolist() == [-1.0, -1.5, -2.0]
    assert arrays["V (Å³∕atom)"][0] == pytest.approx(62.5)
    assert arrays["masses (u)"].tolist() == pytest.approx([39.948, 83.798])


def test_frames_come_back_as_they_were(tmp_path):
    store = Hdf5(tmp_path / "a.hdf5")
    molecule = Frame([8, 1], [[0, 0, 0], [0, 0, 1]])
    store.write(
        "x/y", "d", {"crystal": structure_arrays(FRAMES), "molecule": structure_arrays([molecule])}, {}
    )
    assert frames_of(store.read("x/y/crystal")) == FRAMES
    assert frames_of(store.read("x/y/molecule")) == [molecule]
    assert store.groups("x") == ["x/y/crystal", "x/y/molecule"]
    assert store.groups("x/y/crystal") == ["x/y/crystal"]


def test_a_step_replaces_itself_and_leaves_the_others(tmp_path):
    store = Hdf5(tmp_path / "a.hdf5")
    assert store.digest("one") is None
    store.write("one", "first", {"g": {"a": np.arange(3)}}, {"g": {"n": 3}, "": {"top": 1}})
    store.write("two", "second", {"": {"b": np.ones(2)}}, {})
    store.write("one", "third", {"h": {"c": np.arange(2)}}, {})
    assert (store.digest("one"), store.digest("two")) == ("third", "second")
    assert store.has("one/h")
    assert not store.has("one/g")
    assert store.read("two")["b"].tolist() == [1, 1]
    store.add("one/h", {"c": np.zeros(1), "d": np.ones(1)})
    assert {k: v.tolist() for k, v in store.read("one/h").items()} == {"c": [0], "d": [1]}
    assert [p.name for p in tmp_path.iterdir()] == ["a.hdf5"]


def test_a_failing_write_leaves_the_file_as_it_was(tmp_path):
    store = Hdf5(tmp_path / "a.hdf5")
    store.write("one", "d", {"g": {"a": np.arange(3)}}, {})
    before = store.path.read_bytes()
    with pytest.raises(TypeError):
        store.write("two", "d", {"g": {"a": np.arange(3), "b": object()}}, {})
    assert store.path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.hdf5"]


def test_attributes_are_readable_by_others(tmp_path):
    Hdf5(tmp_path / "a.hdf5").write(
        "k", "d", {"finite_subsystems/n=3": {}}, {"finite_subsystems/n=3": {"n_molecules": 3}}
    )
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert file["k/finite_subsystems/n=3"].attrs["n_molecules"] == 3
        assert file["k"].attrs["settings"] == "d"


def test_what_cannot_be_read_is_told(tmp_path):
    store = Hdf5(tmp_path / "a.hdf5")
    with pytest.raises(RestartError, match="holds no x"):
        store.read("x")
    store.path.write_bytes(b"no such thing")
    with pytest.raises(RestartError, match="not a readable HDF5 file"):
        store.read("x")
    with pytest.raises(SetupError, match=r"cannot write .*a\.hdf5"):
        store.write("x", "d", {}, {})


def test_without_h5py_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "h5py":
            raise ImportError("No module named 'h5py'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SetupError, match=r"aims-pax\[crystals\]"):
        hdf5.h5py()
