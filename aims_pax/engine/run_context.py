"""The open objects of a command (settings, folder, labeller, journal and others), passed on as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aims_pax.models.base import MemberData

if TYPE_CHECKING:
    from aims_pax.dataset import Dataset
    from aims_pax.engine.interrupts import InterruptMonitor
    from aims_pax.engine.live_report import Reporter
    from aims_pax.labelling import Labeller
    from aims_pax.models.base import ForceFieldModel
    from aims_pax.models.gp.training_copies import TrainingCopies
    from aims_pax.parallel.training import BackgroundTraining
    from aims_pax.record.folder import RunFolder
    from aims_pax.record.journal import Journal
    from aims_pax.report.live_view import Display
    from aims_pax.settings import LabellingSettings, Settings
    from aims_pax.systems import System


@dataclass(frozen=True, kw_only=True)
class LabellingContext:
    """The open objects of a command that only needs the reference."""

    settings: LabellingSettings
    folder: RunFolder
    labeller: Labeller
    journal: Journal
    watch: InterruptMonitor


@dataclass(frozen=True, kw_only=True)
class RunContext(LabellingContext):
    """The open objects of a full run.

    pretrained: the arrays of the pre-trained members if no snapshot has them (MISC.create_restart: False).
    augmentation: adds copies to training sets; None without the section AUGMENTATION.
    settings_hash: of the content of restart/settings.json, see `record.restart_compatibility`.
    """

    settings: Settings
    systems: tuple[System, ...]
    dataset: Dataset
    ensemble: ForceFieldModel
    display: Display
    reporter: Reporter
    background_training: BackgroundTraining | None = None
    settings_hash: str = ""
    augmentation: TrainingCopies | None = None
    pretrained: dict[str, Any] = field(default_factory=dict)

    def member_data(self, member: int) -> MemberData:
        """The member's own training and validation frames."""
        return MemberData(self.dataset.train(member), self.dataset.valid(member))
