"""Where the trajectories of the MD test begin: labelled frames of each system, at two temperatures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aims_pax.commands.md_test.trajectories import TestStart, thermal_settings
from aims_pax.frames import LabelledFrame
from aims_pax.isolated_atoms import is_marked
from aims_pax.md.bonds import find_bonds
from aims_pax.md.temperature import hottest
from aims_pax.report.figures.style import thinned
from aims_pax.seeds import rng, seed_number

HOTTER = 1.5  # times the run's temperature
LOOKED_AT = 60  # labelled frames of a system from which its bonds are found


@dataclass(frozen=True)
class TestedSystem:
    """One system: its labelled frames (equal atoms in equal order) and its MD settings."""

    __test__ = False

    name: str
    frames: tuple[LabelledFrame, ...]
    md: Any


def systems_of_frames(
    frames: Sequence[LabelledFrame], md_of: Callable[[str], Any], temperature: float | None = None
) -> list[TestedSystem]:
    """Labelled frames by system; frames without the name of one are grouped by their atoms.

    md_of: MD settings (`MDSettings`) of a system by its name. temperature: K, instead of that of the settings.
    A system whose frames have different atoms is divided.
    """
    groups: dict[tuple[str, bytes], list[LabelledFrame]] = {}
    for one in frames:
        name = str(one.origin.get("system") or one.frame.formula)
        if len(one.frame) > 1 or name == one.frame.formula or one.frame.pbc.any():
            groups.setdefault((name, one.frame.numbers.tobytes()), []).append(one)
    found = []
    for (name, _), own in groups.items():
        if is_marked(own[0]):
            continue
        md = md_of(name)
        T = max(md.temperatures or (hottest(md),)) if temperature is None else temperature
        own_md = md.model_copy(update={"temperature": T, "temperatures": None})
        found.append(TestedSystem(name, tuple(own), own_md))
    return found


def with_moving_atoms(systems: Sequence[TestedSystem]) -> list[TestedSystem]:
    """The systems in which an atom can move, each with those of its frames."""
    found = []
    for system in systems:
        own = tuple(f for f in system.frames if f.frame.fixed is None or not f.frame.fixed.all())
        if own:
            found.append(replace(system, frames=own))
    return found


def choose_starts(
    systems: Sequence[TestedSystem], per_system: int, most: int, seed: int = 0
) -> list[TestStart]:
    """Trajectories of every system at T and 1.5 T, in this order for each start.

    per_system: labelled frames of a system, drawn at random. most: trajectories in all, at least two; with more systems
    than that allows, the first are taken from as many systems as possible, evenly spread over the list. Systems without
    an atom that can move have none.
    """
    systems = with_moving_atoms(systems)
    pairs = max(1, most // 2)
    chosen = (
        [systems[k * len(systems) // pairs] for k in range(pairs)] if len(systems) > pairs else list(systems)
    )
    each = starts_of_each(len(systems), per_system, most)
    starts: list[TestStart] = []
    for system in chosen:
        draw = rng("md test", seed, system.name).permutation(len(system.frames))
        bonds = find_bonds([system.frames[k].frame for k in thinned(len(system.frames), LOOKED_AT)])
        for k in range(each):
            frame = system.frames[int(draw[k % len(draw)])].frame
            whole = bonds.whole_in(frame)  # a bond that is broken in the frame cannot break
            for T in temperatures(system):
                stream = seed_number("md test", seed, system.name, k, f"{T:g}")
                starts.append(
                    TestStart(system.name, frame, T, thermal_settings(system.md, T, frame), whole, stream)
                )
    return starts


def starts_of_each(n_systems: int, per_system: int, most: int) -> int:
    """The starts of each tested system: per_system, or as many as `most` trajectories in all allow, at least one.

    n_systems: with atoms that can move. Each start is two trajectories.

    >>> starts_of_each(20, 4, 64)
    1
    """
    return max(1, min(per_system, most // 2 // max(1, n_systems)))


def temperatures(system: TestedSystem) -> tuple[float, float]:
    """K: that of the system and 1.5 times as much."""
    T = float(system.md.temperature)
    return T, HOTTER * T
