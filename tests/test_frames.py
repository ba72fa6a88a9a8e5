"""Frames, labels and both together."""

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from hypothesis import given, settings
from hypothesis import strategies as st

from aims_pax.dataset import read_extxyz, to_extxyz
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.labelled_data import LabelKeys, labelled_frame
from aims_pax.md.state import MDState
from aims_pax.record.arrays import pack_arrays, unpack_arrays

WATER = Frame([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


def test_equal_content_has_an_equal_id_and_everything_counts():
    assert Frame(WATER.numbers, WATER.positions).id == WATER.id
    others = [
        WATER.moved(WATER.positions + 1e-7),
        WATER.moved(WATER.positions, np.eye(3)),
        Frame(WATER.numbers, WATER.positions, pbc=[True, False, False]),
        Frame(WATER.numbers, WATER.positions, charge=1),
        Frame(WATER.numbers, WATER.positions, spin=3),
        Frame(WATER.numbers, WATER.positions, fixed=[True, False, False]),
        Frame(WATER.numbers, WATER.positions, moments=[1, 0, 0]),
        Frame(WATER.numbers, WATER.positions, charges=[1, 0, 0]),
        Frame([8, 1, 9], WATER.positions),
    ]
    assert len({f.id for f in others} | {WATER.id}) == len(others) + 1


def test_the_id_is_the_same_on_every_machine():
    assert WATER.id == Frame([8, 1, 1], [[0.0, -0.0, 0], [0.96, 0, 1e-12], [-0.24, 0.93, 0]]).id
    assert len(WATER.id) == 20


def test_a_frame_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        WATER.positions[0] = 1.0
    with pytest.raises(AttributeError):
        WATER.charge = 3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=9, max_size=9), st.booleans())
def test_a_frame_survives_extxyz_exactly(coordinates, periodic):
    cell = (
        np.array([[5.123456789, 0.1, 0], [0, 6.2, 0.33333333333], [0, 0, 7.7]])
        if periodic
        else np.zeros((3, 3))
    )
    frame = Frame(
        [8, 1, 1], np.reshape(coordinates, (3, 3)), cell, periodic, charge=-1, spin=2,
        fixed=[[True, True, True], [False, False, False], [False, False, False]], moments=[0.5, -0.5, 0],
    )  # fmt: skip
    label = Label(
        -76.123456789012345, np.reshape(coordinates, (3, 3)) / 7, np.eye(3) / 3 if periodic else None
    )
    before = LabelledFrame(frame, label, {"system": "a b", "step": 7})
    path = __import__("pathlib").Path(__import__("tempfile").mkdtemp()) / "x.xyz"
    path.write_text(to_extxyz([before]))
    (after,) = read_extxyz(path)
    assert after.id == before.id == after.frame.id
    assert after.label.energy == before.label.energy
    assert np.array_equal(after.label.forces, before.label.forces)
    assert (after.label.stress is None) == (not periodic)
    if periodic:
        assert np.array_equal(after.label.stress, before.label.stress)
    assert after.origin == before.origin


def test_mace_reads_the_labels_we_write(tmp_path):
    from mace.data.utils import KeySpecification, load_from_xyz

    path = tmp_path / "x.xyz"
    stress = np.arange(9.0).reshape(3, 3) + np.arange(9.0).reshape(3, 3).T
    frame = Frame([29], [[0, 0, 0]], np.eye(3) * 3, True)
    path.write_text(to_extxyz([LabelledFrame(frame, Label(-3.5, [[1, 2, 3]], stress))]))
    _, configurations = load_from_xyz(str(path), KeySpecification.from_defaults())
    properties = configurations[0].properties
    assert properties["energy"] == -3.5
    assert np.array_equal(properties["forces"], [[1, 2, 3]])
    assert np.array_equal(np.reshape(properties["stress"], (3, 3)), stress)


