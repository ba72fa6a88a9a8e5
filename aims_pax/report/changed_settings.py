"""Settings that differ from their defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SILENT = ("mace.MISC.", "reference method", "contents.", "elements")


def differing(settings: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(key, value, default) of the flat settings of `restart/settings.json`; default "—" if there is none."""
    usual = defaults() | _of_samplers(settings)
    return [
        (key.removeprefix("aimsPAX.").removeprefix("mace."), value, usual.get(key, "—"))
        for key, value in settings.items()
        if usual.get(key, "—") != value
        and not key.startswith(SILENT)
        and not (value == "None" and key not in usual)
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


def _of_samplers(settings: Mapping[str, str]) -> dict[str, str]:
    """The defaults of the samplers and filters that these settings list."""
    from aims_pax.settings.samplers import FILTERS, KINDS, NAME, OwnSamplerSettings

    found: dict[str, str] = {}
    usual = KINDS.available() if any(key.startswith(f"aimsPAX.{NAME}.") for key in settings) else {}
    for key, kind in settings.items():
        if not key.startswith(f"aimsPAX.{NAME}.") or not key.endswith(".kind"):
            continue
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
