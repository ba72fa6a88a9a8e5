"""Systems: named starting structures, read from the user's geometry files and assigned to trajectories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax import structure_files
from aims_pax.charge_and_spin import check_electrons
from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame
from aims_pax.structure_files import numbered, split_index, unreadable_image
from aims_pax.structure_files.geometry_in import decoded, parse_geometry_in

FOLDER = (
    "a folder of geometries may hold only structures: move other files elsewhere (hidden files are not read)"
)


@dataclass(frozen=True)
class System:
    """A starting structure with the name that logs, settings and datasets use (its file's stem).

    fixed_cell: (3, 3) bool, components of lattice vectors that the file constrains, or None. notes: messages about
    contents of the file that have no effect.
    """

    name: str
    frame: Frame
    fixed_cell: NDArray[np.bool_] | None = field(default=None, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def refuses_dynamics(self) -> str | None:
        """Why molecular dynamics would change nothing, or None."""
        if self.frame.fixed is None or not self.frame.fixed.all():
            return None
        return f"{self.name}: all atoms are fixed, so that none can move; remove constraints"

    def refuses_constant_pressure(self) -> str | None:
        """Why its cell must not change, or None."""
        return self._holds_cell("NPT does not support", "use NVT") if self.frame.periodic else None

    def refuses_cell_change(self, what: str, instead: str) -> str | None:
        """Why its cell must not change, or None: atoms in it are fixed, or it is itself.

        what: would change it, and does not support this; instead: what to do. Both are parts of the message.
        """
        if self.frame.fixed is not None and self.frame.pbc.any():
            why = f"{what}: they cannot stay in a cell that changes"
            return f"{self.name} has fixed atoms, which {why}; {instead}, or free them"
        return self._holds_cell(what, instead)

    def _holds_cell(self, what: str, instead: str) -> str | None:
        if self.fixed_cell is None or not self.frame.pbc.any():
            return None
        return (
            f"{self.name}: constrain_relaxation after its lattice_vector lines fixes the cell, which {what}; "
            f"{instead}, or remove these lines"
        )


def read_systems(paths: Path | str | Sequence[Path | str]) -> tuple[System, ...]:
    """One geometry file, a folder of ASE-readable files, or a list of files → systems with unique names.

    For a file with several structures, an index must choose: `trajectory.xyz@0`, `@-1` (the last) or `@:` (all).
    Raises SettingsError that lists all missing or unreadable files.
    """
    given = [Path(p) for p in ([paths] if isinstance(paths, Path | str) else paths)]
    systems: list[System] = []
    broken: list[str] = []
    for file in _files(given):
        try:
            for one in _read(file):
                systems.append(replace(one, name=_unique(one.name, file, systems)))
        except SettingsError as error:
            broken.append(str(error))
    if broken:
        if any(path.is_dir() for path in given):
            broken.append(FOLDER)
        raise SettingsError("cannot read the geometry:\n  " + "\n  ".join(broken))
    return tuple(systems)


def geometry_paths(written: str | Sequence[str], folder: Path) -> list[Path]:
    """Paths of `path_to_geometry`, one or a list, relative ones in this folder."""
    return [folder / Path(p).expanduser() for p in ([written] if isinstance(written, str) else written)]


def read_frame(path: Path) -> Frame:
    """The structure of a file that holds one, or the one chosen by @ (`trajectory.xyz@-1`).

    Raises SettingsError naming the file and the reason.
    """
    return read_system(path).frame


def read_system(path: Path) -> System:
    """Like `read_frame`, but returns the System with constraints of the cell and notes."""
    found = _read(path)
    if len(found) > 1:
        raise SettingsError(f"{path}: {len(found)} structures, expected one: {path.name.partition('@')[0]}@0")
    return found[0]


def read_frames(path: Path) -> list[Frame]:
    """Every structure of a file, or those chosen by @. Raises SettingsError naming the file and the reason."""
    return [system.frame for system in read_all(path)]


def read_all(path: Path) -> list[System]:
    """Like `read_frames`, but returns Systems with constraints of the cell and notes."""
    return _read(path, ":")


def of_aims_only(frame: Frame) -> str | None:
    """Why no other program than FHI-aims can label this structure, or None."""
    if not frame.statements:
        return None
    return f"{frame.statements[0]} works only with FHI-aims, but these labels come from a calculator: remove the line"


def _read(path: Path, otherwise: str | None = None) -> list[System]:
    """All structures that a path selects, checked, each named after the file's stem. Raises SettingsError.

    otherwise: the index if the path has none.
    """
    file, index = split_index(path)
    index = otherwise if index is None else index
    if not file.is_file():
        from aims_pax.suggestions import no_such

        raise SettingsError(f"{path}: {no_such(file)}")
    stem = _stem(file)
    try:
        if _of_aims(file):
            if index not in (None, "0", "-1", ":"):
                raise SettingsError(f"{path}: a geometry.in holds one structure; write it without @{index}")
            found = [_from_aims(file, stem)]
        else:
            images = structure_files.read_images(file, index)
            found = []
            for k, image in images:
                with numbered(k, len(images) > 1):
                    found.append(_from_image(image, file, f"{stem}_{k}" if ":" in (index or "") else stem))
    except Exception as error:  # ASE's readers may raise any exception
        raise SettingsError(_reason(path, file, error)) from error
    return found


def _from_image(image: structure_files.Image, file: Path, name: str) -> System:
    frame = Frame.from_atoms(image.atoms)
    check_structure(frame)
    return System(name, frame, notes=tuple(f"{file.name}: {note}" for note in image.notes))


def _from_aims(file: Path, stem: str) -> System:
    from ase.io.formats import open_with_compression

    with open_with_compression(str(file), "rb") as opened:
        geometry = parse_geometry_in(decoded(opened.read()), str(file))
    check_structure(geometry.frame)
    note = f"{file.name}: its velocities are not used: trajectories start with velocities drawn at MD.temperature"
    return System(stem, geometry.frame, geometry.fixed_cell, (note,) * geometry.velocities)


def _reason(path: Path, file: Path, error: Exception) -> str:
    """One line that begins with the file."""
    if isinstance(error, SettingsError) and str(error).startswith(f"{file}:"):
        return str(error)
    return f"{path}: {unreadable_image(error)}"


def check_structure(frame: Frame) -> None:
    """Raises SettingsError for invalid structures: non-finite numbers, cells without volume, impossible spins."""
    if len(frame) == 0:
        raise SettingsError("no atoms in the file")
    if (frame.numbers < 1).any():
        raise SettingsError(f"atom {int(np.argmin(frame.numbers)) + 1} is X, which is not an element")
    for name, values in (("positions", frame.positions), ("cell", frame.cell)):
        if not (abs(values) < 1e6).all():  # NaN and infinity fail this too
            raise SettingsError(
                f"{name} are not finite numbers" if name == "positions" else "the cell is not finite"
            )
    for name, column in (("moment", frame.moments), ("charge", frame.charges)):
        if column is not None and not (abs(column) < 1e6).all():
            raise SettingsError(f"an initial {name} is not a finite number")
    if frame.pbc.any():
        volume = _volume(frame)
        if abs(volume) < 1e-3:
            raise SettingsError("periodic, but its cell has no volume")
        if volume < 0 and frame.periodic:
            raise SettingsError("its lattice vectors are left-handed (negative volume): swap two of them")
    if frame.charge is not None:
        try:
            check_electrons(frame)
        except SettingsError as error:
            raise SettingsError(f"{frame.formula}: {error}") from error


def read_crystal(path: Path, cell_change: tuple[str, str] | None = None) -> System:
    """The crystal of a file. cell_change: what changes its cell, and what to do instead (`refuses_cell_change`).

    Raises SettingsError for contents that calculators do not support, and for a fixed cell that would change.
    """
    system = read_system(path)
    reason = of_aims_only(system.frame) or (
        None if cell_change is None else system.refuses_cell_change(*cell_change)
    )
    if reason is not None:
        raise SettingsError(f"{path}: {reason}")
    return system


def deal(systems: Sequence[System], n: int, begun: Sequence[str] = ()) -> tuple[System, ...]:
    """One system for each of n trajectories, in turn; starts again from the first if n is larger.

    begun: the systems, by name, of trajectories that a run has started: they keep them, and the others go to the
    systems with the fewest. Raises KeyError for a name of no system.

    >>> a, b = (System(x, Frame([1], [[0, 0, 0]])) for x in "ab")
    >>> [s.name for s in deal([a, b], 3)], [s.name for s in deal([a, b], 5, begun="bbb")]
    (['a', 'b', 'a'], ['b', 'b', 'b', 'a', 'a'])
    """
    by_name = {s.name: s for s in systems}
    dealt = [by_name[name] for name in begun]
    counts = Counter({name: begun.count(name) for name in by_name})
    while len(dealt) < n:
        dealt.append(min(systems, key=lambda s: counts[s.name]))
        counts[dealt[-1].name] += 1
    return tuple(dealt)


def system_of(frame: Frame, origin: Mapping[str, Any], systems: Sequence[System]) -> str:
    """The system of a labelled frame: the one named in its origin, otherwise the one with the same formula.

    If several systems have this formula (isomers, polymorphs, ions): of those whose charge and spin agree, as far as
    they are stated, the one with the most similar interatomic distances.
    If none has it: the name in the origin, or the formula.
    """
    written = str(origin.get("system", frame.formula))
    if any(s.name == written for s in systems):
        return written
    alike = [s for s in systems if s.frame.formula == frame.formula and s.frame.periodic == frame.periodic]
    alike = [s for s in alike if same_electrons(s.frame, frame)] or alike
    if len(alike) < 2:
        return alike[0].name if alike else written
    mine = _distances(frame)
    return min(alike, key=lambda s: float(abs(_distances(s.frame) - mine).sum())).name


def same_electrons(one: Frame, other: Frame) -> bool:
    """Whether charge and multiplicity agree, as far as both state them."""
    pairs = ((one.charge, other.charge), (one.spin, other.spin))
    return all(a is None or b is None or a == b for a, b in pairs)


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
            inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
            if not inside:
                raise SettingsError(f"{path}: no geometry files in this folder")
            if folder := next((p for p in inside if p.is_dir()), None):
                raise SettingsError(
                    f"{folder}: a folder in a folder of geometries; move it out; path_to_geometry may list several"
                )
            files += inside
        else:
            files.append(path)
    return files


def _of_aims(file: Path) -> bool:
    """Whether the file is a geometry.in, from its name (also `.next_step` and compressed)."""
    return _without_compression(file.name).removesuffix(".next_step").endswith(".in")


def _stem(file: Path) -> str:
    if not _of_aims(file):
        return file.stem
    return Path(_without_compression(file.name).removesuffix(".next_step")).stem


def _without_compression(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".bz2").removesuffix(".xz")


def _unique(name: str, file: Path, systems: Sequence[System]) -> str:
    taken = {s.name for s in systems}
    if name not in taken:
        return name
    name = file.name.replace(".", "_")
    if name in taken:
        raise SettingsError(f"{file}: another geometry is already named {name}; rename one file")
    return name


def _volume(frame: Frame) -> float:
    cell = frame.cell.copy()
    for axis in np.flatnonzero(~frame.pbc):
        if not cell[axis].any():  # a missing vector of a slab or wire: use a direction out of the plane
            others = [a for a in range(3) if a != axis]
            normal = np.cross(cell[others[0]], cell[others[1]])
            cell[axis] = normal / (np.linalg.norm(normal) or 1.0) if normal.any() else np.eye(3)[axis]
    return float(np.linalg.det(cell))


def count_neighbours(frame: Frame, r_max: float) -> int:
    """Directed pairs within the cutoff, periodic images included."""
    if not frame.pbc.any():
        from scipy.spatial import cKDTree

        tree = cKDTree(frame.positions)
        return int(tree.count_neighbors(tree, r_max)) - len(frame)
    from ase.neighborlist import neighbor_list

    return len(neighbor_list("i", frame.to_atoms(), float(r_max)))
