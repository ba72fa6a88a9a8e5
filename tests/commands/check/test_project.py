"""`aims-PAX check` finds what is wrong in a working folder before anything runs."""

import os
import subprocess
import sys

import ase.io
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, molecule

from aims_pax.commands.check.project import check_as_yaml, checked_settings
from aims_pax.errors import SettingsError
from tests.settings.folders import AIMS, MACE, PROJECT, with_key, write
from tests.settings.folders import GIVEN as NO_INITIAL

INITIAL, ACTIVE = "INITIAL_DATASET_GENERATION", "ACTIVE_LEARNING"
GEOMETRY = with_key(PROJECT, "MISC", "path_to_geometry: geometry.xyz")
GIVEN = with_key(NO_INITIAL, "MISC", "path_to_geometry: geometry.xyz")
AIMS_GEOMETRY = with_key(AIMS, "MISC", "path_to_geometry: geometry.xyz")


@pytest.fixture
def folder(tmp_path):
    """A folder with one water molecule, a control.in and species defaults."""
    ase.io.write(tmp_path / "geometry.xyz", molecule("H2O"))
    (tmp_path / "control.in").write_text("xc pbe\n")
    (tmp_path / "species").mkdir()
    for name in ("01_H_default", "08_O_default"):
        (tmp_path / "species" / name).write_text("species\n")
    return tmp_path


def problems(folder, project=GEOMETRY, mace=MACE):
    with pytest.raises(SettingsError) as caught:
        check_as_yaml(write(folder, project, mace))
    return str(caught.value)


def warnings(folder, project=GEOMETRY, mace=MACE):
    return checked_settings(write(folder, project, mace)).warnings


def labelled(path, energy="REF_energy", forces="REF_forces"):
    atoms = molecule("H2O")
    atoms.info[energy] = -1.0
    atoms.arrays[forces] = atoms.positions * 0.1
    ase.io.write(path, atoms, format="extxyz")


def test_a_folder_in_order_prints_its_effective_settings(folder):
    text, said = check_as_yaml(write(folder, GEOMETRY))
    assert set(yaml.safe_load(text)) == {"aimsPAX", "mace"}
    assert said == ()


def test_fhi_aims_in_order(folder):
    assert warnings(folder, AIMS_GEOMETRY) == ()


def test_a_missing_geometry_is_named_with_its_line(folder):
    said = problems(folder, GEOMETRY.replace("geometry.xyz", "none.xyz"))
    assert said.startswith("aimsPAX.yaml:12: MISC.path_to_geometry: cannot read the geometry")
    assert "none.xyz: no such file" in said


def test_a_broken_geometry_is_named(folder):
    (folder / "geometry.xyz").write_text("rubbish")
    assert "geometry.xyz" in problems(folder)


def test_control_in_must_be_there_with_a_functional(folder):
    (folder / "control.in").unlink()
    assert "control.in: no such file" in problems(folder, AIMS_GEOMETRY)
    (folder / "control.in").write_text("spin none\n")
    assert "control.in has no xc" in problems(folder, AIMS_GEOMETRY)


def test_a_periodic_system_needs_a_k_grid(folder):
    ase.io.write(folder / "geometry.xyz", bulk("Cu", cubic=True), format="extxyz")
    (folder / "species" / "29_Cu_default").write_text("species\n")
    assert "has no k_grid, but geometry is periodic and needs one" in problems(folder, AIMS_GEOMETRY)
    (folder / "control.in").write_text("xc pbe\nk_grid 2 2 2\n")
    assert warnings(folder, AIMS_GEOMETRY) == ()


def test_species_blocks_and_dynamics_of_control_in_are_said_to_be_ignored(folder):
    (folder / "control.in").write_text("xc pbe\nMD_run 1 NVE\nspecies H\n  nucleus 1\n")
    said = warnings(folder, AIMS_GEOMETRY)
    assert "species blocks of ./control.in are ignored, species_dir is used" in said[0]
    assert "MD_run in ./control.in is ignored" in said[1]
    (folder / "control.in").write_text("xc pbe\ncompute_forces  .false.\n")
    assert "compute_forces .false. is ignored: a label has forces" in warnings(folder, AIMS_GEOMETRY)[0]


def test_a_number_of_fortrans_in_control_in_is_a_number_and_anything_else_one_line(folder):
    (folder / "control.in").write_text("xc pbe\ncharge 1d0\n")
    assert not any("charge" in text for text in warnings(folder, AIMS_GEOMETRY))
    (folder / "control.in").write_text("xc pbe\ncharge 0 1e\ncharge one\n")
    assert "charge appears with different values: 0 1e, then one" in problems(folder, AIMS_GEOMETRY)


