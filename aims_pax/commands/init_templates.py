"""The texts of `aims-PAX init`. Lines that the user must change end in `# CHANGE …`."""

from __future__ import annotations

SPECIES = """\
  species_dir: &species                 # CHANGE: basis sets, /path/to/FHIaims/species_defaults/defaults_2020/light
"""
SAME_SPECIES = """\
  species_dir: *species                 # the same folder as above
"""

INITIAL = """\
INITIAL_DATASET_GENERATION:             # the first structures, and models trained on them
{species}  initial_sampling: mace-mp0            # MD with a foundation model; the reference computes the labels
  initial_foundational_size: small      # downloaded at first use; without a network: initial_sampling: {offline}
  distinct_model_sets: false            # every model learns all of these structures, not a quarter of them
  n_points_per_sampling_step_idg: {n_points}      # structures per step, for each geometry
  skip_step_initial: 25                 # MD steps between two structures
  ensemble_size: 4                      # models whose disagreement is the uncertainty
  intermediate_epochs_idg: 5            # training epochs after each step
  desired_acc: 0.05                     # eV/Å; the stage stops at 10 times this force error (desired_acc_scale_idg) …
  max_initial_epochs: 100               # … or after this many epochs …
  max_initial_set_size: {n_initial}             # … or this many training structures
"""

ACTIVE = """\
ACTIVE_LEARNING:                        # MD with the models; structures on which they disagree are labelled
{species}  num_trajectories: {n_trajectories}                   # run in parallel; each takes the next geometry in turn
  ensemble_size: 4                      # as above
  skip_step_mlff: 25                    # MD steps between two checks of the uncertainty
  c_x: 0.0                              # below 0: label more, above 0: label less
  epochs_per_worker: 2                  # training epochs for each new structure
  max_MD_steps: 100000                  # of each trajectory; the first of these limits ends active learning
  max_train_set_size: {n_train}
  max_labels: {n_labels}                      # your budget of reference calculations
  n_test: 20                            # test structures for the errors at the end; never used in training
"""

PER_SYSTEM = """\
  threshold: per_system                 # each geometry has its own threshold
"""

MD = """\
MD:
  stat_ensemble: NVT{npt}
  thermostat: Langevin
  temperature: {temperature}                      # K; [300, 600] is a ramp
  friction: 0.001                       # 1/fs
  timestep: {timestep}                         # fs
"""

LOCAL = """\
CLUSTER:
  type: local                           # FHI-aims runs on this machine
  max_workers: 1                        # calculations at the same time
  launch_str:                           # CHANGE: command that runs FHI-aims, "mpirun -np 4 /path/to/aims.x >> aims.out"
  calc_dir: ./calc
"""

SLURM = """\
CLUSTER:
  type: slurm                           # aims-PAX runs where you start it and submits Slurm jobs; for Grid Engine,
                                        # PBS Pro or LSF see docs/cluster.md
  project_name: starter
  parsl_options:
    label: starter
    nodes_per_block: 1                  # a block is one Slurm job
    init_blocks: 1
    min_blocks: 0                       # 0: all idle blocks are ended
    max_blocks: 2                       # at most two Slurm jobs at a time
    jobs_per_block: 1                   # calculations at the same time inside a block
    run_dir: ./logs/parsl               # on a file system that all nodes share
  job_time_limit: "00:30:00"            # one calculation of one structure
  slurm_str: |                          # your partition, account, cores and memory of one node
    #!/bin/bash -l
    #SBATCH --time=12:00:00
    #SBATCH --ntasks-per-node=4
    ##SBATCH --partition=general
    ##SBATCH --account=my_project
  worker_str: |                         # what aims.x needs: modules, libraries
    ulimit -s unlimited
    # module load intel mkl impi
  launch_str:                           # CHANGE: command that runs FHI-aims, "srun -n 4 /path/to/aims.x >> aims.out"
  calc_dir: ./calc
"""

MISC = """\
MISC:
  path_to_geometry: {geometry}    # {about}
{control}"""

CONTROL_KEY = """\
  path_to_control: ./control.in         # the level of theory
"""

