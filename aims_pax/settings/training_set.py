"""The configuration of `aims-PAX training-set`: the training-set workflow of mbe-automation, with the same keys.

crystal: crystal.xyz
calculator: {factory: "package.module:callable", kwargs: {}}    # or a foundation size, or the path of a MACE model
md_sampling: {md_crystal: {ensemble: NPT}}
quasi_harmonic: {}
phonon_sampling: {}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ValidationError, model_validator
from pydantic_core import ErrorDetails

from aims_pax.errors import SettingsError
from aims_pax.settings.augment import as_calculator
from aims_pax.settings.fields import (
    Flag,
    Kind,
    OptionalText,
    Real,
    Section,
    Text,
    Whole,
    as_real,
    as_table,
    as_text,
    as_whole,
    key,
    one_of,
    optional,
)
from aims_pax.settings.messages import in_words
from aims_pax.settings.yaml_reader import Document, Problem, read_document


def list_of(convert: Callable[[Any], Any], what: str) -> Callable[[Any], Any]:
    """A reader of lists; a single value counts as a list of one."""

    def read(value: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, list | tuple) else [value]
        if not values:
            raise ValueError(f"expected {what}, got an empty list")
        return tuple(convert(v) for v in values)

    return read


def as_mesh(value: Any) -> str | float | tuple[int, ...]:
    """`gamma`, a radius, or three whole numbers."""
    if isinstance(value, list | tuple):
        if len(value) != 3 or min(map(as_whole, value)) < 1:
            raise ValueError("expected gamma, a radius (Å), or three whole numbers of at least 1")
        return tuple(map(as_whole, value))
    if isinstance(value, str):
        if value.lower() not in ("gamma", "γ"):
            raise ValueError(f"expected gamma, a radius (Å), or three whole numbers, got {value!r}")
        return "gamma"
    radius = as_real(value)
    if not 0 < radius < 1000:
        raise ValueError(f"expected a radius in Å, got {radius:g}")
    return radius


def as_energies(value: Any) -> dict[str, float]:
    return {as_text(k): as_real(v) for k, v in as_table(value).items()}


def as_section(model: type[Section]) -> BeforeValidator:
    """A table; an empty one means the defaults."""
    return BeforeValidator(lambda value: model.model_validate({} if value is None else value))


Calculator = Annotated[Any, BeforeValidator(as_calculator), Kind("`str` or `dict`")]
OptionalCalculator = Annotated[Any, optional(as_calculator), Kind("`str` or `dict`")]
Wholes = Annotated[tuple[int, ...], BeforeValidator(list_of(as_whole, "whole numbers")), Kind("`list`")]
OptionalWholes = Annotated[
    tuple[int, ...] | None, optional(list_of(as_whole, "whole numbers")), Kind("`list` or `None`")
]
OptionalReals = Annotated[
    tuple[float, ...] | None, optional(list_of(as_real, "numbers")), Kind("`list` or `None`")
]
OptionalTexts = Annotated[
    tuple[str, ...] | None, optional(list_of(as_text, "keys")), Kind("`list` or `None`")
]
OptionalReal = Annotated[float | None, optional(as_real), Kind("`float` or `None`")]
Mesh = Annotated[Any, BeforeValidator(as_mesh), Kind("`str`, `float` or `list`")]
Energies = Annotated[dict[str, float] | None, optional(as_energies), Kind("`dict` or `None`")]
Ensemble = Annotated[str, one_of("NVT", "NPT"), Kind("`str`")]
NVT = Annotated[str, one_of("csvr", "langevin"), Kind("`str`")]
NPT = Annotated[str, one_of("mtk_full", "mtk_isotropic"), Kind("`str`")]
Relaxation = Annotated[str, one_of("full", "constant_volume", "only_atoms"), Kind("`str`")]
Amplitudes = Annotated[str, one_of("gaussian", "uniform", "time", "scan", random="uniform"), Kind("`str`")]
SelectionRule = Annotated[
    str,
    one_of(
        "closest_to_center_of_mass",
        "closest_to_central_molecule",
        "max_min_distance_to_central_molecule",
        "max_max_distance_to_central_molecule",
    ),
    Kind("`str`"),
]
Between = Annotated[str, one_of("center_of_mass", "atoms"), Kind("`str`")]

TEMPERATURE: dict[str, Any] = {"unit": "K", "possible": "[0, 1e5]", "plausible": "[1, 5000]", "usual": 300.0}
RADIUS: dict[str, Any] = {"unit": "Å", "possible": "(0, 1000]", "plausible": "[1, 100]"}
CLUSTERS = "finite_subsystem_filter"
TIME: dict[str, Any] = {"unit": "fs", "possible": "(0, 1e9]", "unit_confusions": {"ps": 1000.0}}


class FiniteSubsystemFilter(Section):
    """finite_subsystem_filter: which finite clusters are cut out of the periodic frames."""

    selection_rule: SelectionRule = key("closest_to_central_molecule", "Rule that selects the molecules.")
    n_molecules: Wholes = key(
        (1, 2, 3, 4, 5, 6, 7, 8),
        "Molecules in each cluster, for the `closest_to_…` rules; sizes that do not occur in the crystal are skipped.",
        possible="[1, 1000000]",
    )
    distances: OptionalReals = key(None, "Cutoffs of the `max_…` rules (Å).", unit="Å", possible="(0, 1000]")
    assert_identical_composition: Flag = key(
        True, "Refuse a crystal whose molecules differ in their composition."
    )
    distance_between: Between = key(
        "center_of_mass",
        "What `closest_to_central_molecule` measures: `center_of_mass`, or `atoms` for the nearest two atoms (as "
        "mbe-automation's code does).",
    )

    def oddities(self) -> Iterator[tuple[str, str]]:
        """Also keys that only another rule uses."""
        yield from super().oddities()
        why = f"selection_rule is {self.selection_rule}"
        yield from self.unused("n_molecules" if self.selection_rule.startswith("max_") else "distances", why)
        if self.selection_rule != "closest_to_central_molecule":
            yield from self.unused("distance_between", why)


class ClassicalMD(Section):
    """md_crystal: the molecular dynamics."""

    ensemble: Ensemble = key("NVT", "`NVT` or `NPT`.")
    time_total_fs: Real = key(50000.0, "Length of the trajectory, including equilibration (fs).", **TIME)
    time_step_fs: Real = key(0.5, "Time step (fs).", unit="fs", possible="(0, 100]", plausible="[0.05, 10]")
    sampling_interval_fs: Real = key(50.0, "Time between two frames (fs).", **TIME)
    time_equilibration_fs: Real = key(
        5000.0, "Length of the discarded start of the trajectory (fs).", unit="fs", possible="[0, 1e9]"
    )
    nvt_algo: NVT = key("csvr", "Thermostat of `NVT`: `csvr` (stochastic velocity rescaling) or `langevin`.")
    npt_algo: NPT = key(
        "mtk_full",
        "Barostat of `NPT`: `mtk_full` (cell of any shape) or `mtk_isotropic` (only the volume changes).",
    )
    thermostat_time_fs: Real = key(100.0, "Relaxation time of the thermostat (fs).", **TIME)
    barostat_time_fs: Real = key(1000.0, "Relaxation time of the barostat (fs).", **TIME)
    supercell_radius: Real = key(25.0, "Least distance of periodic images in the supercell (Å).", **RADIUS)

    def oddities(self) -> Iterator[tuple[str, str]]:
        """Also keys that only the other ensemble uses."""
        yield from super().oddities()
        others = {"NVT": "npt_algo barostat_time_fs", "NPT": "nvt_algo"}
        yield from self.unused(others[self.ensemble], f"ensemble is {self.ensemble}")


class ModeSelection(Section):
    """Keys that select modes of vibration: a window of frequencies, or numbers."""

    selected_modes: OptionalWholes = key(
        None,
        "Numbers of the modes at each q-point, from 1, lowest frequency first; the frequency window is then ignored.",
        possible="[1, 1000000]",
    )
    freq_min_THz: Real = key(0.1, "Lowest frequency of a mode (THz).", possible="[0, 1000]")
    freq_max_THz: OptionalReal = key(
        8.0, "Highest frequency of a mode (THz); `None`: no limit.", possible="(0, 1e4]"
    )

    @model_validator(mode="after")
    def _has_width(self) -> Self:
        low, high = self.freq_min_THz, self.freq_max_THz
        if self.selected_modes is None and high is not None and low >= high:
            raise ValueError(f"expected freq_min_THz ({low:g}) below freq_max_THz ({high:g})")
        return self

    def oddities(self) -> Iterator[tuple[str, str]]:
        """Also the window where modes are selected by their numbers."""
        yield from super().oddities()
        if self.selected_modes is not None:
            yield from self.unused("freq_min_THz freq_max_THz", "selected_modes is set")


class PhononFilter(ModeSelection):
    """phonon_filter: which phonons are sampled."""

    k_point_mesh: Mesh = key(
        "gamma", "`gamma`, a radius (Å; the q-points of that supercell), or three whole numbers."
    )


class _Step(Section):
    crystal: OptionalText = key(None, "Structure of this step; default: `crystal` at the top level.")
    calculator: OptionalCalculator = key(
        None, "Potential of this step; default: `calculator` at the top level."
    )
    dataset: OptionalText = key(None, "HDF5 file of this step; default: `dataset` at the top level.")
    work_dir: OptionalText = key(
        None, "Folder of the extended XYZ files; default: `work_dir` at the top level."
    )


class MDSampling(_Step):
    """md_sampling: frames of a molecular dynamics simulation."""

    temperature_K: Real = key(298.15, "Temperature (K).", **{**TEMPERATURE, "possible": "(0, 1e5]"})
    pressure_GPa: Real = key(1.0e-4, "Pressure of `NPT` (GPa).", possible="[-10, 1000]")
    finite_subsystem_filter: Annotated[FiniteSubsystemFilter, as_section(FiniteSubsystemFilter)] = key(
        FiniteSubsystemFilter(), "Finite clusters; a table of its own."
    )
    finite_subsystems: Flag = key(
        True, "Cut finite clusters out; `False` for crystals that are no molecules."
    )
    md_crystal: Annotated[ClassicalMD, as_section(ClassicalMD)] = key(
        ClassicalMD(), "Molecular dynamics; a table of its own."
    )
    root_key: Text = key("training/md_sampling", "Group of the HDF5 file.")

    @property
    def cell_change(self) -> tuple[str, str] | None:
        """What changes the cell, and what to do instead; for `read_crystal`."""
        return ("NPT does not support", "use NVT") if self.md_crystal.ensemble == "NPT" else None

    def oddities(self) -> Iterator[tuple[str, str]]:
        """Also the pressure of NVT, and clusters that are not cut out."""
        yield from super().oddities()
        if self.md_crystal.ensemble == "NVT":
            yield from self.unused("pressure_GPa", "ensemble is NVT")
        if not self.finite_subsystems:
            yield from self.unused(CLUSTERS, "finite_subsystems is False")


class FreeEnergy(_Step):
    """quasi_harmonic: relaxed crystal and force constants."""

    thermal_expansion: Flag = key(
        True,
        "Compute force constants at the quasi-harmonic equilibrium volume; `False`: at the relaxed input cell.",
    )
    temperature_K: Real = key(298.15, "Temperature of the equilibrium volume (K).", **TEMPERATURE)
    pressure_GPa: Real = key(1.0e-4, "Pressure of the equilibrium volume (GPa).", possible="[-10, 1000]")
    supercell_radius: Real = key(25.0, "Least distance of periodic images in the supercell (Å).", **RADIUS)
    relax_input_cell: Relaxation = key(
        "constant_volume", "Relaxation of the input cell: `full`, `constant_volume` or `only_atoms`."
    )
    fmax: Real = key(1e-4, "Largest force on an atom after relaxation (eV/Å).", possible="(0, 1]")
    root_key: Text = key("training/quasi_harmonic", "Group of the HDF5 file.")

    def oddities(self) -> Iterator[tuple[str, str]]:
        """Also temperature and pressure of an equilibrium volume that is not determined."""
        yield from super().oddities()
        if not self.thermal_expansion:
            yield from self.unused("temperature_K pressure_GPa", "thermal_expansion is False")

    @property
    def cell_change(self) -> tuple[str, str] | None:
        """What changes the cell, and what to do instead; for `read_crystal`."""
        relaxed = self.relax_input_cell != "only_atoms"
        changing = [f"relax_input_cell: {self.relax_input_cell}"] * relaxed
        changing += ["thermal_expansion: True"] * self.thermal_expansion
        if not changing:
            return None
        support = "do not support" if len(changing) > 1 else "does not support"
        return f"{' and '.join(changing)} {support}", "set only_atoms and thermal_expansion: False"

    @property
    def force_constants_key(self) -> str:
        """Group of the force constants in the HDF5 file: …/phonons/crystal[opt:atoms,shape]/force_constants."""
        moved = {"only_atoms": "atoms", "constant_volume": "atoms,shape", "full": "atoms,shape,volume"}
        what = f"opt:{moved[self.relax_input_cell]}"
        if self.thermal_expansion:
            what = f"eq:T={self.temperature_K:.2f},p={self.pressure_GPa:.5f}"
        return f"{self.root_key}/phonons/crystal[{what}]/force_constants"


class PhononSampling(_Step):
    """phonon_sampling: frames displaced along phonons."""

    temperature_K: Real = key(298.15, "Temperature (K).", **TEMPERATURE)
    finite_subsystem_filter: Annotated[FiniteSubsystemFilter, as_section(FiniteSubsystemFilter)] = key(
        FiniteSubsystemFilter(), "Finite clusters; a table of its own."
    )
    finite_subsystems: Flag = key(
        True, "Cut finite clusters out; `False` for crystals that are no molecules."
    )
    phonon_filter: Annotated[PhononFilter, as_section(PhononFilter)] = key(
        PhononFilter(), "Which phonons; a table of its own."
    )
    force_constants_dataset: OptionalText = key(
        None, "HDF5 file with the force constants; default: `dataset`."
    )
    force_constants_key: OptionalText = key(
        None, "Group of the force constants in the HDF5 file; default: the one that `quasi_harmonic` writes."
    )
    time_step_fs: Real = key(100.0, "Time between frames, for `amplitudes: time` (fs).", **TIME)
    n_frames: Whole = key(
        20,
        "Number of frames; with `per_mode`, for each mode.",
        possible="[1, 100000000]",
        plausible="[1, 1000000]",
    )
    per_mode: Flag = key(
        False,
        "Displace one mode at a time (mbe-automation's documentation) instead of all at once (its code).",
    )
    amplitudes: Amplitudes = key(
        "gaussian",
        "Amplitudes of the modes. `gaussian`: canonical ensemble; `uniform` (mbe-automation's code), `time` (its "
        "documentation) and `scan` give smaller displacements.",
    )
    root_key: Text = key("training/phonon_sampling", "Group of the HDF5 file.")

    def oddities(self) -> Iterator[tuple[str, str]]:
        """Also a crystal besides that of the force constants, times without a trajectory, and clusters not cut out."""
        yield from super().oddities()
        yield from self.unused("crystal", "the structure is that of the force constants")
        if self.amplitudes != "time":
            yield from self.unused("time_step_fs", f"amplitudes is {self.amplitudes}")
        if not self.finite_subsystems:
            yield from self.unused(CLUSTERS, "finite_subsystems is False")


class DeltaLearning(_Step):
    """delta_learning: training data for the difference target − baseline on the sampled structures."""

    target: Calculator = key(..., "Potential or method to be learnt.")
    baseline: OptionalCalculator = key(
        None, "Potential that is subtracted from the target; default: `calculator`."
    )
    target_level: Text = key("target", "Name of the target in the HDF5 file, `E_<level> (eV∕atom)`.")
    baseline_level: Text = key("baseline", "Name of the baseline in the HDF5 file.")
    target_E0: Energies = key(
        None, "Energies of the isolated atoms {element: eV}; missing ones are computed with `target`."
    )
    baseline_E0: Energies = key(None, "The same for the baseline.")
    root_keys: OptionalTexts = key(
        None, "HDF5 groups with the structures to use; default: the finite clusters of all steps."
    )
    output: Text = key("delta.xyz", "Extended XYZ file in `work_dir`.")

    def oddities(self) -> Iterator[tuple[str, str]]:
        """Also a crystal, and a calculator besides a baseline."""
        yield from super().oddities()
        yield from self.unused("crystal", "the structures are those of earlier steps")
        if self.baseline is not None:
            yield from self.unused("calculator", "baseline is set")


class TrainingSet(Section):
    """The whole file."""

    crystal: OptionalText = key(None, "Crystal structure, any format ASE reads.")
    calculator: OptionalCalculator = key(
        None,
        "`{factory, kwargs}`, a [foundation model](foundation_models.md) (`so3lr`, `chgnet`, `small`, …), or the path "
        "of a MACE model.",
    )
    dataset: Text = key("training_set.hdf5", "HDF5 file in which all results are stored.")
    work_dir: Text = key(".", "Folder of the extended XYZ files.")
    seed: Whole = key(42, "Seed for all random numbers.", possible="[0, 4294967295]")
    md_sampling: MDSampling | None = key(
        None, "Molecular dynamics. A step whose table is missing is skipped."
    )
    quasi_harmonic: FreeEnergy | None = key(None, "Force constants.")
    phonon_sampling: PhononSampling | None = key(None, "Phonons.")
    delta_learning: DeltaLearning | None = key(None, "Delta-learning data.")

    def of(self, section: _Step, name: str) -> Any:
        """`crystal`, `calculator`, `dataset` or `work_dir` of a step, by default from the top level."""
        own = getattr(section, name)
        return getattr(self, name) if own is None else own


STEPS = ("md_sampling", "quasi_harmonic", "phonon_sampling", "delta_learning")


def read_training_set(path: Path) -> tuple[TrainingSet, tuple[str, ...]]:
    """The configuration at `path`, and warnings. Raises SettingsError that lists all mistakes, one per line."""
    document = read_document(path, str(path))
    data = {k: {} if k in STEPS and v is None else v for k, v in document.data.items()}
    try:
        settings = TrainingSet.model_validate(data)
    except ValidationError as error:
        problems = [document.problem(_place(d), _explained(d)) for d in error.errors(include_url=False)]
        raise SettingsError("\n".join(str(p) for p in sorted(set(problems)))) from error
    problems = _inconsistent(settings, document)
    if problems:
        raise SettingsError("\n".join(str(p) for p in problems))
    return settings, tuple(_oddities(settings, document))


def _inconsistent(settings: TrainingSet, document: Document) -> list[Problem]:
    """Errors that concern several keys."""
    found = []
    asked = [name for name in STEPS if getattr(settings, name) is not None]
    if not asked:
        found.append(document.problem((), f"nothing to do; expected one of the tables {', '.join(STEPS)}"))
    for name in asked:
        section = getattr(settings, name)
        needs = {"md_sampling": "crystal", "quasi_harmonic": "crystal"}
        if name in needs and settings.of(section, "crystal") is None:
            found.append(
                document.problem(
                    (name,), "crystal: mandatory. The crystal structure, here or at the top level"
                )
            )
        no_calculator = settings.of(section, "calculator") is None
        if no_calculator and not (name == "delta_learning" and section.baseline is not None):
            found.append(
                document.problem((name,), "calculator: mandatory. The potential, here or at the top level")
            )
        rule = getattr(section, "finite_subsystem_filter", None)
        if rule is not None and rule.selection_rule.startswith("max_") and not rule.distances:
            place = (name, "finite_subsystem_filter", "selection_rule")
            found.append(document.problem(place, f"{rule.selection_rule} needs distances (Å)"))
    if settings.md_sampling is not None:
        found += _uneven(settings.md_sampling.md_crystal, document)
    phonons = settings.phonon_sampling
    if phonons is not None and phonons.force_constants_key is None and settings.quasi_harmonic is None:
        text = "mandatory without a table quasi_harmonic. Group of the force constants in the HDF5 file"
        found.append(document.problem(("phonon_sampling", "force_constants_key"), text))
    return found


def _uneven(md: ClassicalMD, document: Document) -> list[Problem]:
    """Errors for times that do not fit together."""
    place = ("md_sampling", "md_crystal")
    steps = md.sampling_interval_fs / md.time_step_fs
    found = []
    if abs(steps - round(steps)) > 1e-6 or round(steps) < 1:
        text = f"expected a multiple of time_step_fs ({md.time_step_fs:g} fs), got {md.sampling_interval_fs:g} fs"
        found.append(document.problem((*place, "sampling_interval_fs"), text))
    if md.time_equilibration_fs > md.time_total_fs:
        text = f"{md.time_equilibration_fs:g} fs is longer than time_total_fs ({md.time_total_fs:g} fs): no frames left"
        found.append(document.problem((*place, "time_equilibration_fs"), text))
    return found


def _oddities(section: Section, document: Document, place: tuple[str, ...] = ()) -> list[str]:
    found = [str(document.problem((*place, k), text)) for k, text in section.oddities()]
    for name in type(section).model_fields:
        inner = getattr(section, name)
        if isinstance(inner, Section):
            found += _oddities(inner, document, (*place, name))
    return found


def _place(detail: ErrorDetails) -> tuple[str | int, ...]:
    return tuple(detail["loc"])


def _explained(detail: ErrorDetails) -> str:
    """One validation error as text."""
    *tables, name = (str(x) for x in detail["loc"])
    model: type[Section] = TrainingSet
    for table in tables:
        model = MODELS.get(table, model)
    if detail["type"] in ("model_type", "model_attributes_type"):
        return f"expected a table; it holds {', '.join(MODELS[name].model_fields)}"
    homes = [home for home, other in MODELS.items() if name in other.model_fields]
    return in_words(detail, model, f"it belongs to {' or '.join(homes)}" if homes else "")


MODELS: Mapping[str, type[Section]] = {
    "md_sampling": MDSampling,
    "md_crystal": ClassicalMD,
    "finite_subsystem_filter": FiniteSubsystemFilter,
    "quasi_harmonic": FreeEnergy,
    "phonon_sampling": PhononSampling,
    "phonon_filter": PhononFilter,
    "delta_learning": DeltaLearning,
}
