"""`aims-PAX diffusion inspect`: what a model learnt, as text and as a page with figures.

Samples are drawn without the guard and compared with the training data: how many the guard would refuse and why,
shortest distances, distribution of the distances (W1, Å), memorised fraction, and energies if a potential is given.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aims_pax import seeds
from aims_pax.commands.diffusion import named_potential
from aims_pax.engine.interrupts import InterruptMonitor, remaining_walltime
from aims_pax.errors import SettingsError
from aims_pax.models.diffusion.atoms_graph import AtomsGraph
from aims_pax.models.diffusion.denoiser import Denoiser
from aims_pax.models.diffusion.generation import Generating, sampled
from aims_pax.models.diffusion.memorisation import distance_fingerprint, memorised_fraction
from aims_pax.models.diffusion.model_files import (
    CHECKPOINTS,
    LAST,
    ModelFolder,
    load_denoiser,
    read_checkpoint,
)
from aims_pax.models.diffusion.short_relaxation import labels_or_none
from aims_pax.models.diffusion.structure_guard import StructureGuard
from aims_pax.models.diffusion.training_data import graphs_for, read_for_diffusion, split_held_out
from aims_pax.models.diffusion.training_run import source_of
from aims_pax.record.files import write_bytes, write_text
from aims_pax.record.log import to_console
from aims_pax.report.figures.diffusion import histogram_panel, loss_panel, picture_panel
from aims_pax.report.figures.style import Panel, escaped
from aims_pax.report.html_page import figures_html, html_table
from aims_pax.report.html_style import STYLE

if TYPE_CHECKING:
    from rich.console import Console

    from aims_pax.potential import Potential

log = logging.getLogger(__name__)

PAGE, FIGURES = "inspect.html", "inspect"
MOST_DATA = 400  # training structures for histograms


@dataclass
class Inspection:
    """Results: rows of the table (what, value), figures, samples."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    samples: list[AtomsGraph] = field(default_factory=list)


def inspect_command(
    folder: Path, n: int, seed: int, steps: int, potential: str | None, console: Console
) -> None:
    """`aims-PAX diffusion inspect`: writes inspect.html and inspect/*.png into the folder of the model."""
    with ExitStack() as stack:
        watch = InterruptMonitor(remaining_walltime(None))
        stack.enter_context(to_console(console, "INFO"))
        stack.enter_context(watch.listening())
        found = inspect_diffusion(folder, n, seed, steps, named_potential(potential), watch.raise_if_stopped)
        for what, value in found.rows:
            print(f"{what:32s} {value}")
        log.info("%s", write_inspection(folder, found))


def inspect_diffusion(
    folder: Path,
    n: int = 64,
    seed: int = 42,
    steps: int = 40,
    potential: Potential | None = None,
    stop: Any = lambda: None,
) -> Inspection:
    """Compare n samples with the training data. Raises SettingsError, also when the data are not there any more."""
    model, content = load_denoiser(folder)
    state = read_checkpoint(folder / CHECKPOINTS / LAST)
    found = Inspection(rows=_rows(model, content, state))
    found.panels.append(loss_panel([tuple(line) for line in state["history"]], png=True))
    if n:
        how = Generating(steps=steps, stop=stop)
        _compare(found, model, content, _data(folder, content), n, seed, how, potential)
    return found


def write_inspection(folder: Path, found: Inspection) -> Path:
    """Write the page, and each figure as a PNG; returns the path of the page."""
    for one in found.panels:
        write_bytes(folder / FIGURES / f"{one.name}.png", one.png)
    body = html_table("", ("", ""), found.rows, text=(0, 1)) + figures_html(found.panels)
    name = escaped(folder.name)
    text = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>diffusion model {name}</title>"
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head>'
        f"<body><main><h1>Diffusion model {name}</h1><p class=sub>{escaped(folder)}</p>{body}</main></body></html>\n"
    )
    write_text(folder / PAGE, text)
    return folder / PAGE


def _rows(model: Denoiser, content: ModelFolder, state: dict[str, Any]) -> list[tuple[str, str]]:
    from ase.data import chemical_symbols

    a, data = content.architecture, content.data
    formulas = ", ".join(f"{f} {k}" for f, k in list(data.formulas.items())[:6])
    epoch, loss, _ = state["history"][-1]
    valid = [v for *_, v in state["history"] if np.isfinite(v)]
    rows = [
        ("noisers", " + ".join(a.noisers)),
        ("elements", ", ".join(chemical_symbols[z] for z in a.vocabulary)),
        ("structures", f"{data.structures} ({formulas})"),
        ("noise levels", f"{a.sde}, {a.sigma_min:g} … {a.sigma_max:.3g} Å"),
        ("parameters", f"{sum(p.numel() for p in model.parameters())}"),
        ("trained", f"{int(epoch)} epochs, {state['counts'][1]} steps, {state['numbers'][0]:.0f} s"),
        ("loss", f"{loss:.4g}, held out {valid[-1]:.4g}" if valid else f"{loss:.4g}"),
    ]
    if a.conditioning:
        low, high = data.property_range or (0.0, 0.0)
        rows.append(("property", f"{a.conditioning}, {low:g} … {high:g} in the data"))
    if data.confinement:
        rows.append(("confinement", f"z from {data.confinement[0]:g} to {data.confinement[1]:g} Å"))
    return rows


