"""control.in and geometry.in as FHI-aims gets them."""

from dataclasses import replace

import numpy as np
import pytest

from aims_pax.errors import (
    SetupError,
    Unsupported,
)
from aims_pax.frames import Frame
from aims_pax.labelling.references import aims_input
from aims_pax.labelling.references.aims_input import nuclear_charges, species_files
from aims_pax.labelling.references.fhi_aims import control_for, geometry_text
from aims_pax.settings.control_in import parse_control
from tests import worlds


def test_relaxation_and_md_leave_the_input(control):
    made = control_for(control("xc pbe\nrelax_geometry bfgs 1e-2\nMD_run 5.0 NVE\n"), worlds.water(), False)
    assert made.get("relax_geometry") is None
    assert made.get("MD_run") is None
    assert made.get("xc") == "pbe"


def test_the_frames_charge_overrides_and_says_so_once(control, caplog):
    aims_input._warned.clear()
    told = control("xc pbe\ncharge -1\n")
    for _ in range(3):
        assert float(control_for(told, replace(worlds.water(), charge=2.0), False).get("charge")) == 2.0
    assert float(control_for(told, replace(worlds.water(), charge=0.0), False).get("charge")) == 0.0
    assert control_for(told, worlds.water(), False).get("charge") == "-1"
    assert caplog.text.count("overridden by the geometry's charge 2") == 1


@pytest.mark.parametrize(
    ("text", "spin", "expected"),
    [
        ("xc pbe\n", 1, (None, None, None)),
        ("xc pbe\nspin collinear\ndefault_initial_moment 1\n", 1, ("collinear", 0.0, "1")),
        ("xc pbe\n", 3, ("collinear", 2.0, "0.666667")),  # FHI-aims stops at hund for more than one atom
        ("xc pbe\nspin none\n", 2, ("collinear", 1.0, "0.333333")),
        ("xc pbe\nspin collinear\nmultiplicity 5\ndefault_initial_moment 1\n", 3, ("collinear", 2.0, "1")),
        (
            "xc pbe\nspin collinear\nfixed_spin_moment 4\ndefault_initial_moment hund\n",
            None,
            ("collinear", 4.0, "hund"),
        ),
    ],
)
def test_multiplicity_becomes_a_fixed_spin_moment(control, text, spin, expected):
    charge = 1.0 if spin == 2 else None  # a doublet has an odd number of electrons
    made = control_for(control(text), replace(worlds.water(), spin=spin, charge=charge), False)
    moment = made.get("fixed_spin_moment")
    assert (made.get("spin"), moment and float(moment), made.get("default_initial_moment")) == expected
    assert "multiplicity" not in made  # FHI-aims would obey it instead


def test_geometry_in_carries_lattice_moments_and_charges_and_no_constraints():
    frame = Frame(
        numbers=[26, 8, 1],
        positions=[[0, 0, 0], [1.61234567, 0, 0], [0, 1.5, 0]],
        cell=8 * np.eye(3),
        pbc=True,
        fixed=np.array([[1, 1, 1], [0, 1, 1], [0, 0, 0]], bool),
        moments=[4.0, -0.5, 0],
        charges=[2.0, -2.0, 0],
    )
    lines = [line.split() for line in geometry_text(frame).splitlines()]
    assert lines[1] == ["lattice_vector", "8.00000000", "0.00000000", "0.00000000"]
    assert lines[4:] == [
        ["atom", "0.00000000", "0.00000000", "0.00000000", "Fe"],
        ["initial_charge", "2.00000000"],
        ["initial_moment", "4.00000000"],
        ["atom", "1.61234567", "0.00000000", "0.00000000", "O"],
        ["initial_charge", "-2.00000000"],
        ["initial_moment", "-0.50000000"],
        ["atom", "0.00000000", "1.50000000", "0.00000000", "H"],
    ]


def test_geometry_in_is_read_back_as_the_same_frame_without_constraints(tmp_path):
    from aims_pax.systems import read_frame

    frame = replace(worlds.slab(), pbc=True, moments=np.linspace(0, 1, 3))
    (tmp_path / "geometry.in").write_text(geometry_text(frame))
    assert read_frame(tmp_path / "geometry.in") == replace(frame, fixed=None)


@pytest.mark.parametrize(
    ("charge", "control", "spin", "said"),
    [
        (None, "xc pbe", 2, "10 electrons, an even number"),
        (None, "xc pbe\ncharge 1", 1, "9 electrons, an odd number"),
        (1.0, "xc pbe", 1, "9 electrons, an odd number"),
        (None, "xc pbe", 13, "12 unpaired electrons"),
    ],
)
def test_a_multiplicity_that_the_electrons_cannot_have_is_refused(charge, control, spin, said):
    with pytest.raises(Unsupported, match=said):
        control_for(parse_control(control), replace(worlds.water(), charge=charge, spin=spin), False)


