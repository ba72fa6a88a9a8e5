"""Structures for training: reading, checks, and what of them a model and its guard must know."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax import atoms_info, seeds
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.labelled_data import read_structures
from aims_pax.models.diffusion.atoms_graph import AtomsGraph
from aims_pax.models.diffusion.denoiser import Architecture, size_of_noise
from aims_pax.models.diffusion.memorisation import distance_fingerprint
from aims_pax.models.diffusion.noisers import ConfinedCellPositions, Positions, named_noisers
from aims_pax.models.neighbour_list import neighbour_list
from aims_pax.settings.diffusion import AUTO, DiffusionSettings, check_together
from aims_pax.structure_files import read_images
from aims_pax.systems import check_structure, read_frames

if TYPE_CHECKING:
    from ase import Atoms

log = logging.getLogger(__name__)

FEWEST = 100  # structures of a composition
CENTRE = 0.3  # of the mean distance of nearest neighbours: the level of noise that training looks at most
SEEN = 400  # structures that distances are taken from
TAKEN = "REF_"  # labels are also found with MACE's prefix
CLOSEST = 0.3  # of the sum of covalent radii: atoms of data are never nearer
ALONE = 8.0  # Å: an atom that has no neighbour within it
NOT_LEARNT = ("moments", "charges", "masses", "statements")  # of a Frame


Row = tuple[float, float, float]


@dataclass(frozen=True)
class DataSummary:
    """What guard and sampling know of the training data; plain values.

    formulas: number of structures by formula of the free atoms. nearest: {"Cu-Pd": smallest distance, Å}. loneliest:
    largest distance (Å) of an atom to its nearest neighbour. radius: largest distance (Å) of a free atom to their
    centre, without a cell. cell, pbc: of the structures, None where they differ. confinement: Å. fixed_formulas: of
    the fixed atoms. extra: charge and spin of all structures.
    """

    structures: int
    formulas: Mapping[str, int]
    nearest: Mapping[str, float]
    loneliest: float
    radius: float
    pbc: tuple[bool, bool, bool] | None
    cell: tuple[Row, Row, Row] | None = None
    confinement: tuple[float, float] | None = None
    property_range: tuple[float, float] | None = None
    anchored: bool = False
    fixed_formulas: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON and YAML can write it."""
        lists = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return lists | {"cell": None if self.cell is None else [list(row) for row in self.cell]}


def read_for_diffusion(path: Path, name: str | None) -> list[tuple[Frame, dict[str, float]]]:
    """Frames of a file with the property `name`, if asked for. Raises SettingsError naming the structure."""
    found, lost = [], set()
    for number, atoms in _structures(path):
        try:
            atoms_info.refuse_other_names(atoms)
            with np.errstate(invalid="ignore"):
                frame = Frame.from_atoms(_finite(atoms))
            check_structure(frame)
            properties = {} if name is None else {name: property_of(atoms, name)}
        except SettingsError as error:
            raise SettingsError(f"{path}, structure {number}: {error}") from error
        lost |= {part for part in NOT_LEARNT if (own := getattr(frame, part)) is not None and len(own)}
        found.append((frame, properties))
    if lost:
        log.warning("%s: %s are not learnt, and new structures have none", path, ", ".join(sorted(lost)))
    return found


def _finite(atoms: Atoms) -> Atoms:
    """The same. Raises SettingsError for positions or a cell that are not numbers."""
    wrong = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(wrong):
        raise SettingsError(f"the position of atom {int(wrong[0]) + 1} is not a finite number")
    if not np.isfinite(atoms.cell.array).all():
        raise SettingsError("the cell is not finite")
    return atoms


