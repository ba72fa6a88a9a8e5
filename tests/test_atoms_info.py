"""What an `ase.Atoms` carries besides its geometry is read, or refused by its name and value."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms, FixCartesian
from ase.data import atomic_masses
from ase.io import write

from aims_pax import atoms_info
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.md.state import MDState
from aims_pax.systems import read_frame
from tests.structure_files.files import at


def test_heavy_water_is_heavy_in_the_frame_and_in_its_motion(tmp_path):
    atoms = molecule("H2O")
    atoms.set_masses([15.999, 2.014, 2.014])
    write(tmp_path / "d2o.xyz", atoms)
    frame = read_frame(tmp_path / "d2o.xyz")
    assert frame.masses.tolist() == [15.999, 2.014, 2.014]
    state = MDState.start(frame, 300.0, stream=1)
    assert state.masses.tolist() == [15.999, 2.014, 2.014]
    assert MDState.from_arrays(state.arrays()).frame() == frame
    light = MDState.start(
        read_frame(at(tmp_path, "h2o.xyz", "3\n\nO 0 0 0\nH 1 0 0\nH 0 1 0\n")), 300.0, stream=1
    )
    ratio = state.momenta[1:] / light.momenta[1:]
    assert np.allclose(ratio, np.sqrt(2.014 / 1.008))  # ⟨p²⟩ = m k T from the same deviates
    assert np.array_equal(state.momenta[0], light.momenta[0])


def test_constraints_along_axes_are_components_and_others_are_refused():
    from ase.constraints import FixedLine, FixedPlane, FixScaled

    atoms = Atoms("H4", np.eye(4, 3), cell=[[3, 0, 0], [1, 4, 0], [0, 0, 5]], pbc=True)
    atoms.set_constraint([FixScaled(0, [True, True, False]), FixScaled(1, [False, False, True]),
                          FixedPlane(2, [0, 1, 0]), FixedLine(3, [0, 0, 2])])  # fmt: skip
    assert Frame.from_atoms(atoms).fixed.astype(int).tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0], [1, 1, 0]]
    atoms.set_constraint(FixScaled(0, [True, False, True]))  # along b, which is no axis
    with pytest.raises(SettingsError, match="selective dynamics F T F"):
        Frame.from_atoms(atoms)
    atoms.set_constraint(FixedPlane(0, [1, 1, 0]))
    with pytest.raises(SettingsError, match="FixedPlane"):
        Frame.from_atoms(atoms)


@pytest.mark.parametrize(
    ("info", "charge", "spin"),
    [
        ({}, None, None),
        ({"charge": None, "spin": None}, None, None),
        ({"charge": "-1", "total_spin": "3"}, -1.0, 3),
        ({"total_charge": np.float32(0.5), "multiplicity": np.array(2)}, 0.5, 2),
        ({"charge": 1, "total_charge": 1.0, "spin": 2.0, "multiplicity": 2}, 1.0, 2),
    ],
)
def test_charge_and_multiplicity_are_numbers_under_any_of_their_names(info, charge, spin):
    assert (atoms_info.total_charge(info), atoms_info.multiplicity(info)) == (charge, spin)


def test_a_multiplicity_that_aims_pax_did_not_write_is_read_only_where_it_may_be():
    assert atoms_info.multiplicity({"multiplicity": 3}, foreign=False) is None
    assert atoms_info.multiplicity({"multiplicity": 3, "spin": 1}, foreign=False) == 1
    with pytest.raises(
        SettingsError, match="spin=1 but multiplicity=3: contradicting values; keep the right one"
    ):
        atoms_info.multiplicity({"multiplicity": 3, "spin": 1})


@pytest.mark.parametrize(
    ("value", "shown"),
    [(True, "True"), ([0, 1], "0 1"), (np.array([0, 1]), "0 1"), (1e9, "1000000000.0"), ("one", "one")],
)
def test_what_is_not_one_number_is_refused_as_it_was_written(value, shown):
    with pytest.raises(SettingsError) as refused:
        atoms_info.total_charge({"charge": value})
    assert str(refused.value) == f'charge="{shown}": expected one number, the total charge in e'


def test_masses_are_own_where_they_differ_by_more_than_tables_do():
    numbers = np.array([8, 1, 1])
    standard = atomic_masses[numbers]
    assert atoms_info.own_masses(numbers, None) is None
    assert atoms_info.own_masses(numbers, standard * (1 + 1.9e-4)) is None
    heavy = standard * [1, 1, 1 + 2.1e-4]
    np.testing.assert_array_equal(atoms_info.own_masses(numbers, heavy), heavy)
    with pytest.raises(SettingsError, match=r"masses have shape \(2,\), expected \(3,\)"):
        atoms_info.own_masses(numbers, [16.0, 1.0])
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(SettingsError, match=r"the mass of atom 2 is .*: expected a positive number in u"):
            atoms_info.own_masses(numbers, [16.0, bad, 1.0])


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"Charge": 1}, "Charge=1: write it as charge=…"),
        ({"net-charge": 1}, "net-charge=1: write it as charge=…"),
        ({"totCharge": 1}, "write it as charge=…"),
        ({"Spin Multiplicity": 2}, "write it as spin=…"),
        ({"unit-cell": [5.0, 5.0, 5.0]}, "unit-cell, but no Lattice"),
        ({"total_charge": 1, "total_spin": 2, "multiplicity": 2}, None),
        ({"Net_Charge": 1}, "write it as charge=…"),
        ({"spin_multiplicity": 2}, "write it as spin=…"),
        ({"n_unpaired": 2}, "write it as spin=…"),
        ({"PBC": "T T T"}, "PBC: write it as pbc=…, in lower case"),
        ({"box": [5.0, 5.0, 5.0]}, "box, but no Lattice"),
        ({"box": [0.0, 0.0, 0.0]}, None),
        ({"box": "small"}, None),
        ({"charge": 1, "spin": 2, "energy": -1.0}, None),
    ],
)
def test_a_name_of_another_program_is_refused_with_the_right_one(info, said):
    atoms = Atoms("H", info=info)
    if said is None:
        atoms_info.refuse_other_names(atoms)
        return
    with pytest.raises(SettingsError, match=said):
        atoms_info.refuse_other_names(atoms)


def test_statements_of_a_geometry_are_separated_by_semicolons():
    assert atoms_info.statements({}) == ()
    written = " homogeneous_field 0 0 0.1 ;; set_vacuum_level 1 ; "
    assert atoms_info.statements({"geometry_in": written}) == (
        "homogeneous_field 0 0 0.1",
        "set_vacuum_level 1",
    )


def test_several_constraints_on_one_atom_add_up():
    atoms = Atoms("H3", np.eye(3))
    assert atoms_info.fixed_components(atoms) is None
    x, z = FixCartesian(0, mask=(True, False, False)), FixCartesian([0, 1], mask=(False, False, True))
    atoms.set_constraint([x, z, FixAtoms([2])])
    assert atoms_info.fixed_components(atoms).astype(int).tolist() == [[1, 0, 1], [0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    "written",
    [
        "homogeneous_field 0 0", "homogeneous_field 0 0 x", "set_vacuum_level 1 2", "lattice_vector 1 0 0",
        "atom 0 0 0 H", "homogeneous_field 0 0 1; homogeneous_field 0 0 2", "set_vacuum_level nan",
    ],
)  # fmt: skip
def test_statements_of_a_header_are_checked_as_those_of_a_geometry_in(written):
    """They were copied to the geometry.in of FHI-aims: another atom, or a lattice, that the frame does not have."""
    with pytest.raises(SettingsError, match=r"homogeneous_field|set_vacuum_level"):
        atoms_info.statements({"geometry_in": written})
