"""SAMPLERS of aimsPAX.yaml, and the configuration of `aims-PAX sample`: where structures come from, in which shares.

SAMPLERS:
  - {kind: md, share: 0.5, potential: {factory: "package.module:callable", kwargs: {}}, temperature: 500}
  - {kind: rattle_tree, share: 0.3, temperature: 500, beta: 0.5, sigma_range: [0.05, 0.2]}
  - {kind: phonons, share: 0.2, temperature: 300, filters: [sanity, {kind: duplicates, by: descriptor}]}

Each table is checked by the settings of its kind. A potential is spelled as everywhere (`as_calculator`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import SerializeAsAny

from aims_pax.settings.augment import OptionalReal, Range, RattleSettings, as_calculator
from aims_pax.settings.fields import (
    Flag,
    Kind,
    OptionalWhole,
    Real,
    Section,
    Table,
    Text,
    Whole,
    key,
    one_of,
    optional,
)
from aims_pax.settings.training_set import Amplitudes, FiniteSubsystemFilter, OptionalWholes, Wholes

NAME = "SAMPLERS"
MACE_MP0 = ("mace-mp0", "MACE-MP0")  # the size `small`


def as_spelling(value: Any) -> Any:
    """A potential as it was written, once it is known to be one."""
    if value not in MACE_MP0:
        as_calculator(value)
    return value


Potential = Annotated[Any, optional(as_spelling), Kind("`dict`, `str` or `None`")]
OptionalEnsemble = Annotated[str | None, optional(one_of("NVT", "NPT").func), Kind("`str` or `None`")]
OptionalThermostat = Annotated[
    str | None, optional(one_of("Langevin", "SVR", csvr="SVR", bussi="SVR").func), Kind("`str` or `None`")
]
By = Annotated[str, one_of("geometry", "descriptor"), Kind("`str`")]
Descriptor = Annotated[str, one_of("radial", "mace"), Kind("`str`")]
TEMPERATURE: dict[str, Any] = {
    "unit": "K", "possible": "(0, 100000]", "plausible": "[10, 5000]", "usual": 300.0,
}  # fmt: skip

# ---------------------------------------------------------------- filters


class EquilibrationSettings(Section):
    """equilibration: the beginning of the trajectories is thrown away."""

    skip: Whole = key(
        10,
        "Structures of each geometry that are thrown away, once, at the beginning.",
        possible="[0, 1000000]",
    )


class SanitySettings(Section):
    """sanity: atoms on top of each other, infinite positions, too large forces."""

    min_separation: Real = key(
        0.5, "Smallest distance of two atoms (Å).", unit="Å", possible="[0, 10]", plausible="[0, 5]"
    )
    max_force: Real = key(
        float("inf"),
        "Largest force on an atom (eV/Å), where the sampler is the reference.",
        possible="(0, inf]",
    )


class DuplicatesSettings(Section):
    """duplicates: structures like an earlier one of the same geometry and sampler."""

    by: By = key(
        "geometry",
        "`geometry`: mean displacement of the atoms, minimum image; `descriptor`: distance of descriptors, for which "
        "rotated or renumbered structures are the same.",
    )
    threshold: OptionalReal = key(
        None, "Å, default 0.1, or the descriptor's unit, default 0.05.", possible="(0, 1000]"
    )
    descriptor: Descriptor = key(
        "radial",
        "`radial`: built in, sorted radial histograms of the elements; `mace`: features of the MACE model that is this "
        "sampler's potential.",
    )

    def oddities(self) -> Iterator[tuple[str, str]]:
        """And a descriptor that nothing asks for."""
        yield from super().oddities()
        if self.by == "geometry" and self.descriptor != "radial":
            yield "descriptor", "has no effect: by is geometry; write by: descriptor, or leave it out"


class FarthestSettings(Section):
    """farthest_points: of many structures those that differ most from one another and from those kept before."""

    of: Whole = key(
        5, "Structures made for each that is kept.", possible="[1, 100000]", plausible="[2, 1000]"
    )
    descriptor: Descriptor = key("radial", "As for `duplicates`.")


class ClustersSettings(FiniteSubsystemFilter):
    """finite_clusters: molecules cut out of periodic structures."""

    n_molecules: Wholes = key(
        (1, 2, 3, 4), "Molecules in each cluster, for the `closest_to_…` rules.", possible="[1, 1000000]"
    )

    def oddities(self) -> Iterator[tuple[str, str]]:
        """And what another rule would use."""
        yield from super().oddities()
        unused = "n_molecules" if self.selection_rule.startswith("max_") else "distances"
        if getattr(self, unused) != type(self).model_fields[unused].default:
            yield unused, f"has no effect with selection_rule {self.selection_rule}; leave it out"


FILTERS: dict[str, type[Section]] = {
    "equilibration": EquilibrationSettings,
    "sanity": SanitySettings,
    "duplicates": DuplicatesSettings,
    "finite_clusters": ClustersSettings,
    "farthest_points": FarthestSettings,
}


class FilterSettings(Section):
    """A filter of a known kind with its settings."""

    kind: Text
    settings: SerializeAsAny[Section]


Filters = Annotated[tuple[FilterSettings, ...], Kind("`list`")]

# ---------------------------------------------------------------- samplers


class SamplerSettings(Section):
    """Every sampler has these keys."""

    kind: Text = key(
        ...,
        "`md`, `aimd` (MD with the reference), `rattle_tree`, `phonons`, or `module:callable` of your own.",
    )
    share: OptionalReal = key(
        None,
        "Part of all structures; together 1. Samplers without one divide the rest among them.",
        possible="(0, 1]",
    )
    potential: Potential = key(
        None,
        "`{factory, kwargs}` of an ASE calculator, a foundation size (`small`, …; `mace-mp0` is `small`), or the path "
        "of a MACE model; `None`: that of the first sampler which names one, else `small`.",
    )
    filters: Filters = key(
        (), "What is taken away again, one filter after the other: names, or tables `{kind: …}`."
    )

    @property
    def label(self) -> str:
        """What it is called in logs and in the frames' origin."""
        return self.kind


