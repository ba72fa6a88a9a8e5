"""Members that start from the user's models (ACTIVE_LEARNING.initial_models), and checks of these models."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ase.data import chemical_symbols

from aims_pax import seeds
from aims_pax.errors import SettingsError
from aims_pax.models.base import ForceFieldModel
from aims_pax.models.delta import is_difference
from aims_pax.models.kinds import kind_of_run
from aims_pax.record.checkpoint import Checkpoint, exists
from aims_pax.record.folder import RunFolder

if TYPE_CHECKING:
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)

KEY = "ACTIVE_LEARNING.initial_models"


def given_ensemble(settings: Settings, elements: Sequence[int], folder: RunFolder) -> ForceFieldModel:
    """The members, named `{name_exp}_{seed}` like those that a run builds itself.

    elements: atomic numbers of the geometries. Raises SettingsError for models that lack one of them, that do not fit
    together, or that contradict ARCHITECTURE in mace.yaml; the last is only a warning if the run has already begun.
    """
    al = settings.active_learning
    assert al is not None
    assert al.initial_models
    paths = [settings.path(p) for p in al.initial_models]
    tags = al.seeds_tags_dict
    numbers = tuple(tags.values()) if tags else seeds.member_seeds(settings.model.seed, al.ensemble_size)
    # begun by an older version, which used the file names
    as_files = _names(folder) == [p.stem for p in paths]
    if settings.reference.baseline is None and (wrong := [p for p in paths if is_difference(p)]):
        raise SettingsError(
            f"{KEY}: {', '.join(map(str, wrong))}: holds only the difference to a baseline; set REFERENCE.baseline to "
            "the same baseline, or give other models"
        )
    ensemble = kind_of_run(settings).from_files(paths, settings, None if as_files else numbers)
    unknown = sorted(set(elements) - set(ensemble.elements))
    if unknown:
        symbols = ", ".join(chemical_symbols[z] for z in unknown)
        raise SettingsError(
            f"{KEY}: the models do not know {symbols}; "
            "train models with these elements (initial_train_dataset), or remove those geometries"
        )
    _compare(settings, ensemble, begun=bool(_names(folder)))
    return ensemble


def _compare(settings: Settings, ensemble: ForceFieldModel, begun: bool) -> None:
    lines = kind_of_run(settings).contradictions(ensemble, settings)
    if not lines:
        return
    text = f"{KEY}: mace.yaml contradicts the models:\n  " + "\n  ".join(lines)
    if begun:
        log.warning("%s\n  the run uses the models as they are", text)
        return
    raise SettingsError(
        f"{text}\nArchitecture and atomic energies of a given model cannot change: delete these keys from mace.yaml"
    )


def _names(folder: RunFolder) -> list[str]:
    """The members' names in the snapshots of this folder; [] when there are no snapshots."""
    for stage in ("explore", "train-given"):
        if exists(folder.restart / stage):
            snapshot = Checkpoint(folder, stage).read()
            return [str(n) for n in snapshot.weights.get("names", [])] if snapshot is not None else []
    return []
