"""Compares the settings of a continued run with those that its folder's data was made with.

Harmless differences (limits, temperature, cluster, logging, more trajectories, added geometries) are logged and take
effect. Differences that would mix incompatible data are refused, with a message that says what to do. The files that a
run begins with may change until the run has read them, so that a rejected file can be replaced.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aims_pax.dataset import ENTRIES, POOL
from aims_pax.errors import RestartError
from aims_pax.record.folder import RunFolder
from aims_pax.record.provenance import flat_settings
from aims_pax.systems import System

log = logging.getLogger(__name__)

BEGUN_WITH = "aimsPAX.ACTIVE_LEARNING.initial_"
STRESS = "mace.GENERAL.compute_stress"
MODEL = "aimsPAX.MODEL"
BASELINE = "baseline"  # in words, with the hash of its contents
WITHOUT = "none"
BASELINE_KEY = "aimsPAX.REFERENCE.baseline"
FOUNDATION = "mace.FOUNDATION"
CONTENTS_OF_MODEL = "contents."  # hashes of files that models begin from, by their names
ELEMENTS = "elements"  # of the geometries, for which the models are made
PRETRAINING = "aimsPAX.PRETRAINING"
TABLES = (  # tables of the user's own keys, compared as a whole: also with no table, or with a single value
    "mace.ARCHITECTURE.atomic_energies",
    "aimsPAX.ACTIVE_LEARNING.seeds_tags_dict",
    f"{BEGUN_WITH}train_dataset",
    f"{BEGUN_WITH}valid_dataset",
    f"{MODEL}.kwargs",
    f"{FOUNDATION}.model.kwargs",
    f"{PRETRAINING}.potential",
)
# (prefix of the key, why another value would mix incompatible data)
FIXED = (
    ("mace.ARCHITECTURE", "the weights in restart/ belong to the old architecture"),
    (FOUNDATION, "the members have begun in the old way"),
    (CONTENTS_OF_MODEL, "the members began from the old contents of this file"),
    ("mace.GENERAL.name_exp", "models, losses and checkpoints are named after it"),
    ("mace.GENERAL.seed", "the members are named after their seeds"),
    ("mace.GENERAL.default_dtype", "the weights in restart/ have the old precision"),
    (STRESS, "frames labelled so far have labels of the old kind"),
    (
        "aimsPAX.INITIAL_DATASET_GENERATION.ensemble_size",
        "the data has been distributed over the old number of members",
    ),
    (
        "aimsPAX.INITIAL_DATASET_GENERATION.distinct_model_sets",
        "the data has been distributed to the members in the old way",
    ),
    ("aimsPAX.ACTIVE_LEARNING.ensemble_size", "the data has been distributed over the old number of members"),
    ("aimsPAX.ACTIVE_LEARNING.seeds_tags_dict", "the members are named after their seeds"),
    ("aimsPAX.MISC.charge", "structures with another charge are other structures"),
    ("aimsPAX.MISC.spin", "structures with another spin are other structures"),
    (BEGUN_WITH, "the run began with the old files"),
    (PRETRAINING, "the members were pre-trained with the old settings, or without this section"),
    (ELEMENTS, "the models are made for the elements of the geometries"),
    (MODEL, "the weights in restart/ belong to models of another kind"),
    (BASELINE, "the weights in restart/ have learnt the difference to the old baseline"),
)
UNTIL_DATA = (BEGUN_WITH, ELEMENTS)  # may change until the run has data
METHOD = "reference method"  # its hash; its content is written in data/labels/<hash>/method.json
WAY_OUT = (
    "Undo the change; or begin in an empty folder, where ACTIVE_LEARNING.initial_train_dataset can read "
    "{data} of this one"
)
AGAIN = "; or label this data again with the new method: aims-PAX-recalc {data}"
CONTENTS = {  # keys of the method whose values are hashes
    "REFERENCE.species": "the species files",
    "REFERENCE.source": "the module of REFERENCE.factory",
}
CONTENT = "REFERENCE.contents."  # hashes of the modules and files of a calculator, by their names
_CALLED = {"zero_moments": "initial moments of zero", "masses": "masses"}
FOLDERS = ("mace.GENERAL.model_dir", "mace.GENERAL.loss_dir", "mace.GENERAL.checkpoints_dir")
NO_LABEL = ("aimsPAX.CLUSTER", "aimsPAX.MISC", "mace.MISC", *FOLDERS)
SILENT = ("aimsPAX.MISC.path_to_geometry", "aimsPAX.REFERENCE")  # compared by geometries and method below


def compare_with_last_run(
    folder: RunFolder,
    effective: Mapping[str, Any],
    method: str,
    geometries: Mapping[str, str],
    baseline: str = WITHOUT,
) -> None:
    """Log what changed since this folder's last run, and store the new values.

    effective: the complete settings. method: hash of the reference method. geometries: {name: frame id}. baseline: in
    words, with its hash. Raises RestartError when the change would mix incompatible data.
    """
    path = folder.restart / "settings.json"
    present = _present(effective, method, baseline)
    now = {"format": 1, "settings": present, "geometries": dict(geometries)}
    refuse_changes(folder, effective, method, geometries, baseline)
    before = _read(path)
    if before is not None:
        for key, old, new in _changes(before["settings"], present):
            if not key.startswith(SILENT):
                log.info("changed since the last run: %s: %s → %s", key, old, new)
        for name in [n for n in geometries if n not in before["geometries"]]:
            log.info("new geometry since the last run: %s", name)
        now["geometries"] = {**before["geometries"], **geometries}
    if before != now:
        folder.write_text(path, json.dumps(now, indent=1) + "\n")


def remember_settings(folder: RunFolder, effective: Mapping[str, Any]) -> str:
    """Twelve hex digits (hash) of the settings that labels are made with; the settings are stored with the data.

    Settings of the cluster, the logs and the paths of files do not count: they do not change labels.
    """
    present = {k: v for k, v in _flat(effective).items() if not k.startswith(NO_LABEL)}
    if present.get(f"{MODEL}.kind") == "mace":  # same hash as in versions that had only MACE
        present = {k: v for k, v in present.items() if not k.startswith(MODEL)}
    text = json.dumps(present, sort_keys=True, indent=1) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = folder.data / "settings" / f"{digest}.json"
    if not path.exists():
        folder.write_text(path, text)
    return digest


def has_snapshots(folder: RunFolder) -> bool:
    """Whether any stage of this run has a snapshot to continue from."""
    return any(folder.restart.glob("*/state-*.npy"))


def refuse_changes(
    folder: RunFolder,
    effective: Mapping[str, Any],
    method: str,
    geometries: Mapping[str, str],
    baseline: str = WITHOUT,
) -> None:
    """Raise RestartError when a change since this folder's last run would mix data; nothing is written."""
    before = _read(folder.restart / "settings.json")
    if before is None:
        return
    present = _present(effective, method, baseline)
    other = list(_other_method(folder, before["settings"], present))
    refused = [
        *other,
        *_refused(before["settings"], present, _took_in(folder)),
        *_moved(before["geometries"], geometries),
    ]
    if refused:
        raise RestartError(
            "this folder was begun with other settings:\n  "
            + "\n  ".join(refused)
            + "\n"
            + _way_out(folder, bool(other))
        )


