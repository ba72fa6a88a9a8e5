"""Settings for commands that only use the reference: other sections may be missing or contain mistakes.

`aims-PAX-recalc` and `aims-PAX-atomic-energies` use REFERENCE, CLUSTER, MISC and species_dir of aimsPAX.yaml, and
GENERAL and MISC of mace.yaml if that file exists. Everything else is ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aims_pax.errors import SettingsError
from aims_pax.settings import cross_checks
from aims_pax.settings.read import read_documents, unsupported
from aims_pax.settings.settings import MACE, PROJECT, Settings
from aims_pax.settings.unused_keys import ACTIVE, INITIAL
from aims_pax.settings.yaml_reader import Document, read_document
from aims_pax.suggestions import nearest

USED = {cross_checks.PROJECT: ("REFERENCE", "CLUSTER", "MISC"), cross_checks.MACE: ("GENERAL", "MISC")}
# values for mandatory keys that these commands do not use
ASIDE: dict[str, Any] = {"num_trajectories": 1, "ensemble_size": 2, "max_MD_steps": 1}
MD = {"stat_ensemble": "NVT", "thermostat": "Langevin", "temperature": 300, "friction": 0.01, "timestep": 0.5}
GENERAL = {"name_exp": "labels", "seed": 42}


def read_reference_settings(
    folder: Path | str, aims_pax_file: str = "aimsPAX.yaml", mace_file: str = "mace.yaml"
) -> Settings:
    """The settings of a working folder, for commands that only use the reference. mace.yaml may be missing.

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
    settings = read_documents({label: _used(label, d) for label, d in documents.items()}, folder)
    if problems := unsupported(settings):
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
    sections = [document.data.get(name) for name in (ACTIVE, INITIAL)]
    basis = [s["species_dir"] for s in sections if isinstance(s, dict) and s.get("species_dir") is not None]
    data[ACTIVE] = {**ASIDE, **({"species_dir": basis[0]} if basis else {})}
    data["MD"] = dict(MD)
    return Document(document.file, data, document.lines)
