"""Total charge and spin multiplicity: what fits the electrons of a structure.

A multiplicity is 2S+1, a whole number from 1 on: 1 for a closed shell, 2 for one unpaired electron, 3 for two. It
needs 2S unpaired electrons, so an even number of electrons has an odd multiplicity and an odd number an even one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aims_pax.errors import SettingsError

if TYPE_CHECKING:
    from aims_pax.frames import Frame


def check_spin(
    numbers: Iterable[int], charge: float | None, spin: float | None, periodic: bool = False
) -> None:
    """Raise SettingsError for a multiplicity 2S+1 that the electrons of these atoms cannot have.

    numbers: atomic numbers. charge: total charge in e; None counts as 0, a fraction leaves the parity open.
    periodic: a crystal's spin is that of its cell, which may be any.

    >>> check_spin([8, 1, 1], 1, 2)
    >>> check_spin([8, 1, 1], 0, 2)
    Traceback (most recent call last):
        ...
    aims_pax.errors.SettingsError: multiplicity 2: 10 electrons are an even number and need an odd multiplicity
    """
    if spin is None:
        return
    if spin != int(spin) or spin < 1:
        raise SettingsError(
            f"multiplicity {spin:g}: expected a whole number from 1 on, 2S+1: 1 for a closed shell, 2 for one "
            "unpaired electron"
        )
    electrons = sum(int(z) for z in numbers) - (charge or 0)
    if periodic or electrons != int(electrons):
        return
    n, unpaired = int(electrons), int(spin) - 1
    if unpaired > max(n, 0):
        raise SettingsError(
            f"multiplicity {spin:g}: needs {unpaired} unpaired electrons, there are {max(n, 0)}"
        )
    if (n - unpaired) % 2:
        kinds = ("an even number and need an odd", "an odd number and need an even")
        raise SettingsError(f"multiplicity {spin:g}: {n} electrons are {kinds[n % 2]} multiplicity")


def charged_or_open_shell(frame: Frame) -> bool:
    """Whether the frame says it is not a neutral closed shell, which is what every reference takes by itself."""
    return bool(frame.charge) or frame.spin not in (None, 1)