MACE = """\
GENERAL:
  name_exp: {name}                     # models are called {name}_SEED.model
  seed: 42
{stress}
ARCHITECTURE:
  num_channels: {channels}                     # 64 … 256: more is more accurate and slower
  max_L: {max_L}
  correlation: {correlation}
  num_interactions: 2
  r_max: {r_max}                            # Å
{radial}  # atomic_energies: reference          # computes isolated atoms; without it: fitted to the data

TRAINING:
  batch_size: 5
  lr: 0.01
{loss}
MISC:
  device: cpu                           # cuda on a GPU
"""

CONTROL = """\
# The level of theory of the labels. Basis sets come from species_dir; no relaxation or MD keywords here.
  xc                 pbe
  relativistic       atomic_zora scalar
  sc_accuracy_rho    1e-5
{more}"""
MOLECULAR = "# many_body_dispersion\n"
PERIODIC = "  k_grid             4 4 4\n"

LAPTOP_XTB = """\
REFERENCE:                              # instead of FHI-aims: any ASE calculator
  type: calculator
  factory: tblite.ase:TBLite            # "package.module:callable"; the module may be in this folder
  kwargs: {method: GFN1-xTB, accuracy: 0.01, verbosity: 0}
"""
LAPTOP_SO3LR_INITIAL = """\
  initial_sampling: so3lr               # MD with a foundation model whose weights are in its package
"""
LAPTOP_XTB_INITIAL = """\
  initial_sampling: calculator          # MD with a cheap potential; with the extra so3lr: so3lr
  initial_calculator:
    factory: tblite.ase:TBLite
    kwargs: {method: GFN2-xTB, verbosity: 0}
"""
LAPTOP_EMT = """\
REFERENCE:                              # instead of FHI-aims: any ASE calculator; after `pip install tblite`,
  type: calculator                      # tblite.ase:TBLite (GFN-xTB) can be used, also for molecules
  factory: ase.calculators.emt:EMT      # "package.module:callable"; the module may be in this folder
"""
LAPTOP_EMT_INITIAL = """\
  initial_sampling: calculator          # MD with a cheap potential; with internet access: mace-mp0
  initial_calculator:
    factory: ase.calculators.emt:EMT
"""
LAPTOP = """\
{reference}
INITIAL_DATASET_GENERATION:             # the first structures, and models trained on them
{initial}  distinct_model_sets: false            # every model learns all of these structures, not half of them
  n_points_per_sampling_step_idg: 20    # structures per step, for each geometry
  skip_step_initial: 40                 # MD steps between two structures
  ensemble_size: 2                      # models whose disagreement is the uncertainty
  intermediate_epochs_idg: 10           # training epochs after each step
  max_initial_epochs: 20                # this stage stops after so many epochs

ACTIVE_LEARNING:                        # MD with the models; structures on which they disagree are labelled
  num_trajectories: 8
  ensemble_size: 2                      # as above
  skip_step_mlff: 20                    # MD steps between two checks of the uncertainty
  c_x: 0.1                              # below 0: label more, above 0: label less
  epochs_per_worker: 2                  # training epochs for each new structure
  max_train_set_size: 60                # active learning stops at this size
  n_test: 10                            # test structures for the errors at the end
  convergence_patience: 50
  max_convergence_epochs: 300

MD:
  stat_ensemble: NVT
  thermostat: Langevin
  temperature: 500                      # K
  friction: 0.01                        # 1/fs
  timestep: {timestep}                         # fs

CLUSTER:
  type: local                           # this machine
"""

