"""The settings of `aims-PAX diffusion train`: options of the command line, or keys of its YAML file.

noisers: [CellPositions, Types]
max_time_minutes: 10
conditioning: energy
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from aims_pax.errors import SettingsError
from aims_pax.settings.fields import (
    Flag,
    Kind,
    OptionalText,
    OptionalWhole,
    Real,
    Section,
    Text,
    Whole,
    as_list_of_texts,
    as_real,
    key,
    one_of,
    optional,
)
from aims_pax.settings.messages import in_words
from aims_pax.settings.yaml_reader import read_document

AUTO = ("auto",)
TIMES = ("max_time", "max_time_minutes")


def as_walls(value: Any) -> tuple[float, float]:
    """Two heights, the lower one first."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"expected two heights [lowest, highest] in Å, got {value!r}")
    low, high = (as_real(v) for v in value)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"expected finite heights in Å, got {low:g} and {high:g}")
    if not low < high:
        raise ValueError(f"expected the lower height first, got {low:g} and {high:g}")
    return low, high


Names = Annotated[tuple[str, ...], BeforeValidator(as_list_of_texts), Kind("`list`")]
Walls = Annotated[tuple[float, float] | None, optional(as_walls), Kind("`list` or `None`")]
Sde = Annotated[str, one_of("ve", "vp"), Kind("`str`")]
Conditioning = Annotated[str, one_of("scalar", "integer"), Kind("`str`")]
Mask = Annotated[  # YAML reads none as nothing
    str, one_of("MaskFixed", "none"), BeforeValidator(lambda v: "none" if v is None else v), Kind("`str`")
]
Rate = Annotated[str, one_of("cosine", "plateau"), Kind("`str`")]


