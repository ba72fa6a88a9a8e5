"""SAMPLERS of aimsPAX.yaml, and the configuration of `aims-PAX sample`: where structures come from, in which shares.

SAMPLERS:
  - {kind: md, share: 0.5, potential: {factory: "package.module:callable", kwargs: {}}, temperature: 500}
  - {kind: rattle_tree, share: 0.3, temperature: 500, beta: 0.5, sigma_range: [0.05, 0.2]}
  - {kind: phonons, share: 0.2, temperature: 300, filters: [sanity, {kind: duplicates, by: descriptor}]}

A kind is one class, a `SamplerSettings` registered under its name: its fields are the keys a user writes, `make`
builds the sampler, `cost` is what `aims-PAX plan` says. Ours are one file each in `aims_pax/samplers/kinds/`, which
are imported when their name is asked for (`KINDS`). docs/extending.md says how to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import SerializeAsAny

from aims_pax.errors import SettingsError
from aims_pax.potential import Potential, load_factory
from aims_pax.registry import Registry
from aims_pax.sampler import Filter, Sampler
from aims_pax.settings.augment import OptionalReal, as_calculator
from aims_pax.settings.fields import Kind, Section, Table, Text, key, one_of, optional
from aims_pax.settings.md import MDSettings
from aims_pax.systems import System

T = TypeVar("T")
NAME = "SAMPLERS"
MACE_MP0 = ("mace-mp0", "MACE-MP0")  # the size `small`
REPLACED = ("initial_sampling", "initial_calculator", "initial_foundational_size")  # SAMPLERS say it instead


def as_spelling(value: Any) -> Any:
    """A potential as it was written, once it is known to be one."""
    if value not in MACE_MP0:
        as_calculator(value)
    return value


OptionalPotential = Annotated[Any, optional(as_spelling), Kind("`dict`, `str` or `None`")]
Descriptor = Annotated[str, one_of("radial", "mace"), Kind("`str`")]
TEMPERATURE: dict[str, Any] = {
    "unit": "K", "possible": "(0, 100000]", "plausible": "[10, 5000]", "usual": 300.0,
}  # fmt: skip

# ---------------------------------------------------------------- filters


@dataclass(frozen=True)
class FilterContext:
    """What is offered to a filter that is being made. place: where it is written, for errors.

    mace: loads the descriptor `mace`, features of the MACE model that is the sampler's potential. radial: the
    built-in one. Both are functions of frames of one system that give one row each (`samplers.descriptors`).
    """

    place: str
    mace: Callable[[], Callable[..., Any]]
    radial: Callable[..., Any]

    def describe(self, descriptor: str) -> Callable[..., Any]:
        """The descriptor of this name."""
        return self.mace() if descriptor == "mace" else self.radial


class FilterKeys(Section):
    """The keys of one kind of filter, beside `kind`; registered under its name by `register_filter`."""

    prose: ClassVar[str] = ""  # what it takes away, for the documentation; else the docstring says it

    def make(self, context: FilterContext) -> Filter:
        """The filter."""
        raise NotImplementedError(f"{type(self).__name__} has no make()")

    def needed(self, n: float) -> float:
        """Structures of a system that it has to be given for n to pass, as far as that is known; for `plan`."""
        return n


def _filter_keys(kind: str, thing: Any) -> type[FilterKeys]:
    if isinstance(thing, type) and issubclass(thing, FilterKeys):
        return thing
    raise TypeError(f"filter {kind!r}: expected a subclass of FilterKeys, got {thing!r}")


FILTERS: Registry[type[FilterKeys]] = Registry(
    "filter", package="aims_pax.samplers.filter_kinds", group="aims_pax.filters", accept=_filter_keys
)


def register_filter(kind: str) -> Callable[[T], T]:
    """Decorator of a subclass of FilterKeys: `{kind: …}` among the filters of a sampler. Raises ValueError where the
    name is taken."""
    return FILTERS.register(kind)


class FilterSettings(Section):
    """A filter of a known kind with its settings."""

    kind: Text
    settings: SerializeAsAny[FilterKeys]


Filters = Annotated[tuple[FilterSettings, ...], Kind("`list`")]

# ---------------------------------------------------------------- samplers


@dataclass(frozen=True)
class SamplerContext:
    """What a run, or `aims-PAX sample`, offers to a sampler that is being made.

    place: where its settings are, `SAMPLERS.0`, for errors. potential: loads the one that `potential` names, or the
    first that another sampler names. load_potential: any other, by (what was written, the place of its key). md_of:
    the section MD of a system. temperature: K, of MD. skip_step: MD steps between two structures where the settings
    say none. reference: labels structures; None outside of a run. stop: whether the sampler should raise Abandoned.
    folder: of the user's own modules and files.
    """

    place: str
    potential: Callable[[], Potential]
    load_potential: Callable[[Any, str], Potential]
    md_of: Callable[[System], MDSettings]
    temperature: float
    skip_step: int
    reference: Potential | None = None
    stop: Callable[[], bool] = lambda: False
    folder: Path = Path()


@dataclass(frozen=True)
class SamplingDemand:
    """What a sampler will be asked for. made: structures of all systems together, passed: of these, what its filters
    are expected to let pass, which the reference labels. skip_step: as in `SamplerContext`."""

    made: float
    passed: float
    systems: Sequence[System]
    skip_step: int


@dataclass(frozen=True)
class SamplingCost:
    """What a sampler costs for a demand.

    reference_calls: beside the labels of what passes. reference_starts: each starting structure is one more, once for
    all samplers. evaluations: of its potential, growing with the demand, and once: whatever the demand; both by a
    name for `plan --json`, which `cost_words` puts into words.
    """

    md_steps: float = 0.0
    reference_calls: float = 0.0
    reference_starts: bool = False
    evaluations: Mapping[str, float] = field(default_factory=dict)
    once: Mapping[str, int] = field(default_factory=dict)


class SamplerSettings(Section):
    """Every sampler has these keys."""

    # what it makes, for the documentation; else the docstring says it
    prose: ClassVar[str] = ""
    # names in SamplingCost → words for `plan`, {} being the number
    cost_words: ClassVar[Mapping[str, str]] = {}
    # optional packages that it imports → what to say where they are missing
    packages: ClassVar[Mapping[str, str]] = {}
    # its potential is the reference: what to do where there is none
    needs_reference: ClassVar[str] = ""
    # its potential must be in float64, for second derivatives
    double_precision: ClassVar[bool] = False
    # `temperature: None` is that of each system in MD, not one for all
    temperature_by_system: ClassVar[bool] = False
    # mandatory keys with values, for the contract test of samplers
    example: ClassVar[Mapping[str, Any]] = {}

    kind: Text = key(..., "One of the kinds below, or `module:callable` of your own.")
    share: OptionalReal = key(
        None,
        "Part of all structures; together 1. Samplers without one divide the rest among them.",
        possible="(0, 1]",
    )
    potential: OptionalPotential = key(
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

    def make(self, context: SamplerContext) -> Sampler:
        """The sampler. Imports what is heavy here, so that settings are read fast."""
        raise NotImplementedError(f"{type(self).__name__} has no make()")

    def cost(self, demand: SamplingDemand) -> SamplingCost:
        """What it costs, for `aims-PAX plan`; nothing that could be said, by default."""
        return SamplingCost()

    def without_reference(self) -> str | None:
        """Why it cannot be made where there is no reference, or None."""
        if not self.needs_reference:
            return None
        return f"{self.kind} needs the reference of a run; {self.needs_reference}"


class OwnSamplerSettings(SamplerSettings):
    """module:callable: a sampler of your own, called with `kwargs`, and with `potential` where that is given."""

    prose: ClassVar[str] = "[your own](extending.md#a-sampler), also from a module in the working folder"
    factory: ClassVar[Callable[..., Any] | None] = None  # of a callable that was registered under a name

    kwargs: Table = key({}, "Keyword arguments of the callable.")

    def make(self, context: SamplerContext) -> Sampler:
        """What the callable returns. Raises SettingsError naming the key."""
        arguments = dict(self.kwargs) | ({} if self.potential is None else {"potential": context.potential()})
        make = type(self).factory
        try:
            made: Sampler = (make or load_factory(self.kind, context.folder))(**arguments)
        except SettingsError as error:
            raise SettingsError(f"{context.place}.kind: {error}") from error
        except TypeError as error:
            raise SettingsError(f"{context.place}.kwargs: {self.kind}: {error}") from error
        return made


def _accepted(kind: str, thing: Any) -> type[SamplerSettings]:
    """Settings of a kind as they are; any other callable, called with `kwargs`."""
    if isinstance(thing, type) and issubclass(thing, SamplerSettings):
        return thing
    if not callable(thing):
        raise TypeError(
            f"sampler {kind!r}: expected a subclass of SamplerSettings, or a callable, got {thing!r}"
        )
    name = getattr(thing, "__qualname__", type(thing).__name__)
    about = " ".join((thing.__doc__ or f"made by {thing.__module__}.{name}").split())
    members = {
        "factory": staticmethod(thing),
        "__module__": __name__,
        "__doc__": f"{kind}: {about}",
        "prose": about,
    }
    return type(f"{name.rpartition('.')[2]}Settings", (OwnSamplerSettings,), members)


KINDS: Registry[type[SamplerSettings]] = Registry(
    "sampler", package="aims_pax.samplers.kinds", group="aims_pax.samplers", accept=_accepted
)
OWN: dict[str, type[SamplerSettings]] = {"module:callable": OwnSamplerSettings}


def register_sampler(kind: str) -> Callable[[T], T]:
    """Decorator of a subclass of SamplerSettings: `{kind: …}` in SAMPLERS.

    Of any other callable, which makes a sampler: it is called with `kwargs`, as `module:callable` is. Raises ValueError
    where the name is taken.
    """
    return KINDS.register(kind)
