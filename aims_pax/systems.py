"""What is simulated: named starting structures, read from the files a user points to and dealt to trajectories."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame


@dataclass(frozen=True)
class System:
    """A starting structure with the name that logs, settings and datasets use (its file's stem)."""

    name: str
    frame: Frame


def read_systems(paths: Path | Sequence[Path]) -> tuple[System, ...]:
    """One geometry file, a folder of ASE-readable files, or a list of files → systems with unique names.

    Raises SettingsError naming every file that is missing or unreadable, all at once.
    """
    files = _files([paths] if isinstance(paths, Path) else paths)
    systems: list[System] = []
    broken: list[str] = []
    for file in files:
        try:
            systems.append(System(_unique(file, systems), read_frame(file)))
        except SettingsError as error:
            broken.append(str(error))
    if broken:
        raise SettingsError("cannot read the geometry:\n  " + "\n  ".join(broken))
    return tuple(systems)


def read_frame(path: Path) -> Frame:
    """The last structure of an ASE-readable file. Raises SettingsError naming the file and the reason."""
    import ase.io

    if not path.is_file():
        from aims_pax.settings.base import no_such  # the settings read systems: not at the top

        raise SettingsError(f"{path}: {no_such(path)}")
    fmt = "aims" if path.suffix == ".in" else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # ase.io.aims announces a move at each call
            atoms = ase.io.read(path, format=fmt)
    except Exception as error:  # ASE's readers raise whatever they trip over
        said = f"{type(error).__name__}: {error}"
        if isinstance(error, KeyError):  # what ASE's readers say of a symbol they do not know
            said = f"unreadable; is {error} meant to be an element?"
        raise SettingsError(f"{path}: {said}") from error
    if isinstance(atoms, list):
        atoms = atoms[-1]
    if len(atoms) == 0:
        raise SettingsError(f"{path}: no atoms in it")
    try:
        frame = Frame.from_atoms(atoms)
    except (SettingsError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from error
    if not (abs(frame.positions) < 1e6).all():  # NaN and infinity fail this too
        raise SettingsError(f"{path}: positions are not finite numbers")
    if frame.pbc.any() and abs(_volume(frame)) < 1e-3:
        raise SettingsError(f"{path}: periodic, but its cell has no volume")
    return frame


def deal(systems: Sequence[System], n: int) -> tuple[System, ...]:
    """One system for each of n trajectories: all in turn, from the start again when n is larger.

    >>> a, b = (System(x, Frame([1], [[0, 0, 0]])) for x in "ab")
    >>> [s.name for s in deal([a, b], 3)]
    ['a', 'b', 'a']
    """
    return tuple(systems[i % len(systems)] for i in range(n))


def system_of(frame: Frame, origin: Mapping[str, Any], systems: Sequence[System]) -> str:
    """The system a labelled frame belongs to: the one its origin names, else the one whose structure it has.

    Several systems may share a formula (isomers, polymorphs): then the one with the most similar interatomic distances.
    Without any, what the origin says, or the formula.
    """
    written = str(origin.get("system", frame.formula))
    if any(s.name == written for s in systems):
        return written
    alike = [s for s in systems if s.frame.formula == frame.formula and s.frame.periodic == frame.periodic]
    if len(alike) < 2:
        return alike[0].name if alike else written
    mine = _distances(frame)
    return min(alike, key=lambda s: float(abs(_distances(s.frame) - mine).sum())).name


def _distances(frame: Frame) -> Array:
    """The distances (Å) of all pairs of atoms, N (N − 1) / 2, sorted by elements and length; nearest images."""
    import numpy as np

    i, j = np.triu_indices(len(frame), 1)
    d = frame.to_atoms().get_all_distances(mic=bool(frame.pbc.any()))[i, j]
    pairs = np.sort(np.stack([frame.numbers[i], frame.numbers[j]]), axis=0)
    result: Array = d[np.lexsort((d, pairs[1], pairs[0]))]
    return result


def elements(frames: Iterable[Frame]) -> tuple[int, ...]:
    """Atomic numbers that occur, ascending."""
    return tuple(sorted({int(z) for frame in frames for z in frame.numbers}))


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
            if not inside:
                raise SettingsError(f"{path}: no geometry files in this folder")
            files += inside
        else:
            files.append(path)
    return files


def _unique(file: Path, systems: Sequence[System]) -> str:
    taken = {s.name for s in systems}
    if file.stem not in taken:
        return file.stem
    name = file.name.replace(".", "_")
    if name in taken:
        raise SettingsError(f"{file}: another geometry is called {name} already; rename one file")
    return name


def _volume(frame: Frame) -> float:
    import numpy as np

    cell = frame.cell.copy()
    for axis in np.flatnonzero(~frame.pbc):
        if not cell[axis].any():  # a missing vector of a slab or wire: any direction out of the plane will do
            others = [a for a in range(3) if a != axis]
            normal = np.cross(cell[others[0]], cell[others[1]])
            cell[axis] = normal / (np.linalg.norm(normal) or 1.0) if normal.any() else np.eye(3)[axis]
    return float(np.linalg.det(cell))