class DiffusionSettings(Section):
    """aims-PAX diffusion train: the model, what it learns, and for how long."""

    noisers: Names = key(
        AUTO,
        "`Positions` (molecules, clusters), `CellPositions` (periodic) or `ConfinedCellPositions` (above a surface), "
        "and `Types` if elements are generated too. `auto`: by periodicity and `confinement`.",
    )
    sde: Sde = key("ve", "Noise levels: `ve` (variance exploding) or `vp` (variance preserving).")
    cutoff: Real = key(
        6.0, "Neighbours of cell positions (Å).", unit="Å", possible="(0, 100]", plausible="[3, 12]"
    )
    feature_size: Whole = key(32, "Width of the network.", possible="[4, 4096]", plausible="[16, 256]")
    n_blocks: Whole = key(3, "Layers of the network.", possible="[1, 100]", plausible="[2, 8]")
    conditioning: OptionalText = key(
        None, "Name of a property in the file; samples can then be steered towards a value of it."
    )
    conditioning_type: Conditioning = key("scalar", "Whether the property is a number or a class.")
    n_classes: OptionalWhole = key(
        None,
        "Classes of an integer property; `None`: the largest in the data and one.",
        possible="[2, 100000]",
    )
    confinement: Walls = key(
        None, "Lowest and highest z (Å) of atoms that are not fixed, for `ConfinedCellPositions`."
    )
    mask: Mask = key(
        "MaskFixed", "`MaskFixed`: atoms that are fixed in the file stay; `none`: all are generated."
    )
    repeat: OptionalWhole = key(
        None, "Train on up to r × r × 1 copies of each structure, in stages.", possible="[2, 10]"
    )
    repeat_epoch: OptionalWhole = key(None, "Epochs of each stage of `repeat`.", possible="[1, inf)")
    canonical_cell: Flag = key(False, "Rotate structures: first cell vector along x, second in the xy plane.")
    epochs: Whole = key(-1, "Epochs; -1: until the time is over.", possible="[-1, 1000000000]")
    max_steps: Whole = key(0, "Training steps; 0: no limit.", possible="[0, inf)")
    max_time_minutes: Real = key(
        5.0,
        "Longest time (minutes); 0: no limit. Not used if only `epochs` or `max_steps` is given.",
        possible="[0, inf)",
    )
    max_time: Real = key(0.0, "Longest time (hours), added to `max_time_minutes`.", possible="[0, inf)")
    lr: Real = key(2e-3, "Learning rate.", possible="(0, 1]", plausible="[1e-5, 1e-2]")
    lr_schedule: Rate = key(
        "cosine",
        "`cosine`: to zero at the end; `plateau`: by `lr_factor` after `lr_patience` epochs without gain.",
    )
    lr_patience: Whole = key(100, "Epochs without gain, for `plateau`.", possible="[1, inf)")
    lr_factor: Real = key(0.95, "Factor of the learning rate, for `plateau`.", possible="(0, 1)")
    batch_size: Whole = key(16, "Structures of a batch.", possible="[1, 100000]")
    gradient_clip_val: Real = key(10.0, "Largest norm of the gradient.", possible="(0, inf)")
    ema_decay: Real = key(0.998, "Decay of the average of the weights.", possible="[0, 1)")
    val_split: Real = key(0.1, "Fraction held out.", possible="[0, 0.9]")
    seed: Whole = key(42, "Seed for all random numbers.", possible="[0, 4294967295]")
    allow_small: Flag = key(
        False, "Train on fewer than 100 structures; the model then mostly repeats them (see `memorised`)."
    )
    log_dir: Text = key("logs", "Folder of the folders `version_0`, `version_1`, …")
    log_interval: Whole = key(10, "Epochs between two lines of the log.", possible="[1, inf)")

    def plain(self) -> dict[str, Any]:
        """All keys as JSON and YAML can write them, the time limit as it is in effect."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in self.model_dump().items()}
        return values | {"max_time_minutes": self.seconds / 60, "max_time": 0.0}

    @property
    def seconds(self) -> float:
        """The time limit in seconds, 0 for none: by default there is none if `epochs` or `max_steps` is given."""
        if max(self.epochs, self.max_steps) > 0 and not set(TIMES) & self.model_fields_set:
            return 0.0
        return 60 * self.max_time_minutes + 3600 * self.max_time


def read_diffusion(
    path: Path | None, options: Mapping[str, Any], begun: DiffusionSettings | None = None, place: str = "--"
) -> DiffusionSettings:
    """The settings from a YAML file, if given, with the options of the command line on top.

    begun: of a training that continues; what neither file nor options say is as there. place: how an error in the
    options begins. Raises SettingsError that lists all mistakes.
    """
    written: dict[str, Any] = {}
    document = None
    if begun is not None:
        written = begun.plain()
    if path is not None:
        if path.is_file() and not path.read_bytes().strip():
            raise SettingsError(f"{path}: the file is empty; expected keys such as max_time_minutes: 5")
        document = read_document(path, str(path))
        written |= {str(k): v for k, v in document.data.items()}
    given = {k: v for k, v in options.items() if v is not None}
    own = {*given, *(() if document is None else map(str, document.data))}
    if begun is not None and own & {"epochs", "max_steps"} and not own & set(TIMES):
        # the new limit takes the place of the time
        written = {k: v for k, v in written.items() if k not in TIMES}
    try:
        settings = DiffusionSettings.model_validate({**written, **given})
    except ValidationError as error:
        lines = []
        for d in error.errors(include_url=False):
            text, where = in_words(d, DiffusionSettings), d["loc"]
            name = str(where[0]) if where else ""
            in_file = document is not None and name in document.data and name not in given
            lines.append(
                str(document.problem(where, text))  # type: ignore[union-attr]
                if in_file
                else f"{place}{'.'.join(map(str, where))}: {text}"
            )
        raise SettingsError("\n".join(lines)) from error
    check_together(settings)
    return settings


def check_together(settings: DiffusionSettings) -> None:
    """Raises SettingsError for keys that contradict each other."""
    if (settings.repeat is None) != (settings.repeat_epoch is None):
        here, other = (
            ("repeat", "repeat_epoch") if settings.repeat_epoch is None else ("repeat_epoch", "repeat")
        )
        raise SettingsError(f"{here} needs {other}: give both, or none")
    if settings.epochs < 0 and settings.seconds == 0 and settings.max_steps == 0:
        raise SettingsError("epochs -1 and no max_time: training would never end; give one of them")
    if settings.epochs == 0:
        raise SettingsError("epochs: expected at least 1, or -1 for no limit, got 0")
    if (
        settings.repeat
        and settings.repeat_epoch
        and 0 < settings.epochs <= (settings.repeat - 1) * settings.repeat_epoch
    ):
        r, first = settings.repeat, (settings.repeat - 1) * settings.repeat_epoch + 1
        raise SettingsError(
            f"repeat: {r} × {r} × 1 would begin in epoch {first}, but epochs is {settings.epochs}; give more epochs, "
            "or a smaller repeat_epoch"
        )
    if settings.n_classes and settings.conditioning_type == "scalar":
        raise SettingsError("n_classes: only with conditioning_type integer")
    if settings.conditioning is None and (settings.n_classes or settings.conditioning_type == "integer"):
        raise SettingsError("conditioning_type and n_classes need conditioning, the name of a property")