def test_a_non_collinear_method_is_never_replaced_by_a_collinear_one():
    """A multiplicity needs two spin channels: the structure is refused, and others keep the user's method."""
    control = parse_control("xc pbe\nspin non-collinear")
    oxygen = Frame([8, 8], [[0, 0, 0], [0, 0, 1.2]])
    with pytest.raises(
        Unsupported, match=r"O2 has multiplicity 3, .* control\.in has spin non-collinear: change it"
    ):
        control_for(control, replace(oxygen, spin=3), False)
    assert control_for(control, oxygen, False).get("spin") == "non-collinear"


def test_for_atoms_the_method_stays_and_what_molecules_and_crystals_need_leaves(control):
    text = worlds.CONTROL_PERIODIC + (
        "charge 1\nspin collinear\nfixed_spin_moment 2\ndefault_initial_moment 1\ncompute_analytical_stress .true.\n"
        "relax_geometry bfgs 1e-2\noccupation_type gaussian 0.01\nk_offset 0.5 0.5 0.5\n"
        "output cube total_density\ncube origin 0 0 0\n"
    )
    kept = aims_input.control_for_atoms(control(text))
    assert [k for k, _ in kept.keywords] == ["xc", "relativistic", "sc_accuracy_rho", "occupation_type"]


@pytest.mark.parametrize(
    ("text", "stress", "periodic", "expected"),
    [
        ("k_grid 2 2 2\n", True, True, "analytical"),
        ("k_grid 2 2 2\n", False, True, None),
        ("k_grid 2 2 2\ncompute_numerical_stress .true.\n", True, True, "numerical"),
        ("k_grid 2 2 2\ncompute_numerical_stress .true.\n", True, False, None),
    ],
)
def test_stress_is_computed_for_crystals_the_way_the_user_has_written(
    control, text, stress, periodic, expected
):
    made = control_for(control("xc pbe\n" + text), worlds.crystal() if periodic else worlds.water(), stress)
    asked = [kind for kind in ("analytical", "numerical") if made.get(f"compute_{kind}_stress") is not None]
    assert asked == ([expected] if expected else [])
    assert (made.get("k_grid") is not None) == periodic
    assert made.get("compute_forces") == ".true."


def test_a_cell_without_volume_and_a_crystal_without_k_points_are_refused(control):
    wire = Frame([29], [[0, 0, 0]], np.diag([2.5, 0, 0]), [True, False, False])
    with pytest.raises(SetupError, match=r"give a slab or wire three lattice vectors, with vacuum \(Cu\)"):
        control_for(control("xc pbe\nk_grid 1 1 1\n"), wire, False)
    with pytest.raises(SetupError, match=r"no k_grid, but Cu4 is periodic: add one"):
        control_for(control("xc pbe\n"), worlds.crystal(), False)
    assert (
        control_for(control("xc pbe\nk_grid_density 5\n"), worlds.crystal(), False).get("k_grid_density")
        == "5"
    )


def test_moments_that_are_zero_by_wish_and_statements_are_written():
    frame = replace(worlds.dimer("Fe", 2.0), moments=[0.0, 3.0], statements=("homogeneous_field 0 0 0.1",))
    lines = geometry_text(frame).splitlines()
    assert lines[1] == "homogeneous_field 0 0 0.1"
    assert [line.split() for line in lines if "moment" in line] == [["initial_moment", "3.00000000"]]
    stated = geometry_text(replace(frame, zero_moments=[True, False]))
    assert [line.split()[1] for line in stated.splitlines() if "moment" in line] == [
        "0.00000000",
        "3.00000000",
    ]


def test_species_files_come_in_the_order_of_their_numbers_and_missing_ones_are_named(tmp_path):
    worlds.write_species(tmp_path, ["H", "O"])
    assert [p.name for p in species_files(tmp_path, {8, 1})] == ["01_H_default", "08_O_default"]
    with pytest.raises(SetupError, match=r"species_dir: 02_He_default, 92_U_default missing in "):
        species_files(tmp_path, [92, 1, 2])


def test_charges_of_nuclei_are_read_as_fortran_reads_them():
    text = "# nucleus 9\nspecies O\n nucleus 8\n mass 15.999\nspecies O_ghost # empty\n  nucleus 0.d0\n"
    text += "species X\nnucleus what\n"
    assert nuclear_charges(text) == {"O": 8.0, "O_ghost": 0.0}
    assert nuclear_charges("nucleus 8") == {}
