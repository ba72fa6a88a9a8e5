"""MODEL of aimsPAX.yaml: the family of the models; and the settings that models of every family share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aims_pax.settings.fields import Section, Table, Text, key
from aims_pax.settings.mace import UNWEIGHTED

if TYPE_CHECKING:
    from aims_pax.settings.foundation import FoundationSettings
    from aims_pax.settings.mace import MaceSettings

NAME = "MODEL"
MACE_KIND = "mace"


class ModelKindSettings(Section):
    """MODEL (optional): the family of the models; `MODEL: name` is short for `{kind: name}`.

    Settings that all families share are in GENERAL and MISC of mace.yaml.
    """

    kind: Text = key(
        MACE_KIND,
        "`mace`; `gp`, a Gaussian process for small systems; a name registered by an installed package; or your own "
        "`package.module:object`, also from a module in the working folder.",
    )
    kwargs: Table = key({}, "Settings of that kind; `mace` takes none here, its settings are in mace.yaml.")


@dataclass(frozen=True)
class ModelOfRun:
    """Settings for models of every family: MODEL, and GENERAL and MISC of mace.yaml.

    atomic_energies: those of ARCHITECTURE; None for other families than MACE.
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
        """Whether the models are MACE, so that ARCHITECTURE and TRAINING apply."""
        return self.kind == MACE_KIND

    @property
    def name(self) -> str:
        """Name of the experiment; members are called `{name}_{seed}`."""
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
        """GB for evaluations; None: decided from the available memory."""
        return self.mace.misc.memory_limit

    @property
    def error_table(self) -> str:
        return self.mace.misc.error_table

    @property
    def log_level(self) -> str:
        return self.mace.misc.log_level

    @property
    def foundation(self) -> FoundationSettings | None:
        """What the members begin from; None: random weights, or another family than MACE."""
        return self.mace.foundation if self.is_mace else None

    @property
    def weights_by_name(self) -> Mapping[str, float]:
        """Weights of structures by their config_type, system or stage; none for other families than MACE."""
        return self.mace.training.config_type_weights if self.is_mace else {}

    @property
    def not_weighted(self) -> str | None:
        """What the loss does not weight by structure, in words; None if it weights all of it."""
        loss = self.mace.training.loss
        if not self.is_mace or loss not in UNWEIGHTED:
            return None
        return f"TRAINING.loss: {loss} does not weight {UNWEIGHTED[loss]}"

    @property
    def atomic_energies(self) -> Any:
        return self.mace.architecture.atomic_energies if self.is_mace else None