def _structures(path: Path) -> list[tuple[int, Atoms]]:
    if not path.is_file():
        whole, _, part = str(path).partition("@")
        if part and Path(whole).is_file():
            raise SettingsError(
                f"{path}: parts of a file are not read; write one first: ase convert -n {part} {whole} part.xyz"
            )
        raise SettingsError(
            f"{path}: no such file; expected structures in extended XYZ, or a trajectory of ASE"
        )
    name = path.name.removesuffix(".gz")
    if name.endswith((".xyz", ".extxyz")):
        return list(read_structures(path))
    if name.endswith(".in"):
        return [(k, frame.to_atoms()) for k, frame in enumerate(read_frames(path), 1)]
    try:
        images = read_images(path, ":")
    except Exception as error:  # ASE's readers raise anything
        text = error if isinstance(error, SettingsError) else f"{type(error).__name__}: {error}"
        raise SettingsError(f"{path}: cannot be read: {text}") from error
    for note in dict.fromkeys(note for _, image in images for note in image.notes):
        log.warning("%s: %s", path, note)
    return [(k + 1, image.atoms) for k, image in images]


def property_of(atoms: Atoms, name: str) -> float:
    """A number of the whole structure: `info[name]`, `info[REF_name]`, a result of the calculator, or else what
    `atoms.get_name()` returns, as for `volume`.

    Raises SettingsError.
    """
    calculated = {} if atoms.calc is None else atoms.calc.results
    values = {
        key: place[key]
        for place, key in ((atoms.info, name), (calculated, name), (atoms.info, TAKEN + name))
        if place.get(key) is not None
    }
    if not values and (got := _got(atoms, name)) is not None:
        values = {f"get_{name}()": got}
    if not values:
        raise SettingsError(f"has no {name}; it has {', '.join(map(str, atoms.info)) or 'no properties'}")
    value = next(iter(values.values()))
    if len(values) > 1 and not _agree(*values.values()):
        said = " and ".join(f"{key}={v}" for key, v in values.items())
        raise SettingsError(f"{said} differ; ask for {TAKEN}{name}, or remove one of them")
    if isinstance(value, bool | np.bool_):
        raise SettingsError(f"{name} is {value}; write classes as 0 and 1, with conditioning_type integer")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise SettingsError(f"{name} is {value!r}, expected one number") from None
    if not math.isfinite(number):
        raise SettingsError(f"{name} is {number}, expected a finite number")
    return number


def _got(atoms: Atoms, name: str) -> Any:
    """What `atoms.get_name()` returns; None if there is no such method, or it fails (no calculator, no volume)."""
    method = getattr(atoms, f"get_{name}", None)
    try:
        return None if method is None else method()
    except Exception:  # ASE and calculators raise anything
        return None


def _agree(first: Any, *others: Any) -> bool:
    try:
        return all(abs(float(v) - float(first)) <= 1e-8 + 1e-6 * abs(float(first)) for v in others)
    except (TypeError, ValueError):
        return False


def noisers_for(
    asked: Sequence[str], pbc: Sequence[bool], confinement: tuple[float, float] | None
) -> tuple[str, ...]:
    """The names of the noisers; `auto` chosen by periodicity and confinement. Raises SettingsError."""
    names = tuple(n for n in asked if n != AUTO[0])
    if len(names) < len(asked):
        if confinement is not None:
            chosen = ConfinedCellPositions.name
        elif all(pbc):
            chosen = "CellPositions"
        elif not any(pbc):
            chosen = Positions.name
        else:
            raise SettingsError(
                "confinement: mandatory for structures that are periodic in some directions only: the lowest and the "
                "highest z (Å) of generated atoms"
            )
        names = (chosen, *names)
    noiser, _ = named_noisers(names)
    if isinstance(noiser, Positions) and any(pbc):
        raise SettingsError(
            "noisers: Positions is for molecules and clusters; the structures have a periodic cell"
        )
    if noiser is not None and not isinstance(noiser, Positions):
        need = (0, 1) if isinstance(noiser, ConfinedCellPositions) else (0, 1, 2)
        if not all(pbc[k] for k in need):
            raise SettingsError(
                f"noisers: {noiser.name} needs structures that are periodic along {len(need)} axes"
            )
    if isinstance(noiser, ConfinedCellPositions) != (confinement is not None):
        raise SettingsError(
            "confinement and the noiser ConfinedCellPositions belong together: give both, or none"
        )
    return names


