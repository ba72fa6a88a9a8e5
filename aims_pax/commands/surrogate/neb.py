"""`aims-PAX neb`: nudged elastic band on a Gaussian process, one reference calculation a round.

Each round fits the process to all labels, relaxes the band on it for a bounded number of steps, and labels one image:
the highest, or the most uncertain one while it is very uncertain or the highest one is known. Converged when the
reference's force on the highest image (without climbing: its part across the path) and the deviations of all images
are small. On one process the band moves no farther than a process of few labels can be trusted, and atoms of an image
never overlap. Koistinen et al., J. Chem. Phys. 147, 152720 (2017).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aims_pax import seeds
from aims_pax.commands.surrogate.observations import (
    Observations,
    SearchEnded,
    largest_force,
    opened_search,
    prior_mean,
    same_atoms,
)
from aims_pax.errors import SettingsError, Unphysical
from aims_pax.frames import Array, Frame, LabelledFrame
from aims_pax.labelled_data import structure_text
from aims_pax.labelling.validation import CLOSEST, check_geometry, overlapping_pairs
from aims_pax.models.gp.gp_calculator import GPRCalculator
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.record.files import write_text
from aims_pax.samplers.similarity import MinimumImage
from aims_pax.settings.surrogate_search import NebSettings, read_surrogate_search, with_structures

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console

log = logging.getLogger(__name__)

RESULT = "result.json"
STEPS = 60  # of the band on one process
FAR = 0.5  # Å: an atom of the band moves no farther on one process
# Å: beside a straight path through atoms; then of the pair potentials
BENT, BENT_FORCE, BENT_STEPS = (
    0.3,
    0.02,
    1000,
)
ON_THE_WAY = 51  # structures on straight lines between the ends, of which none should have atoms that overlap
MAX_STEP = 0.1  # Å, of an atom in one step of the band
SAME = 0.05  # Å: ends whose atoms differ by less are one structure
NEAR = 0.05  # Å: the highest image is known if no atom is farther from where it is in a labelled structure
AT_REST = 2.0  # an end whose force is more than so many times fmax is no minimum
EXCHANGED = 0.4  # of the sum of squared displacements: more is not said to be a mistake in the numbers
LARGE = 3.0  # an image that deviates so many times more than allowed is labelled before the highest one


@dataclass(frozen=True)
class Band:
    """positions: (I + 2, N, 3) Å of all images; energies: (I + 2,) eV, predicted; deviation: (I,) eV/Å, the largest of
    a moving atom's force in each inner image."""

    positions: Array
    energies: Array
    deviation: Array

    @property
    def highest(self) -> int:
        """Index of the highest inner image among all images."""
        return 1 + int(np.argmax(self.energies[1:-1]))


def read_neb(config: Path) -> tuple[Any, Frame, Frame]:
    """Settings and the two ends. Raises SettingsError."""
    search, (first, last) = with_structures(read_surrogate_search(config, "neb"), "initial", "final")
    same_atoms(first, last)
    last = nearest_images(first, last)
    if first.fixed is not None and (abs(last.positions - first.positions)[first.fixed] > 1e-4).any():
        raise SettingsError("final: fixed atoms are not where they are in initial")
    if np.linalg.norm(last.positions - first.positions, axis=1).max() < SAME:
        raise SettingsError(
            f"final: no atom is {SAME} Å or more from where it is in initial; give two different ends"
        )
    if (reason := overlapping_image(first, interpolated(first, last, search.keys.images))) is not None:
        raise SettingsError(
            f"final: atoms collide on the way from initial: {reason}; give ends that are nearer to each other, for "
            "example one by one the steps of the reaction"
        )
    exchanged = exchanged_atoms(first, last)
    return replace(search, warnings=(*search.warnings, *exchanged)), first, last


def exchanged_atoms(first: Frame, last: Frame) -> list[str]:
    """A warning if atoms of one element would move much less with their numbers exchanged, else nothing."""
    from scipy.optimize import linear_sum_assignment

    image, best = MinimumImage(first.cell, first.pbc), np.arange(len(first))
    own = after = 0.0  # Å², sums of squares with the numbers as they are, and exchanged
    for z in np.unique(first.numbers):
        here = np.flatnonzero(first.numbers == z)
        squares = image.lengths(last.positions[here] - first.positions[here][:, None]) ** 2
        rows, columns = linear_sum_assignment(squares)
        best[here[rows]] = here[columns]
        own, after = own + squares.trace(), after + squares[rows, columns].sum()
    if not after < EXCHANGED * own:
        return []
    named = ", ".join(str(k + 1) for k in np.flatnonzero(best != np.arange(len(first))))
    return [
        f"final: atoms {named} (counted from 1) are nearer to others of their element in initial than to themselves; "
        "if they do not exchange places in this reaction, number them alike in both files"
    ]


def nearest_images(first: Frame, last: Frame) -> Frame:
    """The last end in the cell of the first, each atom in the image nearest to where it is in the first one."""
    from ase.geometry import find_mic

    if not first.pbc.any():
        return first.moved(last.positions)
    steps, _ = find_mic(last.positions - first.positions, first.cell, first.pbc)
    return first.moved(first.positions + steps)


