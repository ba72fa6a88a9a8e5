"""`aims-PAX select`: chooses structures of a pool to be labelled, or to remain of a labelled set.

The pool is read twice: first its features are computed, in pieces, with bounded memory (at most `DIMENSIONS` numbers in
single precision per structure); then the chosen structures are copied byte for byte. Beside the output there is a table
with the origin of each: FILE.csv.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.commands.structure_pool import (
    PoolContents,
    PoolStructure,
    copied_structures,
    in_batches,
    look_through,
    read_pool,
)
from aims_pax.core.selection import (
    element_moments,
    farthest_first,
    largest_first,
    max_determinant,
    random_apart,
    random_projection,
    squared_distances,
)
from aims_pax.core.uncertainty import atomic_spread
from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame
from aims_pax.labelled_data import LabelKeys
from aims_pax.record.files import write_bytes, write_text
from aims_pax.record.log import to_console
from aims_pax.samplers.descriptors import histograms
from aims_pax.suggestions import nearest, no_such

if TYPE_CHECKING:
    from rich.console import Console

    from aims_pax.models.base import ModelPotential

log = logging.getLogger(__name__)

RULES = {  # --by → (rule, weighted with)
    "random": ("random", ""),
    "diverse": ("diverse", ""),
    "maxdet": ("maxdet", ""),
    "spread": ("largest", "spread"),
    "spread-diverse": ("diverse", "spread"),
    "spread-maxdet": ("maxdet", "spread"),
    "error": ("largest", "error"),
    "error-diverse": ("diverse", "error"),
    "error-maxdet": ("maxdet", "error"),
}
RANDOM_SHARE = 1 / 3  # measured by benchmarks/selection_kernel.py
DIMENSIONS = 512  # of the features of a structure; more are projected
ATOMS_AT_ONCE = 2000
LOG_EVERY = 10.0  # s
KEYS = LabelKeys(option="--{}-key")


@dataclass(frozen=True)
class SelectOptions:
    """The options of the command; see its --help.

    share: of the n that are drawn at random first; None: a third for diverse and maxdet if nothing is there already.
    """

    n: int
    by: str = "diverse"
    models: tuple[Path, ...] = ()
    already: tuple[Path, ...] = ()
    output: Path = Path("selected.xyz")
    seed: int = 0
    share: float | None = None
    least: float = 0.0
    plot: Path | None = None
    device: str = "cpu"
    keys: LabelKeys = KEYS

    @property
    def rule(self) -> str:
        return RULES[self.by][0]

    @property
    def weighted(self) -> str:
        return RULES[self.by][1]

    @property
    def random_share(self) -> float:
        """The share that is drawn at random first."""
        if self.share is not None:
            return self.share
        return RANDOM_SHARE if self.by in ("diverse", "maxdet") and not self.already else 0.0

    @property
    def table(self) -> Path:
        """The file with the origin of each chosen structure."""
        return self.output.with_name(self.output.name + ".csv")


@dataclass(frozen=True)
class PoolPoints:
    """Structures as points. features: (P, D) float32, D = 0 if none are needed; ids: of atoms, positions and cells.

    weights: (P,) spread or error (eV/Å), else 1. electrons: charge and spin, None where they are not stated.
    """

    features: NDArray[np.float32]
    weights: Array
    ids: tuple[str, ...]
    electrons: tuple[tuple[float | None, int | None], ...]
    formulas: tuple[str, ...]


@dataclass(frozen=True)
class SelectedStructures:
    """What was chosen, in order. distances: (C,) of each to those chosen before it and known, NaN for the first.

    n_random: how many of them were drawn at random, at the beginning. Without features all distances are NaN.
    """

    chosen: tuple[int, ...]
    n_random: int
    distances: Array


def select(pools: Sequence[Path], options: SelectOptions, console: Console) -> list[int]:
    """Write the chosen structures and the table of their origin; returns their numbers over all files.

    Raises SettingsError for options and files that cannot be used; nothing is written then.
    """
    check_options(pools, options)
    with to_console(console, "INFO"):
        contents = look_through(pools)
        known_contents = look_through(options.already) if options.already else None
        describe = Describer(
            options, tuple({*contents.numbers, *(known_contents.numbers if known_contents else ())})
        )
        log.info("%d structures in %s; %s", len(contents), ", ".join(map(str, pools)), describe.title)
        known = None
        if known_contents is not None:
            known = describe(options.already, len(known_contents), weighted=False)
        pool = describe(pools, len(contents), weighted=bool(options.weighted))
        free = _free(pool, known, options)
        found = choose(pool, known, free, options)
        _write(found, contents, pool, options)
        if options.plot is not None:
            from aims_pax.report.figures.coverage import coverage_picture

            write_bytes(
                options.plot,
                coverage_picture(pool.features, found.chosen, None if known is None else known.features),
            )
            log.info("picture: %s", options.plot)
    return list(found.chosen)


def check_options(pools: Sequence[Path], options: SelectOptions) -> None:
    """Raises SettingsError, in one sentence."""
    if options.by not in RULES:
        near = nearest(options.by, RULES)
        hint = f"nearest: {near}" if near else f"expected {', '.join(RULES)}"
        raise SettingsError(f"--by: {options.by!r} is not a rule; {hint}")
    if not pools:
        raise SettingsError("expected a pool: aims-PAX select POOL.xyz -n N")
    if options.n < 1:
        raise SettingsError(f"-n: expected at least 1, got {options.n}")
    if options.weighted and not options.models:
        what = "several --model, whose forces are compared" if options.weighted == "spread" else "--model"
        raise SettingsError(f"--by {options.by}: needs {what}")
    for name in ("energy", "forces"):
        if getattr(options.keys, name) != getattr(KEYS, name) and options.weighted != "error":
            raise SettingsError(
                f"--{name}-key: only with --by error, error-diverse or error-maxdet: no labels are read"
            )
    if not 0 <= options.random_share <= 1:
        raise SettingsError(f"--random-share: expected 0 to 1, got {options.share:g}")
    if not (options.least >= 0 and math.isfinite(options.least)):
        raise SettingsError(f"--least-distance: expected at least 0, got {options.least:g}")
    if options.output.suffix not in (".xyz", ".extxyz"):
        raise SettingsError(f"-o: {options.output}: expected a name that ends in .xyz or .extxyz")
    if options.plot is not None and options.plot.suffix != ".png":
        raise SettingsError(f"--plot: {options.plot}: expected a name that ends in .png")
    for path in filter(None, (options.output, options.table, options.plot)):
        if path.exists():
            raise SettingsError(
                f"{path} exists already and is not replaced; give another name with -o or --plot"
            )
        if not path.parent.is_dir():
            raise SettingsError(f"{path}: {no_such(path.parent, 'folder')}")
    twice = [
        path for path, times in Counter(p.resolve() for p in (*pools, *options.already)).items() if times > 1
    ]
    if twice:
        raise SettingsError(f"{twice[0]}: named twice; name each pool and each --already once")


# ---------------------------------------------------------------- features


class Describer:
    """Reads structures and makes points of them: model features if models are given, else the radial descriptor."""

    def __init__(self, options: SelectOptions, numbers: Sequence[int]) -> None:
        self.options, self.numbers = options, tuple(sorted(numbers))
        self.model = _loaded(options) if options.models else None
        own = getattr(self.model, "atom_features", None)
        self.atom_features: Callable[[Sequence[Frame]], list[Array]] = own or self._radial
        self.title = "features: those of the model" if own else "features: radial descriptor"
        if self.model is not None and own is None:
            self.title += f" ({options.models[0].name} has none of its own)"
        if options.rule == "random" and not options.least and options.plot is None:
            self.title = "no features needed"

    def __call__(self, paths: Sequence[Path], total: int, weighted: bool) -> PoolPoints:
        """All structures of these files. Raises SettingsError with file and structure number."""
        features, weights, ids, formulas = [], list[float](), list[str](), list[str]()
        electrons: list[tuple[float | None, int | None]] = []
        keys = self.options.keys if weighted and self.options.weighted == "error" else None
        said = time.monotonic()
        for batch in in_batches(read_pool(paths, keys), ATOMS_AT_ONCE):
            self._check_elements(batch)
            features.append(self._points([s.frame for s in batch]))
            weights += self._weights(batch) if weighted else [1.0] * len(batch)
            ids += [_geometry_id(s.frame) for s in batch]
            electrons += [(s.frame.charge, s.frame.spin) for s in batch]
            formulas += [s.frame.formula for s in batch]
            if time.monotonic() - said > LOG_EVERY:
                said = time.monotonic()
                log.info("%d of %d structures read", len(ids), total)
        return PoolPoints(
            np.concatenate(features), np.array(weights), tuple(ids), tuple(electrons), tuple(formulas)
        )

    def _points(self, frames: Sequence[Frame]) -> NDArray[np.float32]:
        if self.title == "no features needed":
            return np.zeros((len(frames), 0), np.float32)
        moments = [
            element_moments(own, frame.numbers, self.numbers)
            for own, frame in zip(self.atom_features(frames), frames, strict=True)
        ]
        return random_projection(np.array(moments), DIMENSIONS).astype(np.float32)

    def _radial(self, frames: Sequence[Frame]) -> list[Array]:
        return [_for_elements(histograms(frame), frame, self.numbers) for frame in frames]

    def _weights(self, batch: Sequence[PoolStructure]) -> list[float]:
        """Largest spread of an atom of each structure, or largest error of the force on an atom, eV/Å."""
        assert self.model is not None
        said: Any = self.model.evaluate([s.frame for s in batch])
        ends = np.cumsum([len(s.frame) for s in batch])[:-1]
        forces = np.split(_numpy(said.forces), ends, axis=1)
        own = [None] * len(batch) if said.spread is None else np.split(_numpy(said.spread), ends)
        found = []
        for structure, f, spread in zip(batch, forces, own, strict=True):
            if structure.label is None:
                value = float(atomic_spread(f, spread).max())
            else:
                value = float(np.linalg.norm(f.mean(0) - structure.label.forces, axis=1).max())
            if not math.isfinite(value):
                place = structure.place
                raise SettingsError(
                    f"{place.path}@{place.index}: the models give no finite forces for it; remove this structure"
                )
            found.append(value)
        return found

    def _check_elements(self, batch: Sequence[PoolStructure]) -> None:
        if self.model is None:
            return
        from ase.data import chemical_symbols

        for structure in batch:
            unknown = sorted({*structure.frame.numbers.tolist()} - {*self.model.elements})
            if unknown:
                names, known = (
                    " ".join(chemical_symbols[z] for z in zs) for zs in (unknown, self.model.elements)
                )
                raise SettingsError(
                    f"{structure.place.path}@{structure.place.index}: the model does not know {names}, only {known}; "
                    "remove such structures, or leave out --model"
                )


def _loaded(options: SelectOptions) -> ModelPotential:
    """The models as one potential. Raises SettingsError, also where the rule needs a spread that they do not give."""
    from aims_pax.models.calculator import calculator

    given = options.models[0] if len(options.models) == 1 else options.models
    potential = calculator(given, device=options.device).potential
    if options.weighted == "spread" and potential.members < 2 and not getattr(potential, "has_spread", False):
        raise SettingsError(
            f"--by {options.by}: one model has no spread; name several with --model, or the folder of a run"
        )
    return potential


def _for_elements(own: Array, frame: Frame, numbers: Sequence[int]) -> Array:
    """(N, Z·k) radial histograms for all elements from those for the elements of the frame."""
    present = np.unique(frame.numbers)
    k = own.shape[1] // len(present)
    found = np.zeros((len(own), len(numbers), k))
    found[:, [numbers.index(int(z)) for z in present]] = own.reshape(len(own), len(present), k)
    return found.reshape(len(own), -1)


def _numpy(values: Any) -> Array:
    return np.asarray(values.detach().cpu().double().numpy() if hasattr(values, "detach") else values, float)


# ---------------------------------------------------------------- choosing


def _free(pool: PoolPoints, known: PoolPoints | None, options: SelectOptions) -> NDArray[np.int64]:
    """Numbers of the candidates: the structures of the pool that are not known, each once. Raises SettingsError for too
    few.

    Labels add charge, spin or masses that a pool does not state; only those that contradict make another structure.
    """
    there: dict[str, list[tuple[float | None, int | None]]] = {}
    for geometry, electrons in () if known is None else zip(known.ids, known.electrons, strict=True):
        there.setdefault(geometry, []).append(electrons)
    both = list(zip(pool.ids, pool.electrons, strict=True))
    new = [k for k, (i, own) in enumerate(both) if not any(_agree(own, x) for x in there.get(i, ()))]
    if len(new) < len(both):
        log.info("%d structures of the pool are in --already and are left out", len(both) - len(new))
    first = {both[k]: k for k in reversed(new)}
    free = np.array(sorted(first.values()), np.int64)
    if len(free) < len(new):
        log.info("%d structures of the pool repeat earlier ones and are left out", len(new) - len(free))
    if options.n > len(free):
        raise SettingsError(
            f"-n {options.n}: there are {len(free)} structures to choose from; choose at most so many"
        )
    return free


def _geometry_id(frame: Frame) -> str:
    return Frame(frame.numbers, frame.positions, frame.cell, frame.pbc).id


def _agree(one: tuple[float | None, int | None], other: tuple[float | None, int | None]) -> bool:
    return all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))


def choose(
    pool: PoolPoints, known: PoolPoints | None, free: NDArray[np.int64], options: SelectOptions
) -> SelectedStructures:
    """The chosen structures, in order: first those drawn at random, then those by the rule."""
    x, w = pool.features[free], pool.weights[free]
    rng = np.random.default_rng(options.seed)
    n_random = options.n if options.rule == "random" else round(options.random_share * options.n)
    old = [] if known is None else [known.features]
    first = random_apart(x, n_random, rng, None if known is None else known.features, options.least)
    others = np.setdiff1d(np.arange(len(x)), first)
    before = np.concatenate([*old, x[first]]) if old or first else None
    rest = _by_rule(x[others], options.n - len(first), before, w[others], options)
    chosen = [*first, *(int(others[k]) for k in rest)]
    if len(chosen) < options.n:
        log.warning(
            "only %d structures are %g apart: fewer than -n %d", len(chosen), options.least, options.n
        )
    return SelectedStructures(tuple(int(free[k]) for k in chosen), len(first), _distances(x[chosen], old))


def _by_rule(
    x: NDArray[np.float32], n: int, known: NDArray[np.float32] | None, weights: Array, options: SelectOptions
) -> list[int]:
    if n < 1 or options.rule == "random":
        return []
    if options.rule == "largest":
        return largest_first(x, n, weights, known, options.least)
    by = farthest_first if options.rule == "diverse" else max_determinant
    return by(x, n, known, weights if options.weighted else None, options.least)


def _distances(chosen: NDArray[np.float32], old: Sequence[NDArray[np.float32]]) -> Array:
    """(C,) of each to the nearest of the old ones and those chosen before it, NaN if there are none or no features."""
    points = np.concatenate([*old, chosen])
    found = np.full(len(chosen), np.nan)
    for k, end in enumerate(range(len(points) - len(chosen), len(points))):
        if end and points.shape[1]:
            found[k] = math.sqrt(squared_distances(chosen[k : k + 1], points[:end])[0])
    return found


# ---------------------------------------------------------------- writing


def _write(
    found: SelectedStructures, contents: PoolContents, pool: PoolPoints, options: SelectOptions
) -> None:
    content = b"".join(copied_structures(contents, found.chosen))
    write_bytes(options.output, content)
    write_text(options.table, _table(found, contents, pool, options))
    counts = Counter(pool.formulas[k] for k in found.chosen)
    common = ", ".join(f"{count} {formula}" for formula, count in counts.most_common(8))
    log.info(
        "%d structures by %s: %s%s", len(found.chosen), options.by, common, ", …" if len(counts) > 8 else ""
    )
    log.info("%s, in the order of selection; origin of each: %s", options.output, options.table)


def _table(
    found: SelectedStructures, contents: PoolContents, pool: PoolPoints, options: SelectOptions
) -> str:
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    weighted = [f"{options.weighted}_eV_per_A"] if options.weighted else []
    out.writerow(["rank", "file", "index", "formula", "chosen_by", "distance_to_earlier", *weighted])
    for rank, (k, distance) in enumerate(zip(found.chosen, found.distances, strict=True)):
        place = contents.place(k)
        by = "random" if rank < found.n_random else options.by
        row = [rank, place.path, place.index, pool.formulas[k], by, f"{distance:.6g}"]
        out.writerow([*row, *([f"{pool.weights[k]:.6g}"] if weighted else [])])
    return text.getvalue()