def graphs_for(
    data: Sequence[tuple[Frame, Mapping[str, float]]], settings: DiffusionSettings
) -> list[AtomsGraph]:
    """Checked graphs for training. Raises SettingsError naming the structure and what is wrong."""
    check_together(settings)
    one_charge_and_spin([frame for frame, _ in data])
    masked = settings.mask == "MaskFixed"
    graphs: list[AtomsGraph] = []
    alone: list[int] = []
    for number, (frame, properties) in enumerate(data, 1):
        graph = AtomsGraph.from_frame(frame, settings.confinement, properties, masked)
        if settings.canonical_cell:
            if np.linalg.det(graph.cell) < 0:
                raise SettingsError(
                    f"structure {number} ({frame.formula}): canonical_cell: its lattice vectors are left-handed: "
                    "swap two of them"
                )
            graph = graph.canonical()
        if graph.fixed.all():
            raise SettingsError(
                f"structure {number} ({frame.formula}): all atoms are fixed, nothing to learn"
            )
        check_confinement(graph, f"structure {number} ({frame.formula})")
        _check_distances(graph, f"structure {number} ({frame.formula})")
        if len(graph) > 1 and (lonely_distances(graph, ALONE) >= ALONE).any():
            alone.append(number)
        graphs.append(graph)
    if alone:
        log.warning(
            "%d of %d structures (the first: %d) have an atom more than %g Å from all others; samples with such atoms "
            "will not be refused",
            len(alone), len(graphs), alone[0], ALONE,
        )  # fmt: skip
    return graphs


def one_charge_and_spin(frames: Sequence[Frame]) -> dict[str, Any]:
    """{charge, spin} of all structures; nothing for neutral ones and singlets. Raises SettingsError if they differ."""
    found: dict[str, Any] = {}
    for name, usual in (("charge", 0), ("spin", 1)):
        values = {None if (own := getattr(frame, name)) == usual else own for frame in frames}
        if len(values) > 1:
            said = ", ".join(sorted(f"{usual if v is None else v:g}" for v in values))
            raise SettingsError(
                f"{name}: the structures have different ones ({said}); train one model for each"
            )
        if (value := next(iter(values), None)) is not None:
            found[name] = value
    return found


def _check_distances(graph: AtomsGraph, where: str) -> None:
    """Raises SettingsError for atoms in one place, and for one atom alone."""
    from ase.data import covalent_radii

    if len(graph) == 1:
        raise SettingsError(f"{where}: one atom alone has no structure to learn")
    radii = covalent_radii[graph.x]
    i, j, d = pair_distances(graph, 2 * CLOSEST * float(radii.max()))
    near = d < CLOSEST * (radii[i] + radii[j])
    if near.any():
        k = int(np.argmin(np.where(near, d, np.inf)))
        raise SettingsError(f"{where}: atoms {int(i[k]) + 1} and {int(j[k]) + 1} are {d[k]:.2f} Å apart")


def check_confinement(graph: AtomsGraph, where: str, placed: bool = True) -> None:
    """Raises SettingsError for walls that the cell or the free atoms (if they are placed) do not fit."""
    if graph.confinement is None:
        return
    low, high = graph.confinement
    if not low < high:
        raise SettingsError(
            f"{where}: confinement: expected the lower height first, got {low:g} and {high:g}"
        )
    if abs(graph.cell[:2, 2]).max() > 1e-6:
        raise SettingsError(f"{where}: confinement in z needs the first two cell vectors in the xy plane")
    if graph.pbc[2] and (high - low) > abs(graph.cell[2, 2]):
        raise SettingsError(f"{where}: confinement {low:g} … {high:g} Å is larger than the cell in z")
    z = graph.pos[~graph.fixed, 2]
    if placed and len(z) and (z.min() < low or z.max() > high):
        raise SettingsError(
            f"{where}: free atoms reach from z = {z.min():.2f} to {z.max():.2f} Å, outside the confinement "
            f"{low:g} … {high:g} Å; widen it, or fix the atoms below"
        )