MOLECULE_ON_THIS_MACHINE = """
MD:
  stat_ensemble: NVT
  thermostat: Langevin
  temperature: 500                      # K
  friction: 0.01                        # 1/fs
  timestep: 0.5                         # fs

CLUSTER:
  type: local                           # this machine
"""
FINE_TUNING = """\
REFERENCE:                              # any ASE calculator; for FHI-aims see aims-PAX init molecule
  type: calculator
  factory: tblite.ase:TBLite            # "package.module:callable"; the module may be in this folder
  kwargs: {method: GFN1-xTB, accuracy: 0.01, verbosity: 0}

ACTIVE_LEARNING:                        # the models are fine-tuned on your data, then MD finds where they are wrong
  initial_train_dataset: train.xyz      # your labelled structures (eV, eV/Å), 30 are enough; keys REF_energy and
                                        # REF_forces, or those that MISC.energy_key and MISC.forces_key name
  valid_ratio: 0.2                      # part of them that chooses the best epoch
  num_trajectories: 4
  ensemble_size: 3                      # models whose disagreement is the uncertainty
  skip_step_mlff: 20                    # MD steps between two checks of the uncertainty
  epochs_per_worker: 2                  # training epochs for each new structure
  max_labels: 20                        # budget of reference calculations of this stage, test structures included;
                                        # 0, without n_test: learn these structures only
  n_test: 10                            # test structures for the errors at the end; never used in training
  convergence_patience: 30
  max_convergence_epochs: 200
"""
FINE_TUNING_MACE = """\
GENERAL:
  name_exp: fine                        # models are called fine_SEED.model
  seed: 42

FOUNDATION:                             # all models begin from this one; ARCHITECTURE is its own
  model: foundation.model               # a file, or a name such as off-medium or medium-mpa-0 (downloaded)
  # head: omat_pbe                      # of a model with several levels of theory
  recipe: naive                         # frozen: train products and readouts alone; replay: see docs/fine_tuning.md

MISC:
  device: cpu                           # cuda on a GPU
"""
FINE_TUNING_SCRIPT = '''\
# Makes foundation.model and train.xyz, so that this folder runs as it is: `python make_example.py` (about a minute).
# With your own model and data you do not need it.
import shutil
from pathlib import Path

import numpy as np
import yaml
from ase import units
from ase.build import molecule
from ase.io import write
from ase.md.langevin import Langevin
from tblite.ase import TBLite

import aims_pax


def frames(formula, method, temperature, n):
    """n labelled structures from MD, 20 fs apart."""
    atoms = molecule(formula)
    atoms.calc = TBLite(method=method, accuracy=0.01, verbosity=0)
    rng = np.random.default_rng(0)
    moving = Langevin(atoms, 0.5 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng, fixcm=False)
    moving.run(200)
    for _ in range(n):
        moving.run(40)
        labelled = atoms.copy()
        labelled.info["REF_energy"] = atoms.get_potential_energy()
        labelled.arrays["REF_forces"] = atoms.get_forces()
        yield labelled


REFERENCE = {"factory": "tblite.ase:TBLite", "kwargs": {"method": "GFN2-xTB", "accuracy": 0.01, "verbosity": 0}}
PROJECT = {  # a run of its own, which ends after its first MD step
    "REFERENCE": REFERENCE,
    "ACTIVE_LEARNING": {
        "initial_train_dataset": "train.xyz", "num_trajectories": 1, "ensemble_size": 2, "max_MD_steps": 1,
        "skip_step_mlff": 1, "max_convergence_epochs": 25, "converge_al": False,
    },
    "MD": {"stat_ensemble": "NVT", "temperature": 300},
    "CLUSTER": {"type": "local"},
    "MISC": {"path_to_geometry": "geometry.xyz", "report": False},
}
MACE = {
    "GENERAL": {"name_exp": "foundation"},
    "ARCHITECTURE": {"num_channels": 16, "max_L": 1, "correlation": 2, "r_max": 4.0, "radial_MLP": [32, 32, 32]},
}

if __name__ == "__main__":
    # 30 structures of ethanol with the method of this folder
    write("train.xyz", list(frames("CH3CH2OH", "GFN1-xTB", 500, 30)))
    # a model of other molecules with another method
    folder = Path("foundation")
    folder.mkdir(exist_ok=True)
    others = [f for m in ("CH3OH", "C2H6", "H2O") for f in frames(m, "GFN2-xTB", 600, 50)]
    write(folder / "train.xyz", others)
    write(folder / "geometry.xyz", molecule("CH3OH"))
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(PROJECT))
    (folder / "mace.yaml").write_text(yaml.safe_dump(MACE))
    results = aims_pax.run(folder)
    shutil.copy(sorted(results.glob("*.model"))[0], "foundation.model")
'''
PRE_TRAINING = """\
REFERENCE:                              # in place of an expensive method, which may be FHI-aims
  type: calculator
  factory: tblite.ase:TBLite            # "package.module:callable"; the module may be in this folder
  kwargs: {method: GFN1-xTB, accuracy: 0.01, verbosity: 0}

PRETRAINING:                            # the models learn from a cheap method first: its labels cost nothing
  potential:                            # a calculator as here, or so3lr, chgnet, the name or file of a model
    factory: tblite.ase:TBLite
    kwargs: {method: GFN2-xTB, verbosity: 0}
  n_frames: 200                         # the default is 400
  max_epochs: 40                        # short, for a first look; the default, 200, learns them better

INITIAL_DATASET_GENERATION:             # the first structures that the reference labels
  initial_sampling: calculator          # MD with the cheap method
  initial_calculator:
    factory: tblite.ase:TBLite
    kwargs: {method: GFN2-xTB, verbosity: 0}
  distinct_model_sets: false            # every model learns all of these structures, not half of them
  n_points_per_sampling_step_idg: 10    # structures per step, for each geometry
  skip_step_initial: 40                 # MD steps between two structures
  ensemble_size: 2                      # models whose disagreement is the uncertainty
  intermediate_epochs_idg: 10           # training epochs after each step
  max_initial_epochs: 10                # this stage stops after so many epochs

ACTIVE_LEARNING:                        # MD with the models; structures on which they disagree are labelled
  num_trajectories: 4
  ensemble_size: 2                      # as above
  skip_step_mlff: 20                    # MD steps between two checks of the uncertainty
  epochs_per_worker: 2                  # training epochs for each new structure
  max_labels: 20                        # your budget of reference calculations in this stage, test structures included
  n_test: 10                            # test structures for the errors at the end; never used in training
  convergence_patience: 50
  max_convergence_epochs: 200
"""

