"""Sampled structures in an HDF5 file, with the keys of mbe-automation.

    {root_key}/trajectory/                  md_sampling; phonon_sampling also, without velocities, T and p
    {root_key}/finite_subsystems/n={n}/     with `molecule_indices`, attribute n_molecules
    …/force_constants/                      `force_constants (eV∕Å²)`, `supercell_matrix`, primitive/, supercell/
    …/ground_truth/                         `E_<level> (eV∕atom)`, `forces_<level> (eV∕Å)`, `status_<level>`

A group of structures holds `positions (Å)` (F, N, 3), `atomic_numbers` (N,), `masses (u)` (N,), `cell_vectors (Å)`
(F, 3, 3) of crystals, and, where known, `E_pot (eV∕atom)` (F,), `forces (eV∕Å)` (F, N, 3), `feature_vectors`
(F, N, D). The slash in these names is the division slash ∕, because / separates groups.

Each change is made in a copy of the file, which is then renamed, so a step is present in full or not at all. The root
of a step has the attributes `settings`, a hash of the settings that it was made with, and `made_with`, the same
settings key by key.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import RestartError, SetupError
from aims_pax.frames import Frame, Label
from aims_pax.record import files

Arrays = Mapping[str, NDArray[Any]]

POSITIONS, NUMBERS, MASSES = "positions (Å)", "atomic_numbers", "masses (u)"
CELL, ENERGY, FORCES = "cell_vectors (Å)", "E_pot (eV∕atom)", "forces (eV∕Å)"
TIME, TEMPERATURE, PRESSURE = "time (fs)", "T (K)", "p (GPa)"
VOLUME, VELOCITIES, FEATURES = "V (Å³∕atom)", "velocities (Å∕fs)", "feature_vectors"
CONSTANTS, MATRIX, MOLECULES = "force_constants (eV∕Å²)", "supercell_matrix", "molecule_indices"
ELECTRONS = {  # only where the structures have them: field of a frame → name
    "charge": "charge (e)",
    "spin": "spin_multiplicity",
    "moments": "initial_magnetic_moments (μB)",
    "charges": "initial_charges (e)",
}
DIGEST = "settings"


def h5py() -> Any:
    """The package h5py. Raises SetupError naming the extra."""
    try:
        import h5py as found
    except ImportError as error:
        raise SetupError(f"HDF5 files need h5py ({error}): pip install 'aims-pax[crystals]'") from error
    return found


def structure_arrays(
    frames: Sequence[Frame], labels: Sequence[Label] | None = None, features: NDArray[Any] | None = None
) -> dict[str, NDArray[Any]]:
    """{key: array} for frames of one system. features: (F, N, D)."""
    first, n = frames[0], len(frames[0])
    arrays: dict[str, NDArray[Any]] = {
        POSITIONS: np.array([f.positions for f in frames]),
        NUMBERS: np.array(first.numbers),
        MASSES: first.all_masses,
    }
    arrays |= {name: v for k, name in ELECTRONS.items() if (v := first.arrays().get(k)) is not None}
    if first.pbc.any():
        arrays[CELL] = np.array([f.cell for f in frames])
        arrays["pbc"] = np.array(first.pbc)
    if first.periodic:
        arrays[VOLUME] = abs(np.linalg.det(arrays[CELL])) / n
    if labels is not None:
        arrays[ENERGY] = np.array([label.energy for label in labels]) / n
        arrays[FORCES] = np.array([label.forces for label in labels])
    if features is not None:
        arrays[FEATURES] = features
    return arrays


def frames_of(arrays: Arrays) -> list[Frame]:
    """The structures of a group."""
    positions = arrays[POSITIONS]
    cells = arrays.get(CELL, np.zeros((len(positions), 3, 3)))
    pbc = arrays.get("pbc", np.full(3, CELL in arrays))
    stored = {k: np.asarray(arrays[name]) for k, name in ELECTRONS.items() if name in arrays}
    electrons: dict[str, Any] = {k: v.item() if v.ndim == 0 else v for k, v in stored.items()}
    electrons["masses"] = arrays.get(MASSES)
    return [Frame(arrays[NUMBERS], R, C, pbc, **electrons) for R, C in zip(positions, cells, strict=True)]


class Hdf5:
    """One HDF5 file of sampled structures."""

    def __init__(self, path: Path) -> None:
        self.path = path
        h5py()

    def digest(self, key: str) -> str | None:
        """The hash of the settings that the step `key` was made with; None when there is no such step."""
        with self._open() as file:
            if file is None or key not in file:
                return None
            return str(file[key].attrs.get(DIGEST, ""))

    def attribute(self, key: str, name: str) -> str | None:
        """An attribute of a group; None where there is none."""
        with self._open() as file:
            if file is None or key not in file or name not in file[key].attrs:
                return None
            return str(file[key].attrs[name])

    def write(
        self, key: str, digest: str, groups: Mapping[str, Arrays], attributes: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Write a step into the file, replacing an earlier one. groups: {path below `key`: arrays}.

        Raises SetupError when the disk is full or the folder cannot be written.
        """

        def put(file: Any) -> None:
            if key in file:
                del file[key]
            root = file.require_group(key)
            for path, arrays in groups.items():
                group = root.require_group(path) if path else root
                for name, values in arrays.items():
                    group.create_dataset(name, data=values)
                for name, value in attributes.get(path, {}).items():
                    group.attrs[name] = value
            root.attrs[DIGEST] = digest

        self._change(put)

    def add(self, path: str, arrays: Arrays) -> None:
        """Write arrays into a group, replacing those of the same names."""

        def put(file: Any) -> None:
            group = file.require_group(path)
            for name, values in arrays.items():
                if name in group:
                    del group[name]
                group.create_dataset(name, data=values)

        self._change(put)

    def read(self, path: str) -> dict[str, NDArray[Any]]:
        """The arrays of a group. Raises RestartError when there is none."""
        with self._open() as file:
            if file is None or path not in file:
                raise RestartError(f"{self.path}: holds no {path}")
            group = file[path]
            return {k: np.asarray(v[()]) for k, v in group.items() if hasattr(v, "shape")}

    def has(self, path: str) -> bool:
        """Whether there is a group of this name."""
        with self._open() as file:
            return file is not None and path in file

    def groups(self, path: str) -> list[str]:
        """Every group of structures at and below a path."""
        found: list[str] = []
        with self._open() as file:
            if file is not None and path in file:
                here = file[path]
                if POSITIONS in here:
                    found.append(path)
                here.visititems(lambda k, v: found.append(f"{path}/{k}") if _has_positions(v) else None)
        return found

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        if not self.path.exists():
            yield None
            return
        try:
            file = h5py().File(self.path, "r")
        except OSError as error:
            raise RestartError(
                f"{self.path}: not a readable HDF5 file ({error}); restore or remove it"
            ) from error
        with file:
            yield file

    def _change(self, put: Any) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(self.path) as part:
                if self.path.exists():
                    shutil.copyfile(self.path, part)
                with h5py().File(part, "a") as file:
                    put(file)
        except OSError as error:
            raise files.write_refusal(self.path, error) from error


def _has_positions(item: Any) -> bool:
    return not hasattr(item, "shape") and POSITIONS in item
