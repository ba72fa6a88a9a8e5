"""The model card: a Markdown file next to each delivered model that describes it and its limits."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from aims_pax.core.rules import BELIEVED
from aims_pax.record.delivered_models import recorded_models
from aims_pax.record.files import write_bytes
from aims_pax.record.restart_compatibility import BASELINE
from aims_pax.report import cost_summary, label_counts
from aims_pax.report.accuracy import NAMES, UNSEEN, ErrorRow, by_element, by_system, held_out, untested
from aims_pax.report.calibration import atomic_errors, calibrate
from aims_pax.report.changed_settings import differing
from aims_pax.report.data_sources import compared, frames_by_set, method_of_labels, source_rows
from aims_pax.report.distances import shortest_by_pair
from aims_pax.report.formatting import (
    BEST,
    DELIVERED,
    HONEST,
    ROUGHLY,
    STAGES,
    STATES,
    calibration_sentence,
    format_number,
    milli,
    moment,
    plural,
)
from aims_pax.report.load_run import load_run
from aims_pax.report.run_record import RunRecord
from aims_pax.report.run_verdict import cut_off, last_training, run_verdict, validation_error
from aims_pax.report.temperatures import by_geometry, earlier_temperatures, of_md, target_temperatures
from aims_pax.report.tolerant_readers import json_file
from aims_pax.report.training_copies import copies_line
from aims_pax.settings.mace import ArchitectureSettings

MACE = {"title": "MACE", "packages": ["mace-torch", "torch", "e3nn"]}  # when no kind of model is recorded
ATOMIC = "atomic_energies.json"
PRECISION = "precision.json"
ELECTRONS = {"charge": "charge", "spin": "multiplicity"}  # entries of the labelled frames, in words
FEW = 20  # held-out frames below which an error is a rough estimate


def write_cards(folder: Path) -> list[Path]:
    """Write `results/<model>.md` for every delivered model; returns the paths. Raises SettingsError without a run."""
    run = load_run(Path(folder))
    paths = []
    for name in run.results:
        path = run.folder / "results" / f"{Path(name).stem}.md"
        write_bytes(path, card(run, name).encode())
        paths.append(path)
    return paths


def card(run: RunRecord, model: str) -> str:
    """The card of one model as Markdown."""
    made = _made_as(run, model)
    parts = [
        f"# {_plain(Path(model).stem)}",
        f"A {_plain(str(made['title']))} force field made by aims-PAX {run.version} on {moment(run.heard)} · "
        f"{_plain(cost_summary.run_in_one_line(run))}.",
        f"**{_plain(run_verdict(run).text)}**",
        _section("Level of theory", _theory(run)),
        _section("Data", _data(run)),
        _section("Errors", _errors(run)),
        _section("Uncertainty", _uncertainty(run)),
        _section("Conditions", _conditions(run)),
        _section("Known gaps", "\n".join(f"- {gap}" for gap in gaps(run))),
        _section("Energies of the isolated atoms", _atoms(run)),
        _section("Architecture and training", _settings(run, model)),
        _section("File and versions", _versions(run, model)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _made_as(run: RunRecord, model: str) -> Mapping[str, Any]:
    """The recorded entries for a delivered model: kind, title, packages, architecture, begun_from."""
    return MACE | recorded_models(run.folder / "results").get(model, {})


def gaps(run: RunRecord) -> list[str]:
    """The limits of this model and what was not tested, one sentence each."""
    found = []
    name, part = held_out(run.predictions) if run.predictions else ("", {})
    if not name.startswith("test"):
        found.append(
            "No test frames: every labelled frame was used for training or for deciding when to stop "
            "(ACTIVE_LEARNING.n_test reserves frames for testing; `aims-PAX test` tests on frames of your own)."
        )
    elif part and len(part["n_atoms"]) < FEW:
        found.append(f"Only {plural(len(part['n_atoms']), 'test frame')}: the errors are rough estimates.")
    if missing := untested(run):
        found.append(f"{missing}.")
    n_valid = validation_error(run)[1]
    if run.predictions and n_valid < BELIEVED:
        found.append(
            f"The epoch was chosen on {plural(n_valid, 'validation frame')}: too few to tell a better model from a "
            "worse one (ACTIVE_LEARNING.valid_ratio)."
        )
    found += cut_off(run)
    if run.state != "finished":
        found.append(f"The run is {STATES[run.state]}: this model may not be the last.")
    for system, row in run.counts().items():
        if sum(row.values()) < 10:
            found.append(f"{_plain(system)}: only {plural(sum(row.values()), 'labelled frame')}.")
    for kind, n in run.failures.most_common():
        found.append(f"{plural(n, 'frame')} could not be labelled ({kind}) and were not learnt.")
    ended = [t for t in run.trajectories if t.status == "done" and t.reason and "in a row" in t.reason]
    if ended:
        found.append(f"{plural(len(ended), 'trajectory')} ended early: {_plain(ended[0].reason or '')}.")
    if run.predictions and part:
        h = calibrate(*atomic_errors(part))
        if math.isfinite(h.rank) and (h.rank < ROUGHLY or not 1 / HONEST <= h.ratio <= HONEST):
            found.append(calibration_sentence(h.rank, h.ratio, DELIVERED))
    if said := undetermined(run):
        found.append(said)
    temperatures = " or ".join(filter(None, [target_temperatures(run.settings), *earlier_temperatures(run)]))
    found.append(
        f"There are no data at temperatures far from {temperatures or 'those of the systems'}"
        f"{' K' if temperatures else ''}, or for other compositions, charges or spins than those of the systems above."
    )
    return found


def undetermined(run: RunRecord) -> str:
    """A sentence if the atomic energies were fitted to fewer independent compositions than elements; else ""."""
    said = json_file(run.folder / "results" / ATOMIC)
    rank, n = said.get("rank"), len(said.get("energies", {}))
    if "least squares" not in str(said.get("source")) or not isinstance(rank, int) or rank >= n:
        return ""
    compositions = "one composition does" if rank == 1 else f"{rank} independent compositions do"
    begun = "foundation" in str(said["source"])
    worth = "mix the method of the foundation model with that of the labels" if begun else "are meaningless"
    return (
        f"The energies of the isolated atoms are not determined: {compositions} not fix {n} elements. Energies of "
        f"atomisation, of reactions, and of compositions other than those trained on {worth} (to obtain them, "
        "set ARCHITECTURE.atomic_energies to reference, or to values of your own)."
    )


# ---------------------------------------------------------------- sections


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def _theory(run: RunRecord) -> str:
    skip = {"source", "method"}
    rows = [
        [k, v if isinstance(v, str) else str(v)]
        for k, v in run.method.items()
        if k not in skip and v not in (None, "")
    ]
    given = _plain(method_of_labels(run))
    if baseline := run.settings.get(BASELINE):
        given += (
            f" The models have learnt the difference to a baseline, {_plain(baseline)}: energies, forces and errors of "
            "this card are those of the sum. The model file alone holds only the difference."
        )
    short = [[k, v] for k, v in rows if len(v) <= 200 and "\n" not in v]
    long = "\n\n".join(f"{_plain(k)}:\n\n```\n{v.strip()}\n```" for k, v in rows if [k, v] not in short)
    return "\n\n".join(t for t in (given, _table(["", ""], short), long) if t)


def _data(run: RunRecord) -> str:
    rows: list[list[Any]] = [
        [name, *(row.get(s, 0) for s in ("train", "valid", "test"))]
        for name, row in frames_by_set(run).items()
    ]
    if len(rows) > 1:
        rows.append(["all", *np.sum([r[1:] for r in rows], axis=0).tolist()])
    pairs = shortest_by_pair(run.structures)
    near = [
        [f"{chemical_symbols[a]}–{chemical_symbols[b]}", f"{min(d):.2f}"]
        for (a, b), d in sorted(pairs.items())
    ]
    digest = data_hash(run)
    text = _table(["system", "training", "validation", "test"], rows)
    text += f"\n\n{said}" if (said := _electrons(run)) else ""
    text += f"\n\nLabels of this run's reference: {_plain(label_counts.labels_line(run))}."
    text += _sources(run)
    text += f"\n\n{_plain(said)}" if (said := copies_line(run)) else ""
    text += f"\n\nSHA-256 of the frame ids with their sets and energies: `{digest}`" if digest else ""
    return text + (
        "\n\nShortest distances in the labelled frames (Å):\n\n" + _table(["pair", "Å"], near) if near else ""
    )


def _electrons(run: RunRecord) -> str:
    """A sentence on the charges and multiplicities of the labelled frames; "" if none is stated."""
    found: dict[str, set[str]] = {}
    for s in run.structures:
        said = [f"{words} {s.info[key]}" for key, words in ELECTRONS.items() if key in s.info]
        found.setdefault(s.system or "—", set()).add(", ".join(said) or "not stated")
    if {text for each in found.values() for text in each} <= {"not stated"}:
        return ""
    each = "; ".join(f"{_plain(name)}: {' or '.join(sorted(said))}" for name, said in sorted(found.items()))
    return f"Charge (e) and multiplicity 2S+1 of the frames: {each}."


def _sources(run: RunRecord) -> str:
    """A table of the sources of the labels, if not all come from the reference of this run."""
    rows = source_rows(run)
    lines = [compared(entry) for entry in run.given_check] if rows else []
    parts = [_table(["labelled by", "frames"], rows), *map(_plain, lines)]
    return "".join(f"\n\n{part}" for part in parts if part)


def data_hash(run: RunRecord) -> str:
    """SHA-256 (64 hex digits) of every labelled frame's id, reference energy and sets; "" without frames."""
    sets: dict[str, list[str]] = {}
    for split, frames in run.splits.items():
        for frame in frames:
            sets.setdefault(frame, []).append(split)
    lines = sorted(f"{s.id} {s.energy!r} {','.join(sorted(sets.get(s.id, [])))}" for s in run.structures)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def _errors(run: RunRecord) -> str:
    if not run.predictions:
        return "Not evaluated: there is no results/predictions.npz."
    rows = by_system(run.predictions)
    unseen = [r for r in rows if r.split in UNSEEN]
    if unseen:
        text = "On test frames, which influenced no decision of the run.\n\n" + _error_table(unseen)
    else:
        text = (
            "**There are no test frames.** These are the validation frames, which decided when training stopped: "
            "errors on new frames may be larger.\n\n" + _error_table([r for r in rows if r.split == "valid"])
        )
    elements = [r for r in by_element(run.predictions) if r.split in ({u.split for u in unseen} or {"valid"})]
    cells = [
        [r.group, NAMES.get(r.split, r.split), r.atoms, milli(r.force_mae), milli(r.force_rmse)]
        for r in elements
    ]
    return text + "\n\n" + _table(["element", "set", "atoms", "force MAE meV/Å", "force RMSE meV/Å"], cells)


