"""Settings for commands that only use the reference: other sections may be missing or contain mistakes.

`aims-PAX-recalc` and `aims-PAX-atomic-energies` use REFERENCE, CLUSTER, MISC and species_dir of aimsPAX.yaml, and
GENERAL and MISC of mace.yaml if that file exists. Everything else is ignored.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aims_pax.errors import SettingsError
from aims_pax.settings import cross_checks
from aims_pax.settings.read import read_sections, unsupported
from aims_pax.settings.settings import MACE, PROJECT, LabellingSettings
from aims_pax.settings.unused_keys import ACTIVE, INITIAL
from aims_pax.settings.yaml_reader import Document, read_document
from aims_pax.suggestions import nearest

USED = {cross_checks.PROJECT: ("REFERENCE", "CLUSTER", "MISC"), cross_checks.MACE: ("GENERAL", "MISC")}
GENERAL = {"name_exp": "labels", "seed": 42}  # without a mace.yaml


def read_reference_settings(
    folder: Path | str, aims_pax_file: str = "aimsPAX.yaml", mace_file: str = "mace.yaml"
) -> LabellingSettings:
    """The settings of the reference of a working folder. mace.yaml may be missing.

    Raises SettingsError that lists all mistakes in the sections that are used.
    """
    folder = Path(folder).absolute()
    documents = {cross_checks.PROJECT: read_document(folder / aims_pax_file, str(aims_pax_file))}
    given = (folder / mace_file).exists() or mace_file != "mace.yaml"
    documents[cross_checks.MACE] = (
        read_document(folder / mace_file, str(mace_file)) if given else Document(str(mace_file), {})
    )
    misspelt = [text for label, document in documents.items() for text in _misspelt(label, document)]
    if misspelt:
        raise SettingsError("\n".join(misspelt))
    used = {label: _used(label, document) for label, document in documents.items()}
    settings = read_sections(used, USED, folder)
    if settings.reference.type == "aims":
        settings = replace(settings, species_dir=_species_dir(documents[cross_checks.PROJECT]))
    problems = unsupported(settings)
    if settings.reference.type == "aims" and settings.species_dir is None:
        problems.append(f"{aims_pax_file}: {ACTIVE}.species_dir: needed where the reference is FHI-aims")
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _misspelt(label: str, document: Document) -> list[str]:
    """Errors for unknown sections whose name resembles one that is used."""
    known = PROJECT if label == cross_checks.PROJECT else MACE
    unknown = [name for name in document.data if name not in known and nearest(name, USED[label])]
    return [
        str(document.problem((name,), f"unknown section; nearest: {nearest(name, USED[label])}"))
        for name in unknown
    ]


def _used(label: str, document: Document) -> Document:
    data = {name: document.data[name] for name in USED[label] if name in document.data}
    if label == cross_checks.MACE:
        written = data.get("GENERAL") or {}
        data["GENERAL"] = {**GENERAL, **written} if isinstance(written, dict) else written
    return Document(document.file, data, document.lines)


def _species_dir(document: Document) -> str | None:
    """The folder of species defaults that aimsPAX.yaml names. Raises SettingsError if it is no text or not unique."""
    found: dict[str, str] = {}
    for name in (ACTIVE, INITIAL):
        section = document.data.get(name)
        value = section.get("species_dir") if isinstance(section, dict) else None
        if value is None:
            continue
        text = f"expected text, got {value!r}" if not isinstance(value, str) else None
        if found and value not in found.values():
            text = f"{value} in {name} but {found[ACTIVE]} in {ACTIVE}; expected the same"
        if text is not None:
            raise SettingsError(str(document.problem((name, "species_dir"), text)))
        found[name] = value
    return next(iter(found.values()), None)
