"""SAMPLERS in aimsPAX.yaml and in the configuration of `aims-PAX sample`: the sources of structures and their shares.

SAMPLERS:
  - {kind: md, share: 0.5, potential: {factory: "package.module:callable", kwargs: {}}, temperature: 500}
  - {kind: rattle_tree, share: 0.3, temperature: 500, beta: 0.5, sigma_range: [0.05, 0.2]}
  - {kind: phonons, share: 0.2, temperature: 300, filters: [sanity, {kind: duplicates, by: descriptor}]}

A kind is a subclass of `SamplerSettings`, registered under its name: its fields are the keys that a user writes, `make`
builds the sampler, `cost` is the estimate for `aims-PAX plan`. The built-in kinds are one file each in
`aims_pax/samplers/kinds/`, imported only when a settings file names them (`KINDS`). docs/extending.md explains how to
add one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import SerializeAsAny

from aims_pax.errors import SettingsError
from aims_pax.potential import Potential
from aims_pax.registry import Registry
from aims_pax.sampler import Filter, Sampler
from aims_pax.settings.augment import OptionalReal, as_calculator
from aims_pax.settings.fields import Kind, Section, Table, Text, key, one_of, optional
from aims_pax.settings.md import MDSettings
from aims_pax.systems import System
from aims_pax.user_code import load_factory

T = TypeVar("T")
NAME = "SAMPLERS"
MACE_MP0 = ("mace-mp0", "MACE-MP0")  # the size `small`
# keys that SAMPLERS replace
REPLACED = (
    "initial_sampling",
    "initial_calculator",
    "initial_foundational_size",
)


SURROGATE = "surrogate.gpr"  # a potential: a Gaussian process of the labels of the run so far
NEEDS_FEATOMIC = {"featomic": "Gaussian processes need featomic: pip install 'aims-pax[gpr]'"}


@dataclass(frozen=True)
class SurrogateKeys:
    """`surrogate.gpr`, or `{factory: surrogate.gpr, kwargs: {baseline: …, data: …}}`.

    baseline: the prior mean, a potential as it was written. data: file of labels to learn besides those of the run.
    """

    baseline: Any = None
    data: str | None = None


def as_surrogate(value: Any) -> SurrogateKeys | None:
    """The keys of a surrogate; None for another potential. Raises ValueError for a wrong key."""
    if value == SURROGATE:
        return SurrogateKeys()
    if not isinstance(value, dict) or value.get("factory") != SURROGATE:
        return None
    kwargs = value.get("kwargs") or {}
    if (
        set(value) - {"factory", "kwargs"}
        or not isinstance(kwargs, dict)
        or set(kwargs) - {"baseline", "data"}
    ):
        raise ValueError(f"expected {{factory: {SURROGATE}, kwargs: {{baseline: …, data: …}}}}")
    baseline, data = kwargs.get("baseline"), kwargs.get("data")
    if baseline is not None:
        as_spelling(baseline)
    if data is not None and not isinstance(data, str):
        raise ValueError("data: expected the name of a file with labelled structures")
    return SurrogateKeys(baseline, data)


def as_spelling(value: Any) -> Any:
    """A potential as it was written. Raises ValueError if it is not a valid one."""
    if as_surrogate(value) is not None:
        raise ValueError(
            f"{SURROGATE} learns the labels of a run; only samplers of SAMPLERS can have it as potential"
        )
    if value not in MACE_MP0:
        as_calculator(value)
    return value


def _sampler_potential(value: Any) -> Any:
    return as_spelling(value) if as_surrogate(value) is None else value


OptionalPotential = Annotated[Any, optional(as_spelling), Kind("`dict`, `str` or `None`")]
SamplerPotential = Annotated[Any, optional(_sampler_potential), Kind("`dict`, `str` or `None`")]
Descriptor = Annotated[str, one_of("radial", "mace"), Kind("`str`")]
TEMPERATURE: dict[str, Any] = {
    "unit": "K", "possible": "(0, 100000]", "plausible": "[10, 5000]", "usual": 300.0,
}  # fmt: skip

# ---------------------------------------------------------------- filters


@dataclass(frozen=True)
class FilterContext:
    """What a filter can use when it is built. place: its place in the settings, for errors.

    mace: loads the descriptor `mace`: features of the MACE model that is the sampler's potential. radial: the
    built-in descriptor. Both map the frames of one system to one row each (`samplers.descriptors`).
    """

    place: str
    mace: Callable[[], Callable[..., Any]]
    radial: Callable[..., Any]

    def describe(self, descriptor: str) -> Callable[..., Any]:
        """The descriptor of this name."""
        return self.mace() if descriptor == "mace" else self.radial


class FilterKeys(Section):
    """The keys of one kind of filter, other than `kind`; registered under its name by `register_filter`."""

    prose: ClassVar[str] = ""  # what it removes, for the documentation; default: the docstring

    def make(self, context: FilterContext) -> Filter:
        """Build the filter."""
        raise NotImplementedError(f"{type(self).__name__} has no make()")

    def needed(self, n: float) -> float:
        """Estimated input structures of a system for n to pass the filter; for `plan`."""
        return n


def _filter_keys(kind: str, thing: Any) -> type[FilterKeys]:
    if isinstance(thing, type) and issubclass(thing, FilterKeys):
        return thing
    raise TypeError(f"filter {kind!r}: expected a subclass of FilterKeys, got {thing!r}")


FILTERS: Registry[type[FilterKeys]] = Registry(
    "filter", package="aims_pax.samplers.filter_kinds", group="aims_pax.filters", accept=_filter_keys
)


def register_filter(kind: str) -> Callable[[T], T]:
    """Decorator for a subclass of FilterKeys: makes `{kind: …}` available as a filter.

    Raises ValueError if the name is taken.
    """
    return FILTERS.register(kind)


class FilterSettings(Section):
    """A filter of a known kind with its settings."""

    kind: Text
    settings: SerializeAsAny[FilterKeys]


Filters = Annotated[tuple[FilterSettings, ...], Kind("`list`")]

# ---------------------------------------------------------------- samplers


@dataclass(frozen=True)
class SamplerContext:
    """What a sampler can use when it is built by a run or by `aims-PAX sample`.

    place: place of its settings, `SAMPLERS.0`, for errors. potential: loads the potential set by `potential`, or the
    first one set by another sampler. load_potential: loads any other, from (value in the settings, place of its key).
    md_of: the section MD of a system. temperature: K, from MD. skip_step: default MD steps between two structures.
    reference: labels structures; None outside of a run. stop: whether the sampler should raise Abandoned.
    folder: folder with the user's own modules and files. advance: moves trajectories with the potential, as
    `md.advance` does, perhaps in several processes; None: `md.advance`.
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
    advance: Callable[..., Any] | None = None


