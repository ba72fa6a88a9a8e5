"""Checks a control.in against its geometries: settings that would be lost or do not fit.

control_in_remarks  warnings about one file, including the last two below
lost_hubbard        DFT+U in a species block, which species_dir replaces
shared_k_grid       one k_grid for cells of very different size
odd_keywords        misspelled ones, and expensive output
odd_spin            moments and spin that FHI-aims ignores or stops at
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from aims_pax.frames import Frame
from aims_pax.settings.control_in import Control
from aims_pax.settings.control_in_keywords import misspelled
from aims_pax.systems import System

FINER = 2.0  # ratio of k-point spacings above which the energies of two cells are not comparable
COSTLY = frozenset(("DFPT", "qpe_calc", "neutral_excitation", "RT_TDDFT_propagation", "compute_dielectric"))
COSTLY_OUTPUT = re.compile(r"cube|band|\S*dos|eigenvec|\S*matri(x|ces)|density")
VACUUM = 12.0  # Å: a cell vector this long with one k-point is vacuum, or needs no more k-points


def lost_hubbard(control: Control, species_dir: Path) -> str | None:
    """Why labels would lack DFT+U: lines of species blocks that are missing in species_dir. None: none is missing."""
    lost = []
    for species, line in control.hubbard:
        files = sorted(species_dir.glob(f"*_{species}_default"))
        lines = [" ".join(t.partition("#")[0].split()) for f in files for t in _text(f).splitlines()]
        if line not in lines:
            lost.append(f"{line!r} of {species}")
    if not lost:
        return None
    return (
        f"{', '.join(lost)}: species blocks are ignored in favour of species_dir, and {species_dir} does not contain "
        "this, so labels would lack it; copy the species defaults, add it there and set species_dir to the copy"
    )


def control_in_remarks(file: str, control: Control, systems: Sequence[System]) -> Iterator[str]:
    """Warnings about the control.in of these geometries: contents that have no effect or an unexpected one."""
    if control.has_species:
        yield f"the species blocks of {file} are ignored, species_dir is used"
    if (control.get("compute_forces") or "").split()[:1] == [".false."]:
        yield f"{file}: compute_forces .false. is ignored: a label has forces"
    yield from (f"{file}: {text}" for text in odd_keywords(control))
    if (shared := shared_k_grid(control, systems)) is not None:
        yield f"{file}: {shared}"
    yield from (f"{file}: {text}" for text in odd_spin(control, systems))


def odd_keywords(control: Control) -> Iterator[str]:
    """Warnings about keywords at which FHI-aims would stop, and about those whose results nothing reads."""
    for word, rest in control.keywords:
        if (near := misspelled(word)) is not None:
            yield f"the keyword {word} is not known here, and FHI-aims stops at unknown ones; nearest: {near}"
        if word in COSTLY or (word == "output" and COSTLY_OUTPUT.match(rest)):
            yield (
                f"{word} {' '.join(rest.split())}: FHI-aims would compute and write this with every label, and nothing "
                "reads it; remove the line"
            )


def shared_k_grid(control: Control, systems: Sequence[System]) -> str | None:
    """A warning when one k_grid samples one cell much more finely than another."""
    grid = control.get("k_grid")
    cells = {s.name: s.frame for s in systems if s.frame.periodic}
    if grid is None or len(cells) < 2:
        return None
    counts = [int(n) for n in grid.replace(",", " ").split()[:3]]
    spacings = {name: _spacings(frame, counts) for name, frame in cells.items()}
    coarse = {name: float(np.nanmax(s)) for name, s in spacings.items() if not np.isnan(s).all()}
    if len(coarse) < 2:
        return None
    most, least = max(coarse, key=lambda n: coarse[n]), min(coarse, key=lambda n: coarse[n])
    if coarse[most] <= FINER * coarse[least]:
        return None
    return (
        f"k_grid {grid} is shared by cells of very different size: k-points lie {coarse[most]:.2f} Å⁻¹ apart in "
        f"{most} ({len(cells[most])} atoms) and {coarse[least]:.2f} Å⁻¹ in {least} ({len(cells[least])} atoms), so "
        "their energies are not comparable; use k_grid_density, or a control.in for each geometry "
        "(MISC.path_to_control: {geometry file: control file})"
    )


def odd_spin(control: Control, systems: Sequence[System]) -> Iterator[str]:
    """Warnings about spin that FHI-aims ignores without stopping, or stops at."""
    if not control.collinear and "fixed_spin_moment" in control:
        yield "fixed_spin_moment is ignored by FHI-aims without spin collinear"
    if not control.collinear and any(s.frame.moments is not None and s.frame.spin is None for s in systems):
        yield "initial moments of the geometry are ignored by FHI-aims without spin collinear"
    start = (control.get("default_initial_moment") or "").lower()
    several = [s.name for s in systems if len(s.frame) > 1 or s.frame.pbc.any()]
    if start == "hund" and several:
        yield f"default_initial_moment hund: FHI-aims refuses this for more than one atom ({several[0]}); give a number"


def _spacings(frame: Frame, counts: Sequence[int]) -> np.ndarray:
    """(3,) Å⁻¹ between k-points along each reciprocal vector; NaN along vacuum."""
    reciprocal = 2 * np.pi * np.linalg.inv(frame.cell).T
    spacings = np.linalg.norm(reciprocal, axis=1) / np.array(counts)
    long = np.linalg.norm(frame.cell, axis=1) >= VACUUM
    return np.where(long & (np.array(counts) == 1), np.nan, spacings)


def _text(path: Path) -> str:
    return path.read_text(errors="replace")