def _error_table(rows: Sequence[ErrorRow]) -> str:
    stressed = any(math.isfinite(r.stress_mae) for r in rows)
    head = ["system", "set", "frames", "energy MAE meV/atom", "energy RMSE", "force MAE meV/Å", "force RMSE"]
    cells: list[list[Any]] = []
    for r in rows:
        cells.append([r.group, NAMES.get(r.split, r.split), r.frames])
        cells[-1] += [milli(v) for v in (r.energy_mae, r.energy_rmse, r.force_mae, r.force_rmse)]
        cells[-1] += [milli(r.stress_mae), milli(r.stress_rmse)] if stressed else []
    return _table(head + (["stress MAE meV/Å³", "stress RMSE"] if stressed else []), cells)


def _uncertainty(run: RunRecord) -> str:
    if not run.predictions:
        return ""
    name, part = held_out(run.predictions)
    h = calibrate(*atomic_errors(part)) if part else None
    if h is None or not math.isfinite(h.rank):
        return "Not measured: it needs at least two members and frames that were not trained on."
    said = calibration_sentence(h.rank, h.ratio, DELIVERED)
    own = bool(np.isnan(run.predictions["energy_sd"]).all())  # a committee also has a spread of energies
    whose = "Spread predicted by the model itself" if own else "Spread of the members"
    return f"{whose} against the delivered model's error of each atom's force, on {name}. {said}"


