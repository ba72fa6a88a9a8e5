"""PRETRAINING of aimsPAX.yaml: free labels on which the members train before the first label of the reference."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from aims_pax.settings.augment import as_calculator, called
from aims_pax.settings.fields import COUNT, Kind, OptionalWhole, Real, Section, Whole, as_real, key, optional
from aims_pax.settings.samplers import KINDS, MACE_MP0, SamplerSettings, as_spelling
from aims_pax.settings.yaml_reader import Place

NAME = "PRETRAINING"
HOT = 1.5  # times the temperature of MD, for half of the structures
LR_AFTER = 0.002  # TRAINING.lr after pre-training unless it is set: larger steps destroy what was learnt


def _temperatures(value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise ValueError("expected one temperature or a list of them, got an empty list")
    return tuple(as_real(v) for v in values)


Potential = Annotated[Any, BeforeValidator(as_spelling), Kind("`dict` or `str`")]
Temperatures = Annotated[tuple[float, ...] | None, optional(_temperatures), Kind("`float`, `list` or `None`")]
Samplers = Annotated[tuple[SamplerSettings, ...], Kind("`list`")]


class PretrainingSettings(Section):
    """PRETRAINING (optional): free labels on which the members train before the first label of the reference."""

    potential: Potential = key(
        ...,
        "The cheap potential that labels: `{factory, kwargs}` of an ASE calculator (xTB, …), a foundation size, or the "
        "path of a model. It also moves the atoms.",
    )
    n_frames: Whole = key(
        400, "Number of structures of all geometries together.", possible=COUNT, plausible="[20, 100000]"
    )
    temperature: Temperatures = key(
        None,
        "Temperature (K) of the molecular dynamics that makes the structures, or a list of them, each with the same "
        "share; `None`: half of the structures at that of the section MD, half at 1.5 times it.",
        unit="K",
        possible="(0, 100000]",
        plausible="[10, 5000]",
    )
    skip_step: Whole = key(25, "MD steps between two structures.", possible=COUNT, plausible="[5, 10000]")
    num_trajectories: Whole = key(
        4,
        "Number of trajectories that make the structures: of all geometries together, at least one of each, and so "
        "many at each temperature. They move in one batch.",
        possible="[1, inf)",
        plausible="[1, 1000]",
    )
    samplers: Samplers = key(
        (),
        "Where the structures come from instead: a list as [SAMPLERS](samplers.md). Samplers that name no potential "
        "use the one above.",
    )
    valid_ratio: Real = key(
        0.1, "Fraction of the structures used for validation.", possible="(0, 1)", plausible="[0.02, 0.5]"
    )
    max_epochs: Whole = key(200, "Maximum number of training epochs.", possible=COUNT, plausible="[5, 1000]")
    patience: Whole = key(20, "Epochs without improvement before training ends.", possible=COUNT)
    lr: Real = key(
        0.01,
        "Learning rate of pre-training. Afterwards TRAINING.lr is used, which is then 0.002 unless it is set.",
        possible="(0, 10]",
        plausible="[1e-5, 0.1]",
        usual=0.01,
    )
    seed: OptionalWhole = key(
        None, "Seed of the structures; `None`: that of the section MD.", possible="[0, 4294967295]"
    )

    def place_of(self, place: Place) -> Place:
        """The place in the settings of a place in the list of `sources`, (…, k, key)."""
        k = int(place[1])
        own = k < len(self.samplers) and (place[-1] != "potential" or self.samplers[k].potential is not None)
        return (NAME, "samplers", *place[1:]) if own else (NAME, "potential")

    @property
    def in_words(self) -> str:
        """The potential, for logs, model card and report."""
        spec = self.potential if self.potential in MACE_MP0 else as_calculator(self.potential)
        return spec if isinstance(spec, str) else called(spec)

    @property
    def sources(self) -> tuple[SamplerSettings, ...]:
        """The samplers as for one geometry, see `sources_of`."""
        return self.sources_of(1)

    def sources_of(self, n_systems: int) -> tuple[SamplerSettings, ...]:
        """The samplers, each with a potential: molecular dynamics at each temperature unless `samplers` are set."""
        if self.samplers:
            own = {"potential": self.potential}
            return tuple(s if s.potential is not None else s.model_copy(update=own) for s in self.samplers)
        md = KINDS.get("md")
        assert md is not None
        heats: list[dict[str, float]] = [{}, {"temperature_factor": HOT}]
        if self.temperature is not None:
            heats = [{"temperature": t} for t in self.temperature]
        each = max(1, self.num_trajectories // n_systems)
        return tuple(
            md(kind="md", potential=self.potential, num_trajectories=each, **heat)  # type: ignore[call-arg]
            for heat in heats
        )