def test_a_label_that_belongs_to_another_geometry_is_refused():
    atoms = LabelledFrame(WATER, Label(-1, np.zeros((3, 3)))).to_atoms()
    atoms.positions[0, 0] += 0.1
    with pytest.raises(SettingsError, match="does not fit its geometry"):
        labelled_frame(atoms)


def test_a_missing_label_names_what_is_there_and_what_to_do():
    atoms = WATER.to_atoms()
    atoms.info["dft_energy"] = 1.0
    with pytest.raises(SettingsError, match=r"no REF_energy.*dft_energy.*MISC\.energy_key"):
        labelled_frame(atoms)


def test_foreign_label_names_are_read():
    atoms = WATER.to_atoms()
    atoms.info["dft_energy"], atoms.arrays["dft_forces"] = -2.0, np.ones((3, 3))
    assert labelled_frame(atoms, LabelKeys("dft_energy", "dft_forces")).label.energy == -2.0


def test_constraints_charge_and_spin_go_to_ase_and_back():
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.1]], info={"charge": 1, "spin": 2})
    atoms.set_constraint([FixAtoms([0]), FixCartesian(1, mask=(True, False, False))])
    frame = Frame.from_atoms(atoms)
    assert frame.fixed.tolist() == [[True] * 3, [True, False, False]]
    again = Frame.from_atoms(frame.to_atoms())
    assert again == frame
    assert (again.charge, again.spin) == (1, 2)


def test_a_constraint_md_cannot_honour_is_refused_by_name():
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.1]], constraint=FixBondLength(0, 1))
    with pytest.raises(SettingsError, match="FixBondLength"):
        Frame.from_atoms(atoms)


def test_labels_know_whether_they_are_finite():
    assert Label(1.0, [[0, 0, 0]]).finite
    assert not Label(float("nan"), [[0, 0, 0]]).finite
    assert not Label(1.0, [[0, np.inf, 0]]).finite
    assert not Label(1.0, [[0, 0, 0]], np.full((3, 3), np.nan)).finite


def test_arrays_bring_a_frame_back():
    frame = Frame([1], [[0, 0, 1]], charge=0.5, spin=2, fixed=[True])
    assert Frame.from_arrays(frame.arrays()) == frame


@pytest.mark.parametrize("name", ["001", "F", "1e3", "1", "true", "1 2", "1_000", "nan", "-0"])
def test_a_system_called_like_a_number_keeps_its_name_in_the_dataset(tmp_path, name):
    path = tmp_path / "x.xyz"
    before = LabelledFrame(WATER, Label(-1.0, np.zeros((3, 3))), {"system": name, "step": 7, "T": 1e-05})
    path.write_text(to_extxyz([before]))
    (after,) = read_extxyz(path)
    assert after.origin == {"system": name, "step": 7, "T": 1e-05}


def test_names_of_foreign_files_stay_text_and_numbers_numbers(tmp_path):
    (tmp_path / "x.xyz").write_text(
        '1\nProperties=species:S:1:pos:R:3:f:R:3 E=-1e3 name=007 run=08 weight=0.50 serial=1e3 flag=T note="a \\"b"\n'
        "H 0 0 0 0 0 0\n"
    )
    (read,) = read_extxyz(tmp_path / "x.xyz", "E", "f")
    assert read.label.energy == -1000.0
    assert read.origin == {
        "name": "007", "run": "08", "weight": 0.5, "serial": "1e3", "flag": True, "note": 'a "b'
    }  # fmt: skip


