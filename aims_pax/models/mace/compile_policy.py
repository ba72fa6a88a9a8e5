"""Decides whether training is compiled: from the settings, and from the amount of training still to be done."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aims_pax.models.kinds import Pauses

if TYPE_CHECKING:
    from aims_pax.models.mace.compile_cache import CompileMode
    from aims_pax.models.mace.ensemble import Ensemble
    from aims_pax.settings import Settings
    from aims_pax.settings.active_learning import ActiveLearningSettings

log = logging.getLogger(__name__)

# Atoms × samples over all members. Compiled training takes 0.4 ms less for each (32 channels, one core). Loading from
# the cache costs each training process half a minute; compiling costs one process five minutes.
PAYS = 150_000
COMPILING_PAYS = 900_000
BEGINS = 300_000  # already trained on: takes about as long as compiling
WORTH = 3600.0  # s of walltime left, below which compiling (up to 20 minutes on a busy machine) would finish too late
UNLIMITED = 500  # structures assumed when nothing limits the training set
PATIENCES = 2  # convergence usually ends after this many times its patience


def compile_mode(settings: Settings, atoms: float) -> CompileMode:
    """How visits may compile. atoms: mean number of the systems."""
    wanted = settings.mace.training.compile
    if wanted == "always":
        return "wait"
    reproducible = settings.cluster.executor == "inline"
    if wanted == "never" or reproducible or settings.mace.misc.device != "cpu":
        return "never"
    return "ready" if samples_ahead(settings) * atoms >= PAYS else "never"


def samples_ahead(settings: Settings) -> float:
    """Approximate structures × epochs × members if every stage after pre-training runs to its end."""
    samples, members, n_first = 0.0, settings.ensemble_size, 0.0
    initial, active = settings.initial_dataset, settings.active_learning
    if initial is not None:
        n = _or(initial.max_initial_set_size, UNLIMITED if active is None else 0)
        n_first = n
        rounds = n / max(1, initial.n_points_per_sampling_step_idg * members)
        samples += rounds * initial.intermediate_epochs_idg * n / 2
        if initial.converge_initial:
            samples += _convergence(initial.convergence_patience, initial.max_convergence_epochs) * n
    if active is not None:
        n = min(
            _or(active.max_train_set_size, UNLIMITED), _labels(active) + (0.0 if initial is None else n_first)
        )
        seen = min(n / 2, active.train_subset_size) if active.replay_strategy == "random_subset" else n / 2
        samples += n * active.epochs_per_worker * seen * members
        if active.converge_al:
            learners = 1 if active.converge_best else members
            epochs = _convergence(active.convergence_patience, active.max_convergence_epochs)
            samples += epochs * n * learners
    return samples


@contextmanager
def compiling(
    settings: Settings, ensemble: Ensemble, atoms: float, watch: Pauses | None = None
) -> Iterator[None]:
    """Set the compile mode of the ensemble and, if nothing is in the cache yet, compile in the background.

    watch: its pauses also stop the compiling, and its deadline decides whether compiling is worthwhile.
    """
    from aims_pax.models.mace.compile_cache import is_ready, reason_against, signature
    from aims_pax.models.mace.fast_forward import fast_mace

    ensemble.compiled = compile_mode(settings, atoms)
    quick = fast_mace(ensemble.members[0].model) if ensemble.compiled == "ready" else None
    if quick is None or is_ready(signature(quick)):
        yield
        return
    left = None if watch is None or watch.deadline is None else watch.deadline - time.monotonic()
    if samples_ahead(settings) * atoms < COMPILING_PAYS or (left is not None and left < WORTH):
        yield
        return
    against = reason_against()
    if against is not None:
        log.info("training is not compiled: %s", against)
        yield
        return
    with _later(ensemble, atoms, watch):
        yield


@contextmanager
def _later(ensemble: Ensemble, atoms: float, watch: Pauses | None) -> Iterator[None]:
    """Compile in the background once training has cost as much as compiling does, so that a run loses at most as much
    time as it has already used. A run that ends earlier does not compile."""
    from aims_pax.models.mace.compile_cache import BackgroundCompile

    begun: list[BackgroundCompile] = []

    def counted(samples: int) -> None:
        if not begun and samples * atoms >= BEGINS:
            log.info(
                "compiling training in the background (low priority); training runs uncompiled until then"
            )
            begun.append(BackgroundCompile(ensemble.members[0].model))

    def resting(begins: bool) -> None:
        for aside in begun:
            aside.rest(begins)
        if before is not None:
            before(begins)

    before = watch.on_pause if watch is not None else None
    ensemble.counted = counted
    if watch is not None:
        watch.on_pause = resting
    try:
        yield
    finally:
        ensemble.counted = lambda samples: None
        if watch is not None and before is not None:
            watch.on_pause = before
        for aside in begun:
            aside.close()


def _labels(active: ActiveLearningSettings) -> float:
    """Largest number of structures that active learning can label: one per uncertainty check, at most `max_labels`."""
    checks = float(active.num_trajectories * active.max_MD_steps / max(1, active.skip_step_mlff))
    return min(checks, active.max_labels)


def _convergence(patience: int, most: int) -> float:
    return min(most, PATIENCES * patience)


def _or(limit: float, otherwise: float) -> float:
    return limit if math.isfinite(limit) else otherwise
