"""The folder of each calculation: its name, its owner, and what happens to it afterwards.

    {calc_dir}/{frame_id}.{method}.{token}/        one calculation while it runs; the token is drawn at random
    {calc_dir}/kept/{frame_id}.{method}.tar.gz     its files afterwards, with clean_dirs: false
    {calc_dir}/failed/{frame_id}.{method}.tar.gz   the files of a failed calculation, always (the last 50)

Any number of runs may share a calc_dir. A folder has one owner. When the owner has ended, another run can take the
folder over by renaming it (only one process succeeds). A calculation that finished in it is not computed again.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import socket
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from aims_pax.errors import SetupError
from aims_pax.labelling.claims import GRACE, Claim
from aims_pax.processes import process_started
from aims_pax.record.files import move, replacing, write_text
from aims_pax.schedulers.registry import find_scheduler

log = logging.getLogger(__name__)

OWNER = ".aims_pax.json"  # marks a folder that aims-PAX made and may remove
FAILED_FOLDERS = 50
LARGEST_ARCHIVED = 20_000_000  # bytes; densities and cubes of a failed calculation are not worth the disk
# s without a change after which a folder of another machine, without a job, counts as abandoned
FORSAKEN = 7 * 86400.0

_at_work: set[Path] = set()  # folders that this process uses


@dataclass(frozen=True)
class CalculationFolders:
    """The folders of one reference method (its hash) below calc_dir."""

    calc_dir: Path
    method: str

    def make(self, frame_id: str, time_limit: float | None) -> Path:
        """Create an empty folder owned by this process. Raises OSError when the file system refuses."""
        folder = self._new(frame_id)
        folder.mkdir(parents=True)
        _at_work.add(folder)
        (folder / OWNER).write_text(_mark(frame_id, time_limit))
        return folder

    def left(self, frame_id: str, time_limit: float | None) -> Iterator[Path]:
        """Take over, one by one, the folders of this frame and method whose owner has ended.

        A program of the old owner may still run in such a folder: read it, do not compute there.
        """
        for folder in sorted(self.calc_dir.glob(f"{frame_id}.{self.method}.*")):
            owner = read_owner(folder)
            if owner is None or folder in _at_work or not _ended(owner, folder):
                continue
            new = self._new(frame_id)
            taken = new.with_name(f".{new.name}")  # hidden until the file with its new owner is written
            with suppress(OSError):  # another run was quicker, or the file system is read-only
                move(folder, taken)
                with suppress(SetupError):  # a full disk
                    write_text(taken / OWNER, _mark(frame_id, time_limit))
                    _at_work.add(new)
                    move(taken, new)
                    taken = new
                yield taken

    def _new(self, frame_id: str) -> Path:
        return self.calc_dir / f"{frame_id}.{self.method}.{secrets.token_hex(4)}"

    def leave(self, folder: Path) -> Path:
        """Leave the folder for the next request for this frame. Returns its path."""
        with suppress(OSError):
            shown = folder.with_name(folder.name.lstrip("."))
            move(folder, shown)
            folder = shown
        _at_work.discard(folder)
        return folder

    def remove(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        _at_work.discard(folder)

    def keep(self, folder: Path, frame_id: str, failed: bool) -> str | None:
        """Pack the files of a calculation and remove its folder; of failures, only the last 50. Returns the path."""
        keep_folder = self.calc_dir / ("failed" if failed else "kept")
        where = pack_folder(folder, keep_folder, f"{frame_id}.{self.method}", all_of_them=not failed)
        _at_work.discard(folder)
        return where


def _mark(frame_id: str, time_limit: float | None) -> str:
    return json.dumps({"frame_id": frame_id, **asdict(Claim.mine("", time_limit))})


def read_owner(folder: Path) -> Claim | None:
    """The process that owns a folder; None where the mark is missing or unreadable."""
    try:
        return Claim.parse(json.loads((folder / OWNER).read_bytes()))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _ended(owner: Claim, folder: Path) -> bool:
    """Whether the owner of a folder has certainly ended."""
    if owner.host == socket.gethostname():
        here = process_started(owner.pid)
        if owner.pid == os.getpid() and here == owner.started:
            return True  # this process, which does not use the folder
        return here != owner.started if owner.started is not None else not _there(owner.pid)
    if owner.deadline is not None and time.time() > owner.deadline + GRACE:
        return True
    if owner.job is not None and (scheduler := find_scheduler(owner.scheduler)) is not None:
        return not scheduler.alive([owner.job])
    with suppress(OSError):
        newest = max(p.stat().st_mtime for p in (folder, *folder.iterdir()))
        return time.time() - newest > FORSAKEN
    return False


def _there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def pack_folder(folder: Path, keep_folder: Path, name: str, all_of_them: bool = False) -> str | None:
    """Pack the files of a folder into keep_folder/name.tar.gz and remove it. all_of_them: remove no older archive."""
    path = keep_folder / f"{name}.tar.gz"
    try:
        keep_folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, tarfile.open(part, "w:gz") as archive:
            for file in sorted(folder.iterdir()):
                if file.is_file() and file.name != OWNER and file.stat().st_size <= LARGEST_ARCHIVED:
                    archive.add(file, f"{name}/{file.name}")
        shutil.rmtree(folder, ignore_errors=True)
        ours = [
            p
            for p in keep_folder.iterdir()
            if re.fullmatch(r"[0-9a-f]{20}(\.[0-9a-f]{12})?\.tar\.gz", p.name)
        ]
        for old in sorted(ours, key=_changed)[:-FAILED_FOLDERS]:
            if not all_of_them:
                old.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot archive the files of the calculation %s: %s", folder, error)
        return str(folder) if folder.exists() else None
    return str(path)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another run has removed it
        return 0.0
