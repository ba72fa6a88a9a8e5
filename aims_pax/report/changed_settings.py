"""Settings that differ from their defaults: from the values that this run would have had without writing them.

Some defaults depend on other settings: a calculator runs on this machine, FOUNDATION and PRETRAINING train with small
steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

NOTHING = ("None", "{}", "[]")
SILENT = ("mace.MISC.", "reference method", "contents.", "elements")


def differing(settings: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(key, value, default) of the flat settings of `restart/settings.json`; default "—" if there is none."""
    usual = defaults()
    usual |= _of_systems(settings, usual)
    usual |= _of_samplers(settings)
    usual |= _depending(settings)
    return [
        (key.removeprefix("aimsPAX.").removeprefix("mace."), value, usual.get(key, "—"))
        for key, value in settings.items()
        if usual.get(key, "—") != value
        and not key.startswith(SILENT)
        and not (value in NOTHING and key not in usual)
    ]


def defaults() -> dict[str, str]:
    """{key: default} of every setting that has one, written as in `restart/settings.json`."""
    from aims_pax.settings.settings import MACE, PROJECT

    found: dict[str, str] = {}
    for file, sections in (("aimsPAX", PROJECT), ("mace", MACE)):
        for section, model in sections.items():
            for name, field in model.model_fields.items():
                if not field.is_required():
                    found |= _flat(f"{file}.{section}.{name}", field.get_default(call_default_factory=True))
    return found


def _depending(settings: Mapping[str, str]) -> dict[str, str]:
    """The defaults that other settings replace, as the reader of the settings does."""
    from aims_pax.settings.cluster import default_type
    from aims_pax.settings.foundation import NAME as FOUNDATION
    from aims_pax.settings.foundation import TRAINING
    from aims_pax.settings.mace import STRESS_LOSS
    from aims_pax.settings.pretraining import LR_AFTER
    from aims_pax.settings.pretraining import NAME as PRETRAINING

    cluster = {
        key.removeprefix("aimsPAX.CLUSTER.").partition(".")[0]
        for key, value in settings.items()
        if key.startswith("aimsPAX.CLUSTER.") and value != "None"
    }
    aims = settings.get("aimsPAX.REFERENCE.type", "aims") == "aims"
    found = {"aimsPAX.CLUSTER.type": default_type(cluster, aims)}
    if settings.get("aimsPAX.REFERENCE.factory", "None") != "None":
        found["aimsPAX.REFERENCE.type"] = "calculator"
    if _has(settings, f"aimsPAX.{PRETRAINING}"):
        found["mace.TRAINING.lr"] = str(LR_AFTER)
    if _has(settings, f"mace.{FOUNDATION}"):
        found |= {f"mace.TRAINING.{key}": str(value) for key, value in TRAINING.items()}
    if settings.get("mace.GENERAL.compute_stress") == "True":
        found["mace.TRAINING.loss"] = STRESS_LOSS
    return found


def _has(settings: Iterable[str], section: str) -> bool:
    return any(key.startswith(f"{section}.") for key in settings)


def _of_systems(settings: Iterable[str], usual: Mapping[str, str]) -> dict[str, str]:
    """The defaults of MD where each system has a table of its own."""
    found = {}
    for key in settings:
        shared = f"aimsPAX.MD.{key.rpartition('.')[2]}"
        if key.startswith("aimsPAX.MD.") and shared in usual:
            found[key] = usual[shared]
    return found


def _of_samplers(settings: Mapping[str, str]) -> dict[str, str]:
    """The defaults of the samplers and filters that these settings list."""
    from aims_pax.settings.pretraining import NAME as PRETRAINING
    from aims_pax.settings.samplers import FILTERS, KINDS, NAME, OwnSamplerSettings

    lists = (f"aimsPAX.{NAME}.", f"aimsPAX.{PRETRAINING}.samplers.")
    kinds = {k: kind for k, kind in settings.items() if k.startswith(lists) and k.endswith(".kind")}
    found: dict[str, str] = {}
    usual = KINDS.available() if kinds else {}
    for key, kind in kinds.items():
        place = key.removesuffix(".kind")
        model = FILTERS.get(kind) if ".filters." in place else usual.get(kind, OwnSamplerSettings)
        for name, field in {} if model is None else model.model_fields.items():
            if not field.is_required():
                found |= _flat(f"{place}.{name}", field.get_default(call_default_factory=True))
    return found


def _flat(key: str, value: Any) -> Iterator[tuple[str, str]] | dict[str, str]:
    fields = getattr(type(value), "model_fields", None)
    if fields is not None:
        value = {name: getattr(value, name) for name in fields}
    if isinstance(value, Mapping) and value:
        return {k: v for name, inner in value.items() for k, v in dict(_flat(f"{key}.{name}", inner)).items()}
    return {key: str(list(value) if isinstance(value, tuple) else value)}
