"""MISC.charge and MISC.spin reach the systems; what is said twice and differently is refused."""

import ase.io
import pytest
from ase.build import molecule

from aims_pax.errors import SettingsError
from aims_pax.labelling.factory import reference_of
from aims_pax.labelling.references.aims_input import control_for
from aims_pax.settings import read_settings
from aims_pax.settings.control_in import read_control
from aims_pax.settings.geometries import read_geometries
from tests.settings.folders import AIMS, MACE, PROJECT, errors, with_key, write

XTB = PROJECT.replace("ase.calculators.emt:EMT", "tblite.ase:TBLite")


@pytest.fixture
def folder(tmp_path):
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    ase.io.write(tmp_path / "ammonia.xyz", molecule("NH3"))
    (tmp_path / "control.in").write_text("xc pbe\n")
    return tmp_path


def systems(folder, *keys, project=XTB, files="[water.xyz, ammonia.xyz]"):
    write(folder, with_key(project, "MISC", f"path_to_geometry: {files}", *keys), MACE)
    return {s.name: s.frame for s in read_geometries(read_settings(folder))}


def refused(folder, *keys, **kwargs):
    with pytest.raises(SettingsError) as caught:
        systems(folder, *keys, **kwargs)
    return str(caught.value)


def test_a_number_serves_every_geometry(folder):
    found = systems(folder, "charge: 1", "spin: 2")
    assert [(f.charge, f.spin) for f in found.values()] == [(1.0, 2), (1.0, 2)]


@pytest.mark.parametrize("name", ["ammonia.xyz", "ammonia", "1"])
def test_a_map_serves_the_geometries_it_names(folder, name):
    found = systems(folder, f"charge: {{{name}: 1}}", f"spin: {{{name}: 2}}")
    assert [(f.charge, f.spin) for f in found.values()] == [(None, None), (1.0, 2)]


def test_a_name_that_is_no_geometry_is_refused(folder):
    said = refused(folder, "charge: {methane: 1}")
    assert "MISC.charge.methane: no geometry is called 'methane'; expected one of water, ammonia" in said


def test_a_file_name_that_fits_two_geometries_is_refused_and_their_own_names_serve(folder):
    (folder / "ion").mkdir()
    ase.io.write(folder / "ion/water.xyz", molecule("H2O"))
    files = "[water.xyz, ion/water.xyz]"
    said = refused(folder, "charge: {ion/water.xyz: 1}", "spin: {water_xyz: 2}", files=files)
    assert (
        "MISC.charge.ion/water.xyz: 'ion/water.xyz' may be the geometry water or water_xyz; write one" in said
    )
    found = systems(folder, "charge: {water_xyz: 1}", files=files)
    assert [(n, f.charge) for n, f in found.items()] == [("water", None), ("water_xyz", 1.0)]


def test_without_them_a_structure_stays_what_it_was(folder):
    plain = systems(folder)
    assert {n: f.id for n, f in plain.items()} == {
        n: f.id for n, f in systems(folder, "charge: None").items()
    }
    assert plain["water"].charge is None


def test_a_file_that_says_otherwise_is_named_beside_the_setting(folder):
    ion = molecule("H2O")
    ion.info["charge"] = -1
    ase.io.write(folder / "water.xyz", ion, format="extxyz")
    said = refused(folder, "charge: 1")
    assert said == "MISC.charge: 1 contradicts the charge -1 in the file of geometry water; remove one"
    assert systems(folder, "charge: {water: -1}")["water"].charge == -1


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            ("spin: 2",),
            "MISC.spin: geometry water (H2O): charge 0 leaves 10 electrons, an even number",
        ),
        (("charge: 1", "spin: 3"), "9 electrons, an odd number, which cannot have multiplicity 3"),
        (("charge: 9", "spin: 4"), "multiplicity 4 needs 3 unpaired electrons, but there are only 1"),
    ],
)
def test_a_multiplicity_that_the_electrons_cannot_have_is_refused(folder, keys, said):
    assert said in refused(folder, *keys)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("spin: 0", "MISC.spin: 0 is not possible; expected at least 1"),
        ("spin: 0.5", "MISC.spin: expected a whole number, got 0.5"),
        ("spin: {water: 1.5}", "MISC.spin: expected a whole number, got 1.5"),
        ("charge: one", "MISC.charge: expected a number"),
        ('charge: "1"', "MISC.charge: expected a number, got text '1'; remove the quotes"),
    ],
)
def test_what_is_no_charge_or_multiplicity_is_refused(tmp_path, key, said):
    assert said in "\n".join(errors(tmp_path, with_key(XTB, "MISC", key)))