def _conditions(run: RunRecord) -> str:
    rows = [
        ["ensemble", by_geometry(of_md(run.settings, "stat_ensemble"))],
        ["target temperature (K)", target_temperatures(run.settings)],
        ["time step (fs)", by_geometry(of_md(run.settings, "timestep"))],
    ]
    seen = [v for o in run.observables for v in o.temperature if math.isfinite(v)]
    if seen:
        rows.append(["temperatures reached (K)", f"{min(seen):.0f} … {max(seen):.0f}"])
    steps = sum(t.step for t in run.trajectories)
    rows.append(["exploration", f"{len(run.trajectories)} trajectories, {steps} MD steps together"])
    return _table(["", ""], [r for r in rows if r[1]])


def _atoms(run: RunRecord) -> str:
    said = json_file(run.folder / "results" / ATOMIC)
    if said:
        source, energies = str(said.get("source", "")), said.get("energies", {})
        table = _table(["element", "eV"], [[k, format_number(float(v), 9)] for k, v in energies.items()])
        warning = undetermined(run)
        what = "Of the difference to the baseline: reference − baseline." if BASELINE in run.settings else ""
        return "\n\n".join(t for t in (f"**{warning}**" if warning else "", what, source, table) if t)
    written = run.setting("ARCHITECTURE.atomic_energies")
    return (
        f"As written in mace.yaml: `{written}`"
        if written
        else "Not given: determined by the run; see its log."
    )


