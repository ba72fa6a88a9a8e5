"""The order of files, and structures that are too close."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aims_pax.commands.gpr.input_files import (
    _by_ase,
    _checked,
    _in_order,
    without_close_ones,
    without_copies,
)
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from tests.models.gp import systems


def test_numbers_in_names_are_compared_as_numbers():
    names = ["a/file_100000.xsf", "a/file_99999.xsf", "a/file_00002.xsf"]
    assert sorted(map(Path, names), key=_in_order) == [Path(n) for n in reversed(names)]


def test_structures_closer_than_the_threshold_to_an_earlier_one_are_left_out():
    data = systems.h2(np.array([1.0, 1.01, 1.5, 1.001]))
    assert [x.id for x in without_close_ones(data, 0.1)] == [data[0].id, data[2].id]
    assert len(without_close_ones(data, 0.0)) == 4


def test_of_copies_the_first_is_left_with_a_warning(caplog):
    data = systems.h2(np.array([1.0, 1.5, 1.2]))
    assert without_copies([*data, data[1], data[0]]) == data
    assert "2 of 5 structures are copies of others and left out" in caplog.text
    caplog.clear()
    assert without_copies(data) == data
    assert not caplog.text


def test_structures_of_another_cell_are_never_too_close():
    cells = [Frame([29], [[0, 0, 0]], np.eye(3) * a, True) for a in (2.5, 2.6, 2.6)]
    data = [LabelledFrame(f, Label(0.0, np.zeros((1, 3)))) for f in cells]
    assert [x.frame.cell[0, 0] for x in without_close_ones(data, 0.1)] == [2.5, 2.6]


def test_reference_labels_are_read_and_not_the_results_of_a_model_beside_them(tmp_path):
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])
    atoms.calc = SinglePointCalculator(atoms, energy=-9.0, forces=np.ones((2, 3)))
    atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -1.0, np.full((2, 3), 0.5)
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    (one,) = _by_ase({"file_format": "extxyz"})(tmp_path / "a.xyz")
    assert one.label.energy == -1.0
    assert (one.label.forces == 0.5).all()
    del atoms.arrays["REF_forces"]
    ase.io.write(tmp_path / "b.xyz", atoms, format="extxyz")
    with pytest.raises(SettingsError, match="has no forces"):
        list(_by_ase({"file_format": "extxyz"})(tmp_path / "b.xyz"))


def test_atoms_on_one_place_are_named_with_the_file_and_images_count():
    label = Label(0.0, np.zeros((3, 3)))
    frame = Frame([8, 1, 1], [[0, 0, 0], [0, 0, 0.95], [0, 0.05, 0.95]])
    with pytest.raises(
        SettingsError, match=r"a: structure 2: atoms H1 and H2 are 0.05 Å apart \(counted from 0\)"
    ):
        _checked("a: structure 2", frame, label)
    slab = Frame(
        [8, 1, 1], [[0.01, 0, 0], [3.99, 0, 0], [2, 2, 0]], np.diag([4.0, 4, 0]), [True, True, False]
    )
    with pytest.raises(SettingsError, match=r"atoms (O0 and H1|H1 and O0) are 0.02 Å apart"):
        _checked("a", slab, label)
    with pytest.raises(SettingsError, match=r"atom Cu0 is 0.05 Å from its image"):
        _checked("a", Frame([29], [[0, 0, 0]], np.diag([4, 4, 0.05]), True), Label(0.0, np.zeros((1, 3))))
    assert _checked("a", Frame([1, 1, 1], [[0, 0, 0], [0, 0, 0.15], [0, 3, 0]]), label) is label


@pytest.mark.parametrize(
    ("cell", "said"),
    [(np.diag([4.0, 4, 0]), "is zero"), ([[4, 0, 0], [8, 0, 0], [0, 0, 4]], "one plane or line")],
)
def test_a_cell_without_volume_is_named_with_the_file(tmp_path, cell, said):
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]], cell=cell, pbc=True)
    atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -1.0, np.full((2, 3), 0.5)
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    with pytest.raises(SettingsError, match=f"a.xyz: structure 1: .*{said}"):
        list(_by_ase({"file_format": "extxyz"})(tmp_path / "a.xyz"))
