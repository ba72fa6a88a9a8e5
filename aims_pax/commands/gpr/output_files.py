"""What `aims-PAX gpr` writes: arrays and XSF files with the names and shapes of ænet-gpr."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from aims_pax.errors import SettingsError, SetupError
from aims_pax.frames import Array, Frame, LabelledFrame
from aims_pax.record.files import write_bytes, write_text
from aims_pax.report.gpr_page import GPR_FOLDER, GPR_PAGE
from aims_pax.settings.gpr_input import GprSettings
from aims_pax.structure_files.xsf import not_in_xsf, xsf_refusal, xsf_text

log = logging.getLogger(__name__)

FOLDERS = {"train_write": "train_xsf", "test_write": "test_xsf", "additional_write": "additional_xsf"}
ARRAYS = ("energy_{}_gpr", "force_{}_gpr", "unc_e_{}_gpr", "unc_f_{}_gpr", "atoms_{}")
REFERENCES = ("energy_test_reference", "force_test_reference")
UNFINISHED = ".gpr.unfinished"  # lists the folders that an interrupted run was allowed to fill


def check_output_folders(settings: GprSettings, folder: Path) -> None:
    """Raises SettingsError for a folder of an earlier run that was finished, unless `overwrite` is set."""
    marker = folder / UNFINISHED
    partial = marker.read_text(encoding="utf-8").split() if marker.is_file() else []
    for key, name in FOLDERS.items():
        path = folder / name
        if (
            settings[key]
            and path.exists()
            and not settings["overwrite"]
            and not (path.is_dir() and name in partial)
            and (not path.is_dir() or any(path.iterdir()))
        ):
            raise settings.problem(key, f"{path} exists; remove it, or write `overwrite True` to empty it")


def check_other_outputs(folder: Path) -> None:
    """Raises SetupError where something else has the name of an output."""
    for name, wanted in ((GPR_PAGE, Path.is_file), (GPR_FOLDER, Path.is_dir)):
        path = folder / name
        if path.exists() and not wanted(path):
            raise SetupError(f"{path} is in the way of the output of that name: rename it")


def check_written_structures(
    settings: GprSettings, train: Sequence[LabelledFrame], test: Sequence[LabelledFrame]
) -> None:
    """Raises SettingsError for structures that shall be written and XSF cannot hold; warns of what it leaves out."""
    lost: set[str] = set()
    for key, data in (("train_write", train), ("test_write", test), ("additional_write", train)):
        for k, one in enumerate(data if settings[key] else (), 1):
            if (why := xsf_refusal(one.frame)) is not None:
                raise settings.problem(key, f"structure {k}: {why}, or write {key} False")
            lost.update(not_in_xsf(one.frame))
    if lost:
        log.warning(
            "XSF has no place for %s: the files that are written are without", ", ".join(sorted(lost))
        )


@contextlib.contextmanager
def unfinished_outputs(settings: GprSettings, folder: Path) -> Iterator[None]:
    """If the block does not end, a later run may replace the structures that it wrote."""
    names = [name for key, name in FOLDERS.items() if settings[key]]
    write_text(folder / UNFINISHED, "\n".join(names) + "\n")
    yield
    (folder / UNFINISHED).unlink(missing_ok=True)


def remove_earlier_results(folder: Path) -> None:
    """Remove arrays and figures of another process: beside new ones they would be taken for results of this one."""
    names = [one.format(what) for what in ("test", "additional") for one in ARRAYS]
    old = [path for name in (*names, *REFERENCES) if (path := folder / f"{name}.npy").is_file()]
    figures = [*(folder / GPR_FOLDER).glob("gpr_*.png"), *(folder / GPR_FOLDER).glob("errors.json")]
    for path in old + figures:
        path.unlink()
    if old:
        log.info("removed %d arrays of an earlier run", len(old))


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
