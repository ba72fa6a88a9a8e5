"""Keys that have no effect in combination with other settings.

Each entry of the table: section, keys, when they have no effect, and why. A warning appears when the user set
such a key to a value other than its default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aims_pax.schedulers.registry import known_schedulers
from aims_pax.settings.fields import Section
from aims_pax.settings.foundation import NAME as FOUNDATION
from aims_pax.settings.foundation import REPLAY, FoundationSettings
from aims_pax.settings.mace import FROM_REFERENCE, ArchitectureSettings, TrainingSettings
from aims_pax.settings.model import MACE_KIND
from aims_pax.settings.model import NAME as MODEL
from aims_pax.settings.pretraining import NAME as PRETRAINING
from aims_pax.settings.samplers import NAME as SAMPLERS
from aims_pax.settings.samplers import SamplerSettings


class BrokenSectionError(Exception):
    """A rule needs a section that could not be read; the rule is skipped."""


class Parts:
    """The sections read so far. An absent one is None; accessing an invalid one raises `BrokenSectionError`.

    `md` is a map from system name to MDSettings; a single table for all systems has the name "".
    """

    def __init__(self, sections: dict[str, Any], broken: set[str]) -> None:
        self.sections = sections
        self.broken = broken

    def __getitem__(self, name: str) -> Any:
        if name in self.broken:
            raise BrokenSectionError(name)
        return self.sections.get(name)

    @property
    def initial(self) -> Any:
        return self["INITIAL_DATASET_GENERATION"]

    @property
    def active(self) -> Any:
        return self["ACTIVE_LEARNING"]

    @property
    def cluster(self) -> Any:
        return self["CLUSTER"]

    @property
    def md(self) -> dict[str, Any]:
        return self["MD"]  # type: ignore[no-any-return]

    @property
    def misc(self) -> Any:
        return self["MISC"]

    @property
    def general(self) -> Any:
        return self["GENERAL"]

    @property
    def training(self) -> Any:
        return self["TRAINING"]

    @property
    def architecture(self) -> Any:
        return self["ARCHITECTURE"]

    @property
    def foundation(self) -> Any:
        return self[FOUNDATION]

    @property
    def samplers(self) -> tuple[SamplerSettings, ...]:
        """Those of the initial dataset and of pre-training."""
        pretraining = self[PRETRAINING]
        return (*(self[SAMPLERS] or ()), *(() if pretraining is None else pretraining.samplers))

    @property
    def mace(self) -> bool:
        """Whether the models are MACE; assumed if MODEL cannot be read."""
        return MODEL in self.broken or bool(self[MODEL].kind == MACE_KIND)

    @property
    def aims(self) -> bool:
        return bool(self["REFERENCE"].type == "aims")

    @property
    def gpu(self) -> bool:
        """Whether the models are evaluated on a GPU."""
        return bool(self["mace.MISC"].device != "cpu")

    @property
    def batch(self) -> bool:
        """Whether calculations run in jobs of a scheduler."""
        return bool(self.cluster.type != "local")


@dataclass(frozen=True)
class NoEffect:
    section: str  # mace.MISC for MISC of mace.yaml
    keys: str  # separated by spaces
    when: Callable[[Parts, Any], bool]  # (all sections, this section)
    why: str


INITIAL, ACTIVE = "INITIAL_DATASET_GENERATION", "ACTIVE_LEARNING"
CONVERGENCE = "convergence_patience max_convergence_epochs final_training convergence_criterion"
COUPLED, NOSE_HOOVER = "taut taup pressure_au", "external_stress pfactor ttime"


def _nvt(_: Parts, md: Any) -> bool:
    return bool(md.stat_ensemble == "NVT")


def _nvt_with(thermostat: str) -> Callable[[Parts, Any], bool]:
    return lambda _, md: md.stat_ensemble == "NVT" and md.thermostat == thermostat


def _npt_with(*barostats: str) -> Callable[[Parts, Any], bool]:
    return lambda _, md: md.stat_ensemble == "NPT" and md.barostat in barostats


def _calculator(parts: Parts, _: Any) -> bool:
    return not parts.aims


def _other_type(name: str) -> Callable[[Parts, Any], bool]:
    return lambda _, cluster: cluster.type != name


def _no_labelled_files(p: Parts, misc: Any) -> bool:
    active = p.active
    return misc.test_set is None and not (
        active and (active.initial_train_dataset or active.initial_valid_dataset)
    )


def _not_mace(parts: Parts, _: Any) -> bool:
    return not parts.mace


def _given_models(parts: Parts, _: Any) -> bool:
    return parts.mace and parts.active is not None and parts.active.initial_models is not None


def _converges(parts: Parts) -> bool:
    """Whether members are trained until they stop improving, at any stage."""
    initial, active = parts.initial, parts.active
    converged = (initial and initial.converge_initial) or (active and active.converge_al)
    return bool(converged) or parts[PRETRAINING] is not None


ONLY_MACE = "MODEL.kind is not mace"

TABLE = (
    NoEffect("ARCHITECTURE", " ".join(ArchitectureSettings.model_fields), _not_mace, ONLY_MACE),
    NoEffect("TRAINING", " ".join(TrainingSettings.model_fields), _not_mace, ONLY_MACE),
    NoEffect(FOUNDATION, " ".join(FoundationSettings.model_fields), _not_mace, ONLY_MACE),
    NoEffect(
        FOUNDATION,
        "replay_data replay_share",
        lambda _, s: s.recipe != REPLAY,
        f"only recipe: {REPLAY} uses it",
    ),
    NoEffect(
        "ARCHITECTURE",
        "compute_avg_num_neighbors scaling",
        lambda p, _: p.foundation is not None,
        "scale and mean number of neighbours are those of the foundation model",
    ),
    NoEffect(
        "ARCHITECTURE",
        "compute_avg_num_neighbors scaling",
        _given_models,
        "scale and mean number of neighbours are those of initial_models",
    ),
    NoEffect(
        "ARCHITECTURE",
        "atomic_energies",
        lambda p, s: _given_models(p, s) and s.atomic_energies == FROM_REFERENCE,
        "initial_models contain their own",
    ),
    NoEffect(
        "ARCHITECTURE",
        "interaction gate MLP_irreps max_L",
        lambda p, s: p.mace and s.num_interactions == 1,
        "num_interactions is 1: the only layer has interaction_first, scalar features and a linear readout",
    ),
    NoEffect("mace.MISC", "inference enable_cueq cuda_graphs", _not_mace, ONLY_MACE),
    NoEffect("mace.MISC", "cuda_graphs", lambda p, _: not p.gpu, "the models are evaluated on the CPU"),
    NoEffect(INITIAL, "species_dir", _calculator, "the reference is a calculator"),
    NoEffect(ACTIVE, "species_dir", _calculator, "the reference is a calculator"),
    NoEffect("CLUSTER", "launch_str", _calculator, "the reference is a calculator"),
    NoEffect("MISC", "path_to_control", _calculator, "the reference is a calculator"),
    NoEffect("REFERENCE", "retries", lambda p, _: not p.aims, "only FHI-aims uses it"),
    NoEffect(
        "REFERENCE",
        "factory kwargs charge_key spin_key spin_convention",
        lambda p, _: p.aims,
        "REFERENCE.type is aims",
    ),
    NoEffect(
        "REFERENCE",
        "factory kwargs charge_key spin_key spin_convention",
        lambda _, s: s.type == "given",
        "REFERENCE.type is given",
    ),
    NoEffect(
        ACTIVE,
        "num_trajectories max_MD_steps max_train_set_size skip_step_mlff c_x acquisition window_steps "
        "labels_per_window selection start_structures energy_limit spread_limit epochs_before_exploration threshold "
        "audit_share bias md_force",
        lambda _, s: s.max_labels == 0,
        "there is no active learning (max_labels: 0)",
    ),
    NoEffect(
        "CLUSTER",
        "project_name parsl_options worker_str",
        lambda p, _: not p.batch,
        "CLUSTER.type is local",
    ),
    NoEffect("CLUSTER", "training dynamics", lambda _, s: s.executor == "inline", "executor is inline"),
    NoEffect(
        "CLUSTER",
        "training",
        lambda p, s: p.gpu and s.training is not None and not s.training.devices,
        "on a GPU, members train in the process of the run unless training.devices names other cards",
    ),
    NoEffect(
        "CLUSTER", "dynamics", lambda p, _: p.gpu, "on a GPU, trajectories move in the process of the run"
    ),
    NoEffect(
        "CLUSTER",
        "job_time_limit",
        lambda p, _: not p.aims and not p.batch,
        "a calculator in Python cannot be interrupted",
    ),
    NoEffect("CLUSTER", "clean_dirs", _calculator, "the reference is a calculator"),
    NoEffect("CLUSTER", "max_workers", lambda _, s: s.executor == "inline", "executor is inline"),
    NoEffect(
        "CLUSTER",
        "max_workers",
        lambda p, _: p.batch,
        "calculations run in blocks of a scheduler; parsl_options set their number",
    ),
    *(
        NoEffect("CLUSTER", s.header_key, _other_type(name), f"CLUSTER.type is not {name}")
        for name, s in known_schedulers().items()
    ),
    NoEffect(
        INITIAL,
        "initial_foundational_size",
        lambda _, s: s.initial_sampling != "mace-mp0",
        "only initial_sampling: mace-mp0 uses it",
    ),
    NoEffect(
        INITIAL,
        "initial_calculator",
        lambda _, s: s.initial_sampling != "calculator",
        "only initial_sampling: calculator uses it",
    ),
    NoEffect(
        ACTIVE,
        "window_steps labels_per_window selection",
        lambda _, s: s.acquisition != "window",
        "only acquisition: window uses it",
    ),
    NoEffect(ACTIVE, "confidence audit_share", lambda _, s: s.target_error == 0, "there is no target_error"),
    NoEffect(ACTIVE, "quiet_MD_steps", lambda _, s: s.stop != "when_done", "only stop: when_done uses it"),
    NoEffect(
        PRETRAINING,
        "num_trajectories",
        lambda _, s: bool(s.samplers),
        "samplers have their own: write it in those of kind md",
    ),
    NoEffect(INITIAL, "desired_acc_scale_idg", lambda _, s: s.desired_acc == 0, "desired_acc is 0"),
    NoEffect(
        INITIAL, f"{CONVERGENCE} margin", lambda _, s: not s.converge_initial, "converge_initial is False"
    ),
    NoEffect(
        INITIAL,
        "margin",
        lambda _, s: s.converge_initial and s.convergence_criterion != "loss",
        "only convergence_criterion: loss uses it",
    ),
    NoEffect(ACTIVE, "analysis_skip", lambda _, s: not s.analysis, "analysis is False"),
    NoEffect(
        ACTIVE,
        "train_subset_size valid_subset_size",
        lambda _, s: s.replay_strategy != "random_subset",
        "replay_strategy is full_dataset",
    ),
    NoEffect(ACTIVE, f"{CONVERGENCE} converge_best", lambda _, s: not s.converge_al, "converge_al is False"),
    NoEffect("MD", f"barostat taup compressibility pressure_au {NOSE_HOOVER}", _nvt, "stat_ensemble is NVT"),
    NoEffect("MD", "temperatures", lambda p, _: p.active is None, f"only {ACTIVE} uses them"),
    NoEffect("MD", "taut", _nvt_with("Langevin"), "the thermostat is Langevin"),
    NoEffect("MD", "friction", _nvt_with("SVR"), "the thermostat is SVR"),
    NoEffect(
        "MD",
        "thermostat friction",
        lambda _, md: md.stat_ensemble == "NPT",
        "stat_ensemble is NPT; only geometries that are not periodic in three directions use it",
    ),
    NoEffect("MD", NOSE_HOOVER, _npt_with("Berendsen"), "the barostat is Berendsen"),
    NoEffect("MD", f"{COUPLED} compressibility", _npt_with("npt"), "the barostat is npt"),
    NoEffect(
        "MD", f"{NOSE_HOOVER} compressibility", _npt_with("MTK", "isotropic-MTK"), "the barostat is MTK"
    ),
    NoEffect(
        "MISC",
        "energy_key forces_key stress_key virials_key",
        _no_labelled_files,
        "no file with labels is given",
    ),
    NoEffect("TRAINING", "ema_decay", lambda _, s: not s.ema, "ema is False"),
    NoEffect(
        "TRAINING",
        "swa",
        lambda p, _: p.mace and not _converges(p),
        "only convergence uses it, and converge_initial and converge_al are False",
    ),
    NoEffect(
        "TRAINING",
        "lr_factor scheduler_patience",
        lambda _, s: s.scheduler != "ReduceLROnPlateau",
        "only scheduler: ReduceLROnPlateau uses it",
    ),
    NoEffect(
        "TRAINING",
        "lr_scheduler_gamma",
        lambda _, s: s.scheduler != "ExponentialLR",
        "only scheduler: ExponentialLR uses it",
    ),
    NoEffect("TRAINING", "energy_weight", lambda _, s: s.loss == "forces_only", "the loss is forces_only"),
    NoEffect("TRAINING", "virials_weight", lambda _, s: s.loss != "virials", "only loss: virials uses it"),
    NoEffect(
        "TRAINING", "stress_weight", lambda p, _: not p.general.compute_stress, "compute_stress is False"
    ),
    NoEffect(
        "TRAINING",
        "stress_weight",
        lambda p, s: p.general.compute_stress and s.loss in {"forces_only", "virials", "l1l2energyforces"},
        "the loss has no stress term",
    ),
)


def without_effect(parts: Parts) -> Iterator[tuple[str, str, str, str]]:
    """(section, system name of MD or "", key, why) for every key that is set but has no effect."""
    for rule in TABLE:
        try:
            found = parts[rule.section]
            if found is None:
                continue
            tables = found.items() if isinstance(found, dict) else [("", found)]
            for name, section in tables:
                if rule.when(parts, section):
                    used = _used_by_samplers(section, parts.samplers) if rule.section == "MD" else set()
                    for key in rule.keys.split():
                        if section.is_set(key) and key not in used:
                            yield rule.section, name, key, rule.why
        except BrokenSectionError:
            continue


def _used_by_samplers(md: Section, samplers: Sequence[SamplerSettings]) -> set[str]:
    """The keys of MD that the molecular dynamics of a sampler uses."""
    dynamics = [md.model_copy(update=own) for s in samplers if (own := s.dynamics()) is not None]
    return {key for own in dynamics for key in type(md).model_fields.keys() - unused_in_dynamics(own).keys()}


def unused_in_dynamics(md: Section) -> dict[str, str]:
    """{key: why} for the keys of MD that are set but have no effect in molecular dynamics with these settings."""
    alone = Parts({}, set())
    rules = [rule for rule in TABLE if rule.section == "MD" and rule.when(alone, md)]
    return {key: rule.why for rule in rules for key in rule.keys.split() if md.is_set(key)}


def unused_by_samplers(
    md: Sequence[Section], samplers: Sequence[SamplerSettings]
) -> Iterator[tuple[int, str, str]]:
    """(number of the sampler, key, why) for its own keys that have no effect in its molecular dynamics.

    md: the section MD of each system.
    """
    for k, sampler in enumerate(samplers):
        own = sampler.dynamics()
        if not own:
            continue
        unused = [unused_in_dynamics(section.model_copy(update=own)) for section in md]
        for key in own:
            if unused and all(key in found for found in unused):
                yield k, key, unused[0][key]
