"""Solid argon: potentials for it, and a short configuration of training-set."""

from __future__ import annotations

from tests.md.potentials import LennardJones

ARGON = {"factory": "tests.commands.training_set.argon:argon"}

KRYPTON = {"factory": "tests.commands.training_set.argon:argon", "kwargs": {"epsilon": 0.02}}

QUICK = {
    "crystal": "crystal.xyz",
    "calculator": ARGON,
    "work_dir": "frames",
    "md_sampling": {
        "temperature_K": 30.0,
        "finite_subsystem_filter": {"n_molecules": [1, 2]},
        "md_crystal": {
            "ensemble": "NVT",
            "time_step_fs": 5.0,
            "time_total_fs": 100.0,
            "time_equilibration_fs": 40.0,
            "sampling_interval_fs": 20.0,
            "supercell_radius": 7.0,
        },
    },
    "quasi_harmonic": {"thermal_expansion": False, "relax_input_cell": "full", "supercell_radius": 7.0},
    "phonon_sampling": {
        "temperature_K": 30.0,
        "n_frames": 4,
        "finite_subsystem_filter": {"n_molecules": [1, 2]},
    },
}

CALLS: list[int] = []


def argon(epsilon: float = 0.0104):
    """A torch Lennard-Jones as a `Potential`; notes how many frames it labels."""

    class Counted(LennardJones):
        def labels(self, frames):
            CALLS.append(len(frames))
            return super().labels(frames)

    return Counted(epsilon=epsilon, smooth=True)


def md(**changes) -> dict:
    return QUICK["md_sampling"] | {"md_crystal": QUICK["md_sampling"]["md_crystal"] | changes}


def springs():
    """Something carbon atoms stay together with for a few steps."""
    return LennardJones(epsilon=1e-6, sigma=1.2, cutoff=3.0, smooth=True)


DELTA = {"target": KRYPTON, "target_E0": {"Ar": -3.0}, "baseline_E0": {"Ar": -1.0}}


def lonely():
    """Has no energy for a single atom."""

    class Lonely(LennardJones):
        def labels(self, frames):
            if any(len(f) == 1 and not f.positions.any() for f in frames) and len(frames) == 1:
                raise KeyError("Ar")
            return super().labels(frames)

    return Lonely(smooth=True)