def test_hubbard_terms_of_species_blocks_that_would_be_lost_are_refused(folder):
    (folder / "control.in").write_text("xc pbe\nspecies H\n  nucleus 1\n  plus_u 1 s 2.0\n")
    assert "'plus_u 1 s 2.0' of H: species blocks are ignored" in problems(folder, AIMS_GEOMETRY)
    with open(folder / "species" / "01_H_default", "a") as file:
        file.write("\n  plus_u   1 s 2.0\n")
    assert any("species blocks" in text for text in warnings(folder, AIMS_GEOMETRY))


def silicon(folder, small, large, grid):
    """Two crystals of silicon with one control.in; what is warned of about k-points."""
    (folder / "many").mkdir()
    for name, repeat in (("small", small), ("large", large)):
        ase.io.write(folder / "many" / f"{name}.xyz", bulk("Si") * repeat, format="extxyz")
    (folder / "species" / "14_Si_default").write_text("species Si\n")
    (folder / "control.in").write_text(f"xc pbe\nrelativistic atomic_zora scalar\nk_grid {grid}\n")
    return [t for t in warnings(folder, AIMS_GEOMETRY.replace("geometry.xyz", "many")) if "k_grid" in t]


def test_one_k_grid_for_cells_of_very_different_size_is_warned_of(folder):
    (said,) = silicon(folder, 1, 3, "4 4 4")
    assert "shared by cells of very different size" in said
    assert "0.50 Å⁻¹ apart in small (2 atoms) and 0.17 Å⁻¹ in large (54 atoms)" in said


def test_one_k_grid_for_cells_of_like_size_is_nobodys_business(folder):
    assert silicon(folder, (1, 1, 1), (1, 1, 2), "4 4 4") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fixed_spin_moment 2", "fixed_spin_moment is ignored by FHI-aims without spin collinear"),
        ("spin collinear\ndefault_initial_moment hund", "FHI-aims refuses this for more than one atom"),
        ("external_pressure 0.1", "external_pressure in ./control.in is ignored"),
    ],
)
def test_spin_and_pressure_that_fhi_aims_would_not_use_are_warned_of(folder, line, said):
    (folder / "control.in").write_text(f"xc pbe\n{line}\n")
    assert any(said in text for text in warnings(folder, AIMS_GEOMETRY))


def test_species_defaults_must_be_there_for_every_element(folder):
    (folder / "species" / "08_O_default").unlink()
    assert "INITIAL_DATASET_GENERATION.species_dir: species has no 08_O_default" in problems(
        folder, AIMS_GEOMETRY
    )
    assert "nowhere: no such folder" in problems(
        folder, AIMS_GEOMETRY.replace("species_dir: species", "species_dir: nowhere")
    )


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("nowhere.such:Thing", "REFERENCE.factory: factory 'nowhere.such:Thing': cannot import nowhere.such"),
        ("ase.calculators.emt:EMTT", "has no 'EMTT'; nearest: EMT"),
        ("ase.calculators.emt", "expected 'package.module:callable'"),
        ("mine_broken:Thing", "importing 'mine_broken:Thing' failed: ZeroDivisionError"),
    ],
)
def test_the_factory_must_be_importable(folder, factory, said):
    (folder / "mine_broken.py").write_text("1 / 0\n")
    assert said in problems(folder, GEOMETRY.replace("ase.calculators.emt:EMT", factory))


def test_a_factory_may_live_in_the_working_folder_and_its_arguments_must_fit(folder, capsys):
    (folder / "mine_settings_test.py").write_text("print('hello')\ndef make(a, b=1):\n    return None\n")
    project = GEOMETRY.replace("ase.calculators.emt:EMT", "mine_settings_test:make")
    assert "REFERENCE.kwargs: 'mine_settings_test:make': missing a required argument: 'a'" in problems(
        folder, project
    )
    project = project.replace("mine_settings_test:make\n", "mine_settings_test:make\n  kwargs: {a: 1}\n")
    assert warnings(folder, project) == ()
    assert capsys.readouterr().out == ""  # whatever a module prints when imported, standard output stays ours