def check_number(graphs: Sequence[AtomsGraph], types: bool, allow_small: bool) -> str | None:
    """A warning where there are few structures; raises SettingsError unless that is allowed.

    With types each structure counts, without them those of the same composition.
    """
    different = _different(graphs)
    counts = Counter(_formula(g) for g in different)
    formula, n = min(counts.items(), key=lambda item: item[1])
    if types:
        formula, n = "all compositions", len(different)
    repeated = len(graphs) - len(different)
    if n >= FEWEST:
        return f"{repeated} of {len(graphs)} structures are copies of others" if repeated else None
    what = f"{'different ' * bool(repeated)}structure{'s' * (n > 1)} of {formula}"
    text = f"{n} {what}; from fewer than {FEWEST} a model mostly repeats its training data"
    if not allow_small:
        raise SettingsError(
            f"{text}. Give more, or set allow_small and read the memorised fraction of `inspect`"
        )
    return text


def _different(graphs: Sequence[AtomsGraph]) -> list[AtomsGraph]:
    """Without copies: structures of one composition with the same distances (to 1e-5 Å)."""
    found: dict[tuple[bytes, int, bytes], AtomsGraph] = {}
    for graph in graphs:
        order = np.sort(graph.x).tobytes(), int(graph.fixed.sum())
        found.setdefault((*order, distance_fingerprint(graph).round(5).tobytes()), graph)
    return list(found.values())


