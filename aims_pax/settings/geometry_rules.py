"""What geometries and settings say together: what cannot be honoured, and what has no effect.

`aims-PAX check` and a run ask the same questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aims_pax.settings.yaml_reader import Place

if TYPE_CHECKING:
    from aims_pax.settings.settings import Settings
    from aims_pax.systems import System

GEOMETRY: Place = ("MISC", "path_to_geometry")


def refused_geometries(settings: Settings, systems: Sequence[System]) -> Iterator[tuple[Place, str]]:
    """(place in aimsPAX.yaml, text) of every geometry that these settings cannot treat as it is written."""
    for system in systems:
        statements = system.frame.statements
        if statements and settings.reference.type != "aims":
            yield (
                GEOMETRY,
                f"{system.name}: {statements[0]} is known to FHI-aims only, and the reference is a calculator: remove "
                "the line, and give the calculator its field by REFERENCE.kwargs",
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


def noteworthy(systems: Sequence[System]) -> Iterator[tuple[Place, str]]:
    """(place, text) of what stands in the geometries and has no effect, or another than one may think."""
    for system in systems:
        for note in system.notes:
            yield GEOMETRY, note
        if any(s.startswith("homogeneous_field") for s in system.frame.statements):
            yield (
                GEOMETRY,
                f"{system.name}: in a homogeneous_field energies depend on the orientation, which a MACE model, "
                "invariant under rotations, cannot learn; it fits the orientations of its data only",
            )


def _constant_pressure(settings: Settings, system: System) -> bool:
    if settings.md_by_system and system.name not in settings.md_by_system:
        return False
    return settings.md_of(system.name).stat_ensemble == "NPT" and system.frame.periodic
