"""SOAP power spectra of atomic environments and their derivatives with respect to positions and strain.

Bartók, Kondor, Csányi, Phys. Rev. B 87, 184115 (2013); computed by featomic, analytically. Spectra are normalised, so
that the kernel of two environments is a power of their scalar product.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import SettingsError, SetupError
from aims_pax.frames import Array, Frame

SMOOTHING = 1.0  # Å below the cutoff, over which neighbours fade; the cutoff must be larger
EXTRA = "Gaussian processes need featomic ({}): pip install 'aims-pax[gpr]'"
LARGEST_RATIO = 37.0  # cutoff / width: featomic's radial integrals overflow beyond
GAP = 1.0  # Å between a structure and its images in a direction that is not periodic, beyond the cutoff


@dataclass(frozen=True)
class Environments:
    """Environments of one element in F structures with A atoms in total.

    values: (n, D) normalised spectra. structure: (n,) index of the structure. atom: (n,) index among all A atoms.
    slopes: (g, 3, D) derivatives ∂q̂/∂r in 1/Å, or None; centre: (g,) index of the environment that changes;
    moved: (g,) index of the atom that moves. strained: (n, 3, 3, D) derivatives with respect to strain, or None.
    """

    values: Array
    structure: NDArray[np.int64]
    atom: NDArray[np.int64]
    slopes: Array | None = None
    centre: NDArray[np.int64] | None = None
    moved: NDArray[np.int64] | None = None
    strained: Array | None = None


@dataclass(frozen=True)
class SoapDescriptor:
    """elements: atomic numbers, ascending. cutoff: Å. n, l: number of radial functions, largest angular momentum.

    width: of the Gaussian of an atom, Å.
    """

    elements: tuple[int, ...]
    cutoff: float
    n: int
    l: int  # noqa: E741 (the letter of the field)
    width: float

    @property
    def size(self) -> int:
        """D, the length of a spectrum."""
        pairs = len(self.elements) * (len(self.elements) + 1) // 2
        return pairs * self.n**2 * (self.l + 1)

    def of(
        self, frames: Sequence[Frame], slopes: bool = True, strain: bool = False
    ) -> dict[int, Environments]:
        """{atomic number: its environments in these frames}; elements that do not occur are left out."""
        wanted = (["positions"] if slopes else []) + (["strain"] if strain else [])
        spectrum = compute_soap(self, [featomic_system(f, self.cutoff) for f in frames], gradients=wanted)
        spectrum = spectrum.keys_to_properties(element_pairs(self.elements))
        first = np.cumsum([0, *map(len, frames)])  # index of the first atom of each structure
        return {
            int(key["center_type"]): _environments(block, first, slopes, strain)
            for key, block in spectrum.items()
            if len(block.values)
        }

    def check(self) -> None:
        """Raises SettingsError for a width that is too small for the cutoff, SetupError without the extra."""
        self.of([Frame(np.array(self.elements[:1]), np.zeros((1, 3)))], slopes=False)


def compute_soap(
    of: SoapDescriptor, systems: Sequence[Any], radial_scaling: bool = True, **options: Any
) -> Any:
    """Spectra as featomic returns them; options: of its `compute`.

    Raises SettingsError for a width that is too small for the cutoff, SetupError without the extra.
    """
    if of.cutoff / of.width > LARGEST_RATIO:  # featomic panics and prints its stack
        raise SettingsError(
            f"width {of.width:g} Å is too small for cutoff {of.cutoff:g} Å: raise it (soap_sigma in train.in, width in "
            f"MODEL.kwargs) to at least {of.cutoff / LARGEST_RATIO:.2g} Å, or lower the cutoff (soap_r_cut, cutoff)"
        )
    require_featomic()
    from featomic import FeatomicError

    try:
        return soap_calculator(of, radial_scaling).compute(systems, **options)
    except FeatomicError as error:
        why = str(error).strip().splitlines()[0]
        raise SettingsError(
            f"SOAP with cutoff {of.cutoff:g} Å, n {of.n}, l {of.l} and width {of.width:g} Å cannot be computed: {why}"
        ) from error


def require_featomic() -> None:
    """Raises SetupError naming the extra when featomic is not installed."""
    try:
        import featomic  # noqa: F401
    except ImportError as error:
        raise SetupError(EXTRA.format(error)) from error


@functools.lru_cache(maxsize=8)
def soap_calculator(of: SoapDescriptor, radial_scaling: bool = True) -> Any:
    """featomic's calculator. Raises SetupError without the extra.

    radial_scaling: distant atoms count less (Willatt, Musil, Ceriotti, PCCP 20, 29661, 2018), for spectra around atoms.
    """
    require_featomic()
    from featomic import SoapPowerSpectrum

    scaling = {"scaling": {"type": "Willatt2018", "exponent": 4, "rate": 1.0, "scale": 2.0}}
    return SoapPowerSpectrum(
        cutoff={"radius": of.cutoff, "smoothing": {"type": "ShiftedCosine", "width": SMOOTHING}},
        density={"type": "Gaussian", "width": of.width, **(scaling if radial_scaling else {})},
        basis={
            "type": "TensorProduct",
            "max_angular": of.l,
            "radial": {"type": "Gto", "max_radial": of.n - 1},
        },
    )


@functools.lru_cache(maxsize=8)
def element_pairs(elements: tuple[int, ...]) -> Any:
    """metatensor's labels of all pairs of elements."""
    from metatensor import Labels

    pairs = [[a, b] for i, a in enumerate(elements) for b in elements[i:]]
    return Labels(["neighbor_1_type", "neighbor_2_type"], np.array(pairs, dtype=np.int32))