@dataclass(frozen=True)
class SamplingDemand:
    """How many structures a sampler will have to make.

    made: structures of all systems together. passed: how many of these are expected to pass its filters and be
    labelled by the reference. skip_step: as in `SamplerContext`.
    """

    made: float
    passed: float
    systems: Sequence[System]
    skip_step: int


@dataclass(frozen=True)
class SamplingCost:
    """Estimated cost of a sampler for a demand.

    reference_calls: in addition to the labels of structures that pass the filters. reference_starts: one more reference
    calculation per starting structure, counted once for all samplers. evaluations: of its potential, proportional to
    the demand. once: independent of the demand. Both are keyed by a name for `plan --json`; `cost_words` has the text.
    """

    md_steps: float = 0.0
    reference_calls: float = 0.0
    reference_starts: bool = False
    evaluations: Mapping[str, float] = field(default_factory=dict)
    once: Mapping[str, int] = field(default_factory=dict)


class SamplerSettings(Section):
    """Every sampler has these keys."""

    # what it makes, for the documentation; default: the docstring
    prose: ClassVar[str] = ""
    # names in SamplingCost → text for `plan`, {} is replaced by the number
    cost_words: ClassVar[Mapping[str, str]] = {}
    # optional packages that it imports → message if they are missing
    packages: ClassVar[Mapping[str, str]] = {}
    # non-empty if its potential is the reference: advice if there is no reference
    needs_reference: ClassVar[str] = ""
    # its potential must be in float64, for second derivatives
    double_precision: ClassVar[bool] = False
    # `temperature: None` means the temperature of each system in MD, not one for all
    temperature_by_system: ClassVar[bool] = False
    # values for mandatory keys, for the contract test of samplers
    example: ClassVar[Mapping[str, Any]] = {}

    kind: Text = key(..., "One of the kinds below, or your own `module:callable`.")
    share: OptionalReal = key(
        None,
        "Fraction of all structures; the shares sum to 1. Samplers without a share divide the rest equally.",
        possible="(0, 1]",
    )
    potential: SamplerPotential = key(
        None,
        "`{factory, kwargs}` of an ASE calculator, a [foundation model](foundation_models.md) (`so3lr`, `chgnet`, "
        "`small`, …; `mace-mp0` is `small`), or the path of a MACE model; `surrogate.gpr`, a [Gaussian "
        "process](gaussian_processes.md#in-the-initial-dataset) of the labels of the run so far; `None`: that of the "
        "first sampler that sets one, otherwise `small`.",
    )
    filters: Filters = key(
        (), "Filters that reject structures, applied one after the other: names, or tables `{kind: …}`."
    )

    @property
    def needed_packages(self) -> Mapping[str, str]:
        """`packages`, and those of a surrogate as its potential."""
        return self.packages if as_surrogate(self.potential) is None else {**self.packages, **NEEDS_FEATOMIC}

    @property
    def label(self) -> str:
        """Its name in logs and in the origin of frames."""
        return self.kind

    def make(self, context: SamplerContext) -> Sampler:
        """Build the sampler. Import heavy packages here, so that reading settings stays fast."""
        raise NotImplementedError(f"{type(self).__name__} has no make()")

    def cost(self, demand: SamplingDemand) -> SamplingCost:
        """Estimated cost, for `aims-PAX plan`; zero by default."""
        return SamplingCost()

    def dynamics(self) -> dict[str, Any] | None:
        """The keys that override the section MD in its molecular dynamics; None: it does none with this section."""
        return None

    def takes_temperature_of_md(self) -> bool:
        """Whether it needs a temperature and has none of its own."""
        return getattr(self, "temperature", 0.0) is None

    def problems(self, folder: Path) -> Iterator[tuple[str, str]]:
        """(key, what is wrong) for keys that contradict each other, and for files that are not in the folder."""
        return iter(())

    def refuses(self, system: System) -> Iterator[tuple[str, str]]:
        """(key, text) for values that this geometry does not support."""
        return iter(())

    def without_reference(self) -> str | None:
        """Why it cannot be built without a reference, or None."""
        surrogate = as_surrogate(self.potential)
        if surrogate is not None and surrogate.data is None:
            return f"its potential {SURROGATE} learns from labels, which only a run has; give data"
        if not self.needs_reference:
            return None
        return f"{self.kind} needs the reference of a run; {self.needs_reference}"


class OwnSamplerSettings(SamplerSettings):
    """module:callable: your own sampler, called with `kwargs`, and with `potential` if it is set."""

    prose: ClassVar[str] = "[your own](extending.md#a-sampler), also from a module in the working folder"
    factory: ClassVar[Callable[..., Any] | None] = None  # the callable, if it was registered under a name

    kwargs: Table = key({}, "Keyword arguments of the callable.")

    def make(self, context: SamplerContext) -> Sampler:
        """The sampler that the callable returns. Raises SettingsError naming the key."""
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
    """A SamplerSettings class as it is; for any other callable, a class that calls it with `kwargs`."""
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
    """Decorator for a subclass of SamplerSettings: makes `{kind: …}` available in SAMPLERS.

    Any other callable must return a sampler; it is called with `kwargs`, like `module:callable`. Raises ValueError if
    the name is taken.
    """
    return KINDS.register(kind)
