"""`aims-PAX relax`: relaxation on a Gaussian process, one reference calculation a round.

Each round fits the process to all labels and follows its forces from the labelled structure of lowest energy, until
they vanish, a force is uncertain, or an atom has moved far; the structure that is reached is labelled.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax.commands.surrogate.observations import (
    Observations,
    SearchEnded,
    largest_force,
    opened_search,
    prior_mean,
)
from aims_pax.frames import Frame, LabelledFrame
from aims_pax.labelled_data import to_extxyz
from aims_pax.models.gp.gp_calculator import GPRCalculator
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.record.files import write_text
from aims_pax.settings.surrogate_search import RelaxSettings, read_surrogate_search, with_structures

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

STEPS = 200
FAR = 0.5  # Å: an atom moves no farther on one process
TIGHT = 0.3  # the forces of the process are relaxed below this share of fmax


def read_relax(config: Path) -> tuple[Any, Frame]:
    """Settings and structure. Raises SettingsError."""
    search, (frame,) = with_structures(read_surrogate_search(config, "relax"), "structure")
    return search, frame


def relax_on_surrogate(config: Path, console: Console) -> None:
    """Find the minimum. Raises SettingsError, SetupError, SearchEnded, RunInterrupted."""
    search, start = read_relax(config)
    with opened_search(search.reference, console, "relax", [start]) as context:
        for warning in search.warnings:
            log.warning("%s", warning)
        keys: RelaxSettings = search.keys
        made_with = {"structure": start.id, "method": context.labeller.method}
        baseline = prior_mean(keys.baseline, start)
        folder = Path(keys.output).expanduser()
        known = Observations.opened(context, folder, start, made_with, keys.max_calls, baseline)
        try:
            best = minimise(keys, start, known)
        except SearchEnded:
            if known.data:
                _write(known, min(known.data, key=_force), False)
            raise
        _write(known, best, True)
        log.info("converged: %.6f eV after %d reference calculations", best.label.energy, len(known.data))


def minimise(keys: RelaxSettings, start: Frame, known: Observations) -> LabelledFrame:
    """The labelled structure whose forces are below fmax. Raises SearchEnded."""
    here = known.label(start, {}, 0)
    done = [x for x in known.data if _force(x) <= keys.fmax]
    here = min(done or [here, *known.data], key=lambda x: x.label.energy)
    while _force(here) > keys.fmax:
        known.context.watch.raise_if_stopped()
        moved = _followed(keys, here.frame, known.process())
        if any(x.frame.id == moved.id for x in known.data):
            raise SearchEnded(
                f"no progress: the process of {len(known.data)} labels explains a force of {_force(here):.4f} eV/Å "
                "of the reference as noise; converge the reference more tightly, or choose a larger fmax"
            )
        new = known.label(moved, {}, known.round + 1)
        log.info("%d labels · %.6f eV · force %.4f eV/Å", len(known.data), new.label.energy, _force(new))
        here = new if _force(new) <= keys.fmax or new.label.energy < here.label.energy else here
    return here


def _followed(keys: RelaxSettings, start: Frame, process: GaussianProcess) -> Frame:
    """Where the forces of the process lead, within the limits."""
    from ase.optimize import BFGS

    atoms = start.to_atoms()
    atoms.calc = GPRCalculator(process)
    search = BFGS(atoms, logfile=None, maxstep=0.1)
    for step, _ in enumerate(search.irun(fmax=TIGHT * keys.fmax, steps=STEPS)):
        moved = float(np.linalg.norm(atoms.positions - start.positions, axis=1).max())
        if step and (moved > FAR or _deviation(process, start.moved(atoms.positions)) > keys.max_unc_forces):
            break
    return start.moved(atoms.positions)


def _deviation(process: GaussianProcess, frame: Frame) -> float:
    said = process.predict([frame], spread=True)
    assert said.force_sd is not None
    return largest_force(frame, said.force_sd)


def _force(one: LabelledFrame) -> float:
    return largest_force(one.frame, one.label.forces)


def _write(known: Observations, best: LabelledFrame, converged: bool) -> None:
    write_text(known.folder / "minimum.xyz", to_extxyz([best]))
    result = {
        "converged": converged, "reference_calls": len(known.data), "energy_eV": best.label.energy,
        "largest_force_eV_per_A": _force(best),
    }  # fmt: skip
    write_text(known.folder / "result.json", json.dumps(result, indent=1) + "\n")
