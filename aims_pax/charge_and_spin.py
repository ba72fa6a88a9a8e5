"""Total charge and spin multiplicity: checks that they fit the number of electrons of a structure.

A multiplicity is 2S+1, a whole number of at least 1: 1 for a closed shell, 2 for one unpaired electron, 3 for two. It
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
    """Raise SettingsError for a charge and multiplicity that are impossible for these atoms.

    numbers: atomic numbers. charge: total charge in e; None counts as 0, with a fraction the parity is not checked.
    periodic: the spin of a periodic cell is not restricted.

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
    """`check_spin` for a frame; `charge` and `spin` are used if the frame has none. Raises SettingsError."""
    charge = charge if frame.charge is None else frame.charge
    spin = spin if frame.spin is None else frame.spin
    check_spin(frame.numbers.tolist(), charge, spin, bool(frame.pbc.any()))


def _fault(numbers: Sequence[int], charge: float, spin: float | None, periodic: bool) -> str | None:
    electrons = sum(numbers) - charge
    if electrons < 0:
        return f"charge {charge:g} is larger than the number of electrons ({sum(numbers)})"
    if spin is None:
        return None
    if spin != int(spin) or spin < 1:
        return f"multiplicity {spin:g}: expected 2S+1, a whole number of at least 1 (1: all electrons are paired)"
    if periodic or electrons != int(electrons):
        return None
    n, unpaired = int(electrons), int(spin) - 1
    if unpaired > n:
        return f"multiplicity {spin:g} needs {unpaired} unpaired electrons, but there are only {n} electrons"
    if (n - unpaired) % 2:
        kinds = ("an even number", "odd") if n % 2 == 0 else ("an odd number", "even")
        return (
            f"charge {charge:g} leaves {n} electrons, {kinds[0]}, which cannot have multiplicity {spin:g}: "
            f"expected an {kinds[1]} multiplicity"
        )
    return None


def default_initial_moment(frame: Frame) -> str:
    """A value of FHI-aims' `default_initial_moment` for 2S unpaired electrons (frame.spin = 2S+1), μB per atom.

    FHI-aims stops without a moment, and it accepts `hund` (Hund's rules) only for a single atom.

    >>> from aims_pax.frames import Frame
    >>> default_initial_moment(Frame([8, 8], [[0, 0, 0], [0, 0, 1.2]], spin=3))
    '1.000000'
    """
    if len(frame) == 1 and not frame.pbc.any():
        return "hund"
    return f"{((frame.spin or 1) - 1) / len(frame):.6f}"


def charged_or_open_shell(frame: Frame) -> bool:
    """Whether the frame is charged or open-shell; references assume a neutral closed shell by default."""
    return bool(frame.charge) or frame.spin not in (None, 1)
