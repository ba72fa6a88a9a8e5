"""`aims-PAX status`: the state of a run, running or finished, from the files of its folder. Fits 80 columns."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aims_pax.core.stop_rule import decide
from aims_pax.record.delivery_progress import MD_TEST, REPORT, STEPS
from aims_pax.record.run_requests import asked_for, paused_since
from aims_pax.report.cost_summary import IDLE, errors, wall_seconds
from aims_pax.report.formatting import DOING, STAGES, compact, duration, milli, plural
from aims_pax.report.label_counts import ACTIVE, by_stage
from aims_pax.report.load_run import load_run
from aims_pax.report.run_record import RunRecord, StageRecord, current_stage
from aims_pax.report.run_verdict import run_verdict
from aims_pax.report.seen_files import SeenFiles
from aims_pax.report.target_error import target_of
from aims_pax.report.time_left import Limit, rounded_seconds, time_left

WIDTH = 80
ROWS = 20  # trajectories shown
KNOWN = ("initial", "converge", "train", "explore", "recalculate")  # first parts of stage names
INITIAL_SIZE = "INITIAL_DATASET_GENERATION.max_initial_set_size"
SIZE = "ACTIVE_LEARNING.max_train_set_size"
EPOCHS = {  # stage → the key that limits its epochs, where it is not that of active learning
    "converge-initial": "INITIAL_DATASET_GENERATION.max_convergence_epochs",
    "pretrain": "PRETRAINING.max_epochs",
}
MARKS = {"running": "▶", "waiting": "…", "training": "◆", "done": "■", "unknown": "?"}


def status(folder: Path, seen: SeenFiles | None = None) -> dict[str, Any]:
    """State of the run as plain values for JSON: times in s, forces eV/Å, energies eV/atom; None if unknown.

    seen: what the looks before have read; the next one reads only what was added.
    Raises SettingsError when the folder contains no run.
    """
    run = load_run(folder, brief=True, seen=seen)
    if run.state == "finished" and run.writing:
        ended = "killed" if (folder / "restart" / "lock").exists() else "stopped"
        run = replace(run, state="running" if run.holder else ended)
    now = time.time()
    working = bool(run.holder)
    stages = [s for s in run.stages if s.name.partition("-")[0] in KNOWN]
    stage = current_stage(stages)
    heard = max(run.heard, _modified(folder / "restart" / "lock") if working else 0.0)
    spent = math.nan if stage is None else _at_work(run, stage, folder, now if working else stage.heard)
    limit, left = ("", math.nan)
    if working and stage is not None and not stage.stopped:
        limit, left = time_left(spent, _limits(run, stage, folder))
    force, energy, on = errors(run)
    if run.predictions and stage is not None and not stage.stopped:
        on += ", of the model delivered before"
    failed = dict(run.failures)
    answered = run.labelled + sum(failed.values())
    return {
        "name": run.name,
        "folder": str(folder.resolve()),
        "state": _state(run, folder),
        "pid": run.holder.get("pid"),
        "host": run.holder.get("host"),
        "last_sign_s_ago": _plain(now - heard if heard else math.nan),
        "reason": _reason(run),
        "verdict": run_verdict(run).text if run.state == "finished" else None,
        "goal": run_verdict(run).kind,
        "targets": list(_targets(run)),
        "stage": None if stage is None else stage.name,
        "stage_s": _plain(spent),
        "stages": {s.name: s.stopped for s in stages},
        "paused_s": _plain(now - (paused_since(folder) or math.nan)),
        "left_s": _plain(left),
        "left_until": f"until {limit}" if limit else None,
        "labels": {
            "asked": answered + run.pending,
            "running": run.pending,
            "done": run.labelled,
            "failed": failed,
            "from_store": run.reused,
            "calculations": run.calculations,
            "reference_s": _plain(run.reference_seconds),
            "budget": _plain(_limit(run, "ACTIVE_LEARNING.max_labels")),
            "asked_of_budget": by_stage(run)[ACTIVE].asked,
            "by_stage": {stage: {**vars(n), "asked": n.asked} for stage, n in by_stage(run).items()},
        },
        "data": run.counts(),
        "training_set": _training_set(run, None if stage is None else stage.name),
        "training": {
            "visits": len(run.visits),
            "epochs": {name: len(epochs) for name, epochs in run.losses.items()},
            "force_mae": _plain(force),
            "energy_mae": _plain(energy),
            "errors_on": on or None,
        },
        "shares_s": {k: round(v, 1) for k, v in run.shares().items()},
        "work_s": _plain(wall_seconds(run)),
        "trajectories": list(_trajectories(run)),
        "models": [f"results/{name}" for name in run.results],
    }


def status_lines(now: dict[str, Any]) -> list[str]:
    """The status as text, no line longer than 80 columns."""
    out = [_head(now)]
    if now["reason"]:
        out += _wrapped("", now["reason"])
    if now["verdict"]:
        out += _wrapped("verdict", now["verdict"])
    if now["stage"]:
        name = STAGES.get(now["stage"], now["stage"])
        done = now["stages"].get(now["stage"])
        text = f"{name}: {done}" if done else f"{name} for {duration(now['stage_s'] or math.nan)}"
        out += _wrapped("stage", text)
    if now["left_s"] is not None:
        out += _wrapped("left", f"about {rounded_seconds(now['left_s'])} of this stage ({now['left_until']})")
    for of in now["targets"]:
        word = "" if of["verdict"] == "open" else f"{of['verdict']}, "
        out += _wrapped("target", f"{of['system']}: {word}{of['reason']}")
    out += _wrapped("labels", _labels(now["labels"]))
    out += _wrapped("data", _data(now["data"], now["training_set"]))
    out += _wrapped("training", _training(now["training"]))
    out += _wrapped("time", _time(now))
    if now["models"]:
        out += _wrapped("models", " · ".join(now["models"]))
    if now["trajectories"]:
        out += ["", *_table(now["trajectories"])]
    return [line[:WIDTH] for line in out]


# ---------------------------------------------------------------- values


def _state(run: RunRecord, folder: Path) -> str:
    if run.state != "running":
        return run.state
    if asked_for(folder) in ("stop", "cancel"):
        return "stopping"
    if paused_since(folder) is not None:
        return "paused"
    return "pausing" if asked_for(folder) == "pause" else "running"


def _reason(run: RunRecord) -> str:
    """Why the run ended; "" while it is running."""
    if run.holder:
        return ""
    if run.error:
        return run.error
    if run.state == "finished":
        return ""
    if run.state in ("killed", "stopped") and (missing := _missing_results(run)):
        return f"the run ended while its results were written; missing: {missing}; run the same command to continue"
    said = _last_line(run)
    if "everything is saved" in said:
        return said
    last = current_stage(run.stages)
    ended = last is not None and last.stopped
    if run.unfinished_start:
        return "the process was killed or its machine went down while it started; run the same command again"
    if run.state == "killed":
        return "the process was killed or its machine went down; run the same command to continue"
    if ended:
        return ""
    if said.startswith("done: "):  # a command that only labels: aims-PAX-recalc, aims-PAX-atomic-energies
        return said.removesuffix("; for mace.yaml:")
    return "the process ended for an unknown reason; run the same command to continue"


def _missing_results(run: RunRecord) -> str:
    """What was not written when the delivery was interrupted; "" if no stage has begun since or none was."""
    last = current_stage(run.stages)
    if not run.writing or last is None or not last.stopped:
        return ""
    report = run.setting("aimsPAX.MISC.report") != "False"
    tested = run.setting("aimsPAX.MISC.md_test", "0") != "0"
    unwanted = {REPORT: not report, MD_TEST: not tested}
    left = STEPS[STEPS.index(run.writing) :]
    return ", ".join(step for step in left if step == run.writing or not unwanted.get(step, False))


def _last_line(run: RunRecord) -> str:
    """The last line of the newest log, without its time."""
    folder = run.folder / Path(run.setting("aimsPAX.MISC.log_dir", "logs")).expanduser()
    logs = sorted((p for p in folder.glob("*.log") if p.name != "traceback.log"), key=_modified)
    try:
        with open(logs[-1], "rb") as file:
            file.seek(max(0, logs[-1].stat().st_size - 2000))
            last = file.read().decode("utf-8", errors="replace").strip().splitlines()[-1]
    except (OSError, IndexError):
        return ""
    return last.partition(" · ")[2] or last


def _at_work(run: RunRecord, stage: StageRecord, folder: Path, until: float) -> float:
    """Seconds the run has spent on a stage, without pauses and without the time between two processes."""
    idle = [(s.began, s.ended) for s in run.spans if s.doing in ("stopped", "paused")]
    resting = paused_since(folder)
    if run.holder and resting is not None:
        idle.append((resting, until))
    elif run.state == "starting":
        idle.append((run.heard, until))
    return until - stage.began - sum(max(0.0, min(e, until) - max(b, stage.began)) for b, e in idle)


def _limits(run: RunRecord, stage: StageRecord, folder: Path) -> Iterator[Limit]:
    """Every limit that may end the stage, and how much of it is used."""
    al, initial = "ACTIVE_LEARNING.", "INITIAL_DATASET_GENERATION."
    own = [sum(e.stage == stage.name for e in epochs) for epochs in run.losses.values()]
    if stage.name == "initial":
        yield _of(run, initial + "max_initial_epochs", max(own, default=0))
        yield _of(run, INITIAL_SIZE, len(run.splits.get("train", ())))
    elif stage.name == "explore":
        checks = [float(t.times[0]) for t in run.trajectories if len(t.times)]
        if not checks:
            return  # the members train first
        since = _at_work(run, stage, folder, min(checks))
        steps = [t.step for t in run.trajectories]
        sizes = [v.n_train for v in run.visits if v.stage == "explore"] or [0]
        yield _of(run, al + "max_MD_steps", sum(steps) / max(1, len(steps)), since=since)
        yield _of(run, al + "max_labels", by_stage(run)[ACTIVE].asked, since=since)
        yield _of(run, SIZE, sizes[-1], sizes[0], since)
    elif any(own):
        last = run.convergence if stage.name == "converge" else ()
        learning = [c.epochs - c.continued_at for c in last if c.epochs] or [n for n in own if n]
        yield _of(run, EPOCHS.get(stage.name, al + "max_convergence_epochs"), sum(learning) / len(learning))


def _training_set(run: RunRecord, stage: str | None) -> dict[str, Any]:
    """The training set size that a setting limits: all members together in the initial dataset, one member later."""
    if stage in ("initial", "converge-initial"):
        n, key, whose = len(run.splits.get("train", ())), INITIAL_SIZE, "all members together"
    else:
        n, key, whose = run.member_train, SIZE, "a member"
    limit = _plain(_limit(run, key)) if stage in ("initial", "explore") else None  # no limit in later stages
    return {"of": whose, "size": n, "limit": limit, "limited_by": key.partition(".")[2] if limit else None}


def _of(run: RunRecord, key: str, now: float, first: float = 0.0, since: float = 0.0) -> Limit:
    return Limit(key.partition(".")[2], first, now, _limit(run, key), since)


def _limit(run: RunRecord, key: str) -> float:
    try:
        return float(run.setting(key, "inf"))
    except ValueError:
        return math.inf


def _targets(run: RunRecord) -> Iterator[dict[str, Any]]:
    """How far each system is from target_error, as the stop rule sees it; nothing when the verdict says it."""
    target = target_of(run)
    if not target or run.state == "finished":
        return
    confidence = float(run.setting("ACTIVE_LEARNING.confidence"))
    for system, calibration in run.calibrations:
        if not calibration.pairs:  # a snapshot may be a minute old
            continue
        found = decide(calibration, run.n_train, target, confidence)
        yield {
            "system": system,
            "verdict": found.verdict,
            "error": _plain(found.error),
            "upper": _plain(found.upper),
            "target": target,
            "reason": found.reason,
        }


def _trajectories(run: RunRecord) -> Iterator[dict[str, Any]]:
    temperatures = {o.trajectory: o.temperature for o in run.observables}
    for t in run.trajectories:
        heat = temperatures.get(t.index)
        yield {
            "index": t.index,
            "system": t.system,
            "status": t.status,
            "reason": t.reason,
            "step": t.step,
            "rewinds": t.rewinds,
            "temperature": _plain(float(heat[-1]) if heat is not None and len(heat) else math.nan),
            "uncertainty": _plain(float(t.uncertainty[-1]) if len(t.uncertainty) else math.nan),
            "threshold": _plain(float(t.threshold[-1]) if len(t.threshold) else math.nan),
        }


def _plain(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


# ---------------------------------------------------------------- text


def _head(now: dict[str, Any]) -> str:
    parts = [now["name"], now["state"] + (", goal not reached" if now["goal"] == "missed" else "")]
    if now["paused_s"] is not None and now["state"] == "paused":
        parts[-1] += f" for {duration(now['paused_s'])}"
    if now["host"]:
        parts.append(f"pid {now['pid']} on {now['host']}")
    if now["last_sign_s_ago"] is not None:
        parts.append(f"last sign of life {duration(max(0.0, now['last_sign_s_ago']))} ago")
    return " · ".join(str(p) for p in parts)


def _labels(labels: dict[str, Any]) -> str:
    stages = [f"{n['labelled']} {stage}" for stage, n in labels["by_stage"].items() if n["asked"]]
    parts = [f"{labels['done']} done" + (f" ({' + '.join(stages)})" if len(stages) > 1 else "")]
    if labels["running"]:
        parts.append(f"{labels['running']} requested and not finished")
    if labels["failed"]:
        kinds = ", ".join(f"{n} {kind}" for kind, n in labels["failed"].items())
        parts.append(f"{sum(labels['failed'].values())} failed ({kinds})")
    if labels["budget"] is not None:
        parts.append(f"{labels['asked_of_budget']} of max_labels {labels['budget']:g} requested")
    if labels["calculations"]:
        spent, unit = compact(labels["reference_s"] or 0.0)
        parts.append(f"{plural(labels['calculations'], 'calculation')}, {spent} {unit} in total")
    return " · ".join(parts)


def _data(data: dict[str, dict[str, int]], limited: dict[str, Any]) -> str:
    words = (("train", "training"), ("valid", "validation"), ("test", "test"))
    sums = {split: sum(row.get(split, 0) for row in data.values()) for split, _ in words}
    text = " + ".join(f"{sums[split]} {word}" for split, word in words if sums[split])
    if not text:
        return "none yet"
    text += " (all members together)"
    if limited["limit"] is not None:
        text += f" · {limited['size']} of {limited['limited_by']} {limited['limit']:g} ({limited['of']})"
    return text


def _training(training: dict[str, Any]) -> str:
    text = plural(training["visits"], "visit")
    if training["force_mae"] is not None:
        text += f" · force MAE {milli(training['force_mae'])} meV/Å"
    if training["energy_mae"] is not None:
        text += f" · energy MAE {milli(training['energy_mae'])} meV/atom"
    return text + (f" ({training['errors_on']})" if training["errors_on"] else "")


def _time(now: dict[str, Any]) -> str:
    work = now["work_s"] or 0.0
    idle = {k: v for k, v in now["shares_s"].items() if k in IDLE and v > 0.5}
    shares = {k: v for k, v in now["shares_s"].items() if k not in IDLE and work and v > 0.005 * work}
    parts = [f"{DOING.get(k, k)} {100 * v / work:.0f} %" for k, v in shares.items()]
    parts += [f"{IDLE[k]} {duration(v)}" for k, v in idle.items()]
    return " · ".join([f"{duration(work)} of work since the beginning", *parts])


def _table(trajectories: Sequence[dict[str, Any]]) -> Iterator[str]:
    width = min(24, max(6, *(len(t["system"]) for t in trajectories)))
    yield f"   # {'system':{width}} {'state':10}{'step':>10}{'T (K)':>8}   uncertainty / threshold"
    for t in trajectories[:ROWS]:
        heat = "" if t["temperature"] is None else f"{t['temperature']:.0f}"
        spread = "" if t["uncertainty"] is None else f"{t['uncertainty']:.3f}"
        limit = "—" if t["threshold"] is None else f"{t['threshold']:.3f}"
        shown = f"{spread:>7} / {limit} eV/Å" if spread else ""
        state = f"{MARKS.get(t['status'], ' ')} {t['status']}"
        yield f"{t['index']:4} {t['system'][:width]:{width}} {state:10}{t['step']:>10}{heat:>8}   {shown}".rstrip()
    if len(trajectories) > ROWS:
        counts: dict[str, int] = {}
        for t in trajectories:
            counts[t["status"]] = counts.get(t["status"], 0) + 1
        yield f"   … {len(trajectories)} in all: " + ", ".join(f"{n} {s}" for s, n in counts.items())


def _wrapped(label: str, text: str) -> list[str]:
    """`label    text`, wrapped at WIDTH."""
    import textwrap

    indent = " " * 9
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{label:9}", subsequent_indent=indent, break_long_words=True
    ) or [label]