def architecture_for(graphs: Sequence[AtomsGraph], settings: DiffusionSettings) -> Architecture:
    """The architecture for these graphs and settings. Raises SettingsError."""
    pbc = graphs[0].pbc
    if any((g.pbc != pbc).any() for g in graphs):
        raise SettingsError(
            "the structures are periodic in different directions; train one model for each kind"
        )
    names = noisers_for(settings.noisers, [bool(p) for p in pbc], settings.confinement)
    noiser, _ = named_noisers(names)
    vocabulary = tuple(sorted({int(z) for g in graphs for z in g.x}))
    if noiser is None and len(vocabulary) == 1:
        raise SettingsError(
            "noisers: Types alone, but the structures have one element only: nothing to learn"
        )
    if settings.repeat and (noiser is None or isinstance(noiser, Positions)):
        raise SettingsError("repeat needs structures with a periodic cell")
    largest = [g.repeated(settings.repeat or 1) for g in graphs[:: max(1, len(graphs) // SEEN)]]
    data, high = size_of_noise(largest, noiser)
    values = (
        np.array([g.properties[settings.conditioning] for g in graphs]) if settings.conditioning else None
    )
    if values is not None and np.ptp(values) == 0:
        raise SettingsError(
            f"conditioning: {settings.conditioning} is {values[0]:g} in all structures: nothing to learn"
        )
    return Architecture(
        noisers=names,
        vocabulary=vocabulary,
        sde=settings.sde,
        cutoff=settings.cutoff,
        feature_size=settings.feature_size,
        n_blocks=settings.n_blocks,
        sigma_data=data,
        sigma_max=high,
        sigma_centre=min(high, CENTRE * _mean_nearest(graphs[:: max(1, len(graphs) // 20)])),
        neighbours=_mean_neighbours(graphs[:20], settings.cutoff),
        conditioning=settings.conditioning or "",
        classes=_classes(values, settings),
        centre=0.0 if values is None else float(values.mean()),
        spread=1.0 if values is None else float(values.std()) or 1.0,
        composition="Types" in names,
    )


def _classes(values: Any, settings: DiffusionSettings) -> int:
    if values is None:
        return 0
    if settings.conditioning_type == "scalar":
        return 1
    if (values != values.round()).any() or values.min() < 0:
        raise SettingsError(f"conditioning: {settings.conditioning} is not a whole number ≥ 0; use scalar")
    n = settings.n_classes or max(2, int(values.max()) + 1)
    if values.max() >= n:
        raise SettingsError(
            f"n_classes: {n}, but the data contain class {int(values.max())}; expected {int(values.max()) + 1} or more"
        )
    return n


def summarise(graphs: Sequence[AtomsGraph], extra: Mapping[str, Any] | None = None) -> DataSummary:
    """The summary of training structures. extra: the charge and spin of all of them."""
    nearest: dict[str, float] = {}
    loneliest = radius = 0.0
    for graph in graphs[:: max(1, len(graphs) // SEEN)]:
        for pair, d in closest_pairs(graph).items():
            nearest[pair] = min(d, nearest.get(pair, d))
        loneliest = max(loneliest, _loneliest(graph))
        radius = max(radius, extent(graph))
    first = graphs[0]
    same = all(np.allclose(g.cell, first.cell, atol=1e-3) for g in graphs)
    values = [v for g in graphs for v in g.properties.values()]
    return DataSummary(
        structures=len(graphs),
        formulas=dict(Counter(_formula(g) for g in graphs).most_common(100)),
        nearest=nearest,
        loneliest=loneliest,
        radius=radius,
        pbc=tuple(bool(p) for p in first.pbc),  # type: ignore[arg-type]
        cell=tuple(tuple(float(x) for x in row) for row in first.cell)  # type: ignore[arg-type]
        if same and first.cell.any()
        else None,
        confinement=first.confinement,
        property_range=(min(values), max(values)) if values else None,
        anchored=bool(first.fixed.any()),
        fixed_formulas=tuple(sorted({_formula(g, True) for g in graphs if g.fixed.any()})),
        extra=dict(extra or {}),
    )


def closest_pairs(graph: AtomsGraph, reach: float = 6.0) -> dict[str, float]:
    """{"Cu-Pd": smallest distance, Å} of pairs of which one atom at least is free."""
    from ase.data import chemical_symbols

    i, j, d = pair_distances(graph, reach)
    keep = ~(graph.fixed[i] & graph.fixed[j])
    found: dict[str, float] = {}
    for a, b, r in zip(graph.x[i][keep], graph.x[j][keep], d[keep], strict=True):
        name = "-".join(sorted((chemical_symbols[a], chemical_symbols[b])))
        found[name] = min(float(r), found.get(name, math.inf))
    return found


def pair_distances(graph: AtomsGraph, reach: float) -> tuple[Any, Any, Any]:
    """(i, j, distance in Å) of all pairs within reach, periodic images included."""
    i, j, S = neighbour_list(graph.pos, graph.cell, graph.pbc, reach)
    return i, j, np.linalg.norm(graph.pos[j] - graph.pos[i] + S @ graph.cell, axis=1)


def lonely_distances(graph: AtomsGraph, reach: float = 8.0) -> Any:
    """(N,) Å: distance of each atom to its nearest neighbour; `reach` if there is none."""
    i, _, d = pair_distances(graph, reach)
    found = np.full(len(graph), reach)
    np.minimum.at(found, i, d)
    return found


def _loneliest(graph: AtomsGraph) -> float:
    """Å: the largest distance of a free atom to its nearest neighbour, however far that is; 0 without any."""
    if len(graph) == 1:
        return 0.0
    reach = ALONE
    while (longest := float(lonely_distances(graph, reach)[~graph.fixed].max(initial=0.0))) >= reach:
        reach *= 2
    return longest


def extent(graph: AtomsGraph) -> float:
    """Å: the largest distance of a free atom to the centre of all; 0 in a cell."""
    if graph.pbc.any():
        return 0.0
    return float(np.linalg.norm(graph.pos - graph.pos.mean(0), axis=1)[~graph.fixed].max(initial=0.0))


def split_held_out(n: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices for training and held out, by a seeded permutation; at least one for training."""
    order = seeds.rng("diffusion", seed, "split").permutation(n)
    held = min(n - 1, round(fraction * n))
    return sorted(int(k) for k in order[held:]), sorted(int(k) for k in order[:held])


def _mean_nearest(graphs: Sequence[AtomsGraph]) -> float:
    """Å: the mean distance of free atoms to their nearest neighbours."""
    return float(np.concatenate([lonely_distances(g)[~g.fixed] for g in graphs]).mean())


def _mean_neighbours(graphs: Sequence[AtomsGraph], cutoff: float) -> float:
    counts = [np.bincount(g.edges(cutoff)[0], minlength=len(g))[~g.fixed].mean() for g in graphs]
    return max(1.0, float(np.mean(counts)))


def _formula(graph: AtomsGraph, fixed: bool = False) -> str:
    from ase.symbols import Symbols

    return str(Symbols(graph.x[graph.fixed == fixed]).get_chemical_formula("hill"))