def _flat(effective: Mapping[str, Any]) -> dict[str, str]:
    """The settings key by key; a baseline that is not set is left out, as before there was this key."""
    return {k: v for k, v in flat_settings(effective).items() if (k, v) != (BASELINE_KEY, "None")}


def _present(effective: Mapping[str, Any], method: str, baseline: str) -> dict[str, str]:
    known = {} if baseline == WITHOUT else {BASELINE: baseline}
    return {**_flat(effective), METHOD: method, **known}


def as_begun(folder: RunFolder, systems: Sequence[System]) -> tuple[System, ...]:
    """The systems as this folder's run began with them, so that its labels remain valid for the same structures.

    Earlier versions read neither masses nor initial moments of zero; such a run continues without them and warns.
    """
    before = _read(folder.restart / "settings.json")
    known = {} if before is None else before["geometries"]
    return tuple(_as_known(system, known.get(system.name)) for system in systems)


def _as_known(system: System, frame_id: str | None) -> System:
    if frame_id in (None, system.frame.id):
        return system
    for names in (("zero_moments",), ("masses",), ("zero_moments", "masses")):
        older = replace(system.frame, **dict.fromkeys(names))  # type: ignore[arg-type]
        if older.id == frame_id:
            log.warning(
                "geometry %s: this run began with a version that did not read its %s; it continues without them; "
                "begin in an empty folder to use them", system.name, " and ".join(_CALLED[n] for n in names),
            )  # fmt: skip
            return replace(system, frame=older)
    return system


def _way_out(folder: RunFolder, other_method: bool) -> str:
    """What the user can do instead; names a file of labelled structures if there is one."""
    data = folder.results / "training.xyz"
    data = data if data.exists() else folder.data / POOL
    if not data.exists():
        return "Undo the change; or begin in an empty folder"
    name = data.relative_to(folder.root) if data.is_relative_to(folder.root) else data
    return (WAY_OUT + (AGAIN if other_method else "")).format(data=name)