def _settings(run: RunRecord, model: str) -> str:
    """Settings, what else is known of the model, and stages."""
    known = _made_as(run, model)
    changed = [
        [k, v, d]
        for k, v, d in differing(run.settings)
        if not k.startswith(("ARCHITECTURE.", "MISC.", "MODEL."))
    ]
    stages = [[STAGES.get(s.name, s.name), s.stopped or "—"] for s in run.stages]
    parts = [
        _table(["property of the model", ""], _properties(known)),
        _table(["setting", "value"], _keys_of_model(run, known)),
    ]
    if changed:
        parts.append("Other settings that differ from the defaults:")
        parts.append(_table(["setting", "value", "default"], changed))
    parts.append(_table(["stage", "ended because"], stages))
    parts.append(f"The weights are those of {BEST}. {last_training(run)}".strip())
    return "\n\n".join(p for p in parts if p)


def _architecture(known: Mapping[str, Any], keys: bool) -> dict[str, str]:
    """What was read from the model: as keys of ARCHITECTURE in mace.yaml, or what is no such key."""
    own = known.get("kind", "mace") == "mace"
    return {
        str(k): str(v)
        for k, v in known.get("architecture", {}).items()
        if (own and k in ArchitectureSettings.model_fields) == keys
    }


def _properties(known: Mapping[str, Any]) -> list[list[str]]:
    """What no key sets: where the model comes from, and what was read from it."""
    origin = {"begun from": known.get("begun_from"), "pre-trained on": known.get("pre-training")}
    return [
        *([name, str(value)] for name, value in origin.items() if value),
        *([name.replace("_", " "), value] for name, value in _architecture(known, keys=False).items()),
    ]


def _keys_of_model(run: RunRecord, known: Mapping[str, Any]) -> list[list[str]]:
    """The settings of the model: the architecture as recorded for the delivered model, otherwise as in mace.yaml."""
    family = "mace.ARCHITECTURE." if known.get("kind", "mace") == "mace" else "aimsPAX.MODEL."
    keys = [k for k in run.settings if k.startswith((family, "mace.GENERAL.default_dtype"))]
    rows = {k.removeprefix("mace.").removeprefix("aimsPAX."): run.settings[k] for k in keys}
    if known.get("begun_from"):  # the section ARCHITECTURE of mace.yaml was not used
        rows = {k: v for k, v in rows.items() if not k.startswith("ARCHITECTURE.")}
    rows |= {f"ARCHITECTURE.{k}": v for k, v in _architecture(known, keys=True).items()}
    return [[key, value] for key, value in rows.items()]


def _versions(run: RunRecord, model: str) -> str:
    rows = [["model", model]]
    path = run.folder / "results" / model
    if path.is_file():
        rows.append(["precision", _precision(json_file(run.folder / "results" / PRECISION))])
        rows.append(["in ASE, with uncertainty", 'atoms.calc = aims_pax.calculator("results")'])
        rows.append(["SHA-256", hashlib.sha256(path.read_bytes()).hexdigest()])
    rows.append(["Python", platform.python_version()])
    for name in ("aims-pax", *_made_as(run, model)["packages"], "ase", "numpy"):
        try:
            rows.append([name, metadata.version(name)])
        except metadata.PackageNotFoundError:
            continue
    return _table(["", ""], [r for r in rows if r[1]])


def _precision(found: dict[str, Any]) -> str:
    """How to load the file, and how accurately the loaded model reproduced the errors of this card."""
    if not found:
        return ""
    dtype, step, difference = found["dtype"], found["resolution"], found["difference"]
    why = (
        f": single precision resolves these energies only to {step:.2g} eV"
        if dtype == "float64" and step > 1e-3
        else ""
    )
    loader = found.get("loader") or f'MACECalculator(…, default_dtype="{dtype}")'  # older runs delivered MACE
    return (
        f"{loader}{why}. Loaded this way, relative energies of structures agree with those of "
        f"this card to within {1000 * difference:.2g} meV"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_plain(str(v)) for v in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text escaped so that it is neither markup nor the end of a table cell."""
    text = " ".join(text.split())
    return (
        text.replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("`", "'")
        .replace("*", "\\*")
    )
