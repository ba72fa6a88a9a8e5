"""The complete state of one trajectory, like the restart file of an MD program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from ase import units
from ase.data import atomic_masses
from numpy.typing import NDArray

from aims_pax.frames import Array, Frame
from aims_pax.md import noise
from aims_pax.md.degrees_of_freedom import centre_at_rest, degrees

_EXTRAS = "extras/"


@dataclass(frozen=True, eq=False)
class MDState:
    """One trajectory at one step. Positions are not rounded: `frame()` is the rounded structure.

    numbers: (N,) atomic numbers.
    positions: (N, 3) Å. momenta: (N, 3) √(eV·amu), ASE's units; zero along fixed components.
    cell: (3, 3) Å, rows are lattice vectors. pbc: (3,) bool.
    step: MD steps since the trajectory began. stream: key of its noise, 0 ≤ stream < 2^63.
    charge, spin, fixed, moments, charges, zero_moments, statements: as in `Frame`.
    own_masses: (N,) amu if they are not the standard masses, else None.
    extras: variables of a thermostat, barostat or bias, by name.
    """

    numbers: NDArray[np.int64]
    positions: Array
    momenta: Array
    cell: Array
    pbc: NDArray[np.bool_]
    step: int
    stream: int
    charge: float | None = None
    spin: int | None = None
    fixed: NDArray[np.bool_] | None = None
    moments: Array | None = None
    charges: Array | None = None
    own_masses: Array | None = None
    zero_moments: NDArray[np.bool_] | None = None
    statements: tuple[str, ...] = ()
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keep = object.__setattr__
        n = len(self.numbers)
        for name, (shape, dtype) in _shapes(n).items():
            value = getattr(self, name)
            if value is None:
                continue
            array = _frozen(value, dtype)
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
            keep(self, name, array)
        keep(self, "statements", tuple(str(s) for s in self.statements))
        keep(self, "extras", {k: _frozen(v) for k, v in self.extras.items()})
        if not 0 <= self.stream < 2**63:
            raise ValueError(f"stream {self.stream} is not in 0 … 2^63 − 1")

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def start(cls, frame: Frame, temperature: float, stream: int, step: int = 0) -> Self:
        """The frame with Maxwell–Boltzmann momenta at `temperature` (K) drawn from `stream`."""
        return cls(
            numbers=frame.numbers,
            positions=frame.positions,
            momenta=thermal_momenta(frame.all_masses, frame.fixed, temperature, stream, step),
            cell=frame.cell,
            pbc=frame.pbc,
            step=step,
            stream=stream,
            own_masses=frame.masses,
            **{name: getattr(frame, name) for name in _AS_IN_FRAME},
        )

    def redraw(self, temperature: float, stream: int) -> Self:
        """The same structure at the same step with new momenta from another stream, without extras."""
        momenta = thermal_momenta(self.masses, self.fixed, temperature, stream, self.step)
        return replace(self, momenta=momenta, stream=stream, extras={})

    def frame(self) -> Frame:
        """The structure, rounded like all frames: this is the structure that is labelled."""
        return Frame(
            numbers=self.numbers,
            positions=self.positions,
            cell=self.cell,
            pbc=self.pbc,
            masses=self.own_masses,
            **{name: getattr(self, name) for name in _AS_IN_FRAME},
        )

    @property
    def masses(self) -> Array:
        """(N,) amu: masses of the atoms."""
        return np.asarray(atomic_masses[self.numbers] if self.own_masses is None else self.own_masses, float)

    @property
    def degrees(self) -> int:
        """The number of degrees of freedom with kinetic energy (`md.degrees_of_freedom`)."""
        return degrees(len(self), self.fixed, at_rest=centre_at_rest(self.momenta, self.masses))

    @property
    def kinetic_energy(self) -> float:
        """Σ p²/2m in eV."""
        return float((self.momenta**2 / (2 * self.masses[:, None])).sum())

    @property
    def temperature(self) -> float:
        """2 E_kin / (degrees · k_B) in K; zero when everything is fixed."""
        return 2 * self.kinetic_energy / (self.degrees * units.kB) if self.degrees else 0.0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays by name, for a snapshot; `from_arrays` restores a bit-identical state."""
        found = {name: getattr(self, name) for name in _FIELDS}
        found = {name: v for name, v in found.items() if not (v is None or (isinstance(v, tuple) and not v))}
        arrays = {name: np.asarray(value, _SCALARS.get(name)) for name, value in found.items()}
        return arrays | {_EXTRAS + name: value for name, value in self.extras.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The state from its `arrays()`. Raises KeyError with the name of the first missing array."""
        for name in _MANDATORY:
            if name not in arrays:
                raise KeyError(name)
        values: dict[str, Any] = {name: arrays[name] for name in _FIELDS if name in arrays}
        for name in _SCALARS.keys() & values.keys():
            values[name] = values[name].item()
        extras = {name.removeprefix(_EXTRAS): a for name, a in arrays.items() if name.startswith(_EXTRAS)}
        return cls(**values, extras=extras)


def thermal_momenta(
    masses: Array, fixed: NDArray[np.bool_] | None, temperature: float, stream: int, step: int
) -> Array:
    """(N, 3) momenta with ⟨p²⟩ = m k_B T for each free component, from random numbers reserved for initial momenta."""
    n = len(masses)
    same = torch.full((n,), stream, dtype=torch.int64)
    deviates = noise.normals(same, torch.full_like(same, step), torch.arange(n), 1, noise.START)[0].numpy()
    momenta = np.sqrt(masses * units.kB * temperature)[:, None] * deviates
    return momenta if fixed is None else np.where(fixed, 0.0, momenta)


_SCALARS: dict[str, type] = {"step": np.int64, "stream": np.int64, "spin": np.int64, "charge": np.float64}
_MANDATORY = ("numbers", "positions", "momenta", "cell", "pbc", "step", "stream")
_AS_IN_FRAME = ("charge", "spin", "fixed", "moments", "charges", "zero_moments", "statements")
_FIELDS = (*_MANDATORY, *_AS_IN_FRAME, "own_masses")


def _shapes(n: int) -> dict[str, tuple[tuple[int, ...], type]]:
    return {
        "numbers": ((n,), np.int64),
        "positions": ((n, 3), np.float64),
        "momenta": ((n, 3), np.float64),
        "cell": ((3, 3), np.float64),
        "pbc": ((3,), np.bool_),
        "fixed": ((n, 3), np.bool_),
        "moments": ((n,), np.float64),
        "charges": ((n,), np.float64),
        "own_masses": ((n,), np.float64),
        "zero_moments": ((n,), np.bool_),
    }


def _frozen(value: Any, dtype: type | None = None) -> NDArray[Any]:
    array = np.array(value, dtype)  # a copy: not shared with other arrays
    array.setflags(write=False)
    return array
