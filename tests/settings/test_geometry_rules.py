"""What geometries and settings say together is asked by `check` and by a run alike."""

import pytest

from aims_pax.commands.check.project import checked_settings
from aims_pax.errors import SettingsError
from aims_pax.settings import geometry_rules
from aims_pax.systems import read_systems
from tests.settings.folders import AIMS, MACE, PROJECT, with_key, write

CELL = "lattice_vector 8 0 0\n{0}lattice_vector 0 8 0\nlattice_vector 0 0 8\n"
WATER = "atom 0 0 0 O\natom 0.96 0 0 H\natom -0.24 0.93 0 H\n"
NPT = with_key(PROJECT.replace("NVT", "NPT"), "MD", "barostat: MTK")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "control.in").write_text("xc pbe\nk_grid 1 1 1\n")
    (tmp_path / "species").mkdir()
    for name in ("01_H_default", "08_O_default"):
        (tmp_path / "species" / name).write_text("species\n")
    return tmp_path


def check(folder, project, geometry, mace=MACE):
    (folder / "geometry.in").write_text(geometry)
    return checked_settings(write(folder, project, mace))


def test_a_cell_constraint_is_refused_at_constant_pressure_only(folder):
    constrained = CELL.format("constrain_relaxation .true.\n") + WATER
    check(folder, PROJECT, constrained)
    mace = MACE.replace("GENERAL:", "GENERAL:\n  compute_stress: true", 1)
    check(folder, NPT, CELL.format("") + WATER, mace)
    with pytest.raises(SettingsError, match=r"MD\.stat_ensemble.*fixes the cell, which NPT does not support"):
        check(folder, NPT, constrained, mace)


EMT = "{factory: ase.calculators.emt:EMT, kwargs: {}}"
TREE = f"kind: rattle_tree, cell_sigma: 0.05, potential: {EMT}"


@pytest.mark.parametrize(
    ("section", "place"),
    [
        (f"SAMPLERS: [{{{TREE}}}]", r"SAMPLERS\.0\.cell_sigma"),
        (
            f"PRETRAINING: {{potential: {EMT}, samplers: [{{kind: md}}, {{{TREE}}}]}}",
            r"PRETRAINING\.samplers\.1\.cell_sigma",
        ),
    ],
)
def test_a_sampler_that_changes_a_constrained_cell_is_refused_before_it_samples(folder, section, place):
    constrained = CELL.format("constrain_relaxation .true.\n") + WATER
    project = f"{PROJECT}\n{section}\n"
    check(folder, project, CELL.format("") + WATER)
    with pytest.raises(
        SettingsError, match=rf"{place}: geometry: constrain_relaxation .* cell_sigma does not"
    ):
        check(folder, project, constrained)


def test_samplers_refuse_a_constrained_cell_at_constant_pressure(folder):
    import numpy as np
    from ase.calculators.emt import EMT

    from aims_pax.potential import CalculatorPotential
    from aims_pax.sampler import SamplingError
    from aims_pax.samplers.kinds.md import MDSampler
    from tests.md.settings import langevin, npt

    (folder / "geometry.in").write_text(CELL.format("constrain_relaxation x\n") + WATER)
    systems = read_systems(folder / "geometry.in")
    sampler = MDSampler(CalculatorPotential(EMT), lambda system: npt("Berendsen"), skip_steps=1)
    with pytest.raises(SamplingError, match="NPT does not support"):
        next(iter(sampler.sample(systems, 1, np.random.default_rng(0))))
    sampler = MDSampler(CalculatorPotential(EMT), lambda system: langevin(timestep=0.2), skip_steps=1)
    assert len(list(sampler.sample(systems, 1, np.random.default_rng(0)))) == 1


def test_a_field_is_fhi_aims_own_and_what_a_model_cannot_learn_of_it_is_said(folder):
    field = "homogeneous_field 0 0 0.1\n" + WATER
    with pytest.raises(
        SettingsError, match=r"geometry: homogeneous_field 0\.0 0\.0 0\.1 works only with FHI-aims"
    ):
        check(folder, PROJECT, field)
    settings = check(folder, AIMS, field)
    assert any("invariant under rotations" in w for w in settings.warnings)
    assert not any("invariant" in w for w in check(folder, AIMS, WATER).warnings)


def test_velocities_are_warned_about(folder):
    settings = check(folder, PROJECT, WATER + "velocity 1 0 0\n")
    assert any("velocities are not used" in w for w in settings.warnings)


def test_a_run_asks_the_same(folder):

    settings = check(folder, PROJECT, WATER)
    (folder / "geometry.in").write_text("homogeneous_field 0 0 0.1\n" + WATER)
    (refusal,) = geometry_rules.refused_geometries(settings, read_systems(folder / "geometry.in"))
    assert "only with FHI-aims" in refusal[1]


def test_where_constant_pressure_is_not_possible_a_run_says_what_it_uses_instead(folder):
    mace = MACE.replace("GENERAL:", "GENERAL:\n  compute_stress: true", 1)
    settings = check(folder, NPT, WATER, mace)
    text = "geometry is not periodic in three directions: NVT is used, with the thermostat Langevin"
    assert any(f"MD.stat_ensemble: {text}" in w for w in settings.warnings)
    systems = read_systems(folder / "geometry.in")
    assert [t for _, t in geometry_rules.noteworthy(settings, systems)] == [text], "a run logs these"
    assert not [*geometry_rules.noteworthy(check(folder, PROJECT, WATER), systems)]


def test_a_single_atom_is_said_to_have_no_force(folder):
    one = CELL.format("") + "atom 0 0 0 O\n"
    assert any("geometry: a single atom has no force" in w for w in check(folder, PROJECT, one).warnings)
    mace = MACE.replace("GENERAL:", "GENERAL:\n  compute_stress: true", 1)
    assert not any("single atom" in w for w in check(folder, NPT, one, mace).warnings)


def test_an_isolated_atom_is_said_to_set_its_atomic_energy_only(folder):
    (found,) = [w for w in check(folder, PROJECT, "atom 0 0 0 O\n").warnings if "single atom" in w]
    assert "only sets the atomic energy of its element" in found
    assert "ScaleShiftMACE adds its shift" in found
    plain = MACE + "ARCHITECTURE:\n  model: MACE\n"
    (found,) = [w for w in check(folder, PROJECT, "atom 0 0 0 O\n", plain).warnings if "single atom" in w]
    assert "ScaleShiftMACE" not in found


def test_one_structure_under_two_names_is_said(folder):
    settings = check(folder, PROJECT, WATER)
    (folder / "copy.in").write_text(WATER)
    systems = [*read_systems(folder / "geometry.in"), *read_systems(folder / "copy.in")]
    (note,) = [text for _, text in geometry_rules.noteworthy(settings, systems)]
    assert note.startswith("geometry and copy are the same structure")
