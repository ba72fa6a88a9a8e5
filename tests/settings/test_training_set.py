"""The training-set configuration: the document's keys and defaults, and every mistake named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from aims_pax.errors import SettingsError
from aims_pax.settings.augment import CallSpec
from aims_pax.settings.training_set import (
    ClassicalMD,
    FiniteSubsystemFilter,
    FreeEnergy,
    MDSampling,
    PhononFilter,
    PhononSampling,
    read_training_set,
)

EXAMPLE = Path(__file__).parents[2] / "example" / "crystal" / "config.yaml"
TOP = "crystal: a.xyz\ncalculator: small\n"


@pytest.fixture
def read(tmp_path):
    def go(text: str):
        (tmp_path / "c.yaml").write_text(text)
        return read_training_set(tmp_path / "c.yaml")

    return go


def refused(read, text: str) -> str:
    with pytest.raises(SettingsError) as error:
        read(text)
    return str(error.value)


DOCUMENTED = {  # the tables of mbe-automation's document
    MDSampling: {"temperature_K": 298.15, "pressure_GPa": 1.0e-4},
    ClassicalMD: {
        "ensemble": "NVT",
        "time_total_fs": 50000.0,
        "time_step_fs": 0.5,
        "sampling_interval_fs": 50.0,
        "time_equilibration_fs": 5000.0,
        "nvt_algo": "csvr",
        "npt_algo": "mtk_full",
        "thermostat_time_fs": 100.0,
        "barostat_time_fs": 1000.0,
        "supercell_radius": 25.0,
    },
    FreeEnergy: {"thermal_expansion": True, "supercell_radius": 25.0, "relax_input_cell": "constant_volume"},
    FiniteSubsystemFilter: {
        "selection_rule": "closest_to_central_molecule",
        "n_molecules": (1, 2, 3, 4, 5, 6, 7, 8),
        "distances": None,
        "assert_identical_composition": True,
    },
    PhononSampling: {"temperature_K": 298.15, "time_step_fs": 100.0, "n_frames": 20},
    PhononFilter: {"k_point_mesh": "gamma", "selected_modes": None, "freq_min_THz": 0.1, "freq_max_THz": 8.0},
}


@pytest.mark.parametrize("section", DOCUMENTED, ids=lambda s: s.__name__)
def test_the_documents_keys_have_its_defaults(section):
    assert DOCUMENTED[section].items() <= section().model_dump().items()


def test_the_example_is_read():
    settings, warnings = read_training_set(EXAMPLE)
    assert warnings == ()
    assert settings.calculator.target == "ase.calculators.lj:LennardJones"
    assert settings.phonon_sampling.phonon_filter.k_point_mesh == (2, 2, 2)


def test_an_empty_table_is_a_step_and_a_missing_one_is_none(read):
    settings, _ = read(TOP + "quasi_harmonic:\nphonon_sampling:\n")
    assert settings.quasi_harmonic == FreeEnergy()
    assert settings.md_sampling is None
    assert "nothing to do" in refused(read, TOP)


def test_a_step_may_have_a_crystal_and_a_potential_of_its_own(read):
    settings, _ = read(
        TOP + "quasi_harmonic: {crystal: b.xyz, dataset: d.h5}\nmd_sampling: {calculator: {factory: 'm:f'}}\n"
    )
    first, second = settings.quasi_harmonic, settings.md_sampling
    assert settings.of(first, "crystal") == "b.xyz"
    assert settings.of(first, "dataset") == "d.h5"
    assert settings.of(second, "crystal") == "a.xyz"
    assert settings.of(second, "calculator") == CallSpec("m:f")


def test_force_constants_lie_where_the_document_says(read):
    key = "training/quasi_harmonic/phonons/crystal[opt:atoms,shape]/force_constants"
    assert FreeEnergy(thermal_expansion=False).force_constants_key == key
    atoms = FreeEnergy(thermal_expansion=False, relax_input_cell="only_atoms", root_key="x")
    assert atoms.force_constants_key == "x/phonons/crystal[opt:atoms]/force_constants"
    assert "eq:T=298.15" in FreeEnergy().force_constants_key


@pytest.mark.parametrize(
    ("mesh", "meant"), [("gamma", "gamma"), ("Gamma", "gamma"), ("12", 12.0), ("[2, 1, 3]", (2, 1, 3))]
)
def test_meshes_are_gamma_radii_or_three_numbers(read, mesh, meant):
    settings, _ = read(
        TOP + f"quasi_harmonic:\nphonon_sampling: {{phonon_filter: {{k_point_mesh: {mesh}}}}}\n"
    )
    assert settings.phonon_sampling.phonon_filter.k_point_mesh == meant


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "quasi_harmonic: {supercel_radius: 3}\n",
            "c.yaml:3: quasi_harmonic.supercel_radius: .* supercell_radius",
        ),
        ("md_sampling: {ensemble: NPT}\n", "md_sampling.ensemble: .*belongs to md_crystal"),
        ("md_sampling: {md_crystal: {ensemble: NPP}}\n", "md_crystal.ensemble: expected NVT | NPT"),
        ("md_sampling: {md_crystal: {time_step_fs: 0.3}}\n", "sampling_interval_fs: expected a multiple"),
        (
            "md_sampling: {md_crystal: {time_total_fs: 100}}\n",
            "time_equilibration_fs: 5000 fs is longer than",
        ),
        ("md_sampling: {md_crystal: {supercell_radius: -1}}\n", "supercell_radius: -1 Å is not possible"),
        ("md_sampling: {md_crystal: 5}\n", "md_crystal: expected a table; it holds ensemble"),
        (
            "md_sampling: {finite_subsystem_filter: {n_molecules: []}}\n",
            "n_molecules: expected whole numbers",
        ),
        ("md_sampling: {finite_subsystem_filter: {n_molecules: [0]}}\n", "0 is not possible"),
        (
            "md_sampling: {finite_subsystem_filter: {selection_rule: max_min_distance_to_central_molecule}}\n",
            r"selection_rule: max_min_distance_to_central_molecule needs distances",
        ),
        ("quasi_harmonic: {thermal_expansion: maybe}\n", "thermal_expansion: expected True or False"),
        ("phonon_sampling:\n", "force_constants_key: mandatory without a table quasi_harmonic"),
        (
            "quasi_harmonic:\nphonon_sampling: {phonon_filter: {k_point_mesh: [1, 2]}}\n",
            "expected gamma, a radius",
        ),
        (
            "quasi_harmonic:\nphonon_sampling: {phonon_filter: {k_point_mesh: X}}\n",
            "expected gamma, a radius",
        ),
        ("delta_learning: {}\n", "delta_learning.target: mandatory"),
        ("delta_learning: {target: small, target_E0: {H: .nan}}\n", "target_E0: expected a number, got nan"),
    ],
)
def test_mistakes_are_named_with_their_place(read, text, told):
    import re

    assert re.search(told, refused(read, TOP + text))


def test_what_a_step_needs_is_asked_for(read):
    said = refused(read, "md_sampling:\n")
    assert "md_sampling: crystal: mandatory" in said
    assert "md_sampling: calculator: mandatory" in said
    read("delta_learning: {target: small, baseline: medium}\n")


def test_values_that_look_wrong_are_warned_of(read):
    _, warnings = read(TOP + "quasi_harmonic: {supercell_radius: 500}\n")
    assert len(warnings) == 1
    assert "supercell_radius" in warnings[0]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("md_sampling: {pressure_GPa: 3}\n", {"pressure_GPa"}),
        (
            "md_sampling: {md_crystal: {npt_algo: mtk_isotropic, barostat_time_fs: 500}}\n",
            {"npt_algo", "barostat_time_fs"},
        ),
        ("md_sampling: {md_crystal: {ensemble: NPT, nvt_algo: langevin}}\n", {"nvt_algo"}),
        (
            "md_sampling: {finite_subsystems: false, finite_subsystem_filter: {n_molecules: [2]}}\n",
            {"finite_subsystem_filter"},
        ),
        ("md_sampling: {finite_subsystem_filter: {distances: [4]}}\n", {"distances"}),
        (
            "md_sampling: {finite_subsystem_filter: {selection_rule: max_max_distance_to_central_molecule, "
            "distances: [4], n_molecules: [2], distance_between: atoms}}\n",
            {"n_molecules", "distance_between"},
        ),
        (
            "quasi_harmonic: {thermal_expansion: false, temperature_K: 60, pressure_GPa: 4}\n",
            {"temperature_K", "pressure_GPa"},
        ),
        (
            "quasi_harmonic:\nphonon_sampling: {crystal: b.xyz, time_step_fs: 50, phonon_filter: {selected_modes: [1], "
            "freq_min_THz: 9}}\n",
            {"crystal", "time_step_fs", "freq_min_THz"},
        ),
        ("delta_learning: {target: small, baseline: medium, calculator: large}\n", {"calculator"}),
    ],
)
def test_keys_without_effect_are_warned_of(read, text, keys):
    _, warnings = read(TOP + text)
    assert {w.partition(": has no effect")[0].rpartition(".")[2] for w in warnings} == keys


def test_a_window_of_frequencies_that_selects_no_mode_is_refused(read):
    text = "quasi_harmonic:\nphonon_sampling: {phonon_filter: {freq_min_THz: 9}}\n"
    assert "expected freq_min_THz (9) below freq_max_THz (8)" in refused(read, TOP + text)
