"""The working folder: every path aims-PAX uses; what is written goes through `files`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aims_pax.record import files

if TYPE_CHECKING:
    from aims_pax.settings import LabellingSettings


class RunFolder:
    """Paths of one run. Folders appear when something is written into them."""

    def __init__(self, settings: LabellingSettings) -> None:
        self.root = settings.folder
        misc, model = settings.misc, settings.model
        self.data = settings.path(misc.dataset_dir)
        self.logs = settings.path(misc.log_dir)
        self.checkpoints = settings.path(model.checkpoints_dir)
        self.losses = settings.path(model.loss_dir)
        self.model = settings.path(model.model_dir)
        self.restart = self.root / "restart"
        self.results = self.root / "results"
        self.analysis = self.root / "analysis"
        self.trajectories = self.root / "trajectories"

    def write_text(self, path: Path, text: str) -> None:
        """Write a whole text file atomically. Raises SetupError naming the file."""
        files.write_text(path, text)

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Write a whole file atomically: it is there complete, or it is as it was before.

        Raises SetupError naming the file when the disk is full or the folder cannot be written.
        """
        files.write_bytes(path, content)

    def append_text(self, path: Path, text: str) -> None:
        """Append to a text file that only grows. Raises SetupError naming the file."""
        files.append_text(path, text)
