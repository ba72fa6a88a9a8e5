"""Target temperatures of the trajectories: those of now, and those with which earlier structures were labelled."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from aims_pax.report.accuracy import UNSEEN
from aims_pax.report.formatting import plural
from aims_pax.report.run_record import RunRecord
from aims_pax.report.tolerant_readers import StructureHeader, json_file


def target_temperatures(settings: Mapping[str, str]) -> str:
    """`300.0`, or of each geometry: those of `MD.temperatures`, else `MD.temperature`."""
    single, many = of_md(settings, "temperature"), of_md(settings, "temperatures")
    return by_geometry({name: many[name].strip("[]") or single[name] for name in single})


def of_md(settings: Mapping[str, str], key: str) -> dict[str, str]:
    """{geometry: its setting of MD}; with one setting for all geometries their name is ""."""
    start, end = "aimsPAX.MD.", f".{key}"
    found = {
        k.removeprefix("aimsPAX.MD").removesuffix(end).removeprefix("."): "" if value == "None" else value
        for k, value in settings.items()
        if k.startswith(start) and k.endswith(end)
    }
    return defaultdict(str, found)


def by_geometry(values: Mapping[str, str]) -> str:
    """`300.0`, or `ice: 200.0; water: 300.0` where the geometries differ."""
    if len(set(values.values())) < 2:
        return next(iter(values.values()), "")
    return "; ".join(f"{name}: {value}" for name, value in values.items())


def earlier_temperatures(run: RunRecord) -> list[str]:
    """Other target temperatures, with which a part of the data was made."""
    return list(dict.fromkeys(_earlier(run).values()))


def drawn_at_other_temperatures(run: RunRecord) -> list[str]:
    """A sentence for each other temperature at which frames that measure the error were drawn."""
    earlier = _earlier(run)
    unseen = {frame for split in UNSEEN for frame in run.splits.get(split, ())}
    found = Counter(earlier[frame] for frame in unseen if frame in earlier)
    of = plural(len(unseen), "test frame")
    return [f"{n} of {of} drawn while the temperature was {t} K." for t, n in found.most_common()]


def _earlier(run: RunRecord) -> dict[str, str]:
    """{id: target temperatures} of the structures that were labelled with others than those of now."""
    now, known = target_temperatures(run.settings), dict[str, str]()
    found = {}
    for structure in run.structures:
        digest = structure.info.get("settings", "")
        if digest not in known:
            known[digest] = target_temperatures(_stored(structure, digest)) if digest else ""
        if known[digest] not in ("", now):
            found[structure.id] = known[digest]
    return found


def _stored(structure: StructureHeader, digest: str) -> dict[str, str]:
    """The settings with which a structure was labelled, stored beside the data."""
    return json_file(structure.path.parent / "settings" / f"{digest}.json")
