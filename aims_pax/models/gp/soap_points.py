"""SOAP spectra at fixed points in space, as descriptor of a whole structure: `soap_centers` of train.in.

The points do not move with the atoms, so the description is not invariant. They are atoms of an element of their own,
whose neighbours are the real atoms. Lengths in the space of spectra are those of DScribe, within 30 %, so that `scale`
means what it means in ænet-gpr: its Gaussian of an atom is exp(−r²/2σ²) and its spectra have a factor π·√(8/(2l + 1)),
those of featomic are normalised to ∫ g² = 1 and have 1/√(2l + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame
from aims_pax.models.gp.soap import SoapDescriptor, compute_soap, element_pairs, featomic_system

POINT = 0  # atomic number of a point
NEAREST = 1e-4  # Å between a point and an atom; featomic's derivatives of nearer atoms are wrong or NaN


@dataclass(frozen=True)
class SoapPoints:
    """descriptor: of the real elements. centres: (P, 3) Å."""

    descriptor: SoapDescriptor
    centres: tuple[tuple[float, float, float], ...]

    def of(self, frames: Sequence[Frame]) -> tuple[Array, Array]:
        """(F, P·D) spectra one point after the other and (F, 3N, P·D) their derivatives; structures of N atoms.

        Raises SettingsError for a point on an atom.
        """
        from metatensor import Labels

        n, points, d = len(frames[0]), len(self.centres), self.descriptor.size
        unit = np.pi * 8**0.5 * (np.pi * self.descriptor.width**2) ** 1.5
        x, slopes = np.zeros((len(frames), points, d)), np.zeros((len(frames), n, 3, points, d))
        chosen = Labels(["atom"], np.arange(n, n + points, dtype=np.int32)[:, None])
        self.check([f"{frame.formula} ({frame.id[:6]})" for frame in frames], frames)
        for k, frame in enumerate(frames):
            found = compute_soap(
                self.descriptor, [self._with_points(frame)], radial_scaling=False, gradients=["positions"],
                selected_samples=chosen,
            )  # fmt: skip
            spectrum = found.keys_to_properties(element_pairs(self.descriptor.elements))
            block = spectrum.block({"center_type": POINT})
            which = np.asarray(block.samples.values)[:, 1] - n
            x[k, which] = block.values
            gradient = block.gradient("positions")
            sample, _, atom = np.asarray(gradient.samples.values).T
            real = atom < n
            slopes[k, atom[real], :, which[sample[real]]] += gradient.values[real]
        return unit * x.reshape(len(frames), -1), unit * slopes.reshape(len(frames), 3 * n, -1)

    def check(self, names: Sequence[str], frames: Sequence[Frame]) -> None:
        """Raises SettingsError for a point on an atom, where spectra have no derivatives. names: of the structures."""
        for name, frame in zip(names, frames, strict=True):
            point, atom, apart = self._pairs(frame, NEAREST)
            if len(point):
                raise SettingsError(
                    f"point {point[0] + 1} {list(self.centres[point[0]])} is {apart[0]:.1g} Å from atom {atom[0]} "
                    f"(counted from 0) of {name}, limit {NEAREST:g} Å: move the point"
                )

    def idle(self, frames: Sequence[Frame]) -> list[int]:
        """Indices of points that no atom of any of these structures is within the cutoff of."""
        seen = {int(p) for frame in frames for p in self._pairs(frame, self.descriptor.cutoff)[0]}
        return [p for p in range(len(self.centres)) if p not in seen]

    def _pairs(self, frame: Frame, reach: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """(points, atoms, distances in Å) of points and atoms, images included, that are nearer than `reach`."""
        from ase.neighborlist import neighbor_list

        i, j, d = neighbor_list("ijd", self._with_points(frame), {("X", e): reach for e in _symbols(frame)})
        of_points = i >= len(frame)
        return i[of_points] - len(frame), j[of_points], d[of_points]

    def _with_points(self, frame: Frame) -> object:
        atoms = featomic_system(frame, self.descriptor.cutoff)
        from ase import Atoms

        return atoms + Atoms(numbers=np.full(len(self.centres), POINT), positions=np.array(self.centres))


def _symbols(frame: Frame) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[z] for z in np.unique(frame.numbers)]
