"""`aims-PAX training-set`: its steps on solid argon, what a restart repeats, and the delta-learning export."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import ase.io
import h5py
import numpy as np
import pytest
import yaml
from ase.build import bulk, graphene, molecule
from ase.constraints import FixAtoms
from rich.console import Console

from aims_pax.commands.training_set import dynamics
from aims_pax.commands.training_set import workflow as story
from aims_pax.engine.interrupts import RunInterrupted
from aims_pax.errors import RestartError, SettingsError, SetupError
from aims_pax.frames import Frame
from aims_pax.record.hdf5 import Hdf5, frames_of
from aims_pax.sampler import SamplingError
from tests.commands.training_set.argon import CALLS, DELTA, KRYPTON, QUICK, argon, md

EXAMPLE = Path(__file__).parents[3] / "example" / "crystal"


def test_every_step_writes_the_documents_keys(project):
    project()
    with h5py.File("training_set.hdf5") as file:
        run = file["training/md_sampling/trajectory"]
        assert {"time (fs)", "T (K)", "p (GPa)", "V (Å³∕atom)", "velocities (Å∕fs)"} <= set(run)
        assert {"positions (Å)", "atomic_numbers", "masses (u)", "cell_vectors (Å)", "forces (eV∕Å)"} <= set(
            run
        )
        assert run["time (fs)"][:].tolist() == [40.0, 60.0, 80.0, 100.0]  # nothing of the equilibration
        n = len(run["atomic_numbers"])
        # eV
        kinetic = (run["masses (u)"][:][:, None] * run["velocities (Å∕fs)"][-1] ** 2).sum() / 2 * 103.642696
        assert 2 * kinetic / (3 * n * 8.617333e-5) == pytest.approx(run["T (K)"][-1], rel=1e-4)
        for step, frames in (("md_sampling", 4), ("phonon_sampling", 4)):
            for size in (1, 2):
                group = file[f"training/{step}/finite_subsystems/n={size}"]
                assert group.attrs["n_molecules"] == size
                assert group["molecule_indices"].shape == (size,)
                assert group["positions (Å)"].shape == (frames, size, 3)
                assert group["E_pot (eV∕atom)"].shape == (frames,)
                assert "cell_vectors (Å)" not in group
        assert abs(np.linalg.det(file["training/md_sampling"].attrs["supercell_matrix"])) >= 1
        constants = file["training/quasi_harmonic/phonons/crystal[opt:atoms,shape,volume]/force_constants"]
        assert constants["force_constants (eV∕Å²)"].shape[2:] == (3, 3)
        assert constants["supercell_matrix"].shape == (3, 3)
    for name, frames in (("md_sampling", 4), ("phonon_sampling", 4)):
        assert len(ase.io.read(f"frames/{name}.xyz", ":")) == frames
        read = ase.io.read(f"frames/{name}/n=2.xyz", ":")
        assert [len(a) for a in read] == [2] * frames
        assert all("energy" in a.calc.results for a in read)
    assert sorted(p.name for p in project.folder.iterdir()) == [
        "config.yaml", "crystal.xyz", "frames", "training_set.hdf5",
    ]  # fmt: skip


def test_labels_in_the_file_are_the_potentials(project):
    project(md_sampling=None)
    store = Hdf5(Path("training_set.hdf5"))
    arrays = store.read("training/phonon_sampling/trajectory")
    frame = frames_of(arrays)[2]
    label = argon().labels([frame])[0]
    assert arrays["E_pot (eV∕atom)"][2] == pytest.approx(label.energy / len(frame))
    np.testing.assert_allclose(arrays["forces (eV∕Å)"][2], label.forces, atol=1e-12)


def test_a_finished_step_is_not_repeated_and_one_made_otherwise_is_not_overwritten(project):
    project()
    before = Path("training_set.hdf5").read_bytes()
    CALLS.clear()
    assert project().count("already") == 3
    assert CALLS == []
    assert Path("training_set.hdf5").read_bytes() == before
    more = QUICK["phonon_sampling"] | {"n_frames": 9}
    ours = "tests.commands.training_set.argon:argon"
    for step, changed, named in (
        (
            "md_sampling",
            {"md_sampling": md(time_total_fs=120.0)},
            "md_sampling.md_crystal.time_total_fs: 100.0 → 120.0",
        ),
        ("md_sampling", {"calculator": KRYPTON}, f"calculator: {ours}() → {ours}(epsilon=0.02)"),
        ("md_sampling", {"seed": 1}, "seed: 42 → 1"),
        ("phonon_sampling", {"phonon_sampling": more}, "phonon_sampling.n_frames: 4 → 9"),
    ):
        with pytest.raises(RestartError) as told:
            project(**changed)
        assert str(told.value) == (
            f"{Path.cwd() / 'training_set.hdf5'}: training/{step} was made with other settings:\n  {named}\n"
            f"Undo the change; or set another root_key to write it next to training/{step} "
            "(delta_learning.root_keys may name both), or remove training_set.hdf5 to repeat all steps"
        )
    assert Path("training_set.hdf5").read_bytes() == before
    ase.io.write("crystal.xyz", bulk("Ar", a=5.3, cubic=True), format="extxyz")
    with pytest.raises(RestartError, match=r":\n  crystal: contents \w+ → contents \w+\nUndo"):
        project()
    ase.io.write("crystal.xyz", bulk("Ar", a=5.26, cubic=True), format="extxyz")
    other = md(time_total_fs=60.0) | {"root_key": "training/second"}
    assert "training/second" in project(md_sampling=other)
    assert Hdf5(Path("training_set.hdf5")).has("training/md_sampling")


def test_a_file_from_before_settings_were_kept_says_what_it_can(project):
    project(md_sampling=None)
    with h5py.File("training_set.hdf5", "a") as file:
        del file["training/quasi_harmonic"].attrs["made_with"]
    assert project(md_sampling=None).count("already") == 2
    with pytest.raises(RestartError, match=r":\n  settings, potential or crystal: changed\nUndo"):
        project(md_sampling=None, seed=1)


def test_equal_seeds_give_equal_files_of_structures(project):
    project()
    first = Hdf5(Path("training_set.hdf5")).read("training/phonon_sampling/trajectory")["positions (Å)"]
    Path("training_set.hdf5").unlink()
    project()
    again = Hdf5(Path("training_set.hdf5")).read("training/phonon_sampling/trajectory")["positions (Å)"]
    assert (first == again).all()


def test_stopped_dynamics_goes_on_to_the_same_frames(project, monkeypatch):
    project(quasi_harmonic=None, phonon_sampling=None)
    whole = Hdf5(Path("training_set.hdf5")).read("training/md_sampling/trajectory")
    Path("training_set.hdf5").unlink()
    advance, count = dynamics.advance, []

    def interrupted(*args, **kwargs):
        count.append(1)
        if len(count) == 4:
            raise RunInterrupted("stopped by the user (Ctrl-C)", 3)
        return advance(*args, **kwargs)

    monkeypatch.setattr(dynamics, "advance", interrupted)
    with pytest.raises(RunInterrupted):
        project(quasi_harmonic=None, phonon_sampling=None)
    assert not Path("training_set.hdf5").exists()
    monkeypatch.setattr(dynamics, "advance", advance)
    under_way = Path("frames/.training.md_sampling.md.npy").read_bytes()
    said = project(md_sampling=md(time_total_fs=60.0), quasi_harmonic=None, phonon_sampling=None)
    assert "belongs to other settings; the dynamics starts again" in said
    Path("training_set.hdf5").unlink()
    Path("frames/.training.md_sampling.md.npy").write_bytes(under_way)
    count.clear()
    monkeypatch.setattr(dynamics, "advance", lambda *a, **k: (count.append(1), advance(*a, **k))[1])
    assert "continues at 60 fs" in project(quasi_harmonic=None, phonon_sampling=None)
    assert len(count) == 2
    continued = Hdf5(Path("training_set.hdf5")).read("training/md_sampling/trajectory")
    np.testing.assert_allclose(continued["positions (Å)"], whole["positions (Å)"], atol=1e-8)
    assert (continued["time (fs)"] == whole["time (fs)"]).all()


@pytest.mark.parametrize("npt_algo", ["mtk_full", "mtk_isotropic"])
def test_npt_moves_the_cell_the_way_it_was_asked(project, npt_algo):
    project(md_sampling=md(ensemble="NPT", npt_algo=npt_algo), quasi_harmonic=None, phonon_sampling=None)
    run = Hdf5(Path("training_set.hdf5")).read("training/md_sampling/trajectory")
    assert len(set(run["V (Å³∕atom)"])) == 4
    shapes = run["cell_vectors (Å)"] / np.cbrt(abs(np.linalg.det(run["cell_vectors (Å)"])))[:, None, None]
    assert (np.ptp(shapes, axis=0).max() < 1e-6) == (npt_algo == "mtk_isotropic")


def test_settings_of_the_dynamics_reach_it():
    section = story.MDSampling(temperature_K=77.0, pressure_GPa=2.0, md_crystal={"nvt_algo": "langevin"})
    asked = dynamics._md_settings(section, 5)
    assert (asked.thermostat, asked.friction, asked.taut, asked.taup) == ("Langevin", 0.01, 100.0, 1000.0)
    assert asked.pressure_au == pytest.approx(2.0 * 6.241509e-3)
    assert (asked.temperature, asked.timestep, asked.MD_seed, asked.barostat) == (77.0, 0.5, 5, "MTK")


def test_pressure_is_the_ideal_gas_where_nothing_pulls():
    gas = dynamics.MDState.start(
        Frame([18] * 50, np.random.default_rng(0).uniform(0, 50, (50, 3)), 50 * np.eye(3), True), 300.0, 1
    )
    label = SimpleNamespace(stress=np.zeros((3, 3)))
    expected = 50 * 1.380649e-23 * gas.temperature / (50e-10) ** 3 / 1e9
    assert dynamics.pressure(gas, label) == pytest.approx(expected, rel=1e-5)
    pulled = SimpleNamespace(stress=np.eye(3))
    assert dynamics.pressure(gas, pulled) == pytest.approx(expected - 160.2177, rel=1e-4)


def test_one_mode_at_a_time_and_meshes(project):
    phonons = QUICK["phonon_sampling"] | {"per_mode": True, "n_frames": 2, "amplitudes": "scan"}
    phonons |= {"phonon_filter": {"k_point_mesh": [1, 1, 2], "selected_modes": [4, 5]}}
    project(md_sampling=None, phonon_sampling=phonons)
    store = Hdf5(Path("training_set.hdf5"))
    arrays = store.read("training/phonon_sampling/trajectory")
    assert arrays["mode"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert arrays["positions (Å)"].shape == (8, 8, 3)
    assert store.read("training/phonon_sampling/modes")["branch"].tolist() == [4, 5, 4, 5]


def test_thermal_expansion_grows_the_cell(project):
    warm = {
        "thermal_expansion": True,
        "temperature_K": 40.0,
        "relax_input_cell": "full",
        "supercell_radius": 7.0,
    }
    project(md_sampling=None, quasi_harmonic=warm)
    store = Hdf5(Path("training_set.hdf5"))
    key = "training/quasi_harmonic/phonons/crystal[eq:T=40.00,p=0.00010]/force_constants"
    cold = frames_of(store.read("training/quasi_harmonic/relaxed"))[0]
    expanded = frames_of(store.read(f"{key}/primitive"))[0]
    assert 1.01 < np.linalg.det(expanded.cell) / np.linalg.det(cold.cell) < 1.12
    assert store.has("training/phonon_sampling")  # found its force constants


def test_networks_are_told_unless_no_clusters_are_wanted(project):
    ase.io.write("crystal.xyz", graphene(size=(2, 2, 1), vacuum=4.0), format="extxyz")
    atoms = ase.io.read("crystal.xyz")
    atoms.pbc = True
    ase.io.write("crystal.xyz", atoms, format="extxyz")
    one = {
        "quasi_harmonic": None,
        "phonon_sampling": None,
        "calculator": {"factory": "tests.commands.training_set.argon:springs"},
    }
    with pytest.raises(SamplingError, match="infinite network"):
        project(md_sampling=md(supercell_radius=4.0), **one)
    project(md_sampling=md(supercell_radius=4.0) | {"finite_subsystems": False}, **one)
    assert Hdf5(Path("training_set.hdf5")).groups("training") == ["training/md_sampling/trajectory"]


def test_a_crystal_with_none_of_the_sizes_gives_no_clusters(project):
    asked = QUICK["phonon_sampling"] | {"finite_subsystem_filter": {"n_molecules": [500]}}
    assert "has only" in project(md_sampling=None, phonon_sampling=asked)
    assert Hdf5(Path("training_set.hdf5")).groups("training/phonon_sampling") == [
        "training/phonon_sampling/trajectory"
    ]


BROKEN = """from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT
class Never(EMT):
    def calculate(self, *args):
        raise ValueError("no such method")
