"""Which geometry each trajectory of active learning has; trajectories that have started keep theirs."""

from __future__ import annotations

from collections.abc import Sequence

from aims_pax.core import active_learning as stage
from aims_pax.errors import RestartError
from aims_pax.record.checkpoint import Checkpoint, exists
from aims_pax.record.folder import RunFolder
from aims_pax.systems import System, deal

MORE_ALLOWED = (
    "Restore num_trajectories and the geometries (more of both is allowed), or start in an empty folder"
)


def refuse_fewer(folder: RunFolder, wanted: int, systems: Sequence[System]) -> None:
    """Raises RestartError when the settings have fewer or other trajectories than the run has started.

    folder: of the run. wanted: num_trajectories. systems: the geometries, in order.
    """
    if begun := begun_trajectories(folder):
        geometries_of_trajectories(begun, max(wanted, len(systems)), systems)


def begun_trajectories(folder: RunFolder) -> list[str]:
    """The geometries of the trajectories that this folder's run has started, by name."""
    snapshot = Checkpoint(folder, stage.NAME).read() if exists(folder.restart / stage.NAME) else None
    return [] if snapshot is None else [t["system"] for t in snapshot.state["trajectories"]]


def geometries_of_trajectories(begun: Sequence[str], n: int, systems: Sequence[System]) -> tuple[System, ...]:
    """The geometry of each of n trajectories; those that have started keep theirs. Raises RestartError."""
    names, key = [s.name for s in systems], "ACTIVE_LEARNING.num_trajectories"
    missing = [name for name in dict.fromkeys(begun) if name not in names]
    new = [name for name in names if name not in begun]
    if missing:
        said = (
            f"geometry {', '.join(missing)}: trajectories of it have started, so it cannot be removed or renamed; "
            f"there are {', '.join(names)}"
        )
    elif n < len(begun):
        said = f"{key}: {len(begun)} → {n}: started trajectories cannot be removed"
    elif begun and n < len(begun) + len(new):
        said = (
            f"{key}: {len(begun)} of the {n} have started with other geometries than {', '.join(new)}; raise it to "
            f"{len(begun) + len(new)} or more"
        )
    else:
        return deal(systems, n, begun)
    raise RestartError(f"this folder was begun with other settings:\n  {said}\n{MORE_ALLOWED}")


def fair_or_all(systems: Sequence[str], fair: Sequence[bool]) -> tuple[int, ...]:
    """Indices of the fair trajectories, and of all those of a system that has no fair one.

    systems: name for each trajectory. fair: whether it is.
    """
    served = {name for name, yes in zip(systems, fair, strict=True) if yes}
    return tuple(
        i for i, (name, yes) in enumerate(zip(systems, fair, strict=True)) if yes or name not in served
    )
