"""FOUNDATION of mace.yaml: the published or own model that the members begin from, and the recipe of fine-tuning.

A recipe sets the keys of TRAINING that the user does not write: rates made for random weights would destroy trained
ones within a few steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator

from aims_pax.settings.callables import CHARGED_MODELS, PUBLISHED_MODELS
from aims_pax.settings.fields import (
    Kind,
    OptionalText,
    Real,
    Section,
    Whole,
    as_table,
    as_text,
    key,
    one_of,
)

Written = TypeVar("Written", bound=Section)

NAME = "FOUNDATION"
NAIVE, FROZEN, REPLAY = "naive", "frozen", "replay"
DATA, READOUT = "data", "readout"
_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
# values of TRAINING for a fine-tuned model, measured with benchmarks/fine_tuning.py
TRAINING: Mapping[str, Any] = {
    "lr": 2e-3,
    "weight_decay": 0.0,
    "ema_decay": 0.999,
    "clip_grad": 1.0,
}


def _model(value: Any) -> str | dict[str, Any]:
    """A name or a path; or a callable, as {factory, kwargs}."""
    if not isinstance(value, dict):
        text = as_text(value)
        return {"factory": text, "kwargs": {}} if _CALLABLE.fullmatch(text) else text
    unknown = [str(k) for k in value if k not in ("factory", "kwargs")]
    if unknown or "factory" not in value:
        said = f"got {', '.join(map(str, value)) or 'an empty table'}"
        raise ValueError(
            f"expected a name, a path, or {{factory: package.module:callable, kwargs: {{…}}}}; {said}"
        )
    factory = as_text(value["factory"])
    if not _CALLABLE.fullmatch(factory):
        raise ValueError(f"factory: expected 'package.module:callable', got {factory!r}")
    return {"factory": factory, "kwargs": as_table(value.get("kwargs"))}


def _ways(value: Any) -> tuple[str, ...]:
    words = value if isinstance(value, list | tuple) else [value]
    if not words:
        raise ValueError(
            f"expected {DATA} or {READOUT}, or both: without a difference the members agree, and their spread is 0"
        )
    ways = tuple(dict.fromkeys(_WAY.func(word) for word in words))
    return ways


_WAY: Any = one_of(DATA, READOUT)
Model = Annotated[str | dict[str, Any], BeforeValidator(_model), Kind("`str` or `dict`")]
Recipe = Annotated[str, one_of(NAIVE, FROZEN, REPLAY), Kind("`str`")]
Ways = Annotated[tuple[str, ...], BeforeValidator(_ways), Kind("`list`")]


class FoundationSettings(Section):
    """FOUNDATION (optional): all members begin from one trained MACE model instead of random weights.

    Elements that no geometry and no given dataset has are removed from it.
    """

    model: Model = key(
        ...,
        "Name of a published model (downloaded at first use): of materials "
        "`small`, `medium`, `large`, `medium-0b3`, `medium-mpa-0`, `medium-omat-0`, `mace-matpes-r2scan-0`, `mh-1`, …, "
        "or of molecules `off-small`, `off-medium`, `off-large`, `anicc`, `omol`; or the path of a `.model` file; or "
        "`{factory, kwargs}` (`package.module:callable`) that returns the torch module or a `MACECalculator`.",
    )
    head: OptionalText = key(
        None, "Level of theory, of a model that has several. `None`: the only one, or the one named default."
    )
    charge: Real = key(
        0.0,
        "Total charge (e) of all structures of the run, for a model that reads it (`omol`).",
        unit="e",
        possible="[-1000, 1000]",
        plausible="[-20, 20]",
    )
    spin: Whole = key(
        1,
        "Spin multiplicity 2S+1 of all structures of the run, for a model that reads it (`omol`).",
        possible="[1, 1000]",
        plausible="[1, 20]",
    )
    recipe: Recipe = key(
        NAIVE,
        "`naive`: all weights are trained. `frozen`: the embedding and the interactions stay as they are; products and "
        "readouts are trained. `replay`: as `naive`, and part of each epoch are structures of `replay_data` with the "
        "labels of the foundation model itself, which protects what it knows beyond the new data.",
    )
    differ_by: Ways = key(
        (DATA, READOUT),
        "What makes members differ from the first step: `data` (each member weights the structures in its own way), "
        "`readout` (the last weights of each member are perturbed), or both.",
    )
    replay_data: OptionalText = key(
        None,
        "extxyz file of structures for `recipe: replay`; labels in it are not used.",
        mandatory="the recipe is `replay`",
    )
    replay_share: Real = key(
        0.5,
        "Part of the structures of an epoch that comes from `replay_data`.",
        possible="(0, 1)",
        plausible="[0.1, 0.9]",
    )

    @property
    def name(self) -> str:
        """The model as text for the user."""
        return self.model if isinstance(self.model, str) else str(self.model["factory"])

    @property
    def factory(self) -> tuple[str, dict[str, Any]] | None:
        """(package.module:callable, keyword arguments), or None for a name or a path."""
        return None if isinstance(self.model, str) else (self.model["factory"], self.model["kwargs"])

    @property
    def published(self) -> bool:
        """Whether the model is named as MACE names it; a file of the same name needs a path, such as `./small`."""
        return isinstance(self.model, str) and self.model in (*PUBLISHED_MODELS, *CHARGED_MODELS)

    @property
    def features(self) -> dict[str, float]:
        """Charge and spin under the names that MACE's models have for them."""
        return {"total_charge": self.charge, "total_spin": float(self.spin)}

    def differs_by(self, way: str) -> bool:
        """Whether members differ in this way."""
        return way in self.differ_by


def recipe_training(foundation: FoundationSettings | None, written: Written) -> Written:
    """The section TRAINING with the values of fine-tuning for all keys that the user has not written."""
    if foundation is None:
        return written
    update = {k: v for k, v in TRAINING.items() if k not in written.model_fields_set}
    return written.model_copy(update=update)