@pytest.mark.parametrize(
    ("factory", "kwargs", "said"),
    [
        (
            "tblite.ase:TBLite",
            "{metod: GFN1-xTB, verbosity: 0}",
            "metod: {} has no such argument and may ignore it; nearest: method",
        ),
        ("tblite.ase:TBLite", "{method: GFN1-xTB, charge: 1, directory: x}", None),
        (
            "ase.calculators.emt:EMT",
            "{asap_cuttoff: True}",
            "asap_cuttoff: {} has no such argument and may ignore it; nearest: asap_cutoff",
        ),
        (
            "ase.calculators.emt:EMT",
            "{labl: x}",
            "labl: {} has no such argument and may ignore it; nearest: label",
        ),
        ("ase.calculators.emt:EMT", "{something_else_altogether: 1}", None),
        ("mine_takes_all:make", "{metod: 1}", None),
        (
            "mine_takes_all:named",
            "{metod: 1}",
            "metod: {} has no such argument and may ignore it; nearest: method",
        ),
        ("mine_takes_all:named", "{method: 1, metod: 1}", None),
    ],
)
def test_arguments_that_look_like_slips_are_warned_of_where_anything_is_taken(folder, factory, kwargs, said):
    (folder / "mine_takes_all.py").write_text(
        "def make(**kwargs):\n    return None\ndef named(method=None, **kwargs):\n    return None\n"
    )
    old = "factory: ase.calculators.emt:EMT\n"
    assert GEOMETRY.count(old) == 1
    project = GEOMETRY.replace(old, f"factory: {factory}\n  kwargs: {kwargs}\n")
    found = warnings(folder, project)
    if said is None:
        assert found == ()
    else:
        (warning,) = found
        assert warning.startswith("aimsPAX.yaml:")
        assert f"REFERENCE.kwargs.{said.format(factory)}" in warning


def test_the_sampling_calculator_is_looked_at_too(folder):
    project = with_key(
        GEOMETRY, INITIAL, "initial_sampling: calculator", "initial_calculator: {factory: a.b:c}"
    )
    assert "initial_calculator.factory: factory 'a.b:c': cannot import" in problems(folder, project)


def test_the_foundation_model_is_a_known_size_or_a_file(folder):
    said = problems(folder, with_key(GEOMETRY, INITIAL, "initial_foundational_size: smal"))
    assert "'smal' is neither a model file nor one of small, medium" in said
    assert said.endswith("nearest: small")
    (folder / "my.model").write_bytes(b"")
    assert warnings(folder, with_key(GEOMETRY, INITIAL, "initial_foundational_size: my.model")) == ()


def test_atomic_energies_must_fit_the_elements(folder):
    said = problems(folder, mace=with_key(MACE, "ARCHITECTURE", "atomic_energies: [-1]"))
    assert said == (
        "mace.yaml:4: ARCHITECTURE.atomic_energies: 1 energies for 2 elements; "
        "expected one for each of H O, in this order"
    )


def test_datasets_and_models_must_be_there(folder):
    project = with_key(GIVEN, ACTIVE, "initial_models: [a, b, c, d]", "initial_train_dataset: train.xyz")
    said = problems(with_test_set := folder, with_key(project, "MISC", "test_set: test.xyz"))
    for file in ("a", "d", "train.xyz", "test.xyz"):
        assert f"{file}: no such file" in said
    assert with_test_set == folder


def test_datasets_must_carry_labels_under_the_given_names(folder):
    labelled(folder / "train.xyz", "E", "F")
    project = with_key(GIVEN, ACTIVE, "initial_train_dataset: train.xyz")
    assert "name the label keys with MISC.energy_key" in problems(folder, project)
    project = with_key(project, "MISC", "energy_key: E", "forces_key: F")
    (said,) = warnings(folder, project)
    assert "the energies of the isolated atoms are not determined by the given data" in said


def test_an_empty_dataset_is_refused(folder):
    (folder / "train.xyz").write_text("")
    project = with_key(GIVEN, ACTIVE, "initial_train_dataset: train.xyz")
    assert "initial_train_dataset: train.xyz: no structures in it" in problems(folder, project)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "H  ",
            "Cl ",
            "structure 2 (counted from 1): the model does not know Cl (in HClO), only H, O; remove",
        ),
        ("REF_energy=-1.0", "REF_energy=nan", "structure 2 (counted from 1): the energy is NaN"),
        ("0.00000000", "nan", "structure 2 (counted from 1): the position of atom 1 is NaN"),
        ("O ", "Xy ", "structure 2 (counted from 1): 'Xy' is not an element"),
    ],
)
def test_given_data_are_read_behind_the_first_structure(folder, old, new, said):
    labelled(folder / "train.xyz")
    one = (folder / "train.xyz").read_text()
    (folder / "train.xyz").write_text(one + one.replace(old, new, 1))
    project = with_key(GIVEN, ACTIVE, "initial_train_dataset: train.xyz")
    assert problems(folder, project).startswith(
        f"aimsPAX.yaml:2: ACTIVE_LEARNING.initial_train_dataset: train.xyz, {said}"
    )