def test_a_frame_id_that_looks_like_a_number_is_compared(tmp_path):
    path, frame = tmp_path / "x.xyz", WATER
    while not (frame.id.isdigit() or frame.id.replace("e", "", 1).isdigit()):
        frame = frame.moved(frame.positions + 1e-8)
    text = to_extxyz([LabelledFrame(frame, Label(-1.0, np.zeros((3, 3))))])
    path.write_text(text)
    assert next(read_extxyz(path)).id == frame.id
    path.write_text(text.replace("0.93", "0.94"))
    with pytest.raises(SettingsError, match="does not fit its geometry"):
        list(read_extxyz(path))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('charge="0 1"', "charge"),
        ("charge=nan", "charge"),
        ("charge=inf", "charge"),
        ("charge=1+", "charge"),
        ("charge=T", "charge"),
        ("charge=2j", "charge"),
        ("charge=-1 total_charge=1", "charge=-1 but total_charge=1"),
        ("spin=singlet", "spin"),
        ("spin=0", "spin=0"),
        ("spin=0.5", "spin=0.5"),
        ("spin=-1", "spin=-1"),
        ("spin=2 total_spin=3", "spin=2 but total_spin=3"),
        ("multiplicity=2 spin=1", "contradict"),
    ],
)
def test_a_charge_or_multiplicity_that_is_none_is_refused_in_one_line(tmp_path, written, said):
    (tmp_path / "x.xyz").write_text(f"1\nProperties=species:S:1:pos:R:3:f:R:3 E=0 {written}\nH 0 0 0 0 0 0\n")
    with pytest.raises(SettingsError) as error:
        list(read_extxyz(tmp_path / "x.xyz", "E", "f"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_masses_zero_moments_and_statements_are_part_of_a_frame_and_survive_every_store(tmp_path):
    heavy = Frame(
        [8, 1, 1], WATER.positions, masses=[15.999, 2.014, 2.014], moments=[2, 0, 0],
        zero_moments=[False, True, False], statements=("homogeneous_field 0.1 0.0 0.0",),
    )  # fmt: skip
    plain = Frame([8, 1, 1], WATER.positions, moments=[2, 0, 0])
    assert len({heavy.id, plain.id, WATER.id, Frame([8, 1, 1], WATER.positions, masses=heavy.masses).id}) == 4
    path = tmp_path / "x.xyz"
    path.write_text(to_extxyz([LabelledFrame(heavy, Label(-1.0, np.zeros((3, 3))), {"system": "D2O"})]))
    (after,) = read_extxyz(path)
    arrays, _ = unpack_arrays(
        pack_arrays(
            {**heavy.arrays(), **{f"md/{k}": a for k, a in MDState.start(heavy, 300, 1).arrays().items()}}, {}
        )
    )
    moving = MDState.from_arrays({k[3:]: a for k, a in arrays.items() if k.startswith("md/")}).frame()
    stored = Frame.from_arrays({k: a for k, a in arrays.items() if not k.startswith("md/")})
    for frame in (after.frame, stored, moving, heavy.moved(heavy.positions)):
        assert frame.id == heavy.id
        assert frame.masses.tolist() == [15.999, 2.014, 2.014]
        assert frame.zero_moments.tolist() == [False, True, False]
        assert frame.statements == ("homogeneous_field 0.1 0.0 0.0",)
    assert after.origin == {"system": "D2O"}


def test_standard_masses_are_none_so_that_ids_stay():
    atoms = WATER.to_atoms()
    atoms.set_masses([15.9994, 1.00794, 1.008])  # another table
    assert Frame.from_atoms(atoms).id == WATER.id == "ff51ad836f98d19fe272"
    atoms.set_masses([15.999, 0.0, 1.008])
    with pytest.raises(SettingsError, match="mass of atom 2"):
        Frame.from_atoms(atoms)


def test_chosen_atoms_bring_everything_that_is_theirs():
    frame = Frame(
        [8, 1, 1], WATER.positions, masses=[16, 2, 3], fixed=[0, 0, 1], moments=[0, 1, 2], charges=[0, 1, 2]
    )
    some = frame.chosen([2, 0, 2], WATER.positions + 1, charge=1)
    assert some.numbers.tolist() == [1, 8, 1]
    assert some.masses.tolist() == [3, 16, 3]
    assert some.fixed.all(axis=1).tolist() == [True, False, True]
    assert some.moments.tolist() == some.charges.tolist() == [2, 0, 2]
    assert some.charge == 1
