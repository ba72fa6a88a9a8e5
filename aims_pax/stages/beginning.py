"""The members of a run as they were before their first training: what a training from the beginning starts from.

random weights of the member's seed     by default
the foundation model, as perturbed      with FOUNDATION in mace.yaml
the pre-trained members                 with PRETRAINING
the given models                        with ACTIVE_LEARNING.initial_models
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from aims_pax.engine.run_context import RunContext
from aims_pax.models.base import ForceFieldModel
from aims_pax.models.kinds import kind_of_run
from aims_pax.record.checkpoint import Checkpoint
from aims_pax.stages.given_models import given_ensemble
from aims_pax.systems import elements

log = logging.getLogger(__name__)

PRETRAINED = "pretrain"  # name of the training in pre-training, in snapshots and the journal


def untrained_members(run: RunContext) -> ForceFieldModel | None:
    """The members before their first training on labels of the reference, in the order of the run's.

    None, with a line in the log, if they were pre-trained and the snapshots of that were removed.
    """
    settings, zs = run.settings, elements(s.frame for s in run.systems)
    active = settings.active_learning
    if active is not None and active.initial_models:
        return given_ensemble(settings, zs, run.folder)
    seeds = [member.seed for member in run.ensemble.members]
    members = kind_of_run(settings).build(settings, seeds, zs)
    if settings.pretraining is not None:
        arrays = _pretrained(run)
        if arrays is None:
            log.warning(
                "the pre-trained weights are no longer in %s, so the members cannot begin from them again: training "
                "continues from the present weights", run.folder.restart / PRETRAINED,
            )  # fmt: skip
            return None
        learnt = kind_of_run(settings).build(settings, seeds, zs)
        learnt.restore(arrays)
        members.begin_from(learnt)
    return members


def beginning_in_words(run: RunContext) -> str:
    """What the members began from, for the log and the model card."""
    settings = run.settings
    active = settings.active_learning
    if active is not None and active.initial_models:
        return "the given models"
    if settings.pretraining is not None:
        return "the pre-trained weights"
    return kind_of_run(settings).beginning(settings) or "random weights"


def _pretrained(run: RunContext) -> Mapping[str, Any] | None:
    """The arrays of all members at the end of pre-training."""
    if run.pretrained:
        return run.pretrained
    snapshot = Checkpoint(run.folder, PRETRAINED).read()
    return None if snapshot is None else snapshot.weights
