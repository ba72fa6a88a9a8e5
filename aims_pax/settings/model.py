"""MODEL of aimsPAX.yaml, which family the models belong to; and what the settings say of models of any family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aims_pax.settings.fields import Section, Table, Text, key

if TYPE_CHECKING:
    from aims_pax.settings.mace import MaceSettings

NAME = "MODEL"
MACE_KIND = "mace"


class ModelKindSettings(Section):
    """MODEL (optional): the family of the models; `MODEL: name` is short for `{kind: name}`.

    What models of all families have stands in GENERAL and MISC of mace.yaml.
    """

    kind: Text = key(
        MACE_KIND,
        "`mace`; a name that an installed package registers; or `package.module:object` of your own, also from a "
        "module in the working folder.",
    )
    kwargs: Table = key({}, "Settings of that kind; `mace` has its own in mace.yaml and takes none.")


@dataclass(frozen=True)
class ModelOfRun:
    """What models of every family are asked for: MODEL, and GENERAL and MISC of mace.yaml.

    atomic_energies: as ARCHITECTURE has them, for the families that count energies from isolated atoms.
    """

    section: ModelKindSettings
    mace: MaceSettings

    @property
    def kind(self) -> str:
        return self.section.kind

    @property
    def kwargs(self) -> Mapping[str, Any]:
        return self.section.kwargs

    @property
    def is_mace(self) -> bool:
        """Whether ARCHITECTURE and TRAINING have a meaning."""
        return self.kind == MACE_KIND

    @property
    def name(self) -> str:
        """Of the experiment; members are called `{name}_{seed}`."""
        return self.mace.general.name_exp

    @property
    def seed(self) -> int:
        return self.mace.general.seed

    @property
    def dtype(self) -> str:
        """float32 | float64."""
        return self.mace.general.default_dtype

    @property
    def compute_stress(self) -> bool:
        return self.mace.general.compute_stress

    @property
    def model_dir(self) -> str:
        return self.mace.general.model_dir

    @property
    def loss_dir(self) -> str:
        return self.mace.general.loss_dir

    @property
    def checkpoints_dir(self) -> str:
        return self.mace.general.checkpoints_dir

    @property
    def device(self) -> str:
        """cpu | cuda | cuda:N."""
        return self.mace.misc.device

    @property
    def inference(self) -> str:
        return self.mace.misc.inference

    @property
    def memory_limit(self) -> float | None:
        """GB that evaluations may take, None: by what is available."""
        return self.mace.misc.memory_limit

    @property
    def error_table(self) -> str:
        return self.mace.misc.error_table

    @property
    def log_level(self) -> str:
        return self.mace.misc.log_level

    @property
    def atomic_energies(self) -> Any:
        return self.mace.architecture.atomic_energies if self.is_mace else None
