"""Atomic writes: the only module of the package that writes files that must not be lost.

A file is written under a temporary name in the same folder, flushed to the disk and renamed, and the rename itself is
flushed: after a crash at any time the file has its old content or the new one. Files that only grow are appended to
with one write; an entry that a crash left incomplete at their end is removed by `cut_torn_tail`, which keeps a copy.

Imports only the errors from this package, so that every other module can use it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from aims_pax.errors import SetupError

log = logging.getLogger(__name__)

_serial = itertools.count()
TORN = ".torn"


def write_text(path: Path, text: str, flush: bool = True) -> None:
    """Write a whole text file; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"), flush)


def write_bytes(path: Path, content: bytes, flush: bool = True) -> None:
    """Write a file atomically: it has the new content in full, or is unchanged. Missing folders are made.

    flush: False where it is cheaper to make a file again than to wait for the disk. It outlives its process then, but
    after a power failure it may be missing or incomplete, which its reader must notice.
    Raises SetupError naming the file when the file system refuses (full, over quota, read-only, gone).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, flush) as part, open(part, "wb") as file:
            file.write(content)
    except OSError as error:
        raise write_refusal(path, error) from error


@contextlib.contextmanager
def replacing(path: Path, flush: bool = True) -> Iterator[Path]:
    """A temporary path in the folder of `path`, for code that writes a file by name (torch, h5py, tarfile).

    At the end of the block the temporary file is flushed to the disk (see `write_bytes`) and replaces `path`; when the
    block raises, the temporary file is removed and `path` is unchanged. Raises OSError.
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path  # a symbolic link stays
    part = unique_neighbour(target)
    try:
        yield part
        if flush:
            sync(part)
        with contextlib.suppress(OSError):
            shutil.copymode(target, part)
        os.replace(part, target)
        if flush:
            sync_folder(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def create_text(path: Path, text: str) -> bool:
    """Create a file with this content atomically; False when it exists already.

    If several processes try, one succeeds. Raises SetupError naming the file.
    """
    part = unique_neighbour(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            with contextlib.suppress(FileExistsError), open(path, "x", encoding="utf-8") as file:
                file.write(text)
                return True
            return False
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise write_refusal(path, error) from error
    return True


def append_text(path: Path, text: str, sync: bool = False) -> None:
    """Append lines to a file that only grows; begins a new line if a crash has left the last one unfinished.

    sync: flush to the disk. Raises SetupError naming the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            size = file.seek(0, os.SEEK_END)
            unfinished = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
            file.write((b"\n" if unfinished else b"") + text.encode("utf-8"))
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        raise write_refusal(path, error) from error


def move(path: Path, target: Path) -> None:
    """Rename a file within its folder and flush the rename to the disk. Raises OSError."""
    os.replace(path, target)
    sync_folder(target.parent)


def cut_torn_tail(path: Path, whole: int) -> Path | None:
    """Shorten a file to its first `whole` bytes; the bytes removed are first appended to `FILE.torn`.

    The caller has checked that these bytes are one unfinished entry. Returns the path of the copy; None when there was
    nothing to remove. Raises SetupError naming the file.
    """
    copy = path.with_name(path.name + TORN)
    try:
        with open(path, "rb+") as file:
            file.seek(whole)
            tail = file.read()
            if not tail:
                return None
            with open(copy, "ab") as spare:
                spare.write(tail if tail.endswith(b"\n") else tail + b"\n")
                spare.flush()
                os.fsync(spare.fileno())
            sync_folder(path.parent)
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_refusal(path, error) from error
    log.warning(
        "%s: the last entry was incomplete and was removed; a copy of its %d bytes is in %s",
        path, len(tail), copy.name,
    )  # fmt: skip
    return copy


def sync(path: Path) -> None:
    """Flush to the disk what was appended to a file. Raises OSError."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a rename to the disk; does nothing on file systems that cannot flush folders."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.fsync(fd)
    os.close(fd)


def unique_neighbour(path: Path) -> Path:
    """A path in the same folder that no other process or thread uses: its name holds host, pid and a counter."""
    host = socket.gethostname().split(".")[0][:40]
    return path.with_name(f".{path.name[:100]}.{host}.{os.getpid()}.{next(_serial)}.part")


def write_refusal(path: Path, error: OSError) -> SetupError:
    """The error, in one line, for a file that could not be written."""
    return SetupError(
        f"cannot write {path}: {error.strerror or error}; free space or fix the permissions of the folder, then "
        "run again: nothing is lost"
    )
