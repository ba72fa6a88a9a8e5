"""Mistakes in combinations of keys of the settings; for what only deserves a warning see `cross_warnings`.

A rule yields (file, place, text) for each mistake; it stops when it needs a section that could not be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from aims_pax.settings.augment import as_calculator
from aims_pax.settings.augmentation import NAME as AUGMENTATION
from aims_pax.settings.cluster import BATCH, BATCH_OR_AIMS, HEADERS, type_is
from aims_pax.settings.foundation import DATA, REPLAY
from aims_pax.settings.foundation import NAME as FOUNDATION
from aims_pax.settings.inference_support import objections
from aims_pax.settings.mace import FROM_REFERENCE, UNWEIGHTED
from aims_pax.settings.pretraining import NAME as PRETRAINING
from aims_pax.settings.samplers import NAME as SAMPLERS
from aims_pax.settings.samplers import REPLACED, SamplerSettings
from aims_pax.settings.unused_keys import ACTIVE, INITIAL, BrokenSectionError, Parts
from aims_pax.settings.yaml_reader import Place

Finding = tuple[str, Place, str]  # file ("aimsPAX" or "mace"), place, text
Rule = Callable[[Parts], Iterator[Finding]]

FEWEST_AUDITS = 5  # as core.stop_rule, which is above this room
PROJECT, MACE = "aimsPAX", "mace"


def findings(rules: tuple[Rule, ...], parts: Parts) -> Iterator[Finding]:
    """All findings of the rules for these sections."""
    for rule in rules:
        try:
            yield from rule(parts)
        except BrokenSectionError:
            continue


def md_place(system: str, key: str) -> Place:
    """The place of a key of MD; system: "" for all."""
    return ("MD", system, key) if system else ("MD", key)


def _mandatory(parts: Parts) -> Iterator[Finding]:
    """Keys that are mandatory only in some combinations."""
    needed: dict[str, Callable[[], bool]] = {
        "the reference is FHI-aims": lambda: parts.aims,
        BATCH: lambda: parts.batch,
        BATCH_OR_AIMS: lambda: parts.aims or parts.batch,
        **{type_is(s.name): _type_is(parts, s.name) for s in HEADERS.values()},
        "there is active learning": lambda: parts.active is not None and parts.active.max_labels != 0,
        "the type is `calculator`": lambda: bool(parts["REFERENCE"].type == "calculator"),
    }
    for name in (INITIAL, ACTIVE, "CLUSTER", "REFERENCE"):
        try:
            section = parts[name]
            if section is None:
                continue
            for key in type(section).model_fields:
                when = needed.get(section.meaning(key).mandatory)
                unwritten = key not in section.model_fields_set or getattr(section, key) is None
                if when is not None and when() and unwritten:
                    because = section.meaning(key).mandatory.replace("`", "")
                    prose = type(section).model_fields[key].description or ""
                    if key in HEADERS:
                        others = [k for k in sorted(HEADERS) if getattr(section, k) is not None]
                        if others:
                            prose = f"{others[0]} is set: to use it, set type: {HEADERS[others[0]].name}"
                        elif key in section.model_fields_set:
                            prose = "It is empty: without | behind the colon, lines that begin with # are comments"
                    yield PROJECT, (name, key), f"mandatory, as {because}. {prose}"
        except BrokenSectionError:
            continue


def _type_is(parts: Parts, name: str) -> Callable[[], bool]:
    return lambda: bool(parts.cluster.type == name)


def _ramps(parts: Parts) -> Iterator[Finding]:
    """A temperature ramp needs a finite number of MD steps."""
    if parts.active is None or not math.isinf(parts.active.max_MD_steps):
        return
    for name, md in parts.md.items():
        if isinstance(md.temperature, tuple):
            ramp = list(md.temperature)
            text = f"{ramp} is a ramp over all MD steps of a trajectory; set {ACTIVE}.max_MD_steps"
            yield PROJECT, md_place(name, "temperature"), text


def _ladders(parts: Parts) -> Iterator[Finding]:
    """The temperature of a trajectory: a ramp, or its own."""
    for name, md in parts.md.items():
        if md.temperatures is not None and isinstance(md.temperature, tuple):
            text = f"temperature is the ramp {list(md.temperature)} of every trajectory; keep one of the two keys"
            yield PROJECT, md_place(name, "temperatures"), text


def _sections(parts: Parts) -> Iterator[Finding]:
    if parts.initial is None and parts.active is None:
        yield (
            PROJECT,
            (),
            f"neither {INITIAL} nor {ACTIVE} is present; expected at least one of these sections",
        )


def _same_in_both(parts: Parts) -> Iterator[Finding]:
    initial, active = parts.initial, parts.active
    if initial is None or active is None:
        return
    if initial.ensemble_size != active.ensemble_size:
        written = {
            n: s for n, s in ((INITIAL, initial), (ACTIVE, active)) if "ensemble_size" in s.model_fields_set
        }
        said = f"{initial.ensemble_size} in {INITIAL} but {active.ensemble_size} in {ACTIVE}"
        default = "" if len(written) == 2 else " (the default)"
        where = ACTIVE if ACTIVE in written else INITIAL
        yield (
            PROJECT,
            (where, "ensemble_size"),
            f"{said}{default if where == INITIAL else ''}; expected the same",
        )
    if None not in (initial.species_dir, active.species_dir) and initial.species_dir != active.species_dir:
        said = f"{initial.species_dir} in {INITIAL} but {active.species_dir} in {ACTIVE}"
        yield PROJECT, (ACTIVE, "species_dir"), f"{said}; expected the same"


def _targets(parts: Parts) -> Iterator[Finding]:
    """What is learnt from the errors of labelled structures needs a target and structures drawn at random."""
    active = parts.active
    if active is None:
        return
    stops, calibrated = active.stop == "when_done", active.threshold == "calibrated"
    for used, key, value in (
        (calibrated, "threshold", active.threshold),
        (stops, "stop", active.stop),
    ):
        if used and active.target_error == 0:
            yield (
                PROJECT,
                (ACTIVE, key),
                f"{value} needs an error to compare with: set {ACTIVE}.target_error (eV/Å)",
            )
    if stops and active.audit_share == 0 and active.n_test < FEWEST_AUDITS:
        text = f"at least {FEWEST_AUDITS} structures drawn at random; set audit_share, or n_test"
        yield PROJECT, (ACTIVE, "stop"), f"when_done measures the error on {text}"


def _one_beginning(parts: Parts) -> Iterator[Finding]:
    """Given data replace the initial dataset: with both, one of them would be ignored."""
    if parts.initial is None or parts.active is None:
        return
    both = ("initial_train_dataset", "initial_valid_dataset")
    given = [key for key in both if getattr(parts.active, key) is not None]
    if given:
        sections = f"sections {INITIAL} and {SAMPLERS}" if parts[SAMPLERS] else f"section {INITIAL}"
        text = f"names given data, which replace {INITIAL}: delete the {sections}, or remove "
        yield PROJECT, (ACTIVE, given[0]), text + " and ".join(given)


def _initial_stops(parts: Parts) -> Iterator[Finding]:
    s = parts.initial
    if s is None:
        return
    if s.desired_acc == 0 and math.isinf(s.max_initial_epochs) and math.isinf(s.max_initial_set_size):
        text = (
            "nothing stops this stage; expected at least one of "
            "desired_acc, max_initial_epochs, max_initial_set_size"
        )
        yield PROJECT, (INITIAL,), text
    if s.initial_sampling == "calculator" and s.initial_calculator is None and not parts[SAMPLERS]:
        text = "mandatory, as initial_sampling is calculator: {factory: package.module:callable, kwargs: {…}}"
        yield PROJECT, (INITIAL, "initial_calculator"), text


def _samplers(parts: Parts) -> Iterator[Finding]:
    """SAMPLERS replace the keys of the initial dataset that set where structures come from."""
    samplers = parts[SAMPLERS]
    if not samplers:
        return
    if parts.initial is None:
        yield (
            PROJECT,
            (SAMPLERS,),
            f"make structures for {INITIAL}, which is missing; add it, or remove {SAMPLERS}",
        )
        return
    both = [key for key in REPLACED if key in parts.initial.model_fields_set]
    if both:
        text = f"{SAMPLERS} also set where the first structures come from; delete {', '.join(both)}, or {SAMPLERS}"
        yield PROJECT, (INITIAL, both[0]), text
    yield from _temperatures(parts, samplers, (SAMPLERS,))


def _temperatures(parts: Parts, samplers: Sequence[SamplerSettings], place: Place) -> Iterator[Finding]:
    """Samplers without a temperature take that of MD, if it has only one."""
    ramps = [md.temperature for md in parts.md.values() if isinstance(md.temperature, tuple)]
    several = len({str(md.temperature) for md in parts.md.values()}) > 1
    for k, sampler in enumerate(samplers):
        if not sampler.takes_temperature_of_md():
            continue
        if several and not sampler.temperature_by_system:
            text = "mandatory, as the geometries have different temperatures in MD. Temperature (K)"
            yield PROJECT, (*place, k, "temperature"), text
        if ramps:
            text = f"mandatory, as MD.temperature is the ramp {list(ramps[0])} of active learning. Temperature (K)"
            yield PROJECT, (*place, k, "temperature"), text


def _members(parts: Parts) -> Iterator[Finding]:
    s = parts.active
    if s is None:
        return
    seeds, models, size = s.seeds_tags_dict, s.initial_models, s.ensemble_size
    if size < 2 and parts.mace:
        text = f"{size} is not possible; expected at least 2: the uncertainty of MACE models is their disagreement"
        yield PROJECT, (ACTIVE, "ensemble_size"), text
    if s.bias is not None and size < 2:
        text = (
            f"needs at least two members, not {size}: it follows the spread of their energies. A model's own "
            "uncertainty is one of forces, which are not the gradient of an energy of uncertainty"
        )
        yield PROJECT, (ACTIVE, "bias"), text
    if seeds is not None and len(seeds) != size:
        yield (
            PROJECT,
            (ACTIVE, "seeds_tags_dict"),
            f"{len(seeds)} seeds for ensemble_size {size}; expected {size}",
        )
    if models is not None and len(models) != size:
        yield (
            PROJECT,
            (ACTIVE, "initial_models"),
            f"{len(models)} models for ensemble_size {size}; expected {size}",
        )
    if models is not None and len(set(models)) < len(models):
        yield (
            PROJECT,
            (ACTIVE, "initial_models"),
            "one model is named twice; two identical members have no spread",
        )
    for key in ("initial_train_dataset", "initial_valid_dataset"):
        files = getattr(s, key)
        if isinstance(files, dict) and len(files) != size:
            yield (
                PROJECT,
                (ACTIVE, key),
                f"{len(files)} files for ensemble_size {size}; expected {size}, or one path",
            )


def _foundation(parts: Parts) -> Iterator[Finding]:
    """One beginning for the models, and what a recipe needs."""
    s = parts.foundation
    if s is None or not parts.mace:
        return
    if parts.active is not None and parts.active.initial_models is not None:
        text = f"initial_models of {ACTIVE} also name what the members begin from; remove one of the two"
        yield MACE, (FOUNDATION, "model"), text
    if s.recipe == REPLAY and s.replay_data is None:
        prose = type(s).model_fields["replay_data"].description
        yield MACE, (FOUNDATION, "replay_data"), f"mandatory, as the recipe is {REPLAY}. {prose}"
    loss = parts.training.loss
    if s.differ_by == (DATA,) and UNWEIGHTED.get(loss) == "structures":
        text = (
            f"{DATA} alone weights structures, which TRAINING.loss: {loss} does not: members would stay alike; add "
            "readout, or use another loss"
        )
        yield MACE, (FOUNDATION, "differ_by"), text


def _one_origin(parts: Parts) -> Iterator[Finding]:
    """What the members begin from: random weights, given models, FOUNDATION, or PRETRAINING; differences have another
    scale."""
    free, reference = parts[PRETRAINING], parts["REFERENCE"]
    baseline = None if reference is None else reference.baseline
    if free is not None and parts.active is not None and parts.active.initial_models is not None:
        text = (
            f"would train members from random weights in place of initial_models of {ACTIVE}; remove this section, or "
            "initial_models"
        )
        yield PROJECT, (PRETRAINING,), text
    if parts.foundation is not None and free is not None:
        text = (
            "the members begin from FOUNDATION of mace.yaml; remove one of the two sections. A foundation model can "
            "also be the potential of this section: then new members learn from its labels"
        )
        yield PROJECT, (PRETRAINING,), text
    if parts.foundation is not None and baseline is not None:
        text = (
            "members that learn a difference cannot begin from a model of whole energies; remove FOUNDATION from "
            "mace.yaml, or use that model as the baseline"
        )
        yield PROJECT, ("REFERENCE", "baseline"), text
    if free is not None and baseline is not None and as_calculator(free.potential) == as_calculator(baseline):
        text = "is also REFERENCE.baseline: their difference is zero; choose another potential, or remove this section"
        yield PROJECT, (PRETRAINING, "potential"), text


def _pretraining_samplers(parts: Parts) -> Iterator[Finding]:
    """Samplers of PRETRAINING replace its molecular dynamics, and with it its temperature."""
    free = parts[PRETRAINING]
    if free is None:
        return
    if free.samplers and free.temperature is not None:
        text = "samplers set their own temperatures: write it there, or remove samplers"
        yield PROJECT, (PRETRAINING, "temperature"), text
    yield from _temperatures(parts, free.samplers, (PRETRAINING, "samplers"))
    ramps = [md.temperature for md in parts.md.values() if isinstance(md.temperature, tuple)]
    if ramps and not free.samplers and free.temperature is None:
        text = (
            f"mandatory, as MD.temperature is the ramp {list(ramps[0])} of active learning. Temperature (K)"
        )
        yield PROJECT, (PRETRAINING, "temperature"), text


def _copies(parts: Parts) -> Iterator[Finding]:
    """Copies from the first to the last size of the training sets."""
    asked = parts[AUGMENTATION]
    if asked is not None and asked.until_labels < asked.min_labels:
        text = f"{asked.until_labels} is less than min_labels {asked.min_labels}: there would be no copies"
        yield PROJECT, (AUGMENTATION, "until_labels"), text


def _blocks(parts: Parts) -> Iterator[Finding]:
    options = parts.cluster and parts.cluster.parsl_options
    if not options:
        return
    fewest, first, most = options.min_blocks, options.init_blocks, options.max_blocks
    if fewest > most:
        text = f"{fewest} is more than max_blocks {most}"
        yield PROJECT, ("CLUSTER", "parsl_options", "min_blocks"), text
    if first > most or (first < fewest <= most):
        text = f"{first} is not between min_blocks {fewest} and max_blocks {most}"
        yield PROJECT, ("CLUSTER", "parsl_options", "init_blocks"), text


def _pressure_needs_stress(parts: Parts) -> Iterator[Finding]:
    for name, md in parts.md.items():
        if md.stat_ensemble == "NPT" and not parts.general.compute_stress:
            text = "NPT needs stress: set GENERAL.compute_stress: True in mace.yaml, or use NVT"
            yield PROJECT, md_place(name, "stat_ensemble"), text


def _loss(parts: Parts) -> Iterator[Finding]:
    s = parts.training
    if not parts.mace:
        return
    if s.loss in {"stress", "virials"} and not parts.general.compute_stress:
        text = f"{s.loss} needs models with stress; set GENERAL.compute_stress: True, or use weighted"
        yield MACE, ("TRAINING", "loss"), text
    if s.forces_weight == 0 and (s.energy_weight == 0 or s.loss == "forces_only"):
        yield MACE, ("TRAINING", "forces_weight"), "all weights of the loss are 0; nothing would be learned"
    if not any(s.config_type_weights.values()):
        yield MACE, ("TRAINING", "config_type_weights"), "all weights are 0; nothing would be learned"


def _degrees(parts: Parts) -> Iterator[Finding]:
    s = parts.architecture
    if not parts.mace or parts.foundation is not None:
        return
    if s.max_L > s.max_ell:
        yield (
            MACE,
            ("ARCHITECTURE", "max_L"),
            f"{s.max_L} is larger than max_ell {s.max_ell}; expected at most {s.max_ell}",
        )


def _radial_basis(parts: Parts) -> Iterator[Finding]:
    """Torch has no derivative of the Chebyshev polynomials in MACE 0.3.16, nor does MACE scale their distances."""
    if parts.mace and parts.architecture.radial_type == "chebyshev":
        text = "chebyshev has no derivative in MACE, so forces would not be those of the energy; use bessel or gaussian"
        yield MACE, ("ARCHITECTURE", "radial_type"), text


def _engines(parts: Parts) -> Iterator[Finding]:
    misc = parts["mace.MISC"]
    if misc is None or not parts.mace:
        return
    from_files = parts.active is not None and parts.active.initial_models is not None
    from_files = from_files or parts.foundation is not None
    for key, text in objections(misc, None if from_files else parts.architecture):
        yield MACE, ("MISC", key), text


def _no_reference(parts: Parts) -> Iterator[Finding]:
    """REFERENCE.type: given, with which nothing may ask for a label."""
    if parts["REFERENCE"].type != "given":
        return
    because = "REFERENCE.type is given, so nothing can be labelled"
    if parts[INITIAL] is not None:
        yield (
            PROJECT,
            (INITIAL,),
            f"{because}: remove this section, and set ACTIVE_LEARNING.initial_train_dataset",
        )
    active, misc = parts.active, parts["MISC"]
    if active is not None and active.max_labels != 0:
        yield PROJECT, (ACTIVE, "max_labels"), f"{because}: set max_labels: 0"
    if parts.mace and parts["ARCHITECTURE"].atomic_energies == FROM_REFERENCE:
        yield (
            MACE,
            ("ARCHITECTURE", "atomic_energies"),
            f"{because}: write the energies of the atoms, or remove it",
        )
    if "check_given_data" in misc.model_fields_set and misc.check_given_data:
        yield PROJECT, ("MISC", "check_given_data"), f"{because}: set 0, or remove it"


def _more_tests_than_labels(parts: Parts) -> Iterator[Finding]:
    """Labels of test structures count in the budget, and are drawn even when it is spent."""
    s = parts.active
    if s is not None and 0 < s.max_labels < s.n_test:
        text = f"{s.n_test} test structures, but max_labels is {s.max_labels:g}: they count in it, and none is left to "
        yield PROJECT, (ACTIVE, "n_test"), f"{text}learn; take fewer, or raise max_labels"


def _no_exploration(parts: Parts) -> Iterator[Finding]:
    """ACTIVE_LEARNING.max_labels: 0."""
    s = parts.active
    if s is None or s.max_labels != 0:
        return
    if s.n_test:
        text = "test structures come from active learning, and max_labels is 0; use MISC.test_set"
        yield PROJECT, (ACTIVE, "n_test"), text
    if parts[INITIAL] is None and s.initial_train_dataset is None and s.initial_models:
        yield (
            PROJECT,
            (ACTIVE, "max_labels"),
            "0, and no initial_train_dataset: the models have nothing to learn",
        )


ERRORS: tuple[Rule, ...] = (
    _sections,
    _mandatory,
    _no_reference,
    _no_exploration,
    _more_tests_than_labels,
    _same_in_both,
    _one_beginning,
    _targets,
    _initial_stops,
    _samplers,
    _members,
    _foundation,
    _one_origin,
    _pretraining_samplers,
    _copies,
    _blocks,
    _pressure_needs_stress,
    _loss,
    _degrees,
    _radial_basis,
    _engines,
    _ramps,
    _ladders,
)
