"""Files that a calculator writes into the working folder: labels computed at the same time read each other's files.

ASE's own calculators get a folder for each label. One that opens files by a bare name, instead of in `self.directory`,
shares them with the other workers, and a label can be that of another structure without any sign.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection


def files_here() -> dict[str, int]:
    """Names in the current folder, in which references compute, and when each file was changed."""
    found = {}
    with os.scandir() as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # removed in between
                if entry.is_file():
                    found[entry.name] = entry.stat(follow_symlinks=False).st_mtime_ns
    return found


def shared_files_warning(names: Collection[str]) -> str:
    """The warning for files with these names."""
    return (
        f"REFERENCE: a label has written {', '.join(sorted(names)[:3])} into the working folder: labels that are "
        "computed at the same time would read each other's files, and may be of another structure; let the calculator "
        "use self.directory, which is another folder for each label, or set CLUSTER.max_workers: 1"
    )
