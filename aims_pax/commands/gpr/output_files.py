"""What `aims-PAX gpr` writes: arrays and XSF files with the names and shapes of ænet-gpr."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame, LabelledFrame
from aims_pax.record.files import write_bytes, write_text
from aims_pax.settings.gpr_input import GprSettings
from aims_pax.structure_files.xsf import xsf_text

FOLDERS = {"train_write": "train_xsf", "test_write": "test_xsf", "additional_write": "additional_xsf"}


def check_output_folders(settings: GprSettings, folder: Path) -> None:
    """Raises SettingsError for a folder of an earlier run, unless `overwrite` is set."""
    for key, name in FOLDERS.items():
        path = folder / name
        if (
            settings[key]
            and path.exists()
            and not settings["overwrite"]
            and (not path.is_dir() or any(path.iterdir()))
        ):
            raise settings.problem(key, f"{path} exists; remove it, or write `overwrite True` to empty it")


def write_structures(
    settings: GprSettings, folder: Path, data: Sequence[LabelledFrame], said: Sequence[str]
) -> None:
    """file_00000.xsf … in this folder, which is emptied first. said: a remark for each file, or ""."""
    if folder.is_dir():
        for old in folder.glob("file_*.xsf"):
            old.unlink()
        left = next(folder.iterdir(), None)
        if left is not None:
            raise SettingsError(f"{left}: not written by this command; remove it, or move {folder}")
    for k, (one, remark) in enumerate(zip(data, said, strict=True)):
        text = xsf_text(one.frame, one.label.energy, one.label.forces, [remark] if remark else [])
        write_text(folder / f"file_{k:05d}.xsf", text)


def write_array(path: Path, values: Array) -> None:
    """A .npy file without pickle."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def per_structure(frames: Sequence[Frame], values: Array) -> Array:
    """(ΣN, 3) as (F, N, 3) where all structures have N atoms; otherwise as it is."""
    sizes = {len(f) for f in frames}
    return values.reshape(len(frames), sizes.pop(), 3) if len(sizes) == 1 else values
