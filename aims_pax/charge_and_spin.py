"""Total charge and spin multiplicity: what fits the electrons of a structure.

A multiplicity is 2S+1, a whole number from 1 on: 1 for a closed shell, 2 for one unpaired electron, 3 for two. It
needs 2S unpaired electrons, so an even number of electrons has an odd multiplicity and an odd number an even one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aims_pax.errors import SettingsError

if TYPE_CHECKING:
    from aims_pax.frames import Frame


def check_spin(
    numbers: Iterable[int], charge: float | None, spin: float | None, periodic: bool = False
) -> None:
    """Raise SettingsError for a charge and multiplicity that the electrons of these atoms cannot have.

    numbers: atomic numbers. charge: total charge in e; None counts as 0, a fraction leaves the parity open.
    periodic: a crystal's spin is that of its cell, which may be any.

    >>> check_spin([8, 1, 1], 1, 2)
    >>> check_spin([8, 1, 1], 0, 2)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    aims_pax.errors.SettingsError: charge 0 leaves 10 electrons, an even number, which cannot have ...
    """
    reason = _fault([int(z) for z in numbers], charge or 0.0, spin, periodic)
    if reason is not None:
        raise SettingsError(reason)


def check_electrons(frame: Frame, charge: float | None = None, spin: float | None = None) -> None:
    """`check_spin` of a frame; charge and spin count where the frame itself says neither. Raises SettingsError."""
    charge = charge if frame.charge is None else frame.charge
    spin = spin if frame.spin is None else frame.spin
    check_spin(frame.numbers.tolist(), charge, spin, bool(frame.pbc.any()))


def _fault(numbers: Sequence[int], charge: float, spin: float | None, periodic: bool) -> str | None:
    electrons = sum(numbers) - charge
    if electrons < 0:
        return f"charge {charge:g} is more than all {sum(numbers)} electrons"
    if spin is None:
        return None
    if spin != int(spin) or spin < 1:
        return f"multiplicity {spin:g}: expected 2S+1, a whole number from 1 on: 1 where all electrons are paired"
    if periodic or electrons != int(electrons):
        return None
    n, unpaired = int(electrons), int(spin) - 1
    if unpaired > n:
        return f"multiplicity {spin:g} needs {unpaired} unpaired electrons, but there are only {n} in all"
    if (n - unpaired) % 2:
        kinds = ("an even number", "odd") if n % 2 == 0 else ("an odd number", "even")
        return (
            f"charge {charge:g} leaves {n} electrons, {kinds[0]}, which cannot have multiplicity {spin:g}: "
            f"expected an {kinds[1]} multiplicity"
        )
    return None


def default_initial_moment(frame: Frame) -> str:
    """What FHI-aims' `default_initial_moment` may be for 2S unpaired electrons (frame.spin = 2S+1), in μB an atom.

    It stops without any, and at Hund's rules (`hund`) for more than a single atom.

    >>> from aims_pax.frames import Frame
    >>> default_initial_moment(Frame([8, 8], [[0, 0, 0], [0, 0, 1.2]], spin=3))
    '1.000000'
    """
    if len(frame) == 1 and not frame.pbc.any():
        return "hund"
    return f"{((frame.spin or 1) - 1) / len(frame):.6f}"


def charged_or_open_shell(frame: Frame) -> bool:
    """Whether the frame says it is not a neutral closed shell, which is what every reference takes by itself."""
    return bool(frame.charge) or frame.spin not in (None, 1)
