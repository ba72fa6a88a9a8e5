"""The working folder: every path aims-PAX uses and every atomic write."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from aims_pax.errors import SetupError

if TYPE_CHECKING:
    from aims_pax.settings import Settings


class RunFolder:
    """Paths of one run. Folders appear when something is written into them."""

    def __init__(self, settings: Settings) -> None:
        self.root = settings.folder
        misc, general = settings.misc, settings.mace.general
        self.data = settings.path(misc.dataset_dir)
        self.logs = settings.path(misc.log_dir)
        self.checkpoints = settings.path(general.checkpoints_dir)
        self.losses = settings.path(general.loss_dir)
        self.model = settings.path(general.model_dir)
        self.restart = self.root / "restart"
        self.results = self.root / "results"
        self.analysis = self.root / "analysis"
        self.trajectories = self.root / "trajectories"

    def write_text(self, path: Path, text: str) -> None:
        """Write a whole text file atomically."""
        self.write_bytes(path, text.encode("utf-8"))

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Write a whole file atomically: it is there complete, or it is as it was before.

        Raises SetupError naming the file when the disk is full or the folder cannot be written.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise SetupError(
                f"cannot write {path}: {error.strerror}; free space or fix the permissions, then run again: "
                "nothing is lost"
            ) from error

    def append_text(self, path: Path, text: str) -> None:
        """Append to a text file that only grows. Raises SetupError naming the file."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise SetupError(f"cannot write {path}: {error.strerror}") from error
