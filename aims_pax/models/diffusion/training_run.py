"""Training in a folder: `logs/version_x` with `hparams.yaml`, `checkpoints/` and `losses.csv`.

A stopped training continues from its last checkpoint; with a limit of epochs the result does not depend on
interruptions.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aims_pax.errors import Abandoned, SettingsError
from aims_pax.frames import Frame
from aims_pax.models.diffusion.atoms_graph import AtomsGraph
from aims_pax.models.diffusion.model_files import (
    BEST,
    CHECKPOINTS,
    HPARAMS,
    LAST,
    ModelFolder,
    new_version,
    read_checkpoint,
    read_hparams,
    write_checkpoint,
    write_hparams,
)
from aims_pax.models.diffusion.training import DiffusionTrainer
from aims_pax.models.diffusion.training_data import (
    architecture_for,
    check_number,
    graphs_for,
    one_charge_and_spin,
    split_held_out,
    summarise,
)
from aims_pax.record.files import write_text
from aims_pax.record.lock import Lock
from aims_pax.settings.diffusion import DiffusionSettings

log = logging.getLogger(__name__)

SAVE_EVERY = 20.0  # s between two checkpoints
# may change when training continues
LIMITS = {
    "epochs",
    "max_steps",
    "max_time",
    "max_time_minutes",
    "log_interval",
    "log_dir",
}
LOSSES = "losses.csv"


def train_in_folder(
    frames: Sequence[tuple[Frame, Mapping[str, float]]],
    settings: DiffusionSettings,
    source: Mapping[str, Any],
    folder: Path | None = None,
    stop: Callable[[], bool] = bool,
) -> Path:
    """Train on these frames; returns the folder. source: {file, digest, …} of the data, for hparams.yaml.

    folder: where a training begins, or continues if there is one; None: a new version in `settings.log_dir`.
    Raises SettingsError; Abandoned when `stop` returned True: everything up to the last checkpoint is stored.
    """
    if not frames:
        raise SettingsError(f"{source['file']}: contains no structure")
    graphs = graphs_for(frames, settings)
    architecture = architecture_for(graphs, settings)
    if warning := check_number(graphs, "Types" in architecture.noisers, settings.allow_small):
        log.warning("%s", warning)
    summary = summarise(graphs, one_charge_and_spin([frame for frame, _ in frames]))
    content = ModelFolder(settings, architecture, summary, {**source, "structures": len(graphs)})
    trainer = DiffusionTrainer(architecture, settings)
    if folder is not None and (folder / HPARAMS).exists():
        _continue(folder, content, trainer)
    else:
        folder = folder or new_version(Path(settings.log_dir))
        write_hparams(folder, content)
    first, second = split_held_out(len(graphs), settings.val_split, settings.seed)
    train, held_out = [graphs[k] for k in first], [graphs[k] for k in second]
    parameters = sum(p.numel() for p in trainer.denoiser.parameters())
    log.info(
        "%s: %s · %d structures, %d held out · %d parameters", folder, " + ".join(architecture.noisers),
        len(train), len(held_out), parameters,
    )  # fmt: skip
    if trainer.ended:
        log.info("%s: its limit of epochs or time is reached already; a larger one continues", folder)
    with Lock(folder / ".lock").held():
        try:
            _run(trainer, train, held_out, folder, stop)
        except Abandoned:
            log.info("%s: stopped; it continues from its last checkpoint", folder)
            raise
    return folder


def source_of(data: Path) -> dict[str, Any]:
    """{file, digest} of a file of structures."""
    return {"file": str(data.resolve()), "digest": hashlib.sha256(data.read_bytes()).hexdigest()}


def _run(
    trainer: DiffusionTrainer,
    train: Sequence[AtomsGraph],
    held_out: Sequence[AtomsGraph],
    folder: Path,
    stop: Callable[[], bool],
) -> None:
    saved = time.monotonic()
    best = min((v for *_, v in trainer.history if math.isfinite(v)), default=math.inf)
    while not trainer.ended:
        trainer.run_epoch(train, held_out, stop)
        epoch, loss, valid = trainer.history[-1]
        if math.isfinite(valid):
            log.info(
                "epoch %d · loss %.4g · held out %.4g · %.0f s, %.0f %% of the limit",
                epoch, loss, valid, trainer.elapsed, 100 * trainer.progress,
            )  # fmt: skip
            if valid < best:
                best = valid
                write_checkpoint(folder, trainer.state(), BEST)
        if trainer.ended or time.monotonic() - saved >= SAVE_EVERY:
            write_checkpoint(folder, trainer.state())
            rows = "".join(f"{e},{a:.6g},{b:.6g}\n" for e, a, b in trainer.history)
            write_text(folder / LOSSES, "epoch,loss,held_out\n" + rows)
            saved = time.monotonic()
    if (r := trainer.settings.repeat) and trainer.size < r:
        log.warning(
            "repeat: the training ended with %d × %d × 1 copies, %d × %d × 1 was never reached; give more time, or a "
            "smaller repeat_epoch", trainer.size, trainer.size, r, r,
        )  # fmt: skip


def _continue(folder: Path, content: ModelFolder, trainer: DiffusionTrainer) -> None:
    """Load the last checkpoint, if there is one. Raises SettingsError for another training."""
    before = read_hparams(folder)
    old, new = before.settings.model_dump(), content.settings.model_dump()
    for name, value in new.items():
        if name not in LIMITS and old[name] != value:
            raise SettingsError(
                f"{name}: {value}, but {folder} was begun with {old[name]}; leave {name} out to continue with that, or "
                "begin a new training"
            )
    if before.source["digest"] != content.source["digest"]:
        raise SettingsError(f"{folder}: was begun with other structures ({before.source['file']})")
    write_hparams(folder, content)
    if (folder / CHECKPOINTS / LAST).exists():
        trainer.load_state(read_checkpoint(folder / CHECKPOINTS / LAST))
