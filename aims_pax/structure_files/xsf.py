"""XSF files of the program ænet: a structure with its total energy and forces, both dialects of it.

    # total energy = -16688.99 eV          # total energy = -0.097 eV

    CRYSTAL                                ATOMS
    PRIMVEC                                H  -0.92 0.0 0.0   0.33 0.0 0.0
     10.3 0.0 0.0                          H   0.92 0.0 0.0  -0.33 0.0 0.0
     ...
    PRIMCOORD
     46 1
    Li 0.0 0.0 10.3   0.0 0.0 0.1

Å, eV, eV/Å. White space, blank lines and further comments are free; elements are symbols or atomic numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame, Label
from aims_pax.label_limits import cell_refusal

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?"
_ENERGY = re.compile(rf"#.*?\btotal\s+energy\s*[=:]\s*({_NUMBER})[ \t]*([A-Za-z./]*)", re.IGNORECASE)
_PERIODIC = {"CRYSTAL": 3, "SLAB": 2, "POLYMER": 1}


def read_xsf(path: Path) -> tuple[Frame, Label]:
    """Structure and label of a file. Raises SettingsError with file and line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not a text file; expected XSF") from error
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error
    return _Reader(path, lines).read()


def xsf_text(frame: Frame, energy: float, forces: Array, remarks: Sequence[str] = ()) -> str:
    """The text of a file; remarks: comment lines after the energy. Raises SettingsError, see `xsf_refusal`."""
    from ase.data import chemical_symbols

    if (why := xsf_refusal(frame)) is not None:
        raise SettingsError(why)

    lines = [f"# total energy = {energy:.16f} eV", *(f"# {remark}" for remark in remarks), ""]
    if frame.pbc.any():
        word = next(w for w, n in _PERIODIC.items() if n == frame.pbc.sum())
        lines += [word, "PRIMVEC", *(" ".join(f"{x:.14f}" for x in row) for row in frame.cell)]
        lines += ["PRIMCOORD", f" {len(frame)} 1"]
    else:
        lines += ["ATOMS"]
    for z, r, f in zip(frame.numbers, frame.positions, forces, strict=True):
        numbers = " ".join(f"{x:21.14f}" for x in (*r, *f))
        lines.append(f"{chemical_symbols[z]:2s} {numbers}")
    return "\n".join(lines) + "\n"


def xsf_refusal(frame: Frame) -> str | None:
    """Why XSF cannot hold a structure, or None: a wire repeats along the first vector, a slab along the first two."""
    if np.array_equal(frame.pbc, np.arange(3) < frame.pbc.sum()):
        return None
    pbc = " ".join("FT"[int(p)] for p in frame.pbc)
    return (
        f"XSF cannot hold {frame.formula} with pbc {pbc}: the vectors along which it repeats must come first; exchange "
        "lattice vectors"
    )


def not_in_xsf(frame: Frame) -> list[str]:
    """What a structure has and XSF cannot hold, in words."""
    values = {
        "charge": frame.charge, "spin": frame.spin, "fixed atoms": frame.fixed, "initial moments": frame.moments,
        "initial charges": frame.charges, "masses": frame.masses, "statements of geometry.in": frame.statements or None,
    }  # fmt: skip
    return [name for name, value in values.items() if value is not None]


_LISTS = ("ATOMS", "PRIMVEC", "PRIMCOORD", "CONVVEC", "CONVCOORD", "ANIMSTEPS")