def _compare(
    found: Inspection,
    model: Denoiser,
    content: ModelFolder,
    data: tuple[list[AtomsGraph], list[AtomsGraph]],
    n: int,
    seed: int,
    how: Generating,
    potential: Potential | None,
) -> None:
    train, held_out = data
    usual = Counter(tuple(g.x.tolist()) for g in train).most_common(1)[0][0]
    same = [g for g in train if tuple(g.x.tolist()) == usual]
    start = same[0]
    free = start.x[~start.fixed]
    counts = {int(z): int((free == z).sum()) for z in np.unique(free)}
    g = torch.Generator().manual_seed(seeds.seed_number("inspect", seed))
    found.samples = []
    while len(found.samples) < n:
        some = min(how.batch_size, n - len(found.samples))
        found.samples += sampled(model, [start] * some, g, how, counts)
    guard = StructureGuard(content.data)
    refused = Counter((guard.refusal(s) or "").partition(":")[0] for s in found.samples)
    passed = refused.pop("", 0)
    reasons = ", ".join(f"{k} {v}" for k, v in refused.most_common())
    found.rows.append(
        ("samples that pass the guard", f"{passed} of {n}" + (f"; {reasons}" if reasons else ""))
    )
    share = memorised_fraction(found.samples, train, held_out)
    found.rows.append(
        ("memorised (0.05 is chance)", "unknown: nothing held out" if np.isnan(share) else f"{share:.2f}")
    )
    ours = np.concatenate([distance_fingerprint(s) for s in found.samples])
    theirs = np.concatenate([distance_fingerprint(s) for s in same[:MOST_DATA]])
    found.rows.append(("pair distances, W1", f"{wasserstein_distance(ours, theirs):.3g} Å"))
    found.panels.append(
        histogram_panel("distances", "Pair distances", "distance (Å)", theirs, ours, png=True)
    )
    if potential is not None:
        _energies(found, same, potential, content)
    pictures = [s.to_frame() for s in found.samples if guard.refusal(s) is None] or [
        s.to_frame() for s in found.samples
    ]
    found.panels.append(picture_panel([s.to_frame() for s in same], "data", "Training data", png=True))
    found.panels.append(picture_panel(pictures, "samples", "Samples", png=True))


def _energies(found: Inspection, same: list[AtomsGraph], potential: Potential, content: ModelFolder) -> None:
    """With the charge and spin of the training structures, without those on which the potential fails."""

    def of(graphs: list[AtomsGraph]) -> list[float]:
        frames = [replace(g.to_frame(), **content.data.extra) for g in graphs]
        return [label.energy for label in labels_or_none(potential, frames) if label is not None]

    theirs, ours = of(same[:MOST_DATA]), of(found.samples)
    if failed := len(found.samples) - len(ours):
        found.rows.append(("the potential fails on", f"{failed} of {len(found.samples)} samples"))
    if not ours or not theirs:
        return
    median = f"samples {np.median(ours):.3f}, data {np.median(theirs):.3f} eV"
    found.rows.append(("median energy", median))
    found.panels.append(
        histogram_panel("energies", "Energies", "energy (eV)", theirs, ours, f"median: {median}", png=True)
    )


def _data(folder: Path, content: ModelFolder) -> tuple[list[AtomsGraph], list[AtomsGraph]]:
    """(training, held out) graphs of the file that the model was trained on. Where that is gone, a file of its name in
    the folder or above `logs/version_x` counts, too: projects are moved.

    Raises SettingsError if it has changed.
    """
    path = Path(str(content.source["file"]))
    if not path.is_file():
        beside = [place / path.name for place in (folder, *folder.resolve().parents[:2])]
        path = next((p for p in beside if p.is_file()), path)
    if not path.is_file() or source_of(path)["digest"] != content.source["digest"]:
        raise SettingsError(
            f"{path}: the training data are gone or have changed; put them back, or use -n 0 for the losses alone"
        )
    frames = read_for_diffusion(path, content.settings.conditioning)
    if len(frames) != content.source["structures"]:
        raise SettingsError(
            f"{path}: the model was trained on {content.source['structures']} of its {len(frames)} structures, and "
            "which ones is not stored; use -n 0 for the losses alone"
        )
    graphs = graphs_for(frames, content.settings)
    first, second = split_held_out(len(graphs), content.settings.val_split, content.settings.seed)
    return [graphs[k] for k in first], [graphs[k] for k in second]


def wasserstein_distance(a: Any, b: Any) -> float:
    """W1 of two sets of numbers, in their unit: the mean distance of their quantiles."""
    q = np.linspace(0.0005, 0.9995, 1000)
    return float(np.abs(np.quantile(a, q) - np.quantile(b, q)).mean())
