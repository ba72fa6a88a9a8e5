"""The times and the forecast of `aims-PAX check --try`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from aims_pax.commands.forecast import forecast, write_forecast
from aims_pax.commands.plan import plan
from aims_pax.commands.timings import measure_timings
from aims_pax.report.forecast import forecast_lines
from aims_pax.report.tolerant_readers import stored_labels
from aims_pax.settings import Settings
from aims_pax.settings.geometries import read_geometries

FEWEST = 3  # stored labels whose median is used where none was tried


def try_times(
    folder: Path,
    settings: Settings,
    seconds: Mapping[str, float],
    label_time: float | None,
    files: tuple[str, str],
) -> list[str]:
    """Measure, forecast, store the forecast in the folder of logs; returns it as lines.

    seconds: of one label, by place, as tried. label_time: s that the user gives instead. files: of the settings.
    """
    systems = read_geometries(settings)
    known = dict(seconds)
    if label_time is not None:
        known["REFERENCE"] = label_time
    elif "REFERENCE" not in known:
        stored = [
            label.seconds for label in stored_labels(settings.path(settings.misc.dataset_dir) / "labels")
        ]
        known |= {"REFERENCE": float(np.median(stored))} if len(stored) >= FEWEST else {}
    found = forecast(plan(folder, *files), settings, systems, measure_timings(settings, systems, known))
    path = write_forecast(settings.path(settings.misc.log_dir), found)
    return [*forecast_lines(found), f"stored in {path}: the report of the run compares it with what it took"]
