"""FHI-aims' control.in: reads all keywords in their order.

Repeated keywords, exponents (`1e-3`, `1d-3`), further numbers (`xc hse06 0.11`) and unknown keywords stay as
the user wrote them. Comments and species blocks are left out: the basis comes from `species_dir`. Keywords that
aims-PAX uses (charge, spin …) are checked when the file is read: invalid numbers, `Charge` instead of `charge`, and
contradicting lines are refused, and the message quotes the line.

    >>> control = parse_control("xc hse06 0.11  # screened\\nk_grid 2 2 2")
    >>> control.keywords
    (('xc', 'hse06 0.11'), ('k_grid', '2 2 2'))
    >>> print(control.replaced(k_grid="4 4 4").without("xc").text(), end="")
    k_grid 4 4 4
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aims_pax.errors import SettingsError
from aims_pax.fortran import fortran_number

# Keywords allowed inside a species block; any other keyword ends it, as in FHI-aims' own reader.
_BASIS = (
    "nucleus mass species element cite_reference l_hartree cut_pot cutoff_type basis_dep_cutoff radial_base "
    "radial_multiplier angular_grids angular angular_min angular_acc division outer_grid innermost_max "
    "logarithmic valence ion_occ hydro ionic confined gaussian sto for_aux aux_gaussian pure_gauss "
    "include_min_basis basis_acc core core_states KH_core_states nonlinear_core cut_core cut_free_atom "
    "cut_atomic_basis cut_atomic max_l_prodbas max_n_prodbas prodbas_acc plus_u plus_U plus_u_ramping plus_U_ramping "
    "plus_u_use_all hubbard_coefficient hirshfeld_param vdw_param nonlocal_vdw species_z pp_charge pp_local_component "
    "pseudo nlcc grid_type ext_basis"
)
SPECIES_KEYWORDS = frozenset(_BASIS.split())

Value = str | int | float | bool

# DFT+U keywords in a species block: silently lost when the basis comes from species_dir
HUBBARD = ("plus_u", "plus_U", "plus_u_ramping", "plus_U_ramping", "plus_u_use_all", "hubbard_coefficient")

# a label is a single-point calculation: keywords that move atoms are removed from the input
_MOVING = (
    "relax_geometry relax_unit_cell external_pressure MD_run MD_schedule MD_segment MD_MB_init MD_clean_rotations "
    "MD_restart MD_time_step use_pimd_wrapper PIMD_run PIMD_schedule PIMD_segment PIMD_n_beads PIMD_time_step "
    "PIMD_init_beads PIMD_restart calculate_friction"
)
MOVES_ATOMS = tuple(_MOVING.split())

# functionals with a post-SCF part: FHI-aims prints only the forces of the SCF cycle, none of that part
_AFTER_THE_CYCLE = frozenset(
    [
        "mp2",
        "scsmp2",
        "xyg3",
        "xygjos",
        "xyg5",
        "xyg6",
        "xyg7",
        "xdh-pbe0",
        "zrps",
        "lrc-xyg3",
        "b2plyp",
        "rpa",
        "rpt2",
    ]
)

# allowed once: with several lines FHI-aims takes the last one or stops, and the intended value is unclear
_ONCE = (
    "xc charge spin fixed_spin_moment default_initial_moment relativistic k_grid k_offset k_grid_density "
    "hybrid_xc_coeff hse_unit occupation_type compute_forces many_body_dispersion many_body_dispersion_nl "
    "vdw_correction_hirshfeld sc_accuracy_rho sc_accuracy_etot sc_accuracy_eev sc_accuracy_forces sc_iter_limit "
    "include_spin_orbit override_relativity set_vacuum_level use_dipole_correction"
)
ONCE = frozenset(_ONCE.split())
# keywords of geometry.in, at which FHI-aims stops in control.in
OF_GEOMETRY = frozenset(
    (
        *("atom", "atom_frac", "lattice_vector", "initial_moment", "initial_charge", "constrain_relaxation"),
        "homogeneous_field",
    )
)
_SPELLED = {word.lower(): word for word in (*ONCE, *MOVES_ATOMS, "total_energy_method", "species")}
_LOGICAL = "compute_forces compute_analytical_stress compute_numerical_stress final_forces_cleaned"
_COLLINEAR = ("none", "collinear")


@dataclass(frozen=True)
class Control:
    """The general part of a control.in: (keyword, rest of the line) in the order of the file."""

    keywords: tuple[tuple[str, str], ...]
    has_species: bool = False  # the file has species blocks, which are ignored in favour of species_dir
    hubbard: tuple[tuple[str, str], ...] = ()  # (species, line) of DFT+U in those blocks, which are lost

    def get(self, name: str) -> str | None:
        """The rest of the last line with this keyword, or None."""
        return next((rest for word, rest in reversed(self.keywords) if word == name), None)

    def number(self, name: str) -> float | None:
        """The number after a keyword, as Fortran reads it. Raises SettingsError for anything else."""
        rest = self.get(name)
        if rest is None:
            return None
        first = re.split(r"[\s,/]+", rest.strip())[0]
        try:
            value = fortran_number(first)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise SettingsError(f"{name} {rest}: expected a number like 1 or 1d0 after {name}")
        return value

    @property
    def collinear(self) -> bool:
        """Whether spin is collinear (two spin channels)."""
        return (self.get("spin") or "none").split()[0].lower() == "collinear"

    def __contains__(self, name: object) -> bool:
        return any(word == name for word, _ in self.keywords)

    def replaced(self, name: str = "", value: Value = "", /, **values: Value) -> Control:
        """With these keywords set: in place of the first such line (further ones are removed), else at the end."""
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
        control = parse_control(path.read_text(encoding="utf-8-sig", errors="surrogateescape"))
        if fault := next(_faults(control), None):
            raise SettingsError(fault)
        return control
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file; set MISC.path_to_control") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def pair_controls(written: Mapping[str, str], systems: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """{name of a system: control file} from a map keyed by geometry file, its stem, or its number in the list.

    The second value is None, or a text that shows how numbers were read. Raises SettingsError for unknown or missing
    geometries.

    >>> pair_controls({"0": "a.in", "water.xyz": "b.in"}, ["cell", "water"])[0]
    {'cell': 'a.in', 'water': 'b.in'}
    """
    pairs: dict[str, str] = {}
    numbered = False
    for said, file in written.items():
        try:
            name = matching(said, systems)
        except SettingsError as error:
            raise SettingsError(f"MISC.path_to_control: {error}") from error
        if name is None:
            raise SettingsError(
                f"MISC.path_to_control: no geometry is called {said!r}; expected one of {', '.join(systems)}"
            )
        if name in pairs:
            raise SettingsError(
                f"MISC.path_to_control: {said!r} is a second control file for the geometry {name}; keep one"
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
    """The name of the system for a geometry file, its stem, or its number in the list; None if there is none.

    Raises SettingsError if two systems fit: those of a/water.xyz and b/water.xyz are water and water_xyz.

    >>> matching("some/water.xyz", ["cell", "water"]), matching("0", ["cell", "water"]), matching("x", ["cell"])
    ('water', 'cell', None)
    """
    names = [n for n in systems if n == said] or [n for n in systems if n in _names(said)]
    if len(names) > 1:
        raise SettingsError(f"{said!r} may be the geometry {' or '.join(names)}; write one of these names")
    if not names and said.isdigit() and int(said) < len(systems):
        names = [systems[int(said)]]
    return names[0] if names else None


def _names(said: str) -> tuple[str, str, str]:
    return said, Path(said).stem, Path(said).name.replace(".", "_")


def parse_control(text: str) -> Control:
    """Parses the text of a control.in. Raises SettingsError when it has no keyword."""
    keywords: list[tuple[str, str]] = []
    hubbard: list[tuple[str, str]] = []
    species: str | None = None
    has_species = False
    for line in text.splitlines():
        word, _, rest = line.partition("#")[0].strip().replace("\t", " ").partition(" ")
        if not word:
            continue
        if "\0" in word:
            raise SettingsError("this is not a text file")
        if word == "species":
            has_species, species = True, rest.strip()
        elif species is not None and (word in SPECIES_KEYWORDS or not word[0].isalpha()):
            if word in HUBBARD:  # any other line: a number continues a contracted Gaussian
                hubbard.append((species, f"{word} {' '.join(rest.split())}"))
        else:
            species = None
            keywords.append((word, rest.strip()))
    if not keywords:
        raise SettingsError("no keywords in the file; expected at least xc")
    return Control(tuple(keywords), has_species, tuple(hubbard))


def _faults(control: Control) -> Iterator[str]:
    """Lines at which FHI-aims would stop, or which it would read differently than intended."""
    for word, rest in control.keywords:
        wanted = _SPELLED.get(word.lower(), word)
        if word != wanted:
            yield f"{word} {rest}: FHI-aims distinguishes upper and lower case; write {wanted}"
    for word in dict.fromkeys(w for w, _ in control.keywords if w in ONCE):
        values = dict.fromkeys(" ".join(rest.split()) for w, rest in control.keywords if w == word)
        if len(values) > 1:
            yield f"{word} appears with different values: {', then '.join(values)}; keep one line"
    for word in ("charge", "fixed_spin_moment"):
        with_number = control.get(word)
        if with_number is not None:
            try:
                control.number(word)
            except SettingsError as error:
                yield str(error)
    yield from _odd_words(control)
    for word, rest in control.keywords:
        if word in OF_GEOMETRY:
            yield f"{word} {rest}: FHI-aims reads this keyword in geometry.in only; move the line there"
    if "k_points_external" in control:
        yield (
            "k_points_external: FHI-aims would read k_list.in in the folder of each calculation, where it is not; use "
            "k_grid and k_offset"
        )
    for word in ("dry_run", "skip_scf"):
        if word in control and control.get(word) != ".false.":
            yield f"{word}: FHI-aims would compute nothing; remove the line"
    functional = (control.get("xc") or "").lower().split()[:1]
    method = control.get("total_energy_method")
    if method is not None or _AFTER_THE_CYCLE.intersection(functional):
        said = f"total_energy_method {method}" if method is not None else f"xc {control.get('xc')}"
        yield (
            f"{said}: FHI-aims prints no forces for post-SCF methods; labels would hold only energy and forces of the "
            "SCF cycle; use a method with forces"
        )


def _odd_words(control: Control) -> Iterator[str]:
    spin, moment = control.get("spin"), control.get("default_initial_moment")
    if spin is not None and (spin.split() or [""])[0] not in (*_COLLINEAR, "non-collinear"):
        yield f"spin {spin}: expected none or collinear"
    if moment is not None and moment.lower() != "hund":
        try:
            control.number("default_initial_moment")
        except SettingsError:
            yield f"default_initial_moment {moment}: expected a number"
    for word in _LOGICAL.split():
        value = control.get(word)
        if value is not None and (value.split() or [""])[0] not in (".true.", ".false."):
            yield f"{word} {value}: expected .true. or .false."
    grid = control.get("k_grid")
    if grid is not None:
        counts = [n for n in re.split(r"[\s,]+", grid.strip()) if n][:3]
        if len(counts) < 3 or not all(n.isdigit() and int(n) > 0 for n in counts):
            yield f"k_grid {grid}: expected three whole numbers"


def _fortran(value: Value) -> str:
    if isinstance(value, bool):
        return ".true." if value else ".false."
    return str(value)
