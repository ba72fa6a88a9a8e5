"""Combinations of keys of the settings that deserve a warning; rules as in `cross_checks`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from aims_pax.settings.augmentation import NAME as AUGMENTATION
from aims_pax.settings.cross_checks import MACE, PROJECT, Finding, Rule, md_place
from aims_pax.settings.foundation import DATA
from aims_pax.settings.foundation import NAME as FOUNDATION
from aims_pax.settings.foundation import TRAINING as RECIPE
from aims_pax.settings.mace import UNWEIGHTED
from aims_pax.settings.md import BAR
from aims_pax.settings.pretraining import LR_AFTER
from aims_pax.settings.pretraining import NAME as PRETRAINING
from aims_pax.settings.samplers import NAME as SAMPLERS
from aims_pax.settings.unused_keys import ACTIVE, INITIAL, Parts, unused_by_samplers

LARGEST_STEP = 0.005  # learning rate up to which trained weights are improved, see benchmarks/fine_tuning.py


def _exploration_stops(parts: Parts) -> Iterator[Finding]:
    s = parts.active
    if s is None:
        return
    limits = (s.max_MD_steps, s.max_train_set_size, s.max_labels)
    if s.desired_acc == 0 and s.stop == "limits" and all(map(math.isinf, limits)):
        text = (
            "nothing stops active learning: it runs until it is stopped or its walltime ends; "
            "set max_MD_steps, max_train_set_size, max_labels, desired_acc or stop: when_done"
        )
        yield PROJECT, (ACTIVE,), text
    if s.intermediate_epochs_al > s.epochs_per_worker:
        trains = s.intermediate_epochs_al
        text = f"more than epochs_per_worker ({s.epochs_per_worker}): a structure trains {trains} epochs"
        yield PROJECT, (ACTIVE, "intermediate_epochs_al"), text
    if s.skip_step_mlff > s.max_MD_steps:
        if "skip_step_mlff" in s.model_fields_set:
            key, text = "skip_step_mlff", f"more than max_MD_steps ({s.max_MD_steps})"
        else:
            key, text = "max_MD_steps", f"less than skip_step_mlff ({s.skip_step_mlff})"
        yield PROJECT, (ACTIVE, key), f"{text}: the uncertainty is checked only once, at the end"
    if parts.initial is None and s.initial_train_dataset is None and s.initial_models is None:
        text = (
            f"no {INITIAL}, initial_train_dataset or initial_models: "
            "only aims-PAX-al in a folder with a finished initial dataset can run"
        )
        yield PROJECT, (ACTIVE,), text


def _pressures(parts: Parts) -> Iterator[Finding]:
    for name, md in parts.md.items():
        if md.stat_ensemble != "NPT":
            continue
        berendsen = md.barostat == "Berendsen"
        key = "external_stress" if md.barostat == "npt" else "pressure_au"
        bars = getattr(md, key) / BAR
        if key in md.model_fields_set and bars != 0 and not (0.9 < bars < 1.1 or 5 <= abs(bars) <= 1e6):
            text = f"{getattr(md, key):g} eV/Å³ is {bars:.3g} bar; aims-PAX takes eV/Å³, 1 bar is 6.24e-7"
            yield PROJECT, md_place(name, key), text
        if berendsen and "barostat" in md.model_fields_set and "compressibility" not in md.model_fields_set:
            text = "Berendsen needs the compressibility; the default is that of water, 4.57e-5 bar⁻¹"
            yield PROJECT, md_place(name, "barostat"), text


def _weak_stress(parts: Parts) -> Iterator[Finding]:
    """Stress (eV/Å³) is about a thousand times smaller than forces (eV/Å): with a small weight it is hardly learnt."""
    training, npt = parts.training, [name for name, md in parts.md.items() if md.stat_ensemble == "NPT"]
    if not npt or not parts.mace or training.loss in {"forces_only", "virials", "l1l2energyforces"}:
        return
    if training.stress_weight < 0.1 * training.forces_weight:
        weights = f"{training.stress_weight:g} with forces_weight {training.forces_weight:g}"
        if "stress_weight" in training.model_fields_set:
            about = f"set it to about {training.forces_weight:g}"
            text = f"{weights}: stress would hardly be learnt, but NPT depends on it; {about}"
            yield MACE, ("TRAINING", "stress_weight"), text
        else:
            text = (
                "NPT depends on the stress, which would hardly be learnt: TRAINING.stress_weight in mace.yaml is "
                f"{weights}; set it to about {training.forces_weight:g}"
            )
            yield PROJECT, md_place(npt[0], "stat_ensemble"), text


def _no_stress_term(parts: Parts) -> Iterator[Finding]:
    if not parts.mace or not parts.general.compute_stress:
        return
    loss = parts.training.loss
    if loss in {"forces_only", "l1l2energyforces"}:
        text = (
            f"{loss} has no stress term: stress is predicted but not trained, although compute_stress is True"
        )
        yield MACE, ("TRAINING", "loss"), text


def _unweighted(parts: Parts) -> Iterator[Finding]:
    """Settings that weight structures, with a loss that does not."""
    training, foundation, copies = parts.training, parts.foundation, parts[AUGMENTATION]
    if not parts.mace or training.loss not in UNWEIGHTED:
        return
    asked = {
        "TRAINING.config_type_weights": set(training.config_type_weights.values()) != {1.0},
        "FOUNDATION.differ_by: data": foundation is not None and foundation.differs_by(DATA),
        "AUGMENTATION.weight": copies is not None and copies.weight != 1,
    }
    for name in (name for name, written in asked.items() if written):
        what = UNWEIGHTED[training.loss]
        yield (
            MACE,
            ("TRAINING", "loss"),
            f"{training.loss} does not weight {what}: {name} has no effect on them",
        )


def _one_seed(parts: Parts) -> Iterator[Finding]:
    seeds = {name: md.MD_seed for name, md in parts.md.items()}
    if len(set(seeds.values())) > 1:
        first = next(iter(seeds))
        yield (
            PROJECT,
            md_place(first, "MD_seed"),
            f"the systems have different seeds; {seeds[first]} of {first} is used for all",
        )


def _large_steps(parts: Parts) -> Iterator[Finding]:
    """Members that begin from trained weights lose them in a few steps of the size that random weights need."""
    foundation, training = parts.foundation, parts.training
    if training is None or "lr" not in training.model_fields_set or training.lr <= LARGEST_STEP:
        return
    if foundation is not None or parts[PRETRAINING] is not None:
        usual, source = (
            (RECIPE["lr"], FOUNDATION) if foundation is not None else (LR_AFTER, f"the section {PRETRAINING}")
        )
        text = (
            f"{training.lr:g} is a rate for random weights, which destroys what the members learnt before (see "
            f"{source}); remove the key to use {usual:g}"
        )
        yield MACE, ("TRAINING", "lr"), text


def _sampler_dynamics(parts: Parts) -> Iterator[Finding]:
    """Keys of samplers that have no effect in their molecular dynamics."""
    free = parts[PRETRAINING]
    for place, samplers in (
        ((SAMPLERS,), parts[SAMPLERS] or ()),
        ((PRETRAINING, "samplers"), () if free is None else free.samplers),
    ):
        for k, key, why in unused_by_samplers([*parts.md.values()], samplers):
            yield PROJECT, (*place, k, key), f"has no effect: {why}"


WARNINGS: tuple[Rule, ...] = (
    _exploration_stops,
    _pressures,
    _weak_stress,
    _no_stress_term,
    _unweighted,
    _one_seed,
    _large_steps,
    _sampler_dynamics,
)
