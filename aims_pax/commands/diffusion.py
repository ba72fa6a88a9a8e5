"""`aims-PAX diffusion train | sample`, and the same from Python.

>>> from aims_pax.commands.diffusion import load_diffusion, sample_diffusion, train_diffusion   # doctest: +SKIP
>>> folder = train_diffusion(Path("data.xyz"), DiffusionSettings(max_time_minutes=5))           # doctest: +SKIP
>>> frames = sample_diffusion(folder, SampleRequest(n=12, formula="Pd2O2"))                     # doctest: +SKIP

Training writes `logs/version_x/` (`models.diffusion.training_run`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax.engine.interrupts import InterruptMonitor, remaining_walltime
from aims_pax.errors import Abandoned, RunInterrupted, SettingsError
from aims_pax.frames import Frame
from aims_pax.labelled_data import structure_text
from aims_pax.models.diffusion.atoms_graph import AtomsGraph
from aims_pax.models.diffusion.denoiser import Denoiser
from aims_pax.models.diffusion.generation import (
    Generated,
    Generating,
    GenerationFailed,
    generate,
    starting_graph,
    value_to_steer_towards,
)
from aims_pax.models.diffusion.model_files import ModelFolder, load_denoiser, read_hparams
from aims_pax.models.diffusion.reverse_process import REVERSE_SAMPLERS
from aims_pax.models.diffusion.training_data import NOT_LEARNT, one_charge_and_spin, read_for_diffusion
from aims_pax.models.diffusion.training_run import source_of, train_in_folder
from aims_pax.potential import Potential
from aims_pax.potentials.named import LoadedPotential
from aims_pax.record.files import write_text
from aims_pax.record.log import to_console
from aims_pax.settings.diffusion import DiffusionSettings
from aims_pax.settings.messages import hint
from aims_pax.systems import read_frame

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleRequest:
    """What to sample; see `starting_graph` and `Generating` for the meaning of most.

    template: a file or a frame. properties: {name: value}, or pairs. potential: of relax and ff_guidance, a name, a
    path or `module:callable`. output: extended XYZ file, or None; overwrite: replace it. cell: 9 numbers, rows.
    positions: a file, a frame or an array (N, 3) in Å, if the model generates elements only. atomic_numbers: of the
    generated atoms, in place of a formula.
    """

    n: int = 12
    seed: int = 42
    n_atoms: int | None = None
    formula: str | None = None
    positions: Any = None
    cell: Sequence[float] | None = None
    non_periodic: bool = False
    template: Path | str | Frame | None = None
    confinement: tuple[float, float] | None = None
    properties: Mapping[str, float] | Sequence[tuple[str, float]] = ()
    guidance: float = 0.0
    sampler: str = "heun"
    steps: int = 40
    eps: float | None = None
    batch_size: int = 64
    relax: int = 0
    max_force: float | None = None
    potential: str | Potential | None = None
    ff_guidance: float = 0.0
    ff_zeta: float = 3.0
    retries: int = 5
    checkpoint: str = ""
    output: Path | str | None = None
    overwrite: bool = False
    atomic_numbers: Sequence[int] | None = None


def train_diffusion(
    data: Path | str,
    settings: DiffusionSettings,
    checkpoint: Path | str | None = None,
    stop: Callable[[], bool] = bool,
) -> Path:
    """Train a model on a file of structures; returns its folder. checkpoint: the folder of a training to continue.

    Raises SettingsError; Abandoned when `stop` returned True, after the last checkpoint was written.
    """
    data, checkpoint = Path(data), None if checkpoint is None else Path(checkpoint)
    frames = read_for_diffusion(data, settings.conditioning)
    if checkpoint is not None:
        read_hparams(checkpoint)
    return train_in_folder(frames, settings, source_of(data), checkpoint, stop)


def sample_diffusion(
    folder: Path, request: SampleRequest, stop: Callable[[], None] = lambda: None
) -> list[Frame]:
    """Structures from the model in a folder, also written to `request.output`.

    Raises SettingsError, GenerationFailed. Structures that passed are written also when it is stopped or fails.
    """
    output = None if request.output is None else Path(request.output)
    if output is not None and output.exists() and not request.overwrite:
        raise SettingsError(f"{output}: exists already; choose another name, or give overwrite")
    if output is not None:
        _check_folder(output.parent)
    model, content = load_diffusion(folder, request.checkpoint)
    start, counts = _start(model, content, request)
    how = _how(model, content, request, stop)
    began = time.monotonic()
    words, made = ("sample", request.seed), Generated()
    try:
        generate(model, content.data, start, request.n, words, how, counts, made=made)
    except (GenerationFailed, RunInterrupted):
        if output is not None and made.graphs:
            _write(output, _with_charge([g.to_frame() for g in made.graphs], content), request, folder)
            log.warning("%s: the %d structures that passed", output, len(made.graphs))
        raise
    frames = _with_charge([g.to_frame() for g in made.graphs], content)
    log.info("%s · %.1f s", made.words(), time.monotonic() - began)
    if output is not None:
        _write(output, frames, request, folder)
        log.info("%s: %d structures", output, len(frames))
    return frames


def _check_folder(folder: Path) -> None:
    """Raises SettingsError if no file can be written there, before hours are spent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"output: {folder}: {error.strerror}; choose another folder") from error
    if not os.access(folder, os.W_OK):
        raise SettingsError(f"output: {folder}: not writable; choose another folder")