def test_the_lines_of_a_long_dataset_are_looked_at_to_the_end(folder, monkeypatch):
    monkeypatch.setattr("aims_pax.commands.check.project.READ", 2)
    labelled(folder / "train.xyz")
    one = (folder / "train.xyz").read_text()
    (folder / "train.xyz").write_text(3 * one + "3\n")
    project = with_key(GIVEN, ACTIVE, "initial_train_dataset: train.xyz")
    assert "structure 4 (counted from 1): the file is incomplete" in problems(folder, project)


def two_systems(folder):
    (folder / "many").mkdir()
    ase.io.write(folder / "many" / "water.xyz", molecule("H2O"))
    ase.io.write(folder / "many" / "argon.xyz", Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]]))
    return GEOMETRY.replace("geometry.xyz", "many")


def test_md_of_systems_must_name_the_geometries(folder):
    project = two_systems(folder).replace(
        "MD:\n  stat_ensemble: NVT\n", "MD:\n  watr: {stat_ensemble: NVT}\n"
    )
    said = problems(folder, project)
    assert (
        "aimsPAX.yaml:8: MD.watr: no geometry has this name; there are argon, water; nearest: water" in said
    )
    assert "aimsPAX.yaml:7: MD: no settings for argon, water" in said


def test_fewer_trajectories_than_geometries_is_a_warning(folder):
    project = two_systems(folder)
    assert warnings(folder, project) == ()
    said = warnings(folder, project.replace("num_trajectories: 2", "num_trajectories: 1"))
    assert said == (
        "aimsPAX.yaml:5: ACTIVE_LEARNING.num_trajectories: 1 is less than the 2 geometries; 2 will run",
    )


def test_a_molecule_in_an_npt_run_is_said_to_move_in_nvt(folder):
    project = with_key(GEOMETRY.replace("NVT", "NPT"), "MD", "barostat: npt")
    said = warnings(folder, project, with_key(MACE, "GENERAL", "compute_stress: True"))
    assert any(
        "MD.stat_ensemble: geometry is not periodic in three directions: NVT is used" in w for w in said
    )
    assert any("GENERAL.compute_stress: has no effect" in w for w in said)


def test_all_problems_of_a_folder_come_at_once(folder):
    project = GEOMETRY.replace("geometry.xyz", "none.xyz").replace("emt:EMT", "emt:EMTT")
    assert len(problems(folder, project).splitlines()) >= 3


def test_checking_does_not_load_torch(folder):
    write(folder, AIMS_GEOMETRY)
    code = (
        "import sys; from aims_pax.commands.check.project import check_as_yaml; check_as_yaml('.');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, env={**os.environ}).returncode == 0


def test_temperatures_that_no_trajectory_gets_are_warned_of(folder):
    project = GEOMETRY.replace("stat_ensemble: NVT", "stat_ensemble: NVT\n  temperatures: [300, 500, 800]")
    assert "num_trajectories: 2" in project
    (said,) = warnings(folder, project)
    assert "MD.temperatures: " in said
    assert "2 of the trajectories: no trajectory is at 800 K; raise num_trajectories" in said
    assert warnings(folder, project.replace("num_trajectories: 2", "num_trajectories: 3")) == ()


def test_a_weight_of_structures_that_do_not_exist_is_warned_of(folder):
    weights = with_key(MACE, "TRAINING", "config_type_weights: {Default: 1.0, geometry: 2.0, Geometri: 3.0}")
    (said,) = [w for w in warnings(folder, mace=weights) if "config_type_weights" in w]
    assert (
        "Geometri has no effect: no structure has this config_type, system or stage; nearest: geometry"
        in said
    )
    labelled(folder / "train.xyz")
    text = (folder / "train.xyz").read_text().replace("pbc=", "config_type=dimer pbc=")
    (folder / "train.xyz").write_text(10 * text)
    given = with_key(GIVEN, ACTIVE, "initial_train_dataset: train.xyz")
    weights = with_key(MACE, "TRAINING", "config_type_weights: {dimer: 2.0}")
    assert not [w for w in warnings(folder, given, weights) if "config_type_weights" in w]