class MDSamplerSettings(SamplerSettings):
    """md: one trajectory of each geometry with a cheap potential. What is not given stands in MD."""

    temperature: OptionalReal = key(None, "Temperature (K).", **TEMPERATURE)
    timestep: OptionalReal = key(
        None,
        "Time step (fs).",
        unit="fs",
        possible="(0, 100]",
        plausible="[0.05, 10]",
        unit_confusions={"ps": 1000.0},
    )
    friction: OptionalReal = key(
        None,
        "Friction of Langevin dynamics (fs⁻¹).",
        unit="fs⁻¹",
        possible="(0, 10]",
        plausible="[1e-5, 0.1]",
    )
    stat_ensemble: OptionalEnsemble = key(None, "`NVT` or `NPT`.")
    thermostat: OptionalThermostat = key(None, "`Langevin` or `SVR`.")
    skip_step: OptionalWhole = key(
        None,
        "MD steps between two structures; `None`: `skip_step_initial`, or 25.",
        possible="[1, inf)",
        plausible="[5, 10000]",
    )

    def dynamics(self) -> dict[str, Any]:
        """What it changes of the section MD."""
        names = ("temperature", "timestep", "friction", "stat_ensemble", "thermostat")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class AbInitioSettings(MDSamplerSettings):
    """aimd: the same with the reference, whose forces are labels at once."""


class RattleTreeSettings(SamplerSettings, RattleSettings):
    """rattle_tree: families of rattled, shortly relaxed structures."""

    temperature: OptionalReal = key(
        None, "Temperature of the Boltzmann factors (K); `None`: MD's.", **TEMPERATURE
    )
    beta: Real = key(
        0.5,
        "Weight of low energies (1) against late generations (0) when a parent is chosen.",
        possible="[0, 1]",
    )
    sigma_range: Range = key(
        (0.05, 0.2),
        "Smallest and largest σ of the rattled positions (Å); log-uniform between them.",
        unit="Å",
        possible="(0, 10]",
        plausible="[0.001, 1]",
    )


class PhononSettings(SamplerSettings):
    """phonons: displacements along the vibrations of each geometry, after a relaxation."""

    temperature: OptionalReal = key(None, "Temperature (K); `None`: MD's.", **TEMPERATURE)
    freq_min_THz: Real = key(0.1, "Modes must be faster than this (THz).", possible="[0, 1000]")
    freq_max_THz: OptionalReal = key(
        None, "Modes must be slower than this (THz); `None`: all.", possible="(0, 1e4]"
    )
    selected_modes: OptionalWholes = key(
        None, "1-based modes, slowest first; the frequency window is then ignored.", possible="[1, 1000000]"
    )
    amplitudes: Amplitudes = key(
        "gaussian", "`gaussian`: canonical; `uniform`, `time` and `scan` give smaller displacements."
    )
    relaxed: Flag = key(True, "Begin at the nearest minimum of the potential; the cell stays.")
    fmax: Real = key(1e-3, "Largest force the relaxation leaves (eV/Å).", possible="(0, 1]")
    distance: Real = key(0.01, "Displacements of the force constants (Å).", possible="(0, 0.5]")


class OwnSamplerSettings(SamplerSettings):
    """module:callable: a sampler of your own, called with `kwargs`, and with `potential` where that is given."""

    kwargs: Table = key({}, "Keyword arguments of the callable.")


KINDS: dict[str, type[SamplerSettings]] = {
    "md": MDSamplerSettings,
    "aimd": AbInitioSettings,
    "rattle_tree": RattleTreeSettings,
    "phonons": PhononSettings,
}
OWN: dict[str, type[SamplerSettings]] = {"module:callable": OwnSamplerSettings}
POTENTIALLESS = ("aimd",)  # their potential is the reference
REPLACED = ("initial_sampling", "initial_calculator", "initial_foundational_size")  # SAMPLERS say it instead
