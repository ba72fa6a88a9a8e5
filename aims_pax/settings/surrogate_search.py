"""The files of `aims-PAX neb`, `relax` and `md`, which search on a Gaussian process and ask the reference rarely.

initial: start.xyz                                            # neb; for relax and md: structure
final: end.xyz
fmax: 0.05
REFERENCE: {type: calculator, factory: "ase.calculators.emt:EMT"}
CLUSTER: {type: local}                                        # optional

REFERENCE, CLUSTER, MISC and species_dir are those of aimsPAX.yaml; without REFERENCE they are read from there.
`reference: {factory, kwargs}` is short for a REFERENCE of type calculator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.settings import cross_checks
from aims_pax.settings.fields import Flag, Real, Section, Text, Whole, key
from aims_pax.settings.geometries import read_geometry
from aims_pax.settings.messages import in_words
from aims_pax.settings.read import read_sections, unsupported
from aims_pax.settings.reference_settings import GENERAL, USED, read_reference_settings
from aims_pax.settings.samplers import OptionalPotential
from aims_pax.settings.settings import LabellingSettings
from aims_pax.settings.yaml_reader import Document, read_document

REFERENCE = ("REFERENCE", "CLUSTER", "MISC", "species_dir", "reference")
GEOMETRY = "Geometry file, as `path_to_geometry`; it may have charge, spin and fixed atoms."


class SearchSettings(Section):
    """Keys of all three commands."""

    baseline: OptionalPotential = key(
        None,
        "A cheap potential as prior mean of the process: `{factory, kwargs}` of an ASE calculator (xTB, …), the name "
        "of a foundation model, or the path of a model. The process then learns the difference to it.",
    )


class NebSettings(SearchSettings):
    """`aims-PAX neb`: the path of lowest energy between two minima."""

    initial: Text = key(..., "First end. " + GEOMETRY)
    final: Text = key(..., "Last end, with the same atoms in the same order.")
    images: Whole = key(5, "Moving images between the ends.", possible="[1, 200]", plausible="[3, 31]")
    climb: Flag = key(True, "The highest image climbs to the saddle point.")
    fmax: Real = key(
        0.05, "Converged below this force of the reference on the highest image.", unit="eV/Å",
        possible="(0, 10]", plausible="[0.005, 0.5]",
    )  # fmt: skip
    max_unc_forces: Real = key(
        0.15, "Converged below this deviation of the forces on all images.", unit="eV/Å", possible="(0, 10]"
    )
    spring: Real = key(0.1, "Spring constant between images.", unit="eV/Å²", possible="(0, 100]")
    max_calls: Whole = key(50, "Reference calculations, the ends included.", possible="[3, 100000]")
    output: Text = key("neb", "Folder for path, energies and restart.")


class RelaxSettings(SearchSettings):
    """`aims-PAX relax`: the minimum near a structure, in its cell."""

    structure: Text = key(..., GEOMETRY)
    fmax: Real = key(
        0.01,
        "Converged below this force of the reference.",
        unit="eV/Å",
        possible="(0, 10]",
        plausible="[0.001, 0.5]",
    )
    max_unc_forces: Real = key(
        0.3, "The search on the process stops where a force deviates more.", unit="eV/Å", possible="(0, 10]"
    )
    max_calls: Whole = key(100, "Reference calculations.", possible="[1, 100000]")
    output: Text = key("relax", "Folder for the minimum, all labels and restart.")


class SurrogateMDSettings(SearchSettings):
    """`aims-PAX md`: molecular dynamics on the process, which asks the reference where it is unsure."""

    structure: Text = key(..., GEOMETRY)
    steps: Whole = key(..., "MD steps.", possible="[1, 1000000000]")
    timestep: Real = key(1.0, "Time step.", unit="fs", possible="(0, 100]", plausible="[0.05, 10]")
    temperature: Real = key(300.0, "Temperature.", unit="K", possible="[0, 100000]")
    friction: Real = key(0.01, "Friction of the Langevin thermostat; 0: NVE.", unit="1/fs", possible="[0, 1]")
    max_unc_forces: Real = key(
        0.1, "A structure with a larger deviation of a force is labelled and the step repeated.", unit="eV/Å",
        possible="(0, 10]",
    )  # fmt: skip
    max_calls: Whole = key(100, "Reference calculations.", possible="[1, 100000]")
    every: Whole = key(10, "Steps between two structures of the trajectory.", possible="[1, 1000000]")
    seed: Whole = key(42, "Seed for velocities and thermostat.", possible="[0, 4294967295]")
    output: Text = key("md", "Folder for trajectory, all labels and restart.")


SEARCHES: dict[str, type[Section]] = {"neb": NebSettings, "relax": RelaxSettings, "md": SurrogateMDSettings}
ONLY = {"neb": {"initial", "final"}, "md": {"structure", "steps"}, "relax": {"structure"}}  # in this order


@dataclass(frozen=True)
class SurrogateSearch:
    """Keys of the command, and the settings of the reference."""

    keys: Any
    reference: LabellingSettings
    warnings: tuple[str, ...] = ()


def read_surrogate_search(path: Path, command: str) -> SurrogateSearch:
    """The file at `path`. Raises SettingsError that lists all mistakes, one per line."""
    document, model = read_document(path, str(path)), SEARCHES[command]
    own = {name: value for name, value in document.data.items() if name not in REFERENCE}
    try:
        keys = model.model_validate(own)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise SettingsError(
            "\n".join(str(document.problem(tuple(d["loc"]), in_words(d, model))) for d in details)
        ) from error
    oddities = tuple(str(document.problem((name,), text)) for name, text in keys.oddities())
    return SurrogateSearch(keys, _reference(document, path), oddities)


def with_structures(search: SurrogateSearch, *names: str) -> tuple[SurrogateSearch, list[Frame]]:
    """The structures of the files that these keys name, with charge and spin as in a run (MISC, or the file); what of
    the files has no effect is added to the warnings. Raises SettingsError."""
    systems = [read_geometry(search.reference, Path(getattr(search.keys, n)).expanduser()) for n in names]
    notes = dict.fromkeys(note for system in systems for note in system.notes)
    return replace(search, warnings=(*search.warnings, *notes)), [system.frame for system in systems]


def search_of(document: Document) -> str | None:
    """The command that a file is for, by its keys; None for files of other commands."""
    return next((name for name, needed in ONLY.items() if needed <= set(document.data)), None)


def _reference(document: Document, path: Path) -> LabellingSettings:
    folder = Path.cwd()
    data = {name: document.data[name] for name in REFERENCE if name in document.data}
    short = data.pop("reference", None)
    if short is not None:
        if not isinstance(short, dict) or "REFERENCE" in data:
            raise SettingsError(
                str(document.problem(("reference",), "expected {factory, kwargs}, and no REFERENCE besides"))
            )
        data["REFERENCE"] = {"type": "calculator", **short}
    if "REFERENCE" not in data:
        if data or not (folder / "aimsPAX.yaml").exists():
            where = f"besides {', '.join(data)}" if data else "or in an aimsPAX.yaml of this folder"
            raise SettingsError(f"{path}: REFERENCE: mandatory here, {where}")
        return read_reference_settings(folder)
    species = data.pop("species_dir", None)
    documents = {
        cross_checks.PROJECT: Document(document.file, data, document.lines),
        cross_checks.MACE: Document("mace.yaml", {"GENERAL": dict(GENERAL)}),
    }
    settings = read_sections(documents, USED, folder)
    if settings.reference.type == "aims":
        if not isinstance(species, str):
            raise SettingsError(
                str(document.problem(("species_dir",), "needed where the reference is FHI-aims"))
            )
        settings = replace(settings, species_dir=species)
    if problems := unsupported(settings):
        raise SettingsError("\n".join(problems))
    return settings