class _Reader:
    def __init__(self, path: Path, lines: Sequence[str]) -> None:
        self.path, self.lines = path, lines
        self.energy: float | None = None
        self.words: list[tuple[int, list[str]]] = []  # (line number, words) without comments and blank lines
        for number, line in enumerate(lines, 1):
            found = _ENERGY.search(line)
            if found and self.energy is not None:
                raise SettingsError(
                    f"{path}:{number}: a second total energy; write one file for each structure"
                )
            if found:
                if found[2].lower() not in ("", "ev"):
                    raise SettingsError(f"{path}:{number}: total energy in {found[2]}; expected eV")
                self.energy = _real(found[1])
            words = line.partition("#")[0].split()
            if words:
                self.words.append((number, words))

    def read(self) -> tuple[Frame, Label]:
        if self.energy is None:
            named = [n for n, line in enumerate(self.lines, 1) if "total energy" in line.lower()]
            if named:
                raise self.fault(named[0], "the total energy is not a number")
            raise self.fault(1, "no line '# total energy = … eV'")
        cell, periodic, rows = self.sections()
        values = np.array([numbers for _, numbers in rows])
        pbc = np.arange(3) < periodic
        frame = Frame(
            np.array([z for z, _ in rows]), values[:, :3], np.zeros((3, 3)) if cell is None else cell, pbc
        )
        return frame, Label(self.energy, values[:, 3:])

    def sections(self) -> tuple[Array | None, int, list[tuple[int, list[float]]]]:
        cell: Array | None = None
        periodic, k, vectors = 0, 0, 0
        rows: list[tuple[int, list[float]]] = []
        while k < len(self.words):
            number, words = self.words[k]
            word, k = words[0].upper(), k + 1
            if word in _PERIODIC:
                periodic = _PERIODIC[word]
            elif word == "PRIMVEC":
                cell, vectors = np.array([self.vector(k + n, number) for n in range(3)]), number
                periodic, k = periodic or 3, k + 3
            elif word in ("CONVVEC", "CONVCOORD"):
                raise self.fault(number, f"{word} is not read; give the primitive cell alone")
            elif word == "ANIMSTEPS":
                raise self.fault(number, "several structures in one file; write one file for each")
            elif word in ("PRIMCOORD", "ATOMS"):
                if rows:
                    raise self.fault(number, "a second list of atoms; expected one structure")
                count, k = self.count(k) if word == "PRIMCOORD" else (len(self.words) - k, k)
                rows, k = [self.atom(k + n, number) for n in range(count)], k + count
            else:
                raise self.fault(number, f"{' '.join(words)[:40]!r} is not part of an XSF file with forces")
        if not rows:
            raise self.fault(len(self.lines), "no atoms: expected ATOMS, or PRIMVEC and PRIMCOORD")
        if periodic and cell is None:
            raise self.fault(self.words[0][0], "a periodic structure without PRIMVEC")
        if cell is not None and (why := cell_refusal(cell, np.arange(3) < periodic)) is not None:
            raise self.fault(vectors, why)
        return cell, periodic, rows

    def count(self, k: int) -> tuple[int, int]:
        number, words = self.at(k, "the number of atoms")
        if not words[0].isdigit() or int(words[0]) < 1:
            raise self.fault(number, f"{words[0]!r} instead of the number of atoms")
        return int(words[0]), k + 1

    def vector(self, k: int, after: int) -> list[float]:
        number, words = self.at(k, f"three vectors after line {after}")
        if len(words) != 3:
            raise self.fault(number, f"{len(words)} numbers, expected a cell vector of three")
        return [self.real(number, w) for w in words]

    def atom(self, k: int, after: int) -> tuple[int, list[float]]:
        number, words = self.at(k, f"as many atoms as line {after} announces")
        if words[0].upper() in (*_PERIODIC, *_LISTS):
            raise self.fault(
                number, f"{words[0]} among the atoms of line {after}; write one file for each structure"
            )
        if len(words) == 4:
            raise self.fault(
                number, "an atom without forces; expected symbol, position and force (7 columns)"
            )
        if len(words) != 7:
            raise self.fault(number, f"{len(words)} columns, expected symbol, position and force (7 columns)")
        return self.element(number, words[0]), [self.real(number, w) for w in words[1:]]

    def element(self, number: int, word: str) -> int:
        from ase.data import atomic_numbers

        if word.isdigit() and 0 < int(word) < 119:
            return int(word)
        z = atomic_numbers.get(word.capitalize(), 0)
        if not z:
            raise self.fault(number, f"{word!r} is no chemical element")
        return int(z)

    def real(self, number: int, word: str) -> float:
        if not re.fullmatch(_NUMBER, word) or not np.isfinite(_real(word)):
            raise self.fault(number, f"{word!r} is no number")
        return _real(word)

    def at(self, k: int, expected: str) -> tuple[int, list[str]]:
        if k >= len(self.words):
            raise self.fault(len(self.lines), f"the file ends here; expected {expected}")
        return self.words[k]

    def fault(self, number: int, text: str) -> SettingsError:
        return SettingsError(f"{self.path}:{number}: {text}")


def _real(word: str) -> float:
    return float(word.lower().replace("d", "e"))
