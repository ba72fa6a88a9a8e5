"""Warns of data that a model cannot distinguish: structures of one composition with different charges or spins.

A MACE model knows only elements and positions. Trained on a cation and the neutral molecule, it learns an average of
both, even if a model of each alone would be accurate.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from aims_pax.charge_and_spin import charged_or_open_shell
from aims_pax.dataset import read_extxyz
from aims_pax.errors import AimsPaxError
from aims_pax.frames import Frame
from aims_pax.settings.geometries import completing
from aims_pax.systems import System

if TYPE_CHECKING:
    from aims_pax.settings import Settings

READ = 4000  # structures of a dataset: about a second
ADVICE = "the model cannot distinguish them and learns a mixture; make a force field for each"


def warnings(settings: Settings, systems: Sequence[System]) -> Iterator[str]:
    """Warnings for mixed charges or spins in the geometries and in each dataset of the user."""
    for text in mixed_charge_and_spin(s.frame for s in systems):
        yield f"MISC.path_to_geometry: {text}"
    for text in _stated_for_some([s.frame for s in systems]):
        yield f"MISC.path_to_geometry: {text}"
    active, misc = settings.active_learning, settings.misc
    keys = (misc.energy_key, misc.forces_key, misc.stress_key)
    for key in ("initial_train_dataset", "initial_valid_dataset"):
        written = None if active is None else getattr(active, key)
        files = written.values() if isinstance(written, dict) else [written] if written else []
        for file in dict.fromkeys(files):
            frames: list[Frame] = [s.frame for s in systems]
            try:
                read = itertools.islice(read_extxyz(settings.path(file), *keys), READ)
                given = [one.frame for one in map(completing(settings), read)]
            except AimsPaxError:
                continue  # reported where the file is read
            for text in [*mixed_charge_and_spin([*frames, *given]), *missing_charge_and_spin(frames, given)]:
                yield f"ACTIVE_LEARNING.{key}: {file}, with the geometries: {text}"


def missing_charge_and_spin(geometries: Iterable[Frame], given: Sequence[Frame]) -> Iterator[str]:
    """One line for each charged or open-shell composition for which given structures lack charge and spin."""
    as_geometry = {f.formula for f in geometries if charged_or_open_shell(f)}
    given = [f for f in given if len(f) > 1 or f.pbc.any()]  # atoms alone are in their ground state
    for one in _charged_or_open_shell([*given, *geometries]):
        silent = _silent(one, given)
        if silent:
            where = "as geometry" if one.formula in as_geometry else "in other structures"
            yield (
                f"{one.formula} has {_state(one)} {where}, but {silent} given structures have neither and count as "
                f"neutral; add charge=… spin=… to the file; if they differ, {ADVICE}"
            )


def _stated_for_some(geometries: Sequence[Frame]) -> Iterator[str]:
    """One line for each composition of which one geometry is charged or open-shell, and another states nothing."""
    for one in _charged_or_open_shell(geometries):
        if _silent(one, geometries):
            yield (
                f"{one.formula} has {_state(one)} in one geometry, and neither charge nor spin is stated for another; "
                f"state them for each (MISC.charge, MISC.spin); if they differ, {ADVICE}"
            )


def _charged_or_open_shell(frames: Iterable[Frame]) -> list[Frame]:
    """The last of each composition."""
    return list({f.formula: f for f in frames if charged_or_open_shell(f)}.values())


def _silent(one: Frame, among: Sequence[Frame]) -> int:
    """How many of the same composition state neither charge nor spin."""
    return sum(f.formula == one.formula and f.charge is None and f.spin is None for f in among)


def _state(frame: Frame) -> str:
    return f"charge {frame.charge or 0:g}" + (f", multiplicity {frame.spin}" if frame.spin else "")


def mixed_charge_and_spin(frames: Iterable[Frame]) -> Iterator[str]:
    """One line for each composition with different charges or spins; missing values are not counted.

    >>> neutral, cation = (Frame([8, 1, 1], [[0, 0, 0], [1, 0, 0], [0, 1, 0]], charge=q) for q in (0, 1))
    >>> list(mixed_charge_and_spin([neutral, cation]))[0].partition(";")[0]
    'H2O with the charges 0, 1'
    """
    charges: dict[str, set[float]] = {}
    spins: dict[str, set[int]] = {}
    for frame in frames:
        if frame.charge is not None:
            charges.setdefault(frame.formula, set()).add(frame.charge)
        if frame.spin is not None:
            spins.setdefault(frame.formula, set()).add(frame.spin)
    for formula in dict.fromkeys([*charges, *spins]):
        said = [
            f"the {name} {', '.join(f'{v:g}' for v in sorted(values[formula]))}"
            for name, values in (("charges", charges), ("multiplicities", spins))
            if len(values.get(formula, ())) > 1
        ]
        if said:
            yield f"{formula} with {' and '.join(said)}; {ADVICE}"