def _with_charge(frames: Sequence[Frame], content: ModelFolder) -> list[Frame]:
    """With the charge and spin of the training structures."""
    return [replace(frame, **content.data.extra) for frame in frames]


def load_diffusion(folder: Path, checkpoint: str = "") -> tuple[Denoiser, ModelFolder]:
    """The model in `logs/version_x`, and what its hparams.yaml holds. Raises SettingsError."""
    return load_denoiser(Path(folder), checkpoint)


def train_command(data: Path, settings: DiffusionSettings, checkpoint: Path | None, console: Console) -> None:
    """`aims-PAX diffusion train`."""
    with ExitStack() as stack:
        watch = _watched(stack, console)
        try:
            folder = train_diffusion(data, settings, checkpoint, watch.stop)
        except Abandoned:
            log.info("to continue: the same command with --checkpoint and this folder")
            watch.raise_if_stopped()
            raise
        log.info("%s: trained; next: aims-PAX diffusion inspect %s", folder, folder)


def sample_command_of(folder: Path, request: SampleRequest, console: Console) -> None:
    """`aims-PAX diffusion sample`."""
    with ExitStack() as stack:
        watch = _watched(stack, console)
        sample_diffusion(folder, request, watch.raise_if_stopped)


def _watched(stack: ExitStack, console: Console) -> InterruptMonitor:
    watch = InterruptMonitor(remaining_walltime(None))
    stack.enter_context(to_console(console, "INFO"))
    stack.enter_context(watch.listening())
    return watch


def _start(model: Denoiser, content: ModelFolder, request: SampleRequest) -> tuple[AtomsGraph, Any]:
    template, where = _frame(request.template), request.positions
    if template is not None:
        _warn_of_lost("template", template, content)
    cell = request.cell
    if isinstance(where, Path | str | Frame):
        own = _frame(where)
        assert own is not None
        _warn_of_lost("positions", own, content, ("fixed",))
        cell, where = _cell_of(own, cell, template), own.positions
    return starting_graph(
        model,
        content.data,
        n_atoms=request.n_atoms,
        formula=request.formula,
        atomic_numbers=request.atomic_numbers,
        positions=where,
        cell=cell,
        pbc=(False, False, False) if request.non_periodic else None,
        template=template,
        confinement=request.confinement,
    )


def _frame(given: Path | str | Frame | None) -> Frame | None:
    return read_frame(Path(given)) if isinstance(given, Path | str) else given


