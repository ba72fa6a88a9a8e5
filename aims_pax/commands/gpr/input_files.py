"""The labelled structures that `train.in` names: XSF files, or every format of ASE."""

from __future__ import annotations

import glob
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.label_limits import cell_refusal
from aims_pax.labelling.validation import overlapping_pairs
from aims_pax.settings.gpr_input import GprSettings
from aims_pax.structure_files.xsf import read_xsf
from aims_pax.suggestions import nearest
from aims_pax.surrogate_labels import refuse_surrogate_labels

log = logging.getLogger(__name__)

CLOSEST = 0.1  # Å: descriptors of atoms that are nearer have no finite derivatives


def read_structures_of(settings: GprSettings, key: str) -> list[LabelledFrame]:
    """All structures of `train_file` or `test_file`, in the order of the numbers in the file names.

    Raises SettingsError for a pattern without files, an unknown format, or a structure without energy or forces.
    """
    pattern = str(settings[key])
    files = [Path(name) for name in glob.glob(str(Path(pattern).expanduser()), recursive=True)]
    files = sorted((f for f in files if f.is_file()), key=_in_order)
    if not files:
        raise settings.problem(key, _why_nothing_is_found(settings, pattern))
    read = _xsf if settings["file_format"].lower() == "xsf" else _by_ase(settings)
    found = [one for file in files for one in read(file)]
    refuse_surrogate_labels(found, "used for training or testing")
    return found


def _why_nothing_is_found(settings: GprSettings, pattern: str) -> str:
    if pattern[:1] in "\"'[" or pattern[-1:] in "\"'":
        return f"no file is called {pattern}: write one name or pattern, without quotes or brackets"
    if Path(pattern).expanduser().is_dir():
        return f"{pattern} is a folder; write {pattern.rstrip('/')}/*.xsf"
    beside = Path(settings.file).parent / pattern
    there = any(Path(name).is_file() for name in glob.glob(str(beside)))
    hint = f"; there are some from {beside.parent}" if there else ""
    return f"no file is called {pattern} (paths are relative to this folder){hint}"


def without_copies(data: Sequence[LabelledFrame]) -> list[LabelledFrame]:
    """Each structure once, with a warning: a process that was trained on the copy of a structure has no leave-one-out
    error of it, and deviations that are too small."""
    found: dict[str, LabelledFrame] = {}
    for one in data:
        found.setdefault(one.frame.id, one)
    if left_out := len(data) - len(found):
        log.warning("train_file: %d of %d structures are copies of others and left out", left_out, len(data))
    return list(found.values())


def without_close_ones(data: Sequence[LabelledFrame], threshold: float) -> list[LabelledFrame]:
    """The structures that are at least `threshold` Å (norm over all coordinates) from each earlier one of the same
    atoms and cell."""
    chosen: list[LabelledFrame] = []
    for one in data:
        frame = one.frame
        same = [c.frame for c in chosen if _same_atoms_and_cell(c.frame, frame)]
        if all(np.linalg.norm(frame.positions - other.positions) >= threshold for other in same):
            chosen.append(one)
    return chosen


def _same_atoms_and_cell(a: Frame, b: Frame) -> bool:
    atoms = np.array_equal(a.numbers, b.numbers) and np.array_equal(a.pbc, b.pbc)
    return atoms and np.allclose(a.cell, b.cell, atol=1e-6)


def _in_order(path: Path) -> list[tuple[bool, int | str]]:
    """Numbers in a name are compared as numbers: file_99999 comes before file_100000."""
    return [
        (not part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", str(path))
    ]


def _xsf(path: Path) -> Iterator[LabelledFrame]:
    try:
        frame, label = read_xsf(path)
    except SettingsError as error:
        if path.suffix.lower() == ".xsf":
            raise
        raise SettingsError(f"{error} (read as XSF; write file_format for another one, as extxyz)") from error
    text = path.read_text(encoding="utf-8-sig")
    found = re.search(r"#\s*(provenance)\s*[=:]\s*(\S+)", text)
    yield LabelledFrame(frame, _checked(str(path), frame, label), {found[1]: found[2]} if found else {})


def _by_ase(settings: GprSettings) -> Callable[[Path], Iterator[LabelledFrame]]:
    from ase.io.formats import all_formats, ioformats

    name = str(settings["file_format"])
    if name not in ioformats or not ioformats[name].can_read:
        known = [f for f, what in all_formats.items() if what.can_read]
        near = nearest(name, [*known, "xsf"])
        raise settings.problem(
            "file_format", f"{name!r} is no format that ASE reads{f'; nearest: {near}' if near else ''}"
        )

    def read(path: Path) -> Iterator[LabelledFrame]:
        import ase.io

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                images = ase.io.read(path, ":", format=name, do_not_split_by_at_sign=True)
        except Exception as error:  # ASE's readers may raise any exception
            raise SettingsError(
                f"{path}: cannot be read as {name}: {type(error).__name__}: {error}"
            ) from error
        if name == "xyz" and any(" Lattice" in line or "Properties=" in line for line in _second_lines(path)):
            raise settings.problem("file_format", f"{path} is extended XYZ: write extxyz")
        for k, atoms in enumerate(images):
            results = getattr(atoms.calc, "results", {}) if atoms.calc is not None else {}
            # besides results of a model, perhaps
            if "REF_energy" in atoms.info or "REF_forces" in atoms.arrays:
                energy, forces = atoms.info.get("REF_energy"), atoms.arrays.get("REF_forces")
            else:
                energy, forces = results.get("free_energy", results.get("energy")), results.get("forces")
            missing = "energy" if energy is None else "forces" if forces is None else ""
            if missing:
                raise SettingsError(
                    f"{path}: structure {k + 1} has no {missing}; a label needs energy and forces"
                )
            frame = Frame.from_atoms(atoms)
            label = Label(float(energy), np.array(forces, float))
            origin = {n: str(v) for n, v in atoms.info.items() if n == "provenance"}
            yield LabelledFrame(frame, _checked(f"{path}: structure {k + 1}", frame, label), origin)

    return read


def _second_lines(path: Path) -> list[str]:
    """The comment of the first structure of an XYZ file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return [line for line, _ in zip(file, range(2), strict=False)][1:]


def _checked(where: str, frame: Frame, label: Label) -> Label:
    """The label. Raises SettingsError for numbers that are not finite, a cell without volume, and atoms on one
    place."""
    from ase.data import chemical_symbols

    numbers: dict[str, Any] = {
        "energy": label.energy, "forces": label.forces, "positions": frame.positions, "cell": frame.cell
    }  # fmt: skip
    wrong = [name for name, values in numbers.items() if not np.isfinite(values).all()]
    if wrong:
        raise SettingsError(f"{where}: {' and '.join(wrong)} not finite")
    if (why := cell_refusal(frame.cell, frame.pbc)) is not None:
        raise SettingsError(f"{where}: {why}")
    i, j, d = overlapping_pairs(frame, np.full(len(frame), CLOSEST / 2))
    if len(d):
        k = int(np.argmin(d))
        a, b = (f"{chemical_symbols[frame.numbers[n]]}{n}" for n in (i[k], j[k]))
        pair = (
            f"atom {a} is {d[k]:.3g} Å from its image"
            if a == b
            else f"atoms {a} and {b} are {d[k]:.3g} Å apart"
        )
        raise SettingsError(
            f"{where}: {pair} (counted from 0), limit {CLOSEST:g} Å: remove or correct this structure"
        )
    return label
