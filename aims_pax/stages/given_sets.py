"""The labelled structures that a user gives: read, checked and dealt to the members as their first dataset."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ase.data import chemical_symbols

from aims_pax.dataset import Dataset
from aims_pax.engine.run_context import RunContext
from aims_pax.errors import SettingsError
from aims_pax.frames import WEIGHT
from aims_pax.given_data import GivenFile, read_given, remarks, undetermined_energies
from aims_pax.isolated_atoms import is_lone
from aims_pax.labelled_data import LabelKeys
from aims_pax.settings import Settings
from aims_pax.settings.geometries import completing
from aims_pax.stages import given_data_check
from aims_pax.systems import elements, system_of

log = logging.getLogger(__name__)


def begin_from_data(run: RunContext) -> None:
    """Fill the dataset from the user's files; if one file is refused, nothing is added."""
    sets, files = given_sets(run)
    _say(run, files)
    for file in files:
        run.ensemble.check_frames([f.frame for f in file.frames], run.watch.raise_if_stopped)
        key = "initial_valid_dataset" if file.use == "valid" else "initial_train_dataset"
        given_data_check.check_learnable(run.ensemble.check_frame, file, f"ACTIVE_LEARNING.{key}")
    given_data_check.compare_with_reference(run, files)
    n = min(len(sets.entries), len(run.dataset.entries))
    run.dataset.begin_again(n if run.dataset.entries[:n] == sets.entries[:n] else 0)
    for entry in sets.entries:
        given = sets.labelled(entry.frame, entry.label)
        assert given is not None
        run.dataset.add(given, entry.split, entry.member)


def given_sets(run: RunContext) -> tuple[Dataset, list[GivenFile]]:
    """The user's files, split into training and validation sets in memory. Raises SettingsError."""
    settings = run.settings.active_learning
    assert settings is not None
    shared = settings.initial_valid_dataset is None  # valid_ratio of the training structures is held out
    sets, files = Dataset(), given_files(run)
    held_out: dict[str, bool] = {}  # of each structure, the same for all members
    for file, member in files:
        if shared:
            hold_out(file, settings.valid_ratio, held_out)
        for labelled in file.frames:
            origin = {"system": labelled.frame.formula, "stage": "given", **labelled.origin}
            origin["system"] = system_of(labelled.frame, origin, run.systems)
            use = "valid" if held_out.get(labelled.id) else file.use
            sets.add(replace(labelled, origin=origin), use, member)
    if settings.initial_train_dataset is not None:
        _enough(run, sets)
    return sets, [file for file, _ in files]


def hold_out(file: GivenFile, ratio: float, held_out: dict[str, bool]) -> None:
    """Decide which structures of a file are for validation: a share of each composition, evenly over the file.

    held_out: by frame id, extended here; atoms and ions alone are never held out. A structure that occurs again, in
    this file or in that of another member, is used as before: the last training is on the structures of all members.
    """
    count: Counter[str] = Counter()
    aside: Counter[str] = Counter()
    for labelled in {f.id: f for f in file.frames if not is_lone(f)}.values():
        formula = labelled.frame.formula
        due = int((count[formula] + 0.5) * ratio + 0.5)
        aside[formula] += held_out.setdefault(labelled.id, aside[formula] < due)
        count[formula] += 1


def given_files(run: RunContext) -> list[tuple[GivenFile, int | None]]:
    """The user's training and validation sets, each with the member it is for (None: all)."""
    settings, misc = run.settings.active_learning, run.settings.misc
    assert settings is not None
    found, completed = [], completing(run.settings)
    for key, use in (("initial_train_dataset", "train"), ("initial_valid_dataset", "valid")):
        for member, name in _of_members(getattr(settings, key), run, key):
            path, keys = run.settings.path(name), LabelKeys.of(misc)
            found.append(
                (read_given(path, name, use, keys, run.ensemble.elements, settled=completed), member)
            )
    return found


def _say(run: RunContext, files: Sequence[GivenFile]) -> None:
    """Log the number of structures in each file, and warnings about them."""
    settings = run.settings
    for file in dict.fromkeys((f.name, f.use, len(f.frames)) for f in files):
        log.info("given data: %s: %d structures (%s)", file[0], file[2], file[1])
    misc = settings.misc
    keys = LabelKeys.of(misc)
    test = (
        [
            read_given(
                settings.path(misc.test_set), misc.test_set, "test", keys, (), settled=completing(settings)
            )
        ]
        if misc.test_set
        else []
    )
    for line in remarks([*files, *test], keys, settings.model.compute_stress):
        log.warning("%s", line)
    for line in idle_weights(settings, files):
        log.warning("%s", line)
    energies = settings.model.atomic_energies
    assert settings.active_learning is not None
    train = [f for file in files if file.use == "train" for f in file.frames]
    fitted = settings.active_learning.initial_models is None and energies is None
    if fitted and (text := undetermined_energies(train, run.settings.model.foundation is not None)):
        log.warning("%s", text)


def idle_weights(settings: Settings, files: Sequence[GivenFile]) -> list[str]:
    """A line for each file that weights its structures, if the loss does not."""
    ignored = settings.model.not_weighted
    if ignored is None:
        return []
    weighted = {file.name: sum(f.origin.get(WEIGHT, 1) != 1 for f in file.frames) for file in files}
    return [
        f"{name}: {WEIGHT}, set for {n} structures, has no effect: {ignored}"
        for name, n in weighted.items()
        if n
    ]


def _enough(run: RunContext, given: Dataset) -> None:
    """Check that every member has training and validation structures and every element. Raises SettingsError."""
    key = "ACTIVE_LEARNING.initial_train_dataset"
    for m, member in enumerate(run.ensemble.members):
        train, valid = ([f for f in frames if not is_lone(f)] for frames in (given.train(m), given.valid(m)))
        if not train:
            raise SettingsError(f"{key}: no training structures but single atoms or ions for {member.name}")
        missing = sorted({*elements(s.frame for s in run.systems)} - {*elements(f.frame for f in train)})
        if missing:
            names = ", ".join(chemical_symbols[z] for z in missing)
            raise SettingsError(
                f"{key}: the geometries contain {names}, but no training structure of {member.name} does; "
                "add structures with these elements, or remove those geometries"
            )
        if not valid:
            raise SettingsError(
                f"{key}: {len(train)} structures are too few to hold out valid_ratio of them for {member.name}; "
                "set initial_valid_dataset, or give more structures"
            )


def _of_members(
    value: str | Mapping[str, str] | None, run: RunContext, key: str
) -> list[tuple[int | None, str]]:
    """(member or None for all, path as written), from one path or from a map of member name, tag or seed to path."""
    if value is None:
        return []
    if isinstance(value, str):
        return [(None, value)]
    members = run.ensemble.members
    found: list[tuple[int | None, str]] = []
    for name, path in value.items():
        files = getattr(run.settings.active_learning, "initial_models", None) or ()
        stems = [Path(f).stem for f in files] or [""] * len(members)
        matches = [i for i, m in enumerate(members) if str(name) in (m.name, str(m.seed), stems[i])]
        if not matches:
            names = ", ".join(m.name for m in members)
            raise SettingsError(f"ACTIVE_LEARNING.{key}: no member is called {name}; there are {names}")
        found.append((matches[0], path))
    return found
