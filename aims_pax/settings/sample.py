"""The configuration of `aims-PAX sample`: runs the samplers of SAMPLERS without a run of aims-PAX.

path_to_geometry: geometry.xyz
output: samples.xyz
n_per_geometry: 50
seed: 42
MD: {stat_ensemble: NVT, temperature: 300}      # optional
SAMPLERS:
  - {kind: rattle_tree, potential: {factory: "ase.calculators.emt:EMT"}}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import ValidationError

from aims_pax.errors import SettingsError
from aims_pax.settings.devices import as_device
from aims_pax.settings.fields import Kind, Section, Text, Texts, Whole, key, optional
from aims_pax.settings.md import MDSettings
from aims_pax.settings.sampler_list import explain_sampler_error, read_samplers
from aims_pax.settings.samplers import NAME, SamplerSettings
from aims_pax.settings.unused_keys import unused_by_samplers, unused_in_dynamics
from aims_pax.settings.yaml_reader import Place, Problem, read_document
from aims_pax.suggestions import nearest

OptionalDevice = Annotated[str | None, optional(as_device), Kind("`str` or `None`")]


class SampleSettings(Section):
    """The keys other than MD and SAMPLERS."""

    path_to_geometry: Texts = key(
        ...,
        "Geometry file, folder of ASE-readable files, or list of files. For a file with several structures: `file@0`, "
        "`file@-1` (the last) or `file@:` (all).",
    )
    output: Text = key(
        ...,
        "Extended XYZ file to which structures are appended; run the same command again to continue up to "
        "`n_per_geometry`.",
    )
    n_per_geometry: Whole = key(
        ..., "Structures per geometry, all samplers together.", possible="[1, 1000000000]"
    )
    seed: Whole = key(42, "Seed for all random numbers.", possible="[0, 4294967295]")
    skip_step: Whole = key(
        25,
        "MD steps between two structures, for samplers that do not set it.",
        possible="[1, inf)",
        plausible="[5, 10000]",
    )
    device: OptionalDevice = key(None, "`cpu`, `cuda`, `cuda:N`; `None`: the GPU if there is one.")


@dataclass(frozen=True)
class Sampling:
    """The contents of the file."""

    keys: SampleSettings
    md: MDSettings
    samplers: tuple[SamplerSettings, ...]
    warnings: tuple[str, ...] = ()


def read_sample(path: Path) -> Sampling:
    """The configuration at `path`. Raises SettingsError that lists all mistakes, one per line."""
    document = read_document(path, str(path))
    data: dict[str, Any] = dict(document.data)
    problems: list[Problem] = []
    samplers: tuple[SamplerSettings, ...] = ()
    warnings: list[Problem] = []
    if NAME in data:
        samplers, problems, warnings = read_samplers(document, Path.cwd())
    else:
        problems = [document.problem((NAME,), "mandatory. A list of samplers, such as - {kind: rattle_tree}")]
    written = data.pop("MD", None)
    data.pop(NAME, None)
    sections: dict[str, Any] = {}
    tables: dict[str, tuple[type[Section], Any]] = {
        "": (SampleSettings, data),
        "MD": (MDSettings, {"stat_ensemble": "NVT", **written} if isinstance(written, dict) else written),
    }
    if written is None:
        tables["MD"] = (MDSettings, {"stat_ensemble": "NVT"})
    for name, (model, raw) in tables.items():
        place = (name,) if name else ()
        try:
            sections[name] = model.model_validate(raw)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                text = explain_sampler_error(detail, model)
                wrong = str(detail["loc"][0]) if detail["loc"] else ""
                if not name and detail["type"] == "extra_forbidden" and nearest(wrong, (NAME, "MD")):
                    text = f"unknown key; nearest: {nearest(wrong, (NAME, 'MD', *model.model_fields))}"
                problems.append(document.problem((*place, *detail["loc"]), text))
            continue
        warnings += [document.problem((*place, k), text) for k, text in sections[name].oddities()]
    if isinstance(written, dict) and "MD_seed" in written:
        text = "has no effect here; the top-level key seed sets all random numbers"
        warnings.append(document.problem(("MD", "MD_seed"), text))
    if not problems and isinstance(sections["MD"].temperature, tuple):
        text = "expected one temperature: a ramp needs max_MD_steps, which does not exist here"
        problems.append(document.problem(("MD", "temperature"), text))
    if not problems and sections["MD"].temperatures is not None:
        text = (
            "belongs to active learning; expected temperature, or a sampler of kind md for each temperature"
        )
        problems.append(document.problem(("MD", "temperatures"), text))
    if problems:
        raise SettingsError("\n".join(str(p) for p in sorted(set(problems))))
    warnings += [document.problem(*finding) for finding in _without_effect(sections["MD"], samplers)]
    return Sampling(sections[""], sections["MD"], samplers, tuple(str(w) for w in warnings))


def _without_effect(md: MDSettings, samplers: Sequence[SamplerSettings]) -> Iterator[tuple[Place, str]]:
    """(place, text) for keys of MD, and of samplers, that no molecular dynamics uses."""
    dynamics = [own for s in samplers if (own := s.dynamics()) is not None]
    unused = [unused_in_dynamics(md.model_copy(update=own)) for own in dynamics] or [unused_in_dynamics(md)]
    for name, why in unused[0].items():
        if name in md.model_fields_set and all(name in found for found in unused):
            yield ("MD", name), f"has no effect: {why}"
    for k, name, why in unused_by_samplers([md], samplers):
        yield (NAME, k, name), f"has no effect: {why}"