def _took_in(folder: RunFolder) -> bool:
    """Whether the run has data, or one of its stages has begun."""
    entries = folder.data / ENTRIES
    return (entries.exists() and entries.stat().st_size > 0) or has_snapshots(folder)


def _refused(old: Mapping[str, Any], new: Mapping[str, Any], took_in: bool) -> Iterator[str]:
    # the sections are not written when they hold only this default
    unwritten = {f"{MODEL}.kind": "mace", BASELINE: WITHOUT, f"{PRETRAINING}.n_frames": "none"} | {
        f"{FOUNDATION}.{k}": "none" for k in ("model", "model.factory", "recipe")
    }
    for key, before, after in _changes(unwritten | dict(old), unwritten | dict(new)):
        for prefix, why in FIXED:
            if key.startswith(prefix) and (took_in or prefix not in UNTIL_DATA):
                yield f"{key}: {before} → {after}: {why}"


def _other_method(folder: RunFolder, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Why the reference method differs, key by key; its two hashes if no key explains it."""
    if METHOD not in old or old[METHOD] == new[METHOD]:
        return
    why = "labels of two reference methods must not be mixed"
    known = [_described(folder.data / "labels" / str(settings[METHOD])) for settings in (old, new)]
    if not all(known):  # data/labels was removed: compare the settings instead
        known = [_reference(settings) for settings in (old, new)]
    before, after = known
    recorded = any(k.startswith(CONTENT) for k in before)
    keys = [
        k
        for k in dict.fromkeys([*before, *after])
        if before.get(k) != after.get(k) and (recorded or not k.startswith(CONTENT))
    ]
    if not keys and not recorded and any(k.startswith(CONTENT) for k in after):
        return  # begun by a version that did not record the contents of these files
    for key in keys:
        if key in CONTENTS:
            yield f"{CONTENTS[key]}: changed contents: {why}"
        elif key.startswith(CONTENT):
            yield f"{key.removeprefix(CONTENT)}, which the reference is built from: changed contents: {why}"
        else:
            yield f"{key}: {before.get(key, 'not set')} → {after.get(key, 'not set')}: {why}"
    if not keys and old.get(STRESS) == new.get(STRESS):
        yield f"{METHOD}: {old[METHOD]} → {new[METHOD]}: {why}"


def _described(folder: Path) -> dict[str, str]:
    """A method as described next to its labels (method.json), as {key: value}; empty when it cannot be read."""
    try:
        stored = json.loads((folder / "method.json").read_text(encoding="utf-8"))
        control = stored.pop("control", [])
        stored.pop("stress", None)  # GENERAL.compute_stress, which is compared separately
        present = flat_settings({"REFERENCE": stored})
        found = {k: v for k, v in present.items() if k != "REFERENCE.method" and v != "{}"}
        for name, *values in control:  # keywords may be repeated
            key = f"control.in: {name}"
            found[key] = " | ".join([*([found[key]] if key in found else []), " ".join(map(str, values))])
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return found


def _reference(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings of the section REFERENCE."""
    section = "aimsPAX.REFERENCE"
    return {k.removeprefix("aimsPAX."): v for k, v in settings.items() if k.startswith(section) and v != "{}"}


def _moved(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(old.keys() & new.keys()):
        if old[name] != new[name]:
            yield f"geometry {name}: the structure under this name has changed; give the new one another name"


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Keys with different values. A key on one side only (another version of aims-PAX, a new section) is ignored."""
    old, new = _with_whole_tables(old), _with_whole_tables(new)
    for key in dict.fromkeys([*old, *new]):
        if key in old and key in new and old[key] != new[key]:
            yield key, old[key], new[key]


def _with_whole_tables(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with each table of TABLES as one value, `{1: -13.6, 8: -2043.2}`."""
    found = dict(flat)
    for table in TABLES:
        inside = sorted(key for key in flat if key.startswith(f"{table}."))
        if inside:
            entries = (f"{key.removeprefix(f'{table}.')}: {found.pop(key)}" for key in inside)
            found[table] = f"{{{', '.join(entries)}}}"
    return found


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] > 1:
            raise RestartError(
                f"{path} was written by a newer aims-PAX; install that version or use another folder"
            )
        if not isinstance(stored["settings"], dict) or not isinstance(stored["geometries"], dict):
            raise TypeError("settings and geometries must be tables")
    except (ValueError, KeyError, TypeError) as error:
        raise RestartError(
            f"{path} cannot be read ({error}); remove it to continue with the present settings"
        ) from error
    return stored
