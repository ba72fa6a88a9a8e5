"""Training sets of (molecular) crystals: MD frames, force constants, phonon frames, and their finite clusters.

Each section of the configuration is a step. Its complete result is written to the HDF5 file under its `root_key`; a
finished step is not repeated. Unfinished MD continues from its last snapshot, at most a minute old.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units
from ase.calculators.calculator import CalculatorError

from aims_pax import seeds
from aims_pax.commands.training_set.context import MADE_WITH, Basis, TrainingSetContext
from aims_pax.commands.training_set.delta_learning import delta_learning
from aims_pax.commands.training_set.dynamics import crystal_dynamics, pressure
from aims_pax.commands.training_set.extxyz import write_labelled
from aims_pax.engine.interrupts import InterruptMonitor, remaining_walltime
from aims_pax.engine.outcome import log_outcome
from aims_pax.errors import RestartError, SetupError
from aims_pax.frames import Frame
from aims_pax.potentials.named import LoadedPotential
from aims_pax.record import hdf5
from aims_pax.record.hdf5 import Hdf5
from aims_pax.record.lock import Lock
from aims_pax.record.log import to_console
from aims_pax.record.provenance import changes, provenance_refusal
from aims_pax.sampler import SamplingError
from aims_pax.samplers.clusters import Cluster, Rule, choose_clusters
from aims_pax.samplers.force_constants import ONE, ForceConstants, force_constants
from aims_pax.samplers.normal_modes import Window, modes, small_vibrations, trajectory
from aims_pax.samplers.quasi_harmonic import equilibrium
from aims_pax.samplers.relax import relax
from aims_pax.samplers.supercell import least_volume, repeated
from aims_pax.settings.geometry_rules import notes_of_crystal
from aims_pax.settings.training_set import (
    STEPS,
    FreeEnergy,
    MDSampling,
    PhononSampling,
    read_training_set,
)
from aims_pax.systems import read_crystal

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

FIXED = "fixed_components"  # (N, 3) of the cell whose force constants are stored, if it has any


def training_set(config: Path, console: Console) -> None:
    """`aims-PAX training-set`: run all steps of the configuration that are not finished.

    Raises SettingsError, SamplingError, RestartError; RunInterrupted after a signal.
    """
    settings, warnings = read_training_set(config)
    folder = Path.cwd()
    dataset = folder / settings.dataset
    lock = Lock(dataset.with_name(f".{dataset.name}.lock"))
    watch = InterruptMonitor(remaining_walltime(None), lock.heartbeat)
    with to_console(console, "INFO"), log_outcome(), watch.listening(), lock.held(watch.raise_if_signalled):
        for warning in warnings:
            log.warning("%s", warning)
        shop = TrainingSetContext(settings, folder, watch)
        for name in STEPS:
            section = getattr(settings, name)
            if section is not None:
                watch.raise_if_stopped()
                try:
                    _STEPS[name](shop, section)
                # a failed structure, but this step cannot continue without it
                except CalculatorError as error:
                    raise SetupError(f"{name}: calculator: {type(error).__name__}: {error}") from error


def _made(store: Hdf5, key: str, basis: Basis) -> bool:
    """Whether the step is finished. Raises RestartError when it was made with other settings.

    A larger number of frames is an error too: replacing the frames would lose their delta-learning labels.
    """
    known = store.digest(key)
    if known is None:
        return False
    if known != basis.digest:
        said = store.attribute(key, MADE_WITH)
        differing = changes(json.loads(said), basis.made_from) if said is not None else []
        unknown = ["settings, potential or crystal: changed"]  # older versions did not store the settings
        way_out = (
            f"set another root_key to write it next to {key} (delta_learning.root_keys may name both), or remove "
            f"{store.path.name} to repeat all steps"
        )
        raise RestartError(provenance_refusal(f"{store.path}: {key}", differing or unknown, way_out))
    log.info("%s: finished already, in %s", key, store.path.name)
    return True


def _crystal(shop: TrainingSetContext, section: MDSampling | FreeEnergy) -> Frame:
    """The structure of a step; what of its file has no effect is logged."""
    system = read_crystal(shop.folder / str(shop.of(section, "crystal")), section.cell_change)
    for note in notes_of_crystal(system):
        log.warning("%s", note)
    return system.frame


# ---------------------------------------------------------------- molecular dynamics


def md_sampling(shop: TrainingSetContext, section: MDSampling) -> None:
    """Frames of a trajectory in a supercell, after equilibration, and their finite clusters."""
    store, named = shop.store(section), shop.calculator("md_sampling", section)
    crystal = _crystal(shop, section)
    basis = shop.basis("md_sampling", section, named, crystal=crystal.id)
    if _made(store, section.root_key, basis):
        return
    md = section.md_crystal
    if md.ensemble == "NPT" and not crystal.periodic:
        raise SamplingError(
            "md_crystal.ensemble: NPT needs a structure periodic in three directions; choose NVT"
        )
    matrix = least_volume(crystal.cell, md.supercell_radius) if crystal.periodic else ONE
    frame, _ = repeated(crystal, matrix)
    log.info(
        "md_sampling: %s, %d atoms, %s at %g K", frame.formula, len(frame), md.ensemble, section.temperature_K
    )
    clusters = _clusters(section, frame)  # what refuses them is said before the dynamics
    work = shop.work_dir(section)
    saved = work / f".{section.root_key.replace('/', '.')}.md.npy"
    states = crystal_dynamics(
        section, frame, named.potential, shop.settings.seed, shop.watch, saved, basis.digest
    )
    frames = [s.frame() for s in states]
    labels = named.labels(frames, shop.check)
    arrays = hdf5.structure_arrays(frames, labels, named.features(frames))
    arrays |= {
        hdf5.TIME: np.array([s.step for s in states]) * md.time_step_fs,
        hdf5.TEMPERATURE: np.array([s.temperature for s in states]),
        hdf5.VELOCITIES: np.array([s.momenta / s.masses[:, None] for s in states]) * units.fs,
    }
    if frame.periodic and labels[0].stress is not None:
        arrays[hdf5.PRESSURE] = np.array([pressure(s, x) for s, x in zip(states, labels, strict=True)])
    write_labelled(work / "md_sampling.xyz", frames, labels, {"sampler": "md"})
    groups: dict[str, Any] = {"": {}, "trajectory": arrays}
    attributes: dict[str, Any] = {"": {"supercell_matrix": matrix, **basis.attributes}}
    _add_clusters(shop, section, clusters, frames, named, work / "md_sampling", groups, attributes)
    store.write(section.root_key, basis.digest, groups, attributes)
    saved.unlink(missing_ok=True)
    log.info("md_sampling: %d frames in %s:%s", len(frames), store.path.name, section.root_key)


# ---------------------------------------------------------------- force constants


def quasi_harmonic(shop: TrainingSetContext, section: FreeEnergy) -> None:
    """The relaxed crystal, at its equilibrium volume if requested, and its force constants."""
    store, named = shop.store(section), shop.calculator("quasi_harmonic", section)
    crystal = _crystal(shop, section)
    basis = shop.basis("quasi_harmonic", section, named, crystal=crystal.id)
    if _made(store, section.root_key, basis):
        return
    if section.thermal_expansion and not crystal.periodic:
        raise SamplingError(
            f"thermal_expansion: {crystal.formula} has no cell that could expand; set it to False"
        )
    relaxed = relax(crystal, named.potential, section.relax_input_cell, section.fmax, check=shop.check)
    matrix = least_volume(relaxed.cell, section.supercell_radius) if relaxed.periodic else ONE
    labels = named.labels([relaxed], shop.check)
    groups: dict[str, Any] = {"": {}, "relaxed": hdf5.structure_arrays([relaxed], labels)}
    attributes: dict[str, Any] = {"": basis.attributes}
    if section.thermal_expansion:
        found = equilibrium(
            relaxed,
            named.potential,
            matrix,
            section.temperature_K,
            section.pressure_GPa,
            fmax=section.fmax,
            check=shop.check,
        )
        relaxed = found.frame
        groups["equation_of_state"] = {
            "V (Å³)": found.volumes,
            "E_pot (eV)": found.energies,
            "F_vib (eV)": found.free,
        }
        attributes["equation_of_state"] = {"T (K)": section.temperature_K, "V_eq (Å³)": found.volume}
    log.info(
        "quasi_harmonic: force constants of %s in %d cells", relaxed.formula, round(np.linalg.det(matrix))
    )
    constants = force_constants(relaxed, named.potential, matrix, check=shop.check)
    where = section.force_constants_key.removeprefix(f"{section.root_key}/")
    groups[where] = {hdf5.CONSTANTS: constants.values, hdf5.MATRIX: constants.matrix}
    groups[f"{where}/primitive"] = hdf5.structure_arrays([constants.frame])
    if constants.frame.fixed is not None:
        groups[f"{where}/primitive"][FIXED] = constants.frame.fixed
    groups[f"{where}/supercell"] = hdf5.structure_arrays([constants.supercell])
    store.write(section.root_key, basis.digest, groups, attributes)
    log.info("quasi_harmonic: force constants in %s:%s", store.path.name, section.force_constants_key)


def read_force_constants(store: Hdf5, key: str) -> ForceConstants:
    """Force constants that a step has written. Raises RestartError when there are none."""
    arrays, primitive = store.read(key), store.read(f"{key}/primitive")
    frame = replace(hdf5.frames_of(primitive)[0], fixed=primitive.get(FIXED))
    supercell = hdf5.frames_of(store.read(f"{key}/supercell"))[0]
    if hdf5.CONSTANTS not in arrays:
        raise RestartError(f"{store.path}: {key} has no force constants")
    return ForceConstants(frame, arrays[hdf5.MATRIX], supercell, arrays[hdf5.CONSTANTS])


# ---------------------------------------------------------------- phonons


def phonon_sampling(shop: TrainingSetContext, section: PhononSampling) -> None:
    """Frames displaced along phonons, and their finite clusters."""
    store, named = shop.store(section), shop.calculator("phonon_sampling", section)
    source = Hdf5(shop.folder / str(section.force_constants_dataset or shop.of(section, "dataset")))
    key = section.force_constants_key
    if key is None:
        assert shop.settings.quasi_harmonic is not None  # checked when the settings were read
        key = shop.settings.quasi_harmonic.force_constants_key
    constants = read_force_constants(source, key)
    content = hashlib.sha256(constants.values.tobytes()).hexdigest()
    basis = shop.basis("phonon_sampling", section, named, crystal=constants.frame.id, force_constants=content)
    if _made(store, section.root_key, basis):
        return
    asked = section.phonon_filter
    window = Window(asked.freq_min_THz, asked.freq_max_THz, asked.selected_modes)
    whole = constants.matrix if asked.k_point_mesh == "gamma" else None
    chosen = small_vibrations(modes(constants, asked.k_point_mesh, window, whole), section.temperature_K)
    log.info(
        "phonon_sampling: %d modes, %.2f to %.2f THz, %d atoms",
        len(chosen.coordinates()),
        chosen.frequencies.min(),
        chosen.frequencies.max(),
        len(chosen.frame),
    )
    clusters = _clusters(section, chosen.frame)
    rng = seeds.rng("phonon_sampling", shop.settings.seed)
    made = list(
        trajectory(
            chosen,
            section.temperature_K,
            section.n_frames,
            rng,
            section.amplitudes,
            section.time_step_fs,
            section.per_mode,
        )
    )
    frames = [frame for frame, _ in made]
    labels = named.labels(frames, shop.check)
    arrays = hdf5.structure_arrays(frames, labels, named.features(frames))
    if section.per_mode:
        arrays["mode"] = np.array([number for _, number in made])
    if section.amplitudes == "time":
        arrays[hdf5.TIME] = np.arange(len(frames)) % section.n_frames * section.time_step_fs
    work = shop.work_dir(section)
    write_labelled(work / "phonon_sampling.xyz", frames, labels, {"sampler": "phonons"})
    starts = [c[0] for c in chosen.coordinates()]
    groups: dict[str, Any] = {
        "": {},
        "trajectory": arrays,
        "modes": {
            "f (THz)": chosen.frequencies[starts],
            "q": chosen.q[starts],
            "branch": chosen.branch[starts],
        },
    }
    attributes: dict[str, Any] = {"": basis.attributes, "modes": {"n_imaginary": len(chosen.imaginary)}}
    _add_clusters(shop, section, clusters, frames, named, work / "phonon_sampling", groups, attributes)
    store.write(section.root_key, basis.digest, groups, attributes)
    log.info("phonon_sampling: %d frames in %s:%s", len(frames), store.path.name, section.root_key)


# ---------------------------------------------------------------- finite clusters


def _clusters(section: MDSampling | PhononSampling, reference: Frame) -> list[Cluster]:
    """The clusters to cut out of every frame; none if they are switched off, or do not occur (a warning is logged).

    Raises SamplingError for a crystal that has none, with the key to switch them off.
    """
    if not section.finite_subsystems:
        return []
    try:
        return choose_clusters(reference, Rule(**section.finite_subsystem_filter.model_dump()))
    except SamplingError as error:
        raise SamplingError(f"{error} (finite_subsystems: False samples no finite clusters)") from error


def _add_clusters(
    shop: TrainingSetContext,
    section: MDSampling | PhononSampling,
    chosen: Sequence[Cluster],
    frames: Sequence[Frame],
    named: LoadedPotential,
    stem: Path,
    groups: dict[str, Any],
    attributes: dict[str, Any],
) -> None:
    """Groups `finite_subsystems/n=…` and extended XYZ files of the clusters; frames that reacted are left out."""
    if not chosen:
        return
    rule = section.finite_subsystem_filter.selection_rule
    whole, usable = [], []
    for k, frame in enumerate(frames):
        try:
            whole.append(chosen[0].system.whole(frame))
            usable.append(k)
        except SamplingError as error:
            log.warning("frame %d of %d gives no clusters: %s", k + 1, len(frames), error)
    if not usable:
        raise SamplingError(
            "no frame contains the molecules of the crystal; lower temperature_K, or relax the crystal"
        )
    for cluster in chosen:
        cut = [cluster.cut(frames[k], R) for k, R in zip(usable, whole, strict=True)]
        labels = named.labels(cut, shop.check)
        path = f"finite_subsystems/{cluster.key}"
        groups[path] = hdf5.structure_arrays(cut, labels, named.features(cut))
        groups[path] |= {hdf5.MOLECULES: np.array(cluster.molecules), "frame": np.array(usable)}
        attributes[path] = {"n_molecules": len(cluster.molecules), "selection_rule": rule}
        write_labelled(stem / f"{cluster.key}.xyz", cut, labels, {"cluster": cluster.key})


_STEPS: dict[str, Any] = {
    "md_sampling": md_sampling,
    "quasi_harmonic": quasi_harmonic,
    "phonon_sampling": phonon_sampling,
    "delta_learning": delta_learning,
}
