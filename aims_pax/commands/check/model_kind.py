"""Checks whether the kind of model in MODEL exists and supports what the other sections need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from aims_pax.core.rules import SHRINK_PERTURB
from aims_pax.errors import SettingsError
from aims_pax.models.kinds import kind_of_run
from aims_pax.settings.augmentation import NAME as AUGMENTATION
from aims_pax.settings.yaml_reader import Place

if TYPE_CHECKING:
    from aims_pax.settings import Settings


def wrong_model_kind(settings: Settings) -> Iterator[tuple[Place, str]]:
    """(place in aimsPAX.yaml, text) of every error."""
    try:
        kind = kind_of_run(settings)
        kind.options(settings)
        al = settings.active_learning
        if al is not None and al.initial_models and not kind.begins_from_files:
            kind.from_files([settings.path(p) for p in al.initial_models], settings, None)
    except SettingsError as error:
        for line in str(error).splitlines():
            place, _, text = line.partition(": ")
            yield tuple(place.split(".")), text
        return
    sections = {"INITIAL_DATASET_GENERATION": settings.initial_dataset, "ACTIVE_LEARNING": al}
    for section, values in sections.items():
        if values is not None and values.final_training == SHRINK_PERTURB and not kind.mixes_weights:
            text = f"{kind.title} models cannot keep a share of their weights; expected fresh or continued"
            yield (section, "final_training"), text
    if settings.augmentation is not None and not kind.learns_from_copies:
        text = f"{kind.title} models do not learn from copies of labelled structures; remove this section"
        yield (AUGMENTATION, "kind"), text
    for name, md in (settings.md_by_system or {"": settings.md}).items():
        if md.stat_ensemble == "NPT" and not kind.has_stress:
            where: Place = ("MD", name, "stat_ensemble") if name else ("MD", "stat_ensemble")
            yield where, f"NPT needs the stress, which {kind.title} models do not compute; use NVT"
    if al is not None and al.ensemble_size < 2 and not kind.has_spread:
        yield (
            ("ACTIVE_LEARNING", "ensemble_size"),
            f"a single {kind.title} model has no uncertainty; use at least 2 members, "
            "whose disagreement is the uncertainty",
        )
