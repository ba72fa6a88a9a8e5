"""The short MD test at the end of a run, for its report."""

from __future__ import annotations

import logging
import time

from aims_pax.commands.md_test.run_test import TestBudget, digest_of_test, run_md_test, write_md_test
from aims_pax.commands.md_test.starts import systems_of_frames, with_moving_atoms
from aims_pax.engine.run_context import RunContext
from aims_pax.models.kinds import kind_of_run
from aims_pax.record.delivered_models import file_digest
from aims_pax.report.cost_summary import wall_seconds
from aims_pax.report.load_run import load_run
from aims_pax.report.md_test import md_verdict, read_md_test

MOST = 16  # trajectories
SHARE, LEAST = 0.02, 20.0  # of the time of the run, and s that it may take at least

log = logging.getLogger(__name__)


def md_test_at_end(run: RunContext, chosen: list[int]) -> None:
    """Write `results/md_test.json` for the delivered members `chosen`, unless it is there for the same models and data.

    Raises Abandoned when the run is stopped.
    """
    steps = run.settings.misc.md_test
    if not steps:
        return
    results, suffix = run.folder.results, kind_of_run(run.settings).suffix
    delivered = [results / f"{run.ensemble.members[m].name}{suffix}" for m in chosen]
    files = {path.name: file_digest(path) for path in delivered}
    frames = [*run.dataset.union("train"), *run.dataset.union("valid"), *run.dataset.test]
    md = run.settings.md_by_system
    systems = systems_of_frames(frames, lambda name: md.get(name, run.settings.md) if md else run.settings.md)
    if not with_moving_atoms(systems):
        log.warning("no MD test: no labelled structures with atoms that can move")
        return
    worked = wall_seconds(load_run(run.folder.root, brief=True))
    budget = TestBudget(steps, most=MOST, seconds=max(LEAST, SHARE * worked), seed=run.settings.model.seed)
    if read_md_test(results).get("digest") == digest_of_test(files, systems, budget):
        return
    began = time.monotonic()
    done = run_md_test(run.ensemble.potential(members=chosen), systems, budget, files, run.watch.stop)
    write_md_test(results, done.found, pictures=False)
    verdict = md_verdict(done.found)
    level = logging.INFO if verdict.kind == "fit" else logging.WARNING
    log.log(level, "MD test (%.0f s): %s", time.monotonic() - began, verdict.text)
