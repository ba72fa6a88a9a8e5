"""FHI-aims' control.in: every keyword in its order, nothing lost.

Repeated keywords, exponents (`1e-3`, `1d-3`), further numbers (`xc hse06 0.11`) and unknown keywords stay as
the user wrote them. Comments and species blocks are left out: the basis comes from `species_dir`.

    >>> control = parse_control("xc hse06 0.11  # screened\\nk_grid 2 2 2")
    >>> control.keywords
    (('xc', 'hse06 0.11'), ('k_grid', '2 2 2'))
    >>> print(control.replaced(k_grid="4 4 4").without("xc").text(), end="")
    k_grid 4 4 4
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aims_pax.errors import SettingsError

# What may stand inside a species block; any other keyword ends it, as in FHI-aims' own reader.
_BASIS = (
    "nucleus mass species element cite_reference l_hartree cut_pot cutoff_type basis_dep_cutoff radial_base "
    "radial_multiplier angular_grids angular angular_min angular_acc division outer_grid innermost_max "
    "logarithmic valence ion_occ hydro ionic confined gaussian sto for_aux aux_gaussian pure_gauss "
    "include_min_basis basis_acc core core_states cut_core cut_free_atom cut_atomic_basis cut_atomic "
    "max_l_prodbas max_n_prodbas prodbas_acc prodbas_threshold plus_u plus_u_ramping plus_u_use_all "
    "hubbard_coefficient hirshfeld_param vdw_param nonlocal_vdw species_z pp_charge pp_local_component "
    "pseudo nlcc grid_type ext_basis"
)
SPECIES_KEYWORDS = frozenset(_BASIS.split())

Value = str | int | float | bool

# a label is one point: what would move the atoms leaves the input
MOVES_ATOMS = (
    *("relax_geometry", "relax_unit_cell", "MD_run", "MD_schedule", "MD_segment", "MD_MB_init"),
    *("MD_clean_rotations", "MD_restart", "use_pimd_wrapper"),
)


@dataclass(frozen=True)
class Control:
    """The general part of a control.in: (keyword, rest of the line) in the order of the file."""

    keywords: tuple[tuple[str, str], ...]
    has_species: bool = False  # the file held species blocks, which are ignored in favour of species_dir

    def get(self, name: str) -> str | None:
        """The rest of the last line with this keyword, or None."""
        return next((rest for word, rest in reversed(self.keywords) if word == name), None)

    def __contains__(self, name: object) -> bool:
        return any(word == name for word, _ in self.keywords)

    def replaced(self, name: str = "", value: Value = "", /, **values: Value) -> Control:
        """With these keywords set: in place of the first such line (the others go), else at the end."""
        keywords = list(self.keywords)
        for new, wanted in {**({name: value} if name else {}), **values}.items():
            lines = [i for i, (word, _) in enumerate(keywords) if word == new]
            line = (new, _fortran(wanted))
            if lines:
                keywords[lines[0]] = line
                keywords = [k for i, k in enumerate(keywords) if i not in lines[1:]]
            else:
                keywords.append(line)
        return replace(self, keywords=tuple(keywords))

    def without(self, *names: str) -> Control:
        """Without every line of these keywords."""
        return replace(self, keywords=tuple(k for k in self.keywords if k[0] not in names))

    def text(self) -> str:
        """As a control.in without species blocks."""
        return "".join(f"{word} {rest}".rstrip() + "\n" for word, rest in self.keywords)


def read_control(path: Path) -> Control:
    """The control.in at `path`. Raises SettingsError naming the file and the reason."""
    try:
        return parse_control(path.read_text(encoding="utf-8-sig", errors="surrogateescape"))
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file; set MISC.path_to_control") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def pair_controls(written: Mapping[str, str], systems: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """{name of a system: control file} from a map keyed by geometry file, its stem, or a number in their order.

    The text, where there is one, shows how numbers were read. Raises SettingsError for what does not fit.

    >>> pair_controls({"0": "a.in", "water.xyz": "b.in"}, ["cell", "water"])[0]
    {'cell': 'a.in', 'water': 'b.in'}
    """
    pairs: dict[str, str] = {}
    numbered = False
    for said, file in written.items():
        name = matching(said, systems)
        if name is None:
            raise SettingsError(
                f"MISC.path_to_control: no geometry is called {said!r}; there are {', '.join(systems)}"
            )
        numbered = numbered or name not in _names(said)
        pairs[name] = file
    if missing := [n for n in systems if n not in pairs]:
        raise SettingsError(f"MISC.path_to_control: no control file for {', '.join(missing)}")
    text = ", ".join(f"{n} ← {pairs[n]}" for n in systems)
    return (
        pairs,
        f"MISC.path_to_control: numbers count the geometries in their order: {text}" if numbered else None,
    )


def matching(said: str, systems: Sequence[str]) -> str | None:
    """The name of the system that a geometry file, its stem, or a number in their order means, or None.

    >>> matching("some/water.xyz", ["cell", "water"]), matching("0", ["cell", "water"]), matching("x", ["cell"])
    ('water', 'cell', None)
    """
    names = [n for n in systems if n in _names(said)]
    if not names and said.isdigit() and int(said) < len(systems):
        names = [systems[int(said)]]
    return names[0] if names else None


def _names(said: str) -> tuple[str, str, str]:
    return said, Path(said).stem, Path(said).name.replace(".", "_")


def real(rest: str, keyword: str) -> float:
    """The first number of a line, as Fortran reads it. Raises SettingsError naming the keyword.

    >>> real("1d0  whatever", "charge")
    1.0
    """
    word = (rest.split() or [""])[0]
    try:
        return float(re.sub("[dD]", "e", word))
    except ValueError:
        raise SettingsError(f"{keyword} {rest}: expected a number") from None


def parse_control(text: str) -> Control:
    """The text of a control.in. Raises SettingsError when it holds no keyword at all."""
    keywords: list[tuple[str, str]] = []
    has_species = in_species = False
    for line in text.splitlines():
        word, _, rest = line.partition("#")[0].strip().replace("\t", " ").partition(" ")
        if not word:
            continue
        if "\0" in word:
            raise SettingsError("this is not a text file")
        if word == "species":
            has_species = in_species = True
        elif in_species and (word in SPECIES_KEYWORDS or not word[0].isalpha()):
            continue  # a line of numbers continues a contracted Gaussian
        else:
            in_species = False
            keywords.append((word, rest.strip()))
    if not keywords:
        raise SettingsError("no keywords in it; expected at least xc")
    return Control(tuple(keywords), has_species)


def _fortran(value: Value) -> str:
    if isinstance(value, bool):
        return ".true." if value else ".false."
    return str(value)
