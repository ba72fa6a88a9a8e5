"""`aims-PAX md`: molecular dynamics on a Gaussian process that asks the reference where it is unsure.

Velocity Verlet, with friction as BAOAB (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34). When a force of
the next structure is uncertain, that structure is labelled, the process fitted again, and the step repeated from where
it began. Random numbers depend on seed and step alone, so a restart continues the same trajectory.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units

from aims_pax import seeds
from aims_pax.commands.surrogate.observations import Observations, largest_force, opened_search, prior_mean
from aims_pax.frames import Array, Frame
from aims_pax.labelled_data import structure_text
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.record.files import append_text, write_text
from aims_pax.settings.surrogate_search import SurrogateMDSettings, read_surrogate_search, with_structures

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

RATTLED, RATTLE = 2, 0.1  # copies of the start that are labelled first, and their displacements in Å
SAVE = 200  # steps between two snapshots
TRAJECTORY = "trajectory.xyz"


@dataclass(frozen=True)
class SurrogateMotion:
    """positions: (N, 3) Å, velocities: (N, 3) Å per ASE's unit of time, step: number of finished steps."""

    positions: Array
    velocities: Array
    step: int


def read_surrogate_md(config: Path) -> tuple[Any, Frame]:
    """Settings and structure. Raises SettingsError."""
    search, (frame,) = with_structures(read_surrogate_search(config, "md"), "structure")
    return search, frame


def surrogate_md(config: Path, console: Console) -> None:
    """Run the dynamics. Raises SettingsError, SetupError, SearchEnded, RunInterrupted."""
    search, start = read_surrogate_md(config)
    with opened_search(search.reference, console, "md", [start]) as context:
        for warning in search.warnings:
            log.warning("%s", warning)
        keys: SurrogateMDSettings = search.keys
        firm = ("timestep", "temperature", "friction", "max_unc_forces", "every", "seed")
        made_with = {
            "structure": start.id,
            "method": context.labeller.method,
            **{k: getattr(keys, k) for k in firm},
        }
        baseline = prior_mean(keys.baseline, start)
        folder = Path(keys.output).expanduser()
        known = Observations.opened(context, folder, start, made_with, keys.max_calls, baseline)
        _Dynamics(keys, start, known).run()


class _Dynamics:
    def __init__(self, keys: SurrogateMDSettings, start: Frame, known: Observations) -> None:
        self.keys, self.start, self.known = keys, start, known
        self.trajectory = known.folder / TRAJECTORY
        self.free = np.ones((len(start), 3), bool) if start.fixed is None else ~start.fixed
        self.masses = start.all_masses[:, None]
        self.motion = self._begun()

    def run(self) -> None:
        known, keys = self.known, self.keys
        for frame in self._first():
            known.label(frame, self._state(), 0)
        process = known.process()
        forces = self._forces(process, self.motion.positions)
        while self.motion.step < keys.steps:
            if self.motion.step % SAVE == 0:
                self._save()
                known.context.watch.raise_if_stopped()
            moved, kicked = self._drift(forces)
            frame = self.start.moved(moved)
            said = process.predict([frame], spread=True)
            assert said.force_sd is not None
            if largest_force(frame, said.force_sd) > keys.max_unc_forces and not self._labelled(frame):
                known.label(frame, self._state(), known.round + 1)
                log.info("step %d · uncertain by %.3f eV/Å · %d labels", self.motion.step,
                         largest_force(frame, said.force_sd), len(known.data))  # fmt: skip
                process = known.process()
                forces = self._forces(process, self.motion.positions)
                continue
            forces = np.where(self.free, said.forces, 0.0)
            velocities = kicked + 0.5 * keys.timestep * units.fs * forces / self.masses
            self.motion = SurrogateMotion(moved, velocities, self.motion.step + 1)
            if self.motion.step % keys.every == 0:
                self._write(float(said.energies[0]))
        self._save()
        calls = len(known.data)
        write_text(
            known.folder / "result.json",
            json.dumps({"steps": self.motion.step, "reference_calls": calls}) + "\n",
        )
        log.info("done: %d steps with %d reference calculations", self.motion.step, calls)

    def _first(self) -> list[Frame]:
        """The start and rattled copies of it: one structure alone, perhaps a symmetric one without forces, says
        nothing about how steep the energy is."""
        frames = [self.start]
        for k in range(RATTLED):
            steps = seeds.rng("md rattle", self.keys.seed, k).normal(0, RATTLE, self.start.positions.shape)
            frames.append(self.start.moved(self.start.positions + np.where(self.free, steps, 0.0)))
        return frames

    def _labelled(self, frame: Frame) -> bool:
        return any(x.frame.id == frame.id for x in self.known.data)

    def _drift(self, forces: Array) -> tuple[Array, Array]:
        """Positions after a step, and velocities before the second half kick."""
        keys, now = self.keys, self.motion
        dt = keys.timestep * units.fs
        v = now.velocities + 0.5 * dt * forces / self.masses
        r = now.positions + 0.5 * dt * v
        if keys.friction:
            damping = np.exp(-keys.friction * keys.timestep)
            noise = seeds.rng("md noise", keys.seed, now.step).normal(size=v.shape)
            v = damping * v + np.sqrt((1 - damping**2) * units.kB * keys.temperature / self.masses) * noise
            v = np.where(self.free, v, 0.0)
        return np.array(r + 0.5 * dt * v), np.array(v)

    def _forces(self, process: GaussianProcess, positions: Array) -> Array:
        return np.where(self.free, process.predict([self.start.moved(positions)]).forces, 0.0)

    def _begun(self) -> SurrogateMotion:
        state = self.known.state
        if "velocities" in state:
            length = int(state["bytes"])
            if self.trajectory.exists():  # structures written after the last snapshot are made again
                with open(self.trajectory, "r+b") as file:
                    file.truncate(length)
            return SurrogateMotion(state["motion"], state["velocities"], int(state["step"]))
        kT = units.kB * self.keys.temperature
        normal = seeds.rng("md velocities", self.keys.seed).normal(size=self.start.positions.shape)
        velocities = np.where(self.free, normal * np.sqrt(kT / self.masses), 0.0)
        if self.free.all():
            velocities -= (self.masses * velocities).sum(0) / self.masses.sum()
        return SurrogateMotion(np.array(self.start.positions), velocities, 0)

    def _state(self) -> dict[str, Any]:
        size = self.trajectory.stat().st_size if self.trajectory.exists() else 0
        now = self.motion
        return {"motion": now.positions, "velocities": now.velocities, "step": np.array(now.step),
                "bytes": np.array(size)}  # fmt: skip

    def _save(self) -> None:
        self.known.state = self._state()
        self.known.write()

    def _write(self, energy: float) -> None:
        atoms = self.start.moved(self.motion.positions).to_atoms()
        kinetic = 0.5 * float((self.masses * self.motion.velocities**2).sum())
        atoms.info |= {"step": self.motion.step, "predicted_energy": energy, "kinetic_energy": kinetic}
        append_text(self.trajectory, structure_text(atoms))
