"""Checks geometries against settings: what is not supported, and what has no effect.

Used by `aims-PAX check` and by a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aims_pax.settings.samplers import NAME as SAMPLERS
from aims_pax.settings.yaml_reader import Place

if TYPE_CHECKING:
    from aims_pax.settings.md import MDSettings
    from aims_pax.settings.samplers import SamplerSettings
    from aims_pax.settings.settings import Settings
    from aims_pax.systems import System

GEOMETRY: Place = ("MISC", "path_to_geometry")


def refused_geometries(settings: Settings, systems: Sequence[System]) -> Iterator[tuple[Place, str]]:
    """(place in aimsPAX.yaml, text) for every geometry that cannot be used with these settings."""
    for system in systems:
        statements = system.frame.statements
        if statements and settings.reference.type != "aims":
            yield (
                GEOMETRY,
                f"{system.name}: {statements[0]} works only with FHI-aims, but the reference is a calculator: remove "
                "the line, and set the field of the calculator in REFERENCE.kwargs",
            )
        if not _constant_pressure(settings, system):
            continue
        place: Place = (
            ("MD", system.name, "stat_ensemble") if settings.md_by_system else ("MD", "stat_ensemble")
        )
        reason = system.refuses_constant_pressure()
        if reason is not None:
            yield place, reason
        if statements:
            yield (
                place,
                f"{system.name}: {statements[0]} does not change with the cell; use NVT, or remove the line",
            )
    yield from refused_by_samplers(settings.samplers, systems)
    if (free := settings.pretraining) is not None:
        for (_, k, name), text in refused_by_samplers(free.sources, systems):
            yield free.place_of((SAMPLERS, k, name)), text


def refused_by_samplers(
    samplers: Sequence[SamplerSettings], systems: Sequence[System]
) -> Iterator[tuple[Place, str]]:
    """(place in the list SAMPLERS, text) for every geometry that a sampler does not support with its keys."""
    for k, sampler in enumerate(samplers):
        for system in systems:
            for name, text in sampler.refuses(system):
                yield (SAMPLERS, k, name), text


def noteworthy(settings: Settings, systems: Sequence[System]) -> Iterator[tuple[Place, str]]:
    """(place, text) for lines of the geometries that have no effect or an unexpected one."""
    tables = settings.md_by_system
    first: dict[str, str] = {}  # frame → the first geometry with it
    for system in systems:
        if (other := first.setdefault(system.frame.id, system.name)) != system.name:
            yield (
                GEOMETRY,
                f"{other} and {system.name} are the same structure; each has trajectories and labels of its own",
            )
        if not tables or system.name in tables:
            place: Place = ("MD", system.name) if tables else ("MD",)
            yield from without_pressure(settings.md_of(system.name), [system], settings.samplers, place)
        for note in system.notes:
            yield GEOMETRY, note
        if len(system.frame) == 1 and not _constant_pressure(settings, system):
            yield (
                GEOMETRY,
                f"{system.name}: a single atom has no force wherever it is, so that all its structures are the same; "
                f"give a supercell or several atoms{_zero_of_energy(settings, system)}",
            )
        if any(s.startswith("homogeneous_field") for s in system.frame.statements):
            yield (
                GEOMETRY,
                f"{system.name}: in a homogeneous_field energies depend on the orientation; a MACE model is invariant "
                "under rotations and cannot learn this; it fits only the orientations in its data",
            )


def notes_of_crystal(system: System) -> list[str]:
    """Contents of the crystal of `aims-PAX training-set` that have no effect, and what has none on it."""
    pbc = system.frame.pbc
    if pbc.all() or not pbc.any():
        return [*system.notes]
    return [
        *system.notes,
        f"{system.name} is periodic in {pbc.sum()} of three directions: supercell_radius has no effect on it; write a "
        "file with a cell that is large enough",
    ]


def _zero_of_energy(settings: Settings, system: System) -> str:
    """What an isolated atom is good for among the geometries of a MACE model; "" for other structures."""
    if system.frame.pbc.any() or not settings.model.is_mace:
        return ""
    shifted = settings.mace.architecture.model == "ScaleShiftMACE"
    return (
        ". Its label only sets the atomic energy of its element, which ARCHITECTURE.atomic_energies can give as well"
        + ("; ScaleShiftMACE adds its shift to the energy of each atom, also of one alone" if shifted else "")
    )


def without_pressure(
    md: MDSettings, systems: Sequence[System], samplers: Sequence[SamplerSettings], place: Place = ("MD",)
) -> Iterator[tuple[Place, str]]:
    """(place, text) for every system that is simulated at constant volume although NPT is set.

    md: the section MD of these systems, at `place`.
    """
    own = [(("SAMPLERS", k, "stat_ensemble"), s.dynamics() or {}) for k, s in enumerate(samplers)]
    written = [((*place, "stat_ensemble"), md)]
    written += [(at, md.model_copy(update=keys)) for at, keys in own if "stat_ensemble" in keys]
    for system in systems:
        for at, settings in written:
            if settings.stat_ensemble == "NPT" and not system.frame.periodic:
                yield (
                    at,
                    f"{system.name} is not periodic in three directions: NVT is used, with the thermostat "
                    f"{settings.thermostat}",
                )


def _constant_pressure(settings: Settings, system: System) -> bool:
    if settings.md_by_system and system.name not in settings.md_by_system:
        return False
    return settings.md_of(system.name).stat_ensemble == "NPT" and system.frame.periodic
