"""Reading and dealing starting structures."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from ase.constraints import FixAtoms
from ase.io import write

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.systems import System, deal, elements, read_frame, read_systems, system_of


def test_a_file_a_folder_and_a_list_are_read(tmp_path):
    for name in ("H2O", "CH4"):
        write(tmp_path / f"{name}.xyz", molecule(name))
    assert [s.name for s in read_systems(tmp_path / "H2O.xyz")] == ["H2O"]
    assert [s.name for s in read_systems(tmp_path)] == ["CH4", "H2O"]
    assert [s.name for s in read_systems([tmp_path / "H2O.xyz", tmp_path / "CH4.xyz"])] == ["H2O", "CH4"]
    assert elements(s.frame for s in read_systems(tmp_path)) == (1, 6, 8)


def test_every_unreadable_file_is_named_at_once(tmp_path):
    (tmp_path / "bad.xyz").write_text("this is no structure\n")
    (tmp_path / "worse.cif").write_text("")
    write(tmp_path / "good.xyz", molecule("H2O"))
    with pytest.raises(SettingsError) as error:
        read_systems(tmp_path)
    assert "bad.xyz" in str(error.value)
    assert "worse.cif" in str(error.value)
    assert "good.xyz" not in str(error.value)


def test_an_empty_folder_and_a_missing_file_are_said(tmp_path):
    with pytest.raises(SettingsError, match="no geometry files"):
        read_systems(tmp_path)
    with pytest.raises(SettingsError, match="no such file"):
        read_systems(tmp_path / "nothing.xyz")


def test_nothing_in_a_folder_of_geometries_is_left_out(tmp_path):
    write(tmp_path / "a.xyz", molecule("H2O"))
    (tmp_path / ".notes").write_text("hidden\n")
    (tmp_path / "README.md").write_text("about a.xyz\n")
    with pytest.raises(SettingsError, match=r"README.md: no structures(.|\n)*move other files elsewhere"):
        read_systems(tmp_path)
    (tmp_path / "README.md").unlink()
    (tmp_path / "b.xyz").symlink_to(tmp_path / "absent.xyz")
    with pytest.raises(SettingsError, match=r"b.xyz: no such file"):
        read_systems(tmp_path)
    (tmp_path / "b.xyz").unlink()
    (tmp_path / "more").mkdir()
    with pytest.raises(SettingsError, match="more: a folder in a folder of geometries; move it out"):
        read_systems(tmp_path)
    (tmp_path / "more").rename(tmp_path / ".more")
    assert [s.name for s in read_systems(tmp_path)] == ["a"]


def test_files_of_one_stem_get_different_names(tmp_path):
    write(tmp_path / "a.xyz", molecule("H2O"))
    write(tmp_path / "a.cif", Atoms("Cu", cell=[3, 3, 3], pbc=True))
    assert sorted(s.name for s in read_systems(tmp_path)) == ["a", "a_xyz"]


def test_geometry_in_brings_moments_charges_and_constraints(tmp_path):
    slab = fcc111("Cu", (1, 1, 3), vacuum=6, periodic=True)
    slab.set_constraint(FixAtoms([0]))
    slab.set_initial_magnetic_moments([0, 0, 1.5])
    with pytest.warns(FutureWarning):
        write(tmp_path / "geometry.in", slab, format="aims")
    frame = read_frame(tmp_path / "geometry.in")
    assert frame.fixed.all(axis=1).tolist() == [True, False, False]
    assert frame.moments.tolist() == [0, 0, 1.5]
    assert frame.periodic


def test_a_cell_without_volume_and_positions_that_are_no_numbers_are_refused(tmp_path):
    write(tmp_path / "flat.xyz", Atoms("H", cell=[3, 3, 0], pbc=True))
    with pytest.raises(SettingsError, match="no volume"):
        read_frame(tmp_path / "flat.xyz")
    write(tmp_path / "nan.xyz", Atoms("H", [[np.nan, 0, 0]]))
    with pytest.raises(SettingsError, match="finite"):
        read_frame(tmp_path / "nan.xyz")


def test_a_slab_without_a_third_vector_is_fine(tmp_path):
    write(tmp_path / "slab.xyz", Atoms("H", cell=[3, 3, 0], pbc=[True, True, False]))
    assert read_frame(tmp_path / "slab.xyz").pbc.tolist() == [True, True, False]


def test_systems_are_dealt_in_turn(tmp_path):
    for name in ("H2O", "CH4"):
        write(tmp_path / f"{name}.xyz", molecule(name))
    assert [s.name for s in deal(read_systems(tmp_path), 5)] == ["CH4", "H2O", "CH4", "H2O", "CH4"]


def test_a_symbol_that_is_no_element_is_said_so(tmp_path):
    (tmp_path / "geometry.in").write_text("atom 0 0 0 Q\natom 0 0 1 H\n")
    with pytest.raises(SettingsError, match="'Q' is not an element"):
        read_frame(tmp_path / "geometry.in")


def test_a_frame_belongs_to_its_system_also_where_isomers_share_a_formula():
    """ethanol and dimethyl ether, C2H6O; and two polymorphs."""
    from ase.build import bulk, molecule

    pairs = [
        ("CH3CH2OH", "CH3OCH3", molecule),
        ("fcc", "sc", lambda s: bulk("Cu", s, a=3.6, cubic=True) * (1, 1, 1)),
    ]
    rng = np.random.default_rng(0)
    for first, second, make in pairs:
        one, two = make(first), make(second)
        if len(one) != len(two):
            two = two * (1, 1, len(one) // len(two))
        systems = [System(n, Frame.from_atoms(a)) for n, a in ((first, one), (second, two))]
        for system in systems:
            moved = system.frame.moved(
                system.frame.positions + rng.normal(scale=0.05, size=system.frame.positions.shape)
            )
            assert system_of(moved, {}, systems) == system.name
            assert system_of(moved, {"system": "of another run"}, systems) == system.name
            assert system_of(moved, {"system": systems[0].name}, systems) == systems[0].name
    assert system_of(Frame([1], [[0, 0, 0]]), {"system": "x"}, systems) == "x"
