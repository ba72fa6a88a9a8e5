"""Which run a folder belongs to: each folder that a run writes holds a small file that names the run.

Two runs may share a folder if their files have different names (models, losses and checkpoints carry
`GENERAL.name_exp`). If they would write the same files, the second one is refused.

    {dataset_dir}/.owner.json              the run that owns this data
    {model_dir …}/.{name_exp}.owner.json   the run that owns the members of this name
    restart/identity.json                  the id of a run, which stays the same when its folder is moved
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aims_pax.errors import SettingsError
from aims_pax.record.files import create_text, write_text
from aims_pax.record.folder import RunFolder


@dataclass(frozen=True)
class Owned:
    """A folder, the settings key that names it, and the file that names its owner."""

    key: str
    folder: Path
    file: Path


def owned(folder: RunFolder, name_exp: str) -> Iterator[Owned]:
    """The folders of a run that another run might also write."""
    yield Owned("MISC.dataset_dir", folder.data, folder.data / ".owner.json")
    for key, path in (
        ("GENERAL.model_dir", folder.model),
        ("GENERAL.loss_dir", folder.losses),
        ("GENERAL.checkpoints_dir", folder.checkpoints),
    ):
        yield Owned(key, path, path / f".{name_exp}.owner.json")


def claim(folder: RunFolder, name_exp: str) -> None:
    """Record this run as the owner of its folders. Raises SettingsError naming a folder that another run owns."""
    identity = _identity(folder)
    for one in owned(folder, name_exp):
        mine = {
            "run": str(folder.root.resolve()), "id": identity, "folder": str(one.folder.resolve()),
            "host": socket.gethostname(),
        }  # fmt: skip
        text = json.dumps(mine, indent=1) + "\n"
        if create_text(one.file, text):
            continue
        refuse_foreign(one, folder, identity)
        if _read(one.file) != mine:
            write_text(one.file, text)


def check_owner(folder: RunFolder, name_exp: str) -> None:
    """Like `claim`, but writes nothing: raise SettingsError for a folder that another run owns."""
    identity = str(_read(folder.restart / "identity.json").get("id", ""))
    for one in owned(folder, name_exp):
        refuse_foreign(one, folder, identity)


def refuse_foreign(one: Owned, folder: RunFolder, identity: str) -> None:
    """Raise SettingsError when the owner file names a run other than that of `folder` with this identity."""
    owner = _read(one.file)
    if not owner or not _same_place(str(owner.get("folder", "")), one.folder):
        return  # no owner, or this is a copy of another folder
    run = str(owner.get("run", ""))
    if _same_place(run, folder.root):
        return
    known = _read(Path(run) / "restart" / "identity.json").get("id")
    if owner.get("id") == identity and known != identity:
        return  # this run, whose folder was moved
    raise SettingsError(
        f"{one.key}: {one.folder} belongs to the run in {run}, and two runs that write the same files would mix "
        f"their data; name another folder{'' if one.key.startswith('MISC') else ' or another name_exp'}. If that run "
        f"will never be continued, remove {one.file}"
    )


def _identity(folder: RunFolder) -> str:
    path = folder.restart / "identity.json"
    known = _read(path).get("id")
    if isinstance(known, str) and known:
        return known
    fresh = secrets.token_hex(8)
    write_text(path, json.dumps({"id": fresh}) + "\n")
    return fresh


def _same_place(written: str, path: Path) -> bool:
    try:
        return written == str(path.resolve()) or Path(written).samefile(path)
    except (OSError, ValueError):
        return False


def _read(path: Path) -> dict[str, Any]:
    """The object in a small file; {} when there is none or it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