RATE_AFTER_PRE_TRAINING = "  # lr: 0.002                           # the default here, after PRETRAINING\n"

DELTA = """\
REFERENCE:                              # in place of an expensive method, which may be FHI-aims
  type: calculator
  factory: tblite.ase:TBLite            # "package.module:callable"; the module may be in this folder
  kwargs: {method: GFN2-xTB, accuracy: 0.01, verbosity: 0}
  baseline:                             # the models learn the difference to this cheap method; MD uses the sum
    factory: tblite.ase:TBLite
    kwargs: {method: GFN1-xTB, verbosity: 0}

INITIAL_DATASET_GENERATION:             # the first structures, and models trained on them
  initial_sampling: calculator          # MD with the baseline
  initial_calculator:
    factory: tblite.ase:TBLite
    kwargs: {method: GFN1-xTB, verbosity: 0}
  distinct_model_sets: false            # every model learns all of these structures, not half of them
  n_points_per_sampling_step_idg: 10    # structures per step, for each geometry
  skip_step_initial: 40                 # MD steps between two structures
  ensemble_size: 2                      # models whose disagreement is the uncertainty
  intermediate_epochs_idg: 20           # training epochs after each step
  max_initial_epochs: 20                # this stage stops after so many epochs

ACTIVE_LEARNING:                        # MD with baseline and models; structures on which they disagree are labelled
  num_trajectories: 4
  ensemble_size: 2                      # as above
  skip_step_mlff: 20                    # MD steps between two checks of the uncertainty
  epochs_per_worker: 2                  # training epochs for each new structure
  max_train_set_size: 20                # active learning stops at this size
  n_test: 10                            # test structures for the errors at the end
  convergence_patience: 50
  max_convergence_epochs: 300
"""

NEXT = "`aims-PAX check` reports errors and missing settings, `aims-PAX plan` shows what would run."
HEAD = {
    "molecule": "A molecule with FHI-aims on this machine.",
    "crystal": "A crystal with FHI-aims on this machine.",
    "many": "Many molecules in one run, with FHI-aims on this machine.",
    "cluster": "A molecule with FHI-aims on a Slurm cluster.",
    "fine-tuning": "A published or own model, fine-tuned on your labelled structures, then active learning.",
    "laptop": "A whole run on this machine in minutes, with a fast calculator instead of FHI-aims.",
    "pre-training": "Models that learnt free labels of GFN2-xTB first; GFN1-xTB in place of an expensive reference.",
    "delta": "Delta-learning on this machine in minutes: GFN2-xTB as the reference, GFN1-xTB as the baseline.",
}