def neb(config: Path, console: Console) -> None:
    """Find the path. Raises SettingsError, SetupError, SearchEnded, RunInterrupted."""
    search, first, last = read_neb(config)
    with opened_search(search.reference, console, "neb", [first]) as context:
        for warning in search.warnings:
            log.warning("%s", warning)
        keys: NebSettings = search.keys
        made_with = {
            "initial": first.id, "final": last.id, "images": keys.images, "climb": keys.climb, "spring": keys.spring,
            "method": context.labeller.method,
        }  # fmt: skip
        folder = Path(keys.output).expanduser()
        baseline = prior_mean(keys.baseline, first)
        known = Observations.opened(context, folder, first, made_with, keys.max_calls, baseline)
        _search(keys, first, last, known)


def _search(keys: NebSettings, first: Frame, last: Frame, known: Observations) -> None:
    positions = known.state.get("path")
    if positions is None:
        positions = interpolated(first, last, keys.images)
    ends = [known.label(frame, {"path": positions}, 0) for frame in (first, last)]
    for name, end in zip(("initial", "final"), ends, strict=True):
        if (force := largest_force(end.frame, end.label.forces)) > AT_REST * keys.fmax:
            log.warning(
                "%s: a force of %.3f eV/Å: not a minimum, so that energies of the path are not barriers of a reaction; "
                "relax it first (aims-PAX relax)",
                name, force,
            )  # fmt: skip
    if len(known.data) == 2:
        known.label(first.moved(positions[keys.images // 2 + 1]), {"path": positions}, 0)
    if (barrier := _barrier_found(keys, known)) is not None:
        log.info(
            "converged before: barrier %.4f eV after %d reference calculations", barrier, len(known.data)
        )
        return
    number = known.round
    while True:
        known.context.watch.raise_if_stopped()
        number += 1
        process = known.process()
        band = relaxed_band(keys, first, positions, process, climb=keys.climb and number > 1)
        positions = band.positions
        try:
            chosen = _chosen(keys, band, known)
            labelled = known.label(first.moved(positions[chosen]), {"path": positions}, number)
        except SearchEnded:
            _write(keys, known, band, ends, None)
            raise
        force = force_at(keys, band, chosen, labelled)
        barrier = labelled.label.energy - ends[0].label.energy
        log.info(
            "round %d · %d labels · image %d: %+.4f eV, force %.3f eV/Å, predicted %+.4f eV · deviation %.3f eV/Å",
            number, len(known.data), chosen, barrier, force, band.energies[chosen] - ends[0].label.energy,
            band.deviation.max(),
        )  # fmt: skip
        if chosen == band.highest and force <= keys.fmax and band.deviation.max() <= keys.max_unc_forces:
            _write(keys, known, band, ends, labelled)
            return


def _chosen(keys: NebSettings, band: Band, known: Observations) -> int:
    """Index of the image that is labelled next, or looked at again if that ends the search.

    Raises SearchEnded when all images are labelled, so that nothing would change.
    """
    data = {x.frame.id: x for x in known.data}
    top = known.template.moved(band.positions[band.highest])
    sure = band.deviation.max() <= keys.max_unc_forces
    if (there := data.get(top.id)) is not None:
        if sure and force_at(keys, band, band.highest, there) <= keys.fmax:
            return band.highest
    elif next_image(band, keys.max_unc_forces) == band.highest and (
        sure or not _top_is_known(keys, band, known)
    ):
        return band.highest
    for k in 1 + np.argsort(-band.deviation):
        if known.template.moved(band.positions[k]).id not in data:
            return int(k)
    raise SearchEnded(
        f"not converged: all {len(band.deviation)} images are labelled and the band does not move any more; give more "
        "images, or a larger fmax"
    )


def _top_is_known(keys: NebSettings, band: Band, known: Observations) -> bool:
    """Whether a structure like the highest image is labelled, and its force is small."""
    top = band.positions[band.highest]
    return any(
        np.linalg.norm(x.frame.positions - top, axis=1).max() <= NEAR
        and force_at(keys, band, band.highest, x) <= keys.fmax
        for x in known.data
    )


def force_at(keys: NebSettings, band: Band, k: int, labelled: LabelledFrame) -> float:
    """eV/Å: the largest force of the reference on an atom that moves; without climbing its part across the path, since
    the highest image is then not at the saddle point."""
    forces = labelled.label.forces
    if not keys.climb:
        along = band.positions[k + 1] - band.positions[k - 1]
        along = along / np.linalg.norm(along)
        forces = forces - (forces * along).sum() * along
    return largest_force(labelled.frame, forces)


def _barrier_found(keys: NebSettings, known: Observations) -> float | None:
    """The barrier (eV) of an earlier run that converged to these limits with the same labels."""
    path = known.folder / RESULT
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    if not result["converged"] or result["reference_calls"] != len(known.data):
        return None
    close = result["force_at_saddle_eV_per_A"] <= keys.fmax
    sure = result["largest_deviation_eV_per_A"] <= keys.max_unc_forces
    return float(result["barrier_eV"]) if close and sure else None


def next_image(band: Band, limit: float) -> int:
    """The highest image, or the one with the largest deviation while that is far above the limit."""
    worst = 1 + int(np.argmax(band.deviation))
    return worst if band.deviation.max() > LARGE * limit else band.highest


def interpolated(first: Frame, last: Frame, images: int) -> Array:
    """(images + 2, N, 3) Å by image dependent pair potentials.

    Atoms that would pass through others on straight lines begin beside them: from a straight line these potentials lead
    nowhere, or through the others. Smidstrup et al., J. Chem. Phys. 140, 214106 (2014).
    """
    from ase.mep import NEB
    from ase.mep.neb import idpp_interpolate

    path = [first.to_atoms() for _ in range(images + 1)] + [last.to_atoms()]
    band = NEB(path, method="improvedtangent")
    band.interpolate()
    blocked = colliding(first, last)
    if blocked.any():
        bend = seeds.rng("neb bend", 0).normal(0, BENT, first.positions.shape) * blocked[:, None]
        for image in path[1:-1]:
            image.set_positions(image.positions + bend)  # fixed atoms stay
        idpp_interpolate(band, traj=None, log=None, fmax=BENT_FORCE, steps=BENT_STEPS)
    else:
        idpp_interpolate(band, traj=None, log=None)
    return np.array([image.positions for image in path])


def colliding(first: Frame, last: Frame) -> NDArray[np.bool_]:
    """(N,) the atoms that overlap with others where all move on straight lines."""
    from ase.data import covalent_radii

    found = np.zeros(len(first), bool)
    for share in np.linspace(0, 1, ON_THE_WAY)[1:-1]:
        moved = first.moved(first.positions + share * (last.positions - first.positions))
        i, j, _ = overlapping_pairs(moved, CLOSEST * covalent_radii[first.numbers])
        found[i] = found[j] = True
    return found


def overlapping_image(template: Frame, positions: Array) -> str | None:
    """Why the reference would not calculate an inner image of a band (I + 2, N, 3) Å, or None."""
    for k, r in enumerate(positions[1:-1], 1):
        try:
            check_geometry(template.moved(r))
        except Unphysical as error:
            return f"image {k}: {error.reason.removeprefix('not calculated: ')}"
    return None


def relaxed_band(
    keys: NebSettings, template: Frame, positions: Array, process: GaussianProcess, climb: bool
) -> Band:
    """The band after at most STEPS steps on the process, before an atom is farther than FAR from where it was, or atoms
    overlap: far from its labels a process knows no repulsion."""
    from ase.mep import NEB
    from ase.optimize import FIRE

    path: list[Atoms] = []
    for r in positions:
        atoms = template.moved(r).to_atoms()
        atoms.calc = GPRCalculator(process)
        path.append(atoms)
    band = NEB(path, k=keys.spring, climb=climb, method="improvedtangent")
    search = FIRE(band, logfile=None, maxstep=MAX_STEP)
    reached = positions
    for _ in search.irun(fmax=0.5 * keys.fmax, steps=STEPS):
        now = np.array([a.positions for a in path])
        if (
            np.linalg.norm(now - positions, axis=2).max() > FAR
            or overlapping_image(template, now) is not None
        ):
            break
        reached = now
    said = process.predict([template.moved(r) for r in reached], spread=True)
    assert said.force_sd is not None
    deviations = said.force_sd.reshape(len(reached), -1, 3)[1:-1]
    largest = np.array([largest_force(template, d) for d in deviations])
    return Band(np.array([template.moved(r).positions for r in reached]), said.energies, largest)


def _write(
    keys: NebSettings,
    known: Observations,
    band: Band,
    ends: Sequence[LabelledFrame],
    top: LabelledFrame | None,
) -> None:
    texts = []
    zero = ends[0].label.energy
    for k, r in enumerate(band.positions):
        atoms = known.template.moved(r).to_atoms()
        atoms.info |= {"image": k, "predicted_energy": float(band.energies[k] - zero)}
        texts.append(structure_text(atoms))
    write_text(known.folder / "path.xyz", "".join(texts))
    result: dict[str, Any] = {
        "converged": top is not None,
        "reference_calls": len(known.data),
        "energy_difference_eV": ends[1].label.energy - zero,
        "predicted_energies_eV": [float(e - zero) for e in band.energies],
        "largest_deviation_eV_per_A": float(band.deviation.max()),
    }
    if top is not None:
        heights = {0: zero, band.highest: top.label.energy, len(band.positions) - 1: ends[1].label.energy}
        saddle = max(heights, key=lambda k: heights[k])
        result |= {
            "barrier_eV": heights[saddle] - zero,
            "force_at_saddle_eV_per_A": force_at(keys, band, band.highest, top),
            "saddle_image": saddle,
        }
        if saddle != band.highest:
            log.warning(
                "no structure between the ends is higher than %s: there is no saddle point between them",
                "final" if saddle else "initial",
            )
        log.info(
            "converged: barrier %.4f eV after %d reference calculations",
            result["barrier_eV"],
            len(known.data),
        )
    write_text(known.folder / RESULT, json.dumps(result, indent=1) + "\n")
