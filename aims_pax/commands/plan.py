"""`aims-PAX plan`: estimates what a run will do, from the settings and the decision rules of the stages.

The initial dataset is simulated with the rules of `core.initial_dataset`, assuming that every calculation succeeds.
The cost of active learning depends on the uncertainty of the models, so it is given as a range.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aims_pax.commands import resource_estimates
from aims_pax.commands.check.project import checked_settings
from aims_pax.commands.forecast import forecast, stored_timings
from aims_pax.core import initial_dataset
from aims_pax.core.active_learning import epochs_before_exploration
from aims_pax.core.audits import EARLY
from aims_pax.core.rules import ActiveLearningRules, InitialRules
from aims_pax.core.stop_rule import FEWEST_AUDITS
from aims_pax.core.threshold import WARM_UP
from aims_pax.core.work import Labelled, RunSampler, RunTraining, Sampled, Trained
from aims_pax.labelling.factory import places_here
from aims_pax.models.kinds import kind_of_run
from aims_pax.parallel.core_allocation import moving_processes, processes
from aims_pax.potentials.baseline import Baseline
from aims_pax.report.tolerant_readers import structure_headers
from aims_pax.settings import Settings
from aims_pax.settings.geometries import read_geometries
from aims_pax.settings.mace import FROM_REFERENCE
from aims_pax.settings.sampler_list import sampler_shares, samplers_in_words
from aims_pax.settings.samplers import (
    SamplerSettings,
    SamplingCost,
    SamplingDemand,
)
from aims_pax.systems import System, count_neighbours, deal, elements

INF = math.inf
MOST_VISITS = 20_000  # sampling steps simulated before the stage is taken to be endless


@dataclass(frozen=True)
class Course:
    """Size of the initial dataset. labels: requested. n_train: of the largest member, for active learning."""

    labels: int
    visits: int
    epochs: int
    training: int  # different structures, all members
    validation: int
    n_train: int
    reason: str


def plan(folder: Path, aims_pax_file: str = "aimsPAX.yaml", mace_file: str = "mace.yaml") -> dict[str, Any]:
    """All estimates, as plain values; [least, most], None: no limit.

    Raises SettingsError when settings or inputs have errors, as `check` does.
    """
    settings = checked_settings(folder, aims_pax_file, mace_file)
    systems = read_geometries(settings)
    first = _initial(settings, systems)
    active = _active(settings, systems, first)
    moving = (active or {}).get("trajectories") or {s.name: 1 for s in systems}
    ahead = {
        "name": settings.model.name,
        "systems": [_system(s, settings) for s in systems],
        "members": settings.ensemble_size,
        "models_begin_from": kind_of_run(settings).beginning(settings),
        "isolated_atoms": _atoms(settings, systems),
        "pretraining": _pretraining(settings, systems),
        "copies": _copies(settings),
        "initial": first,
        "active_learning": active,
        "convergence": _convergence(settings),
        "baseline": _baseline(settings, _together(0, first, active), (active or {}).get("MD_steps", 0)),
        "comparisons": _comparisons(settings),
        "reference_calls": _together(_atoms(settings, systems), first, active),
        "cluster": _cluster(settings),
        "processes": _processes(settings, active),
        "memory_MB": kind_of_run(settings).estimate_memory(settings, systems, moving),
        "disk_MB": resource_estimates.estimate_disk(
            settings, systems, _together(0, first, active), (active or {}).get("MD_steps", 0)
        ),
        "warnings": list(settings.warnings),
    }
    timings = stored_timings(settings.path(settings.misc.log_dir), settings, systems)
    return {**ahead, "forecast": None if timings is None else forecast(ahead, settings, systems, timings)}


def _comparisons(settings: Settings) -> int:
    """Reference calls that compare given data with the reference (MISC.check_given_data), at most."""
    al = settings.active_learning
    given = [] if al is None else [al.initial_train_dataset, al.initial_valid_dataset]
    files = {f for n in given if n for f in (n.values() if isinstance(n, dict) else [n])}
    return 0 if settings.reference.type == "given" else settings.misc.check_given_data * len(files)


# ---------------------------------------------------------------- the stages


def play_initial_dataset(rules: InitialRules, force_mae: float) -> Course | None:
    """Simulate the initial dataset at a constant force MAE (eV/Å); None when no limit would end it."""
    state = initial_dataset.begin(rules)
    labels = 0
    while work := initial_dataset.outstanding(state, rules):
        if state.visit > MOST_VISITS:
            return None
        if isinstance(work[0], RunSampler):
            made = [(s, f"{s} {state.visit} {k}") for k in range(work[0].per_system) for s in rules.systems]
            state, _ = initial_dataset.step(state, Sampled(work[0], tuple(made)), rules)
        elif isinstance(work[0], RunTraining):
            losses = (force_mae,) * rules.members
            n_train = max(m.n_train for m in state.members)
            state, _ = initial_dataset.step(state, Trained(work[0], n_train, losses, losses), rules)
        else:  # all labels but the last in one step: one by one would take quadratic time
            labels += len(work)
            *others, last = work
            answered = tuple((w.frame, True) for w in others)  # type: ignore[union-attr]
            state, _ = initial_dataset.step(replace(state, answers=answered), Labelled(last), rules)  # type: ignore[arg-type]
    members = state.members
    n_train, n_valid = sum(m.n_train for m in members), sum(m.n_valid for m in members)
    largest = max(m.n_train for m in members)
    return Course(labels, state.visit, state.epochs, n_train, n_valid, largest, str(state.stopped))


def _pretraining(settings: Settings, systems: Sequence[System]) -> dict[str, Any] | None:
    """What pre-training costs; its labels are free."""
    free = settings.pretraining
    if free is None:
        return None
    costs = [
        one.cost(SamplingDemand(_drawn(one, share * free.n_frames, len(systems)), 0, systems, free.skip_step))
        for one, share in zip(free.sources, sampler_shares(free.sources), strict=True)
    ]
    return {
        "potential": free.in_words,
        "free_labels": free.n_frames,
        "MD_steps": round(sum(c.md_steps for c in costs)),
        "most_epochs": free.max_epochs,
    }


def _copies(settings: Settings) -> dict[str, Any] | None:
    """Copies of labelled structures (AUGMENTATION): no labels, but longer training."""
    rules = settings.augmentation
    if rules is None:
        return None
    return {"of_each_structure": rules.copies, "structures": [rules.min_labels, rules.until_labels]}


def _initial(settings: Settings, systems: Sequence[System]) -> dict[str, Any] | None:
    s = settings.initial_dataset
    if s is None:
        return None
    rules = InitialRules.read(s, [x.name for x in systems])
    longest, shortest = (
        play_initial_dataset(rules, INF),
        play_initial_dataset(rules, 0.0 if rules.desired_acc > 0 else INF),
    )
    assert shortest is not None  # a force MAE of 0 ends it, and so does any other limit
    steps = [None if c is None else c.labels * s.skip_step_initial for c in (shortest, longest)]
    calls = [None if c is None else c.labels for c in (shortest, longest)]
    costs = [_costs(settings, c, systems) for c in (shortest, longest)]
    if settings.samplers:
        steps = [None if found is None else round(sum(c.md_steps for c in found)) for found in costs]
        calls = [_calls_of_samplers(n, found, len(systems)) for n, found in zip(calls, costs, strict=True)]
    elif s.initial_sampling == "aimd":  # every step is a calculation, and so is each starting structure
        calls = [None if n is None else n + len(systems) for n in steps]
    return {
        "sampling": samplers_in_words(settings.samplers) if settings.samplers else s.initial_sampling,
        "steps_of_sampling": [None if c is None else c.visits for c in (shortest, longest)],
        "structures_a_step": s.n_points_per_sampling_step_idg * rules.sets * len(systems),
        "reference_calls": calls,
        "MD_steps": steps,
        "evaluations": _evaluations(costs),
        "evaluations_in_words": {k: words for x in settings.samplers for k, words in x.cost_words.items()},
        "epochs": [None if c is None else c.epochs for c in (shortest, longest)],
        "training": [None if c is None else c.training for c in (shortest, longest)],
        "validation": [None if c is None else c.validation for c in (shortest, longest)],
        "n_train": [None if c is None else c.n_train for c in (shortest, longest)],
        "ends_by": None if longest is None else longest.reason,
        "may_end_by": f"desired_acc {s.desired_acc:g} × {s.desired_acc_scale_idg:g} eV/Å"
        if s.desired_acc
        else None,
    }


def _drawn(one: SamplerSettings, passed: float, n_systems: int) -> float:
    """Structures of all systems that a sampler must make so that `passed` of them pass its filters. Structures that the
    filters duplicates and sanity reject are not counted, because their number is unknown."""
    n = passed / n_systems
    for each in reversed(one.filters if passed else ()):
        n = each.settings.needed(n)
    return n * n_systems


def _costs(settings: Settings, course: Course | None, systems: Sequence[System]) -> list[SamplingCost] | None:
    """Cost of each sampler; see `_drawn` for structures that filters reject."""
    if course is None:
        return None
    assert settings.initial_dataset is not None
    every, found = settings.initial_dataset.skip_step_initial, []
    for one, share in zip(settings.samplers, sampler_shares(settings.samplers), strict=True):
        passed = share * course.labels
        made = _drawn(one, passed, len(systems))
        found.append(one.cost(SamplingDemand(made, passed, systems, every)))
    return found


def _calls_of_samplers(labels: int | None, costs: list[SamplingCost] | None, n_systems: int) -> int | None:
    """Reference calls: the labels, and calculations inside the samplers."""
    if labels is None or costs is None:
        return None
    starts = n_systems if any(c.reference_starts for c in costs) else 0
    return labels + round(sum(c.reference_calls for c in costs)) + starts


def _evaluations(costs: Sequence[list[SamplingCost] | None]) -> dict[str, Any]:
    """Evaluations of potentials by samplers besides MD, by name: [least, most], or one number."""
    known = [found for found in costs if found is not None]
    names = dict.fromkeys(name for found in known for c in found for name in c.evaluations)
    ranges: dict[str, Any] = {
        name: [
            None if found is None else round(sum(c.evaluations.get(name, 0) for c in found))
            for found in costs
        ]
        for name in names
    }
    once: Counter[str] = Counter()
    for c in known[0] if known else ():
        once.update(c.once)
    return ranges | dict(once)


def _active(
    settings: Settings, systems: Sequence[System], first: dict[str, Any] | None
) -> dict[str, Any] | None:
    s = settings.active_learning
    if s is None:
        return None
    n = max(s.num_trajectories, len(systems))
    timestep = min(settings.md_of(system.name).timestep for system in deal(systems, n))
    rules = ActiveLearningRules.read(s, n, settings.model.seed, timestep)
    if kind_of_run(settings).fits_at_once:
        rules = rules.for_fits_at_once()
    begins = first["n_train"] if first is not None else _given(settings)
    least, most = _calls(rules, n, begins, s.max_train_set_size)
    limits = {
        "max_MD_steps": s.max_MD_steps, "max_train_set_size": s.max_train_set_size, "max_labels": s.max_labels,
        "desired_acc": s.desired_acc or INF,
    }  # fmt: skip
    aimed = {"target_error": s.target_error} if s.stop == "when_done" else {}
    steps = None if math.isinf(s.max_MD_steps) else int(n * s.max_MD_steps)
    growth = INF if math.isinf(s.max_train_set_size) else max(0, s.max_train_set_size - (begins[0] or 0))
    before = epochs_before_exploration(rules, begins[0] or 1)
    epochs = before + min(most, growth) * s.epochs_per_worker
    return {
        "trajectories": dict(Counter(x.name for x in deal(systems, n))),
        "n_train": list(begins),
        "reference_calls": [int(least), _whole(most)],
        "MD_steps": steps,
        "MD_steps_per_label": n * rules.window / rules.per_window if rules.by_windows else None,
        "ps": None if steps is None else _time(settings, systems, n, int(s.max_MD_steps)),
        "epochs": [0, _whole(epochs)],
        "epochs_before_exploration": before,
        "test_structures": s.n_test,
        "test_structures_at_most": _whole(min(s.n_test, _looks(rules, n), rules.max_labels)),
        "limits": {k: v for k, v in limits.items() if not math.isinf(v)} | aimed,
    }


def _given(settings: Settings) -> list[int | None]:
    """Training structures of the member with the largest given set."""
    al = settings.active_learning
    if al is None or al.initial_train_dataset is None:
        return [0, None]  # an earlier dataset, or given models without data: size unknown
    paths = al.initial_train_dataset
    files = list(paths.values()) if isinstance(paths, dict) else [paths]
    counts = [sum(1 for _ in structure_headers(settings.path(f))) for f in files]
    train_share = 1.0 if al.initial_valid_dataset is not None else 1 - al.valid_ratio
    return [round(train_share * max(counts))] * 2


def _calls(
    rules: ActiveLearningRules, n: int, begins: Sequence[int | None], max_train: float
) -> tuple[float, float]:
    """(least, most) reference calls of active learning with n trajectories, from the limits alone.

    Most: every window gets all its labels; with `acquisition: crossing` every uncertainty check requests one, except
    the first 10, which set the threshold. Test and audit frames come besides, but a check requests one label only.
    When the training set is full, outstanding labels are still computed.
    Least: only labels that the settings require.
    """
    if begins[0] is not None and begins[0] >= max_train:  # active learning only draws its test structures
        return 0, min(rules.n_test, rules.max_labels)
    looks = _looks(rules, n)
    analyses = 0.0
    if rules.analysis_skip:
        analyses = INF if math.isinf(rules.max_steps) else n * (rules.max_steps // rules.analysis_skip)
    chosen = looks - WARM_UP
    if rules.by_windows and not math.isinf(rules.max_steps):
        chosen = min(chosen, rules.per_window * math.ceil(rules.max_steps / rules.window))
    most = min(looks, max(chosen, 0) + _drawn_at_random(rules, n, chosen + analyses)) + analyses
    quiet = 0.0
    if not math.isinf(rules.max_steps) and not math.isinf(rules.quiet_limit):
        quiet = n * (rules.max_steps // (math.ceil(rules.quiet_limit / rules.skip_step) * rules.skip_step))
    least = min(quiet, most)
    if not math.isinf(max_train):
        more = rules.per_window if rules.by_windows else n
        full = _until_full(rules, max_train - (begins[0] or 0)) + more - 1
        most = min(most, full + rules.n_test + analyses)
        full = 0 if begins[-1] is None else _until_full(rules, max_train - begins[-1])
        least = full if math.isinf(rules.max_steps) and math.isinf(rules.max_labels) else min(least, full)
    if math.isinf(rules.max_steps) and math.isinf(max_train) and not math.isinf(rules.max_labels):
        least = rules.max_labels  # the only limit
    if rules.desired_acc > 0 or not math.isinf(rules.quiet_wanted):
        least = 0
    least, most = min(least, rules.max_labels), min(most, rules.max_labels)
    return least, most


def _looks(rules: ActiveLearningRules, n: int) -> float:
    """Number of uncertainty checks of n trajectories."""
    return INF if math.isinf(rules.max_steps) else n * math.ceil(rules.max_steps / rules.skip_step)


def _drawn_at_random(rules: ActiveLearningRules, n: int, others: float) -> float:
    """The most test and audit frames of n trajectories, beside other labels; see `core.audits.audit_due`."""
    if rules.audit_share <= 0:
        return rules.n_test
    early = min(FEWEST_AUDITS * n, _looks(rules, n) // EARLY)
    share = (rules.audit_share * others + 1) / (1 - rules.audit_share)
    return max(rules.n_test, early, share if math.isinf(share) else math.ceil(share))


def _until_full(rules: ActiveLearningRules, missing: float) -> int:
    """Labels until the training set has grown by `missing`; some go to validation, see `core.active_learning`."""
    added = valid = 0
    while added - valid < missing:
        valid += valid < rules.valid_ratio * added
        added += 1
    return added


def _baseline(
    settings: Settings, labels: Sequence[int | None], md_steps: int | None
) -> dict[str, Any] | None:
    """Evaluations of REFERENCE.baseline, none of which is a reference calculation; None without a baseline.

    Two for each label: the label itself, and one that checks its forces.
    """
    if settings.reference.baseline is None:
        return None
    return {
        "baseline": Baseline.of_run(settings).described,
        "evaluations_for_labels": [None if n is None else 2 * n for n in labels],
        "evaluations_in_MD": md_steps,
    }


def _convergence(settings: Settings) -> list[dict[str, Any]]:
    found = []
    first, al = settings.initial_dataset, settings.active_learning
    if first is not None and first.converge_initial:
        found.append(
            {
                "after": "initial dataset",
                "members": first.ensemble_size,
                "most_epochs": first.max_convergence_epochs,
            }
        )
    if al is not None and al.initial_train_dataset and not al.initial_models and first is None:
        found.append(
            {"after": "given data", "members": al.ensemble_size, "most_epochs": al.max_convergence_epochs}
        )
    if al is not None and al.converge_al:
        members = 1 if al.converge_best else al.ensemble_size
        found.append(
            {"after": "active learning", "members": members, "most_epochs": al.max_convergence_epochs}
        )
    return found


# ---------------------------------------------------------------- helpers


def _atoms(settings: Settings, systems: Sequence[System]) -> int:
    """Calculations of isolated atoms."""
    wanted = settings.model.atomic_energies == FROM_REFERENCE
    return len(elements(s.frame for s in systems)) if wanted else 0


def _together(atoms: int, *stages: dict[str, Any] | None) -> list[int | None]:
    ranges = [s["reference_calls"] for s in stages if s is not None]
    return [_sum([r[k] for r in ranges], atoms) for k in (0, 1)]


def _sum(values: Sequence[int | None], start: int) -> int | None:
    known = [v for v in values if v is not None]
    return start + sum(known) if len(known) == len(values) else None


def _time(settings: Settings, systems: Sequence[System], n: int, steps: int) -> float:
    """Simulated time over all trajectories, ps."""
    return float(sum(steps * settings.md_of(s.name).timestep for s in deal(systems, n)) / 1000)


def _system(system: System, settings: Settings) -> dict[str, Any]:
    frame, md, cutoff = system.frame, settings.md_of(system.name), kind_of_run(settings).cutoff(settings)
    ensemble = md.stat_ensemble if frame.periodic else "NVT"
    return {
        "name": system.name,
        "formula": frame.formula,
        "atoms": len(frame),
        "periodic": [bool(p) for p in frame.pbc],
        "ensemble": ensemble,
        "temperature": md.temperature,
        "temperatures": None if settings.active_learning is None else md.temperatures,
        "timestep": md.timestep,
        "neighbours": None if cutoff is None else round(count_neighbours(frame, cutoff) / len(frame), 1),
    }


def _cluster(settings: Settings) -> dict[str, Any]:
    c = settings.cluster
    if c.scheduler is None or c.parsl_options is None:
        at_once = 1 if c.executor == "inline" else c.max_workers or places_here(settings)
        return {"type": c.type, "at_once": at_once}
    o = c.parsl_options
    return {
        "type": c.type, "blocks": [o.min_blocks, o.max_blocks], "nodes_a_block": o.nodes_per_block,
        "jobs_a_block": o.jobs_per_block, "at_once": o.max_blocks * o.jobs_per_block,
        "job_time_limit": _whole(c.job_time_limit),
    }  # fmt: skip


def _processes(settings: Settings, active: dict[str, Any] | None) -> dict[str, int] | None:
    """Processes of active learning on this machine; training 0: training alternates with MD in one process."""
    if active is None:
        return None
    members, n = settings.ensemble_size, sum(active["trajectories"].values())
    return {"training": processes(settings, members), "dynamics": moving_processes(settings, n)}


def _whole(value: float) -> int | None:
    return None if math.isinf(value) else int(value)