def _warn_of_lost(where: str, frame: Frame, content: ModelFolder, more: Sequence[str] = ()) -> None:
    """Warn of what a given structure has and new structures will not have."""
    lost = [name for name, v in one_charge_and_spin([frame]).items() if v != content.data.extra.get(name)]
    parts = {name: getattr(frame, name) for name in (*NOT_LEARNT, *more)}
    lost += [name for name, value in parts.items() if value is not None and len(value)]
    if lost:
        log.warning("%s: its %s are not those of the new structures: not written", where, ", ".join(lost))


def _cell_of(
    positions: Frame, cell: Sequence[float] | None, template: Frame | None
) -> Sequence[float] | None:
    """The cell that belongs to given positions. Raises SettingsError if another one is given, too."""
    if not positions.pbc.any():
        return cell
    other = template.cell.ravel() if template is not None else cell
    if other is not None and not np.allclose(other, positions.cell.ravel(), atol=1e-4):
        name = "cell" if template is None else "template"
        raise SettingsError(f"positions: their cell is not that of {name}; give structures of one cell")
    found: list[float] = positions.cell.ravel().tolist()
    return found if template is None else None


def _how(
    model: Denoiser, content: ModelFolder, request: SampleRequest, stop: Callable[[], None]
) -> Generating:
    if request.sampler not in REVERSE_SAMPLERS:
        raise SettingsError(f"sampler: {request.sampler!r}: {hint(request.sampler, REVERSE_SAMPLERS)}")
    steered = request.relax or request.ff_guidance or request.max_force is not None
    if steered and request.potential is None:
        raise SettingsError("relax, ff_guidance and max_force need a potential")
    if request.potential is not None and not steered:
        raise SettingsError("potential: has no effect without relax, ff_guidance or max_force")
    if request.guidance and not request.properties:
        raise SettingsError("guidance: has no effect without property")
    if not request.ff_guidance and request.ff_zeta != SampleRequest.ff_zeta:
        raise SettingsError("ff_zeta: has no effect without ff_guidance")
    if request.eps is not None and not 0 < request.eps < model.schedule.high:
        raise SettingsError(f"eps: expected between 0 and {model.schedule.high:g} Å, got {request.eps:g}")
    return Generating(
        sampler=request.sampler,
        steps=request.steps,
        eps=request.eps,
        value=value_to_steer_towards(content.architecture, content.data, _once(request.properties)),
        guidance=request.guidance,
        batch_size=request.batch_size,
        relax=request.relax,
        max_force=request.max_force,
        potential=named_potential(request.potential),
        ff_guidance=request.ff_guidance,
        ff_zeta=request.ff_zeta,
        retries=request.retries,
        charge=content.data.extra.get("charge"),
        spin=content.data.extra.get("spin"),
        stop=stop,
    )


def _once(properties: Mapping[str, float] | Sequence[tuple[str, float]]) -> dict[str, float]:
    """{name: value}. Raises SettingsError for a name that is given twice."""
    pairs = list(properties.items()) if isinstance(properties, Mapping) else list(properties)
    for k, (name, _) in enumerate(pairs):
        if name in [other for other, _ in pairs[:k]]:
            raise SettingsError(f"property {name}: given twice")
    return dict(pairs)


def named_potential(given: str | Potential | None) -> Potential | None:
    """A potential by its name, its file, or `module:callable` of an ASE calculator; others as they are."""
    if given is None or not isinstance(given, str):
        return given
    spelling: Any = {"factory": given, "kwargs": {}} if ":" in given else given
    from aims_pax.settings.augment import as_calculator

    return LoadedPotential.load(as_calculator(spelling), Path.cwd(), "potential").potential


def _write(path: Path, frames: Sequence[Frame], request: SampleRequest, folder: Path) -> None:
    texts = []
    for k, frame in enumerate(frames):
        atoms = frame.to_atoms()
        atoms.info |= {
            "id": f"diffusion-{k}",
            "model": str(folder),
            "seed": request.seed,
            **{f"target_{name}": value for name, value in _once(request.properties).items()},
        }
        texts.append(structure_text(atoms))
    write_text(path, "".join(texts))
