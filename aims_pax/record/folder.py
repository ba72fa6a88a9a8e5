"""The working folder: every path aims-PAX uses. All writes go through `files`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aims_pax.record import files

if TYPE_CHECKING:
    from aims_pax.settings import LabellingSettings


class RunFolder:
    """Paths of one run. A folder is made when something is first written into it."""

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
        """Write a text file atomically. Raises SetupError naming the file."""
        files.write_text(path, text)

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Write a file atomically: it has the new content in full, or is unchanged.

        Raises SetupError naming the file when the disk is full or the folder cannot be written.
        """
        files.write_bytes(path, content)

    def append_text(self, path: Path, text: str) -> None:
        """Append to a text file that only grows. Raises SetupError naming the file."""
        files.append_text(path, text)
