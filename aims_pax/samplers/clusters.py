"""Finite clusters of molecules cut out of a periodic structure, by the four rules of mbe-automation.

The central molecule is the one whose centre of mass is nearest to the centre of mass of the cell's content; of every
other molecule the image nearest to it is used. The molecules of a cluster are chosen once, on the reference frame; from
every later frame the same molecules are cut out, unwrapped, without a cell, with the centre of mass at the origin.

    closest_to_center_of_mass               the n whose centres of mass are nearest to the total one
    closest_to_central_molecule             the n nearest to the central molecule, itself included
    max_min_distance_to_central_molecule    all whose nearest atom is closer than r to the central molecule
    max_max_distance_to_central_molecule    all whose farthest pair of atoms with it is closer than r

>>> from aims_pax.frames import Frame
>>> argon = Frame([18] * 4, [[x, 1, 1] for x in (0, 4, 8, 12)], [[16, 0, 0], [0, 30, 0], [0, 0, 30]], True)
>>> [(c.key, c.molecules) for c in choose_clusters(argon, Rule(n_molecules=(1, 3)))]
[('n=1', (1,)), ('n=3', (1, 0, 2))]
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass

import numpy as np
from ase.geometry.minkowski_reduction import minkowski_reduce
from scipy.spatial.distance import cdist

from aims_pax.frames import Array, Frame
from aims_pax.sampler import SamplingError
from aims_pax.samplers.molecules import SCALE, Integers, Molecules, center_of_mass, detect
from aims_pax.samplers.similarity import full_cell

log = logging.getLogger(__name__)

BY_NUMBER = ("closest_to_center_of_mass", "closest_to_central_molecule")
BY_DISTANCE = ("max_min_distance_to_central_molecule", "max_max_distance_to_central_molecule")
RULES = BY_NUMBER + BY_DISTANCE


@dataclass(frozen=True)
class Rule:
    """The rule that selects the clusters to cut out.

    n_molecules: sizes, for the first two rules. distances: Å, for the last two.
    assert_identical_composition: refuse structures with more than one kind of molecule.
    distance_between: what `closest_to_central_molecule` measures: `center_of_mass` (mbe-automation's document), or
    `atoms` for the smallest distance of two atoms (its code). bond_scale: factor on covalent radii.
    """

    selection_rule: str = "closest_to_central_molecule"
    n_molecules: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    distances: tuple[float, ...] | None = None
    assert_identical_composition: bool = True
    distance_between: str = "center_of_mass"
    bond_scale: float = SCALE

    def __post_init__(self) -> None:
        if self.selection_rule not in RULES:
            raise ValueError(f"selection_rule {self.selection_rule!r}: expected one of {', '.join(RULES)}")
        if self.distance_between not in ("center_of_mass", "atoms"):
            raise ValueError(f"distance_between {self.distance_between!r}: expected center_of_mass or atoms")
        if self.selection_rule in BY_DISTANCE and not self.distances:
            raise ValueError(f"distances: {self.selection_rule} needs at least one (Å)")
        if any(n < 1 for n in self.n_molecules):
            raise ValueError(f"n_molecules {self.n_molecules}: expected whole numbers from 1")


@dataclass(frozen=True, eq=False)
class Cluster:
    """One cluster, the same molecules in every frame.

    key: `n=3`; with a distance rule `n=3,r=4.5`. molecules: nearest first. places: (n, 3) the centres of
    mass in the reference frame, fractional coordinates relative to the first one. atoms: (A,) indices in the crystal,
    molecule after molecule.
    """

    key: str
    molecules: tuple[int, ...]
    places: Array
    atoms: Integers
    system: Molecules

    def cut(self, frame: Frame, whole: Array | None = None) -> Frame:
        """The cluster in a frame, not periodic. `whole`: positions (N, 3) Å from `Molecules.whole`.

        Raises SamplingError when the bonds differ from the reference.
        """
        R = self.system.whole(frame) if whole is None else whole
        parts = [self.system.atoms[k] for k in self.molecules]
        centers = np.array([center_of_mass(R[a], frame.numbers[a]) for a in parts])
        along = (centers - centers[0]) @ np.linalg.inv(full_cell(frame.cell, frame.pbc))
        images = np.where(frame.pbc, np.rint(self.places - along), 0.0)  # as in the reference frame
        positions = np.concatenate(
            [R[a] + image @ frame.cell for a, image in zip(parts, images, strict=True)]
        )
        numbers = frame.numbers[self.atoms]
        return frame.chosen(
            self.atoms,
            positions - center_of_mass(positions, numbers),
            cell=np.zeros((3, 3)),
            pbc=False,
            charge=None,
            spin=None,
            fixed=None,
            statements=tuple(s for s in frame.statements if not s.startswith("set_vacuum_level")),
        )


def choose_clusters(frame: Frame, rule: Rule | None = None) -> list[Cluster]:
    """The clusters that a rule selects in the reference frame.

    Warnings are logged of sizes above its number of molecules, and of distances that reach beyond its cell.

    Raises SamplingError for mixed compositions (unless allowed), cells with charge or spin, and infinite networks.
    """
    rule = rule or Rule()
    if frame.charge:
        raise SamplingError(f"{frame.formula}: charge {frame.charge:g} cannot be divided among its molecules")
    if frame.spin not in (None, 1):
        raise SamplingError(f"{frame.formula}: spin {frame.spin} cannot be divided among its molecules")
    system = detect(frame, rule.bond_scale)
    if rule.assert_identical_composition and not system.identical:
        kinds = ", ".join(sorted(set(system.formulas)))
        raise SamplingError(
            f"{frame.formula}: molecules of different composition ({kinds}); "
            "set assert_identical_composition to false if this is intended"
        )
    R = system.whole(frame)
    middle = central(system, R)
    by_center = rule.selection_rule == "closest_to_center_of_mass"
    anchor = center_of_mass(R, frame.numbers) if by_center else system.centers(R)[middle]
    images = _nearest_images(system.centers(R) - anchor, frame)
    for atoms, image in zip(system.atoms, images, strict=True):
        R[atoms] += image @ frame.cell
    order = _distances(system, R, anchor, middle, rule)
    ranked = np.argsort(np.round(order, 6), kind="stable")
    found = []
    if rule.selection_rule in BY_NUMBER:
        for n in dict.fromkeys(rule.n_molecules):
            if n > len(system):
                log.warning(
                    "clusters of %d molecules: %s has only %d; skipped", n, frame.formula, len(system)
                )
                continue
            found.append((f"n={n}", ranked[:n]))
    else:
        sizes: dict[int, float] = {}
        for r in dict.fromkeys(rule.distances or ()):
            chosen = ranked[order[ranked] < r]
            if (same := sizes.setdefault(len(chosen), r)) != r:
                log.warning("distances: %g Å selects the same molecules as %g Å; skipped", r, same)
                continue
            found.append((f"n={len(chosen)},r={r:g}", chosen))
        _warn_of_missing_images(system, R, middle, rule, frame)
    along = system.centers(R) @ np.linalg.inv(full_cell(frame.cell, frame.pbc))
    return [
        Cluster(
            key,
            tuple(k.tolist()),
            along[k] - along[k[0]],
            np.concatenate([system.atoms[m] for m in k]),
            system,
        )
        for key, k in found
        if len(k)
    ]


def _warn_of_missing_images(system: Molecules, R: Array, middle: int, rule: Rule, frame: Frame) -> None:
    """A cluster has each molecule of the cell once: warn of cutoffs within which a second image of one lies."""
    if not frame.pbc.any():
        return
    cell, _ = minkowski_reduce(full_cell(frame.cell, frame.pbc), frame.pbc)
    steps = itertools.product(*((-1, 0, 1) if p else (0,) for p in frame.pbc))
    shifts = [np.array(step) @ cell for step in steps if any(step)]
    second = min(_between(system, R + shift, R, middle, rule).min() for shift in shifts)
    cut = [r for r in rule.distances or () if r > second]
    if cut:
        log.warning(
            "distances: %s Å: from %.2f Å on further periodic images of the molecules of %s belong to the cluster and "
            "are missing; give a larger cell (of training-set: supercell_radius) or smaller distances",
            ", ".join(f"{r:g}" for r in cut), second, frame.formula,
        )  # fmt: skip


def central(system: Molecules, whole: Array) -> int:
    """The molecule whose centre of mass is nearest to that of all molecules."""
    center = center_of_mass(whole, system.numbers)
    distances = np.linalg.norm(system.centers(whole) - center, axis=1)
    return int(np.argmin(np.round(distances, 6)))


def _nearest_images(away: Array, frame: Frame) -> Integers:
    """(K, 3) lattice vectors that make each displacement (K, 3) Å as short as possible, for any skew."""
    cell = full_cell(frame.cell, frame.pbc)
    base = np.where(frame.pbc, -np.round(away @ np.linalg.inv(cell)), 0.0)
    longest = 0.5 * np.linalg.norm(cell[frame.pbc], axis=1).sum()  # limit of the lengths with `base`
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.where(frame.pbc, np.ceil(2 * longest / heights), 0).astype(int)
    steps = np.array(list(itertools.product(*(range(-r, r + 1) for r in reach))), float)
    steps = steps[np.lexsort((*steps.T, np.abs(steps).sum(1)))]  # fixed order: the first of equals is chosen
    images = np.empty(away.shape, np.int64)
    for k, vector in enumerate(away):
        lengths = np.linalg.norm(vector + (base[k] + steps) @ cell, axis=1)
        images[k] = base[k] + steps[np.argmin(np.round(lengths, 6))]
    return images


def _distances(system: Molecules, R: Array, anchor: Array, middle: int, rule: Rule) -> Array:
    """(K,) Å: the distance that the rule compares; −1 for the central molecule, so that it is always first."""
    if rule.selection_rule == "closest_to_center_of_mass":
        return np.asarray(np.linalg.norm(system.centers(R) - anchor, axis=1), float)
    if rule.selection_rule == "closest_to_central_molecule" and rule.distance_between == "center_of_mass":
        d = np.linalg.norm(system.centers(R) - anchor, axis=1)
    else:
        d = _between(system, R, R, middle, rule)
    d[middle] = -1.0
    return np.asarray(d, float)


def _between(system: Molecules, R: Array, central_R: Array, middle: int, rule: Rule) -> Array:
    """(K,) Å: distances of the molecules at R to the central one at `central_R`: of the farthest or nearest atoms."""
    furthest = rule.selection_rule == "max_max_distance_to_central_molecule"
    pairs = cdist(R, central_R[system.atoms[middle]])
    ends = pairs.max(1) if furthest else pairs.min(1)  # (N,)
    return np.array([ends[atoms].max() if furthest else ends[atoms].min() for atoms in system.atoms])
