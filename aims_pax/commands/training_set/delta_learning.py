"""Delta-learning data: differences between a target method and a baseline, for the structures of earlier steps.

REF_energy = E_target − E_baseline, REF_forces = F_target − F_baseline, E0 = E0_target − E0_baseline
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import CalculatorError
from ase.data import atomic_numbers, chemical_symbols

from aims_pax.dataset import to_extxyz
from aims_pax.errors import LabelError, SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.potentials.named import AT_ONCE, LoadedPotential
from aims_pax.record import hdf5
from aims_pax.record.files import write_text
from aims_pax.record.hdf5 import Hdf5
from aims_pax.settings.training_set import DeltaLearning

if TYPE_CHECKING:
    from aims_pax.commands.training_set.context import TrainingSetContext

log = logging.getLogger(__name__)

OK, FAILED = 1, 0  # `status_<level>`, one per frame


def delta_learning(shop: TrainingSetContext, section: DeltaLearning) -> None:
    """Label the structures with target and baseline, store both in the HDF5 file, and export the difference."""
    store = shop.store(section)
    target = shop.potential(section.target, "delta_learning.target")
    baseline = (
        shop.potential(section.baseline, "delta_learning.baseline")
        if section.baseline
        else shop.calculator("delta_learning", section)
    )
    paths = _paths(shop, section, store)
    data: list[LabelledFrame] = []
    for path in paths:
        arrays = store.read(path)
        frames = hdf5.frames_of(arrays)
        t, b = (
            _ground_truth(shop, store, path, frames, level, named)
            for level, named in ((section.target_level, target), (section.baseline_level, baseline))
        )
        for frame, x, y in zip(frames, t, b, strict=True):
            if x is not None and y is not None:
                data.append(
                    LabelledFrame(frame, Label(x.energy - y.energy, x.forces - y.forces), {"system": path})
                )
    if not data:
        raise LabelError("delta_learning: target or baseline failed on every structure")
    elements = sorted({int(z) for labelled in data for z in labelled.frame.numbers})
    E0 = [
        _atomic_energy(z, section.target_E0, target, "target_E0")
        - _atomic_energy(z, section.baseline_E0, baseline, "baseline_E0")
        for z in elements
    ]
    atoms = [
        LabelledFrame(
            Frame(np.array([z]), np.zeros((1, 3))),
            Label(e, np.zeros((1, 3))),
            {"config_type": "IsolatedAtom"},
        )
        for z, e in zip(elements, E0, strict=True)
    ]
    output = shop.work_dir(section) / section.output
    write_text(output, to_extxyz([*atoms, *data]))
    log.info("delta_learning: %d structures of %d groups in %s", len(data), len(paths), output)


def _paths(shop: TrainingSetContext, section: DeltaLearning, store: Hdf5) -> list[str]:
    """The groups whose structures are used."""
    if section.root_keys is not None:
        found = [path for key in section.root_keys for path in store.groups(key)]
    else:
        steps = (shop.settings.md_sampling, shop.settings.phonon_sampling)
        found = [p for s in steps if s is not None for p in store.groups(f"{s.root_key}/finite_subsystems")]
    if not found:
        raise SettingsError(
            f"delta_learning.root_keys: {store.path.name} has no structures there; name groups such as "
            "training/md_sampling/finite_subsystems"
        )
    return list(dict.fromkeys(found))


def _ground_truth(
    shop: TrainingSetContext, store: Hdf5, path: str, frames: list[Frame], level: str, named: LoadedPotential
) -> list[Label | None]:
    """Labels of a group at one level of theory, from the file or computed now; None for frames that failed."""
    names = f"E_{level} (eV∕atom)", f"forces_{level} (eV∕Å)", f"status_{level}", f"potential_{level}"
    where = f"{path}/ground_truth"
    identity = np.frombuffer(named.identity.encode(), np.uint8)
    known: Mapping[str, Any] = store.read(where) if store.has(where) else {}
    same = (
        names[3] in known
        and np.array_equal(known[names[3]], identity)
        and len(known[names[0]]) == len(frames)
    )
    if not same:
        if (text := named.refusal(frames[0])) is not None:
            raise SettingsError(f"delta_learning.{level}: {text}")
        labels = _labelled(shop, named, frames)
        n = len(frames[0])
        nothing = Label(math.nan, np.full((n, 3), math.nan))
        known = {
            names[0]: np.array([(x or nothing).energy / n for x in labels]),
            names[1]: np.array([(x or nothing).forces for x in labels]),
            names[2]: np.array([FAILED if x is None else OK for x in labels]),
            names[3]: identity,
        }
        store.add(where, known)
    energies, forces, status = (known[name] for name in names[:3])
    return [
        Label(e * len(f), F) if ok == OK else None
        for e, F, ok, f in zip(energies, forces, status, frames, strict=True)
    ]


def _labelled(shop: TrainingSetContext, named: LoadedPotential, frames: list[Frame]) -> list[Label | None]:
    """One label per frame; None for frames on which the potential fails."""
    found: list[Label | None] = []
    for start in range(0, len(frames), AT_ONCE):
        shop.check()
        chunk = frames[start : start + AT_ONCE]
        try:
            found += named.potential.labels(chunk)
        except (LabelError, CalculatorError):
            found += [_one(named, frame) for frame in chunk]
    return [label if label is not None and label.finite else None for label in found]


def _one(named: LoadedPotential, frame: Frame) -> Label | None:
    try:
        return named.potential.labels([frame])[0]
    except (LabelError, CalculatorError) as error:
        log.warning("%s: %s", frame.formula, error)
        return None


def _atomic_energy(z: int, given: Mapping[str, float] | None, named: LoadedPotential, key: str) -> float:
    """Energy of an isolated atom in eV. Raises SettingsError when it is not given and the potential has none."""
    symbol = chemical_symbols[z]
    energies = {atomic_numbers.get(k, k): v for k, v in (given or {}).items()}
    reason, E0 = "", energies.get(z, math.nan)
    if z not in energies:
        try:
            E0 = named.atomic_energy(z)
        except SettingsError as error:
            reason = f" ({error})"
    if not math.isfinite(E0):
        raise SettingsError(
            f"delta_learning.{key}: the potential gives no energy of an isolated {symbol} atom{reason}; set "
            f"{key}: {{{symbol}: …}} (eV)"
        )
    return float(E0)
