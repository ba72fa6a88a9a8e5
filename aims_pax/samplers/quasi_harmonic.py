"""The equilibrium cell at a temperature: a scan of volumes, harmonic free energies from phonopy, and a fit of
Vinet's equation of state to their sum.

    G(V, T) = min over shape and atoms [E(V)] + F_vib(V, T) + pV

For each volume, cell shape and atoms are relaxed at constant volume and new force constants are computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase import units
from ase.eos import EquationOfState

from aims_pax.frames import Array, Frame
from aims_pax.potential import Potential
from aims_pax.sampler import SamplingError
from aims_pax.samplers.force_constants import force_constants
from aims_pax.samplers.relax import relax
from aims_pax.samplers.supercell import Integers

log = logging.getLogger(__name__)

SCALES = (0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08)  # of the volume
KJ = 96.48533212  # kJ/mol of 1 eV
STEP = 0.02  # of the volume, where the scan is extended
EXTENSIONS = 2  # of the scan at most
GRID = 40.0  # Å: length that sets phonopy's mesh for free energies
IMAGINARY = -0.05  # THz: a volume with slower modes has no harmonic free energy
FEWEST = 5  # volumes that an equation of state needs


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """The result of the scan. frame: relaxed at the equilibrium volume. volume: Å³. volumes: (V,) Å³ scanned.
    energies: (V,) eV. free: (V,) eV, vibrational, at the temperature."""

    frame: Frame
    volume: float
    volumes: Array
    energies: Array
    free: Array


def equilibrium(
    frame: Frame,
    potential: Potential,
    matrix: Integers,
    temperature: float,
    pressure: float = 0.0,
    scales: Sequence[float] = SCALES,
    fmax: float = 1e-4,
    check: Callable[[], None] = lambda: None,
) -> Equilibrium:
    """The cell of lowest Gibbs energy at `temperature` (K) and `pressure` (GPa).

    frame: relaxed cell; `scales` multiply its volume. matrix: supercell of the force constants.
    The scan is extended when the minimum is outside. Raises SamplingError when fewer than five volumes are stable, or
    the minimum is not found.
    """
    points: dict[float, _Point] = {}
    wanted = tuple(scales)
    for _ in range(EXTENSIONS + 1):
        for scale in wanted:
            point = _point(frame, potential, matrix, temperature, scale, fmax, check)
            if point is not None:
                points[scale] = point
        if len(points) < FEWEST:
            raise SamplingError(
                f"{frame.formula}: only {len(points)} of {len(scales)} volumes are stable, {FEWEST} are needed for "
                "thermal expansion; set thermal_expansion to false, or use a larger supercell_radius"
            )
        volumes, energies, free = (
            np.array(x) for x in zip(*(points[k][1:] for k in sorted(points)), strict=True)
        )
        volume = _minimum(frame, volumes, energies + free + pressure * units.GPa * volumes)
        if volumes.min() <= volume <= volumes.max():
            break
        ends = max(points) if volume > volumes.max() else min(points)
        step = STEP if volume > volumes.max() else -STEP
        wanted = tuple(ends + k * step for k in range(1, 5))
    else:
        raise SamplingError(
            f"{frame.formula}: the volume of lowest free energy at {temperature:g} K is outside of the scan, "
            f"{min(points):.2f} to {max(points):.2f} times the relaxed one; lower temperature_K, relax the input cell "
            "fully (relax_input_cell: full), or set thermal_expansion to false"
        )
    ratio = (volume / abs(np.linalg.det(frame.cell))) ** (1 / 3)
    begun = frame.moved(frame.positions * ratio, frame.cell * ratio)
    there = relax(begun, potential, "constant_volume", fmax, check=check)
    log.info("equilibrium volume at %g K: %.2f Å³, × %.4f", temperature, volume, ratio**3)
    return Equilibrium(there, volume, volumes, energies, free)


class _Point(NamedTuple):
    """One volume of the scan: relaxed frame, Å³, eV, eV."""

    frame: Frame
    volume: float
    energy: float
    free: float


def _point(
    frame: Frame,
    potential: Potential,
    matrix: Integers,
    temperature: float,
    scale: float,
    fmax: float,
    check: Callable[[], None],
) -> _Point | None:
    """The crystal at `scale` times its volume; None, with a warning, where it is not stable."""
    scaled = frame.moved(frame.positions * scale ** (1 / 3), frame.cell * scale ** (1 / 3))
    try:
        there = relax(scaled, potential, "constant_volume", fmax, check=check)
    except SamplingError as error:
        log.warning("volume × %.2f: left out: %s", scale, error)
        return None
    made = force_constants(there, potential, matrix, check=check).phonopy
    made.run_mesh(GRID)
    slowest = float(np.min(made.mesh.frequencies))
    if slowest < IMAGINARY:
        log.warning("volume × %.2f: left out: imaginary modes (%.2fi THz)", scale, -slowest)
        return None
    made.run_thermal_properties(temperatures=[temperature], cutoff_frequency=-IMAGINARY)
    energy = potential.labels([there])[0].energy
    volume = abs(float(np.linalg.det(there.cell)))
    return _Point(there, volume, energy, float(made.thermal_properties.free_energy[0]) / KJ)


def _minimum(frame: Frame, volumes: Array, G: Array) -> float:
    """Å³: the volume where Vinet's equation of state, fitted to G(V) (eV), has its minimum.

    Where none fits and the last volume has the lowest G, the minimum lies beyond: a volume outside is returned.
    Raises SamplingError where none fits otherwise.
    """
    try:
        volume, _, stiffness = EquationOfState(volumes, G, "vinet").fit(warn=False)
        if stiffness > 0:
            return float(volume)
        why = "it has a maximum"
    except (RuntimeError, ValueError) as error:
        why = str(error)
    lowest = int(np.argmin(G))
    if lowest in (0, len(G) - 1):
        step = volumes[1] - volumes[0]
        return float(volumes[0] - step if lowest == 0 else volumes[-1] + step)
    raise SamplingError(
        f"{frame.formula}: no equation of state fits the volume scan ({why}); use a larger supercell_radius"
    )
