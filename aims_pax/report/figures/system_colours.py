"""Systems and their colours, the same in every figure."""

from __future__ import annotations

from aims_pax.report.figures.style import COLOURS, MUTED
from aims_pax.report.run_record import RunRecord


def system_names(run: RunRecord) -> list[str]:
    """Systems in a fixed order: trajectories first, then the data's."""
    names = [t.system for t in run.trajectories] + [s.system for s in run.structures]
    return [n for n in dict.fromkeys(names) if n]


def system_colour(run: RunRecord, name: str) -> str:
    names = system_names(run)
    return COLOURS[names.index(name) % len(COLOURS)] if name in names else MUTED


def trajectory_colour(run: RunRecord, trajectory: int) -> str:
    names = {t.index: t.system for t in run.trajectories}
    return system_colour(run, names.get(trajectory, ""))


def systems_legend(run: RunRecord) -> list[tuple[str, str]]:
    names = system_names(run)
    return [(system_colour(run, n), n) for n in names[: len(COLOURS)]] if len(names) > 1 else []
