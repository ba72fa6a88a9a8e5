"""What no process can learn is refused before anything is trained: contradictions, and zeros that are no forces."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence

import numpy as np

from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame, Label, LabelledFrame
from aims_pax.labelling.validation import constrained
from aims_pax.models.gp.coordinate_process import refuse_other_atoms
from aims_pax.models.gp.process import ProcessOptions, formulas_without_energy, refuse_unknown
from aims_pax.models.gp.soap import SoapDescriptor
from aims_pax.models.gp.soap_points import SoapPoints
from aims_pax.settings.gpr_input import CART, SOAP, GprSettings

log = logging.getLogger(__name__)

# eV, eV/Å: larger differences of one structure's labels contradict each other
SAME_ENERGY, SAME_FORCE = (
    1e-3,
    1e-2,
)
SAME_PLACE = 1e-3  # Å, or of a lattice vector


def refuse_contradictions(
    settings: GprSettings, train: Sequence[LabelledFrame], test: Sequence[LabelledFrame]
) -> None:
    """Raises SettingsError for what no process can learn: one structure with two labels, several charges or spins."""
    for name in ("charge", "spin"):
        learnt = {getattr(x.frame, name) for x in train}
        values = learnt | {getattr(x.frame, name) for x in test}
        if len(values) > 1:
            named = ", ".join(sorted("none" if v is None else f"{v:g}" for v in values))
            raise settings.problem(
                "train_file" if len(learnt) > 1 else "test_file",
                f"structures of different {name} ({named}): a process knows positions only; give one {name}",
            )
    labels: dict[str, tuple[str, Label]] = {}
    named_ones = [*_numbered("train_file", train), *_numbered("test_file", test)]
    for key, place, one in named_ones:
        first, label = labels.setdefault(one.frame.id, (place, one.label))
        apart = abs(one.label.energy - label.energy)
        if apart > SAME_ENERGY or abs(one.label.forces - label.forces).max() > SAME_FORCE:
            raise settings.problem(
                key,
                f"{first} and {place} are the same but have other labels ({apart:.3g} eV apart): remove one",
            )


def _numbered(key: str, data: Sequence[LabelledFrame]) -> list[tuple[str, str, LabelledFrame]]:
    """(key, words for the structure, structure)."""
    return [(key, f"structure {k} of {key}", one) for k, one in enumerate(data, 1)]


def refuse_untrained(
    settings: GprSettings, train: Sequence[LabelledFrame], test: Sequence[LabelledFrame]
) -> None:
    """Raises SettingsError for test structures of which the process of the training set could not predict; warns of
    those whose energies it could not."""
    learnt, asked = [x.frame for x in train], [x.frame for x in test]
    try:
        if settings["descriptor"] == CART or (
            settings["descriptor"] == SOAP and settings["soap_centers"] is not None
        ):
            refuse_other_atoms(learnt, asked)
        else:
            options = ProcessOptions(molecules=settings["descriptor"] != SOAP)
            refuse_unknown(learnt, asked, options)
            if lost := formulas_without_energy(learnt, asked, options):
                log.warning(
                    "test_file: the compositions in train_file do not determine the energy of %s, so that its "
                    "predicted energies mean nothing (their deviation is infinite) and only its forces do: train with "
                    "it, or with isolated atoms",
                    ", ".join(lost),
                )
    except SettingsError as error:
        raise settings.problem("test_file", error.text) from error


def refuse_idle_points(
    settings: GprSettings,
    spectrum: SoapDescriptor,
    train: Sequence[LabelledFrame],
    test: Sequence[LabelledFrame],
) -> None:
    """Raises SettingsError for soap_centers on an atom of a structure, or far from all atoms of the training set."""
    if (centres := settings["soap_centers"]) is None:
        return
    points = SoapPoints(spectrum, centres)
    try:
        for _, place, one in [*_numbered("train_file", train), *_numbered("test_file", test)]:
            points.check([place], [one.frame])
    except SettingsError as error:
        raise settings.problem("soap_centers", error.text) from error
    if idle := points.idle([x.frame for x in train]):
        named = ", ".join(f"{p + 1} {list(centres[p])}" for p in idle)
        raise settings.problem(
            "soap_centers",
            f"point {named}: no atom of the training set is within soap_r_cut {spectrum.cutoff:g} Å; move or remove it",
        )


def refuse_zero_forces(settings: GprSettings, key: str, data: Sequence[LabelledFrame]) -> None:
    """Raises SettingsError for zeros in place of forces that were not computed: of fixed atoms, or of all.

    key: of the files.
    """
    zero = [k for k, x in enumerate(data, 1) if constrained(x.frame, x.label)]
    if zero:
        raise settings.problem(
            key,
            f"{len(zero)} of {len(data)} structures, the first is {zero[0]}, have fixed atoms whose forces are exactly "
            "zero: these are not their forces; label again without constraints, or remove the constraints if they are",
        )
    still = [(k, x) for k, x in enumerate(data, 1) if len(x.frame) > 1 and not x.label.forces.any()]
    for (i, a), (k, b) in itertools.pairwise(still):
        if abs(a.label.energy - b.label.energy) > SAME_ENERGY and _moved(a.frame, b.frame):
            raise settings.problem(
                key,
                f"all forces of {len(still)} of {len(data)} structures are exactly zero, but the energies of "
                f"structures {i} and {k} differ: a label needs energy and forces; give files that have both",
            )


def _moved(a: Frame, b: Frame) -> bool:
    """Whether two structures of the same atoms differ in more than their cell, in which atoms at places of high
    symmetry have no force."""
    if not np.array_equal(a.numbers, b.numbers):
        return False
    return not np.allclose(_coordinates(a), _coordinates(b), rtol=0, atol=SAME_PLACE)


def _coordinates(frame: Frame) -> Array:
    """(N, 3) positions from that of the first atom: in units of the lattice vectors in a crystal, otherwise Å."""
    apart = frame.positions - frame.positions[0]
    return np.asarray(np.linalg.solve(frame.cell.T, apart.T).T if frame.periodic else apart)