def featomic_system(frame: Frame, cutoff: float) -> Any:
    """The structure for featomic, which knows only molecules and cells that are periodic in three directions."""
    from ase import Atoms

    atoms = Atoms(numbers=frame.numbers, positions=frame.positions)
    if frame.pbc.any():
        atoms.set_cell(frame.cell if frame.periodic else _closed(frame, cutoff))
        atoms.pbc = True
    return atoms


def _closed(frame: Frame, cutoff: float) -> Array:
    """The cell of a slab or wire with vectors in the other directions so long that images do not see each other."""
    cell, periodic = np.array(frame.cell), np.flatnonzero(frame.pbc)
    for free in np.flatnonzero(~frame.pbc):
        others = [cell[k] for k in periodic] + [cell[k] for k in np.flatnonzero(~frame.pbc) if k < free]
        normal = np.linalg.svd(np.array(others))[2][-1]  # orthogonal to the vectors so far
        extent = np.ptp(frame.positions @ normal)
        cell[free] = normal * (extent + cutoff + GAP)
    return cell


def _environments(block: Any, first: NDArray[np.int64], slopes: bool, strain: bool) -> Environments:
    samples = np.asarray(block.samples.values, np.int64)  # structure, atom
    lengths = np.linalg.norm(block.values, axis=1)
    q = block.values / lengths[:, None]
    found: dict[str, Any] = {}
    if slopes:
        gradient = block.gradient("positions")
        which = np.asarray(gradient.samples.values, np.int64)  # sample, structure, atom
        centre = which[:, 0]
        found = {
            "slopes": _normalised(np.asarray(gradient.values), q[centre], lengths[centre]),
            "centre": centre,
            "moved": first[which[:, 1]] + which[:, 2],
        }
    if strain:
        gradient = block.gradient("strain")
        centre = np.asarray(gradient.samples.values, np.int64)[:, 0]
        raw = np.asarray(gradient.values).reshape(len(centre), 9, -1)
        strained = np.zeros((len(q), 9, q.shape[1]))
        strained[centre] = _normalised(raw, q[centre], lengths[centre])
        found["strained"] = strained.reshape(len(q), 3, 3, -1)
    return Environments(q, samples[:, 0], first[samples[:, 0]] + samples[:, 1], **found)


def _normalised(slopes: Array, q: Array, lengths: Array) -> Array:
    """∂q̂ = (∂q − q̂ (q̂·∂q)) / |q|, for slopes of shape (g, k, D)."""
    along = np.einsum("gkd,gd->gk", slopes, q)
    scaled = slopes - along[:, :, None] * q[:, None, :]
    scaled /= lengths[:, None, None]
    return np.asarray(scaled)
