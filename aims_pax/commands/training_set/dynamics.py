"""Molecular dynamics of a training set: equilibration, sampling at equal intervals, continuation after a stop."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import units

from aims_pax import seeds
from aims_pax.engine.interrupts import InterruptMonitor
from aims_pax.errors import Abandoned
from aims_pax.frames import Frame, Label
from aims_pax.md import MDState, advance
from aims_pax.potential import Potential
from aims_pax.record.arrays import Torn, pack_arrays, unpack_arrays
from aims_pax.record.files import write_bytes
from aims_pax.sampler import SamplingError
from aims_pax.settings.md import MDSettings
from aims_pax.settings.training_set import MDSampling

log = logging.getLogger(__name__)

SAVE_EVERY = 60.0  # s between two snapshots


def crystal_dynamics(
    section: MDSampling,
    frame: Frame,
    potential: Potential,
    seed: int,
    watch: InterruptMonitor,
    saved: Path,
    digest: str,
) -> list[MDState]:
    """The states at every sampling interval after the equilibration.

    saved: snapshot file; the dynamics continues from it if its digest equals `digest`.
    Raises SamplingError when the dynamics explodes, RunInterrupted when asked to stop.
    """
    md = section.md_crystal
    asked = _md_settings(section, seed)
    interval = round(md.sampling_interval_fs / md.time_step_fs)
    samples = int(md.time_total_fs / md.sampling_interval_fs + 1e-9) + 1
    first = int(np.ceil(md.time_equilibration_fs / md.sampling_interval_fs - 1e-9))
    state, sampled = _continued(saved, digest)
    if state is None:
        state = MDState.start(frame, section.temperature_K, seeds.seed_number("md_sampling", seed))
        sampled = [state] if first == 0 else []
    else:
        log.info("md_sampling: continues at %.0f fs", state.step * md.time_step_fs)
    last = time.monotonic()
    try:
        for sample in range(state.step // interval + 1, samples):
            watch.raise_if_stopped()
            moved = advance([state], potential, interval, [asked], stop=watch.stop)[0]
            if moved.fault is not None:
                raise SamplingError(
                    f"md_sampling: {moved.fault}; relax the crystal first, or lower time_step_fs or temperature_K"
                )
            state = moved.state
            if sample >= first:
                sampled.append(state)
            if time.monotonic() - last > SAVE_EVERY:
                last = time.monotonic()
                _save(saved, digest, state, sampled)
                log.info("md_sampling: %.0f of %.0f fs", state.step * md.time_step_fs, md.time_total_fs)
    except BaseException as error:
        with contextlib.suppress(OSError):
            _save(saved, digest, state, sampled)
        if isinstance(error, Abandoned):
            watch.raise_if_stopped()
        raise
    return sampled


def _md_settings(section: MDSampling, seed: int) -> MDSettings:
    md = section.md_crystal
    return MDSettings(
        stat_ensemble=md.ensemble,
        thermostat={"csvr": "SVR", "langevin": "Langevin"}[md.nvt_algo],
        barostat={"mtk_full": "MTK", "mtk_isotropic": "isotropic-MTK"}[md.npt_algo],
        friction=1.0 / md.thermostat_time_fs,
        taut=md.thermostat_time_fs,
        taup=md.barostat_time_fs,
        pressure_au=section.pressure_GPa * units.GPa,
        temperature=section.temperature_K,
        timestep=md.time_step_fs,
        MD_seed=seed,
    )


def _save(path: Path, digest: str, state: MDState, sampled: Sequence[MDState]) -> None:
    arrays = {f"{k}:{name}": a for k, s in enumerate([state, *sampled]) for name, a in s.arrays().items()}
    write_bytes(path, pack_arrays(arrays, {"digest": digest, "kept": len(sampled)}))


def _continued(path: Path, digest: str) -> tuple[MDState | None, list[MDState]]:
    """The last state in the snapshot and the sampled states; (None, []) without a snapshot of this step."""
    try:
        arrays, meta = unpack_arrays(path.read_bytes())
    except FileNotFoundError:
        return None, []
    except Torn as error:
        log.warning("%s: %s; the dynamics starts again", path, error)
        return None, []
    if meta["digest"] != digest:
        log.warning("%s: belongs to other settings; the dynamics starts again", path)
        return None, []
    parts: list[dict[str, Any]] = [{} for _ in range(meta["kept"] + 1)]
    for name, a in arrays.items():
        number, _, field = name.partition(":")
        parts[int(number)][field] = a
    state, *sampled = (MDState.from_arrays(p) for p in parts)
    return state, sampled


def pressure(state: MDState, label: Label) -> float:
    """Pressure in GPa: −tr σ/3 + N k_B T/V, with the temperature of the state."""
    assert label.stress is not None
    kinetic = len(state) * units.kB * state.temperature / abs(np.linalg.det(state.cell))
    return float((kinetic - np.trace(label.stress) / 3) / units.GPa)