class Lost(EMT):
    def calculate(self, *args):
        raise CalculationFailed("lost")
def nothing():
    raise KeyError("license")
"""


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("Never", "calculator: ValueError: no such method"),
        ("nothing", "calculator: KeyError: 'license'"),
        ("Lost", "md_sampling: calculator: CalculationFailed: lost"),
    ],
)
def test_a_calculator_that_does_not_work_is_named_by_its_key(project, made, said):
    Path(f"crystal_{made}.py").write_text(BROKEN)
    broken = {"factory": f"crystal_{made}:{made}"}
    with pytest.raises(SetupError) as told:
        project(calculator=broken)
    assert str(told.value) == said
    if made != "Lost":
        with pytest.raises(SetupError) as told:
            project(md_sampling=QUICK["md_sampling"] | {"calculator": broken})
        assert str(told.value) == f"md_sampling.{said}"
        project()
        with pytest.raises(SetupError) as told:
            project(delta_learning=DELTA | {"target": broken})
        assert str(told.value) == said.replace("calculator", "delta_learning.target", 1)


def test_the_example_runs(tmp_path, monkeypatch):
    shutil.copytree(EXAMPLE, tmp_path / "example")
    monkeypatch.chdir(tmp_path / "example")
    config = yaml.safe_load(Path("config.yaml").read_text())
    config["md_sampling"]["md_crystal"] |= {
        "time_total_fs": 60.0,
        "time_equilibration_fs": 20.0,
        "sampling_interval_fs": 20.0,
    }
    Path("config.yaml").write_text(yaml.safe_dump(config))
    story.training_set(Path("config.yaml"), Console(file=io.StringIO()))
    assert Hdf5(Path("training_set.hdf5")).has("training/phonon_sampling/finite_subsystems/n=4")


HELD = "".join(
    f"lattice_vector {v}\n    constrain_relaxation .true.\n" for v in ("5.2 0 0", "0 5.2 0", "0 0 5.2")
) + "".join(f"atom_frac {x} Ar\n" for x in ("0 0 0", ".5 .5 0", ".5 0 .5", "0 .5 .5"))
ONLY_ATOMS = {"thermal_expansion": False, "relax_input_cell": "only_atoms", "supercell_radius": 7.0}


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"relax_input_cell": "full", "thermal_expansion": False}, "relax_input_cell: full does"),
        ({"thermal_expansion": True}, "thermal_expansion: True does"),
    ],
)
def test_a_cell_that_the_file_fixes_is_not_relaxed(project, keys, what):
    """NPT refused it; the relaxation of the cell changed it without a word."""
    Path("crystal.in").write_text(HELD)
    own = {"md_sampling": None, "phonon_sampling": None, "crystal": "crystal.in"}
    with pytest.raises(
        SettingsError, match=rf"crystal: constrain_relaxation .* which {what} not support; set only"
    ):
        project(**own, quasi_harmonic=ONLY_ATOMS | keys)
    project(**own, quasi_harmonic=ONLY_ATOMS)


def test_atoms_are_not_fixed_in_a_cell_that_expands(project):
    """Seven volumes were left out, and a larger supercell_radius was advised."""
    crystal = ase.io.read("crystal.xyz")
    crystal.set_constraint(FixAtoms([0]))
    ase.io.write("crystal.xyz", crystal, format="extxyz")
    with pytest.raises(
        SettingsError, match=r"crystal has fixed atoms, which thermal_expansion: True does not supp"
    ):
        project(md_sampling=None, quasi_harmonic=ONLY_ATOMS | {"thermal_expansion": True})
    ase.io.write("crystal.xyz", molecule("CH4"), format="extxyz")
    with pytest.raises(
        SamplingError, match="thermal_expansion: CH4 has no cell that could expand; set it to False"
    ):
        project(md_sampling=None, quasi_harmonic=ONLY_ATOMS | {"thermal_expansion": True})


def test_fixed_atoms_stay_where_phonons_are_sampled(project):
    """The HDF5 file lost the constraints between the two steps, and fixed atoms were displaced."""
    crystal = ase.io.read("crystal.xyz")
    crystal.set_constraint(FixAtoms([0]))
    ase.io.write("crystal.xyz", crystal, format="extxyz")
    project(md_sampling=None, quasi_harmonic=ONLY_ATOMS)
    frames = ase.io.read("frames/phonon_sampling.xyz", ":")
    fixed = frames[0].constraints[0].index
    assert len(fixed) == len(frames[0]) // 4
    moved = np.ptp([atoms.positions for atoms in frames], axis=0).max(1) > 1e-6
    assert np.flatnonzero(~moved).tolist() == fixed.tolist()


def test_what_has_no_clusters_is_said_before_the_dynamics_and_a_slab_has_no_supercell(project, monkeypatch):
    """The error came when the whole dynamics was done, and that dynamics was lost."""
    crystal = ase.io.read("crystal.xyz")
    crystal.info["charge"] = 1
    ase.io.write("charged.xyz", crystal, format="extxyz")
    monkeypatch.setattr(story, "crystal_dynamics", None)
    only = {"quasi_harmonic": None, "phonon_sampling": None}
    with pytest.raises(
        SamplingError, match=r"cannot be divided among its molecules \(finite_subsystems: False"
    ):
        project(crystal="charged.xyz", **only)
    monkeypatch.undo()
    monkeypatch.chdir(project.folder)
    crystal.info.clear()
    crystal.pbc, crystal.cell[2, 2] = (True, True, False), 20
    ase.io.write("slab.xyz", crystal, format="extxyz")
    said = project(crystal="slab.xyz", **only)
    assert "slab is periodic in 2 of three directions: supercell_radius has no effect on it" in said