def test_a_reference_that_takes_no_charge_is_known_before_it_starts(folder):
    said = refused(folder, "charge: {water: 1}", project=PROJECT)
    assert (
        "REFERENCE: geometry water: H2O has charge 1, and REFERENCE.factory ase.calculators.emt:EMT has no known arg"
        in said
    )


def test_kwargs_that_say_otherwise_are_named(folder):
    project = XTB.replace("tblite.ase:TBLite\n", "tblite.ase:TBLite\n  kwargs: {charge: 2}\n")
    said = refused(folder, "charge: {water: 1}", project=project)
    assert "REFERENCE.kwargs has charge: 2, which contradicts the charge 1 of H2O" in said


@pytest.mark.parametrize(
    ("line", "keys", "said"),
    [
        (
            "charge 2.",
            ("charge: 1",),
            "control.in has charge 2., which contradicts the charge 1 of geometry water (MISC.",
        ),
        (
            "charge 1d0",
            ("charge: 0",),
            "control.in has charge 1d0, which contradicts the charge 0 of geometry water",
        ),
        (
            "fixed_spin_moment 2",
            ("spin: 1",),
            "has fixed_spin_moment 2, which contradicts the multiplicity 1",
        ),
        ("multiplicity 3", ("spin: 1",), "has multiplicity 3, which contradicts the multiplicity 1"),
        ("charge 1\nfixed_spin_moment 2", (), "9 electrons, an odd number, which cannot have multiplicity 3"),
    ],
)
def test_control_in_and_the_geometry_must_agree(folder, line, keys, said):
    (folder / "control.in").write_text(f"xc pbe\n{line}\n")
    assert said in refused(folder, *keys, project=AIMS)


def test_both_reach_fhi_aims(folder):
    (folder / "control.in").write_text("xc pbe\ncharge 1\n")
    frame = systems(folder, "charge: 1", "spin: 2", project=AIMS, files="water.xyz")["water"]
    text = control_for(read_control(folder / "control.in"), frame, False).text()
    assert "charge 1.0" in text
    assert "fixed_spin_moment 1.0" in text


def test_a_charged_system_is_part_of_the_method_of_a_calculator_and_a_neutral_one_is_not(folder):
    systems(folder, "charge: 0", "spin: 1")
    neutral = reference_of(read_settings(folder)).describe()
    assert "electrons" not in neutral
    systems(folder, "charge: {water: 1}")
    charged = reference_of(read_settings(folder)).describe()
    assert charged["electrons"] == {"charge": "charge", "spin": "multiplicity", "unpaired_electrons": False}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            "charge_key: atoms.initial_magnetic_moments",
            "charge_key: atoms.initial_magnetic_moments: expected the name",
        ),
        (
            "spin_key: atoms.moments",
            "spin_key: atoms.moments: expected the name of an argument, atoms.info, or atoms.in",
        ),
        ("spin_convention: 2S", "expected None | multiplicity | unpaired_electrons"),
        (
            "spin_key: atoms.initial_magnetic_moments\n  spin_convention: multiplicity",
            "spin_convention: multiplicity: magnetic moments count unpaired electrons",
        ),
    ],
)
def test_keys_that_cannot_be_are_refused(tmp_path, keys, said):
    assert said in "\n".join(
        errors(tmp_path, XTB.replace("tblite.ase:TBLite\n", f"tblite.ase:TBLite\n  {keys}\n"))
    )


def test_a_key_that_the_factory_does_not_take_is_known_at_the_start(folder):
    (folder / "strict_keys.py").write_text("def make(charge=0):\n    return None\n")
    project = XTB.replace("tblite.ase:TBLite\n", "strict_keys:make\n  charge_key: q\n")
    systems(folder, project=project)
    with pytest.raises(SettingsError, match=r"REFERENCE\.charge_key: strict_keys:make takes no argument q"):
        reference_of(read_settings(folder)).check()
