"""mbe-automation's complete script, translated, on solid carbon dioxide with a MACE model this test trains."""

from __future__ import annotations

import io
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
from mace.calculators import MACECalculator
from rich.console import Console

from aims_pax.commands.training_set.workflow import training_set
from aims_pax.dataset import read_extxyz
from aims_pax.potential import calculate
from aims_pax.record.hdf5 import Hdf5, frames_of
from tests.carbon_dioxide import CarbonDioxide, solid, trained

SCRIPT = """\
crystal: solid.xyz
calculator: co2.model
dataset: training_set.hdf5

md_sampling:
  temperature_K: 298.15
  pressure_GPa: 1.0e-4
  finite_subsystem_filter:
    selection_rule: closest_to_central_molecule
    n_molecules: [1, 2, 3, 4, 5, 6, 7, 8]
  md_crystal:
    ensemble: NPT
    time_total_fs: 60.0           # 10000.0
    time_equilibration_fs: 20.0   # 1000.0
    sampling_interval_fs: 10.0    # 1000.0
    supercell_radius: 5.0         # 10.0
  work_dir: md_sampling
  root_key: training/md_sampling

quasi_harmonic:
  thermal_expansion: False
  relax_input_cell: constant_volume
  fmax: 0.005
  supercell_radius: 5.0           # 20.0
  root_key: training/quasi_harmonic

phonon_sampling:
  temperature_K: 100.0            # 298.15: too hot for a model of 24 frames, molecules would break
  finite_subsystem_filter:
    selection_rule: closest_to_central_molecule
    n_molecules: [1, 2, 3, 4, 5, 6, 7, 8]
  phonon_filter:
    k_point_mesh: gamma
    freq_min_THz: 0.1
    freq_max_THz: 8.0
  force_constants_dataset: training_set.hdf5
  force_constants_key: training/quasi_harmonic/phonons/crystal[opt:atoms,shape]/force_constants
  time_step_fs: 100.0
  n_frames: 20
  work_dir: phonon_sampling
  root_key: training/phonon_sampling

delta_learning:
  target: {factory: "tests.carbon_dioxide:CarbonDioxide"}
"""
COMMON = {
    "positions (Å)", "atomic_numbers", "masses (u)", "E_pot (eV∕atom)", "forces (eV∕Å)", "feature_vectors",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder after the script ran."""
    folder = tmp_path_factory.mktemp("co2")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trained(Path("co2.model"), epochs=15, frames=24)
        ase.io.write("solid.xyz", solid().to_atoms(), format="extxyz")
        Path("config.yaml").write_text(SCRIPT)
        said = io.StringIO()
        training_set(Path("config.yaml"), Console(file=said, width=300))
        (folder / "said").write_text(said.getvalue())
        yield folder


def test_the_file_holds_the_documented_keys(made):
    with h5py.File(made / "training_set.hdf5") as file:
        run = file["training/md_sampling/trajectory"]
        more = {"time (fs)", "T (K)", "p (GPa)", "V (Å³∕atom)", "velocities (Å∕fs)", "cell_vectors (Å)"}
        assert COMMON | more <= set(run)
        assert run["time (fs)"][:].tolist() == [20.0, 30.0, 40.0, 50.0, 60.0]
        for step, frames in (("md_sampling", 5), ("phonon_sampling", 20)):
            assert sorted(file[f"training/{step}/finite_subsystems"]) == ["n=1", "n=2", "n=3", "n=4"]
            for n in (1, 2, 3, 4):
                group = file[f"training/{step}/finite_subsystems/n={n}"]
                assert COMMON | {"molecule_indices"} <= set(group)
                assert group.attrs["n_molecules"] == n
                assert group["positions (Å)"].shape == (frames, 3 * n, 3)
                assert group["feature_vectors"].shape[:2] == (frames, 3 * n)
                assert (np.bincount(group["atomic_numbers"])[[6, 8]] == [n, 2 * n]).all()
        constants = file["training/quasi_harmonic/phonons/crystal[opt:atoms,shape]/force_constants"]
        assert constants["force_constants (eV∕Å²)"].shape == (12, 12, 3, 3)
        assert constants["supercell_matrix"].shape == (3, 3)
    assert "has only 4" in (made / "said").read_text()
    assert len(ase.io.read(made / "phonon_sampling" / "phonon_sampling" / "n=2.xyz", ":")) == 20


def test_feature_vectors_are_maces_own(made):
    arrays = Hdf5(made / "training_set.hdf5").read("training/md_sampling/finite_subsystems/n=2")
    calculator = MACECalculator(model_paths=str(made / "co2.model"), device="cpu", default_dtype="float64")
    frame = frames_of(arrays)[1]
    expected = calculator.get_descriptors(frame.to_atoms(), invariants_only=True)
    np.testing.assert_allclose(arrays["feature_vectors"][1], expected, atol=1e-8)
    assert expected.std() > 0
    energy = calculate(frame, calculator).energy
    assert arrays["E_pot (eV∕atom)"][1] * len(frame) == pytest.approx(energy, abs=1e-6)


def test_delta_data_corrects_the_model(made):
    *_, last = read_extxyz(made / "delta.xyz")
    calculator = MACECalculator(model_paths=str(made / "co2.model"), device="cpu", default_dtype="float64")
    said, true = calculate(last.frame, calculator), calculate(last.frame, CarbonDioxide())
    assert last.label.energy + said.energy == pytest.approx(true.energy, abs=1e-6)
    np.testing.assert_allclose(last.label.forces + said.forces, true.forces, atol=1e-6)


def test_the_same_command_again_has_nothing_to_do(made):
    before = (made / "training_set.hdf5").read_bytes()
    said = io.StringIO()
    training_set(Path("config.yaml"), Console(file=said, width=300))
    assert said.getvalue().count("already") == 3
    assert (made / "training_set.hdf5").read_bytes() == before
