"""New structures from a model: what is asked for, sampling in batches, guard, retries.

What must be given depends on the noisers: elements are needed without `Types`, positions without a noiser of
positions, a cell unless the template or the model has one. Atoms of a template come first and are fixed.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aims_pax import seeds
from aims_pax.errors import AimsPaxError, SettingsError
from aims_pax.frames import Array, Frame
from aims_pax.models.diffusion.atoms_graph import AtomsGraph, BatchedGraphs, batch_graphs
from aims_pax.models.diffusion.denoiser import Architecture, Denoiser, Denoises
from aims_pax.models.diffusion.noisers import Positions
from aims_pax.models.diffusion.reverse_process import DEFAULT_SAMPLER, ReverseProcess
from aims_pax.models.diffusion.short_relaxation import labels_or_none, relax_a_little
from aims_pax.models.diffusion.structure_guard import COVALENT, StructureGuard
from aims_pax.models.diffusion.training_data import DataSummary, check_confinement
from aims_pax.potential import Potential

log = logging.getLogger(__name__)

FAILED = "not calculated"  # the potential failed
PUSH = 0.2  # Å, largest displacement of an atom by the guidance of a potential in one step


class GenerationFailed(AimsPaxError):
    """Too many structures were refused. found: those that passed."""

    def __init__(self, text: str, found: Sequence[Frame] = ()) -> None:
        super().__init__(text)
        self.found = list(found)


@dataclass(frozen=True)
class Generating:
    """How structures are sampled.

    value: property to steer towards, None for none; guidance: w in D + w·(D − D_unconditional). eps: the last noise
    level, Å. relax: steps downhill with `potential`. max_force: eV/Å, largest force after it. ff_guidance: 1/eV,
    forces of the potential at the denoised structure are added to the score times (1 − t)^ff_zeta. retries:
    structures may be made again so many times each, on average. covalent: see `StructureGuard`; guarded: False
    switches everything but `not finite` off, for tests of a model.
    """

    sampler: str = DEFAULT_SAMPLER
    steps: int = 40
    eps: float | None = None
    value: float | None = None
    guidance: float = 0.0
    batch_size: int = 64
    relax: int = 0
    max_force: float | None = None
    potential: Potential | None = None
    ff_guidance: float = 0.0
    ff_zeta: float = 3.0
    retries: int = 5
    covalent: float = COVALENT
    guarded: bool = True
    charge: float | None = None  # e, of the structures; the potential may need both
    spin: int | None = None  # 2S + 1
    stop: Callable[[], None] = lambda: None


@dataclass
class Generated:
    """Accepted structures, and how many were refused by reason. attempts: structures made in all."""

    graphs: list[AtomsGraph] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    attempts: int = 0

    def words(self) -> str:
        """`12 of 15 structures passed; refused: too close 2, detached 1`."""
        reasons = ", ".join(f"{name} {n}" for name, n in self.refused.most_common())
        return f"{len(self.graphs)} of {self.attempts} structures passed" + (
            f"; refused: {reasons}" if reasons else ""
        )


def starting_graph(
    model: Denoiser,
    data: DataSummary,
    *,
    n_atoms: int | None = None,
    formula: str | None = None,
    atomic_numbers: Sequence[int] | None = None,
    positions: Any = None,
    cell: Any = None,
    pbc: Sequence[bool] | None = None,
    template: Frame | None = None,
    confinement: tuple[float, float] | None = None,
) -> tuple[AtomsGraph, dict[int, int] | None]:
    """(the structure before its atoms are generated, number of generated atoms by element or None for any).

    Raises SettingsError that names what is missing or too much.
    """
    if positions is not None:
        positions = np.asarray(positions, float)
        if positions.ndim != 2 or positions.shape[1:] != (3,) or not np.isfinite(positions).all():
            raise SettingsError("positions: expected three finite numbers (Å) for each atom")
    numbers, counts = _elements(model, n_atoms, formula, atomic_numbers, positions)
    k = len(numbers)
    if positions is not None and len(positions) != k:
        raise SettingsError(
            f"positions: {len(positions)} atoms for {k} that are generated; give those of the generated atoms only"
        )
    if k < 2 and template is None and isinstance(model.positions, Positions):
        raise SettingsError("formula: one atom alone has no structure")
    if model.positions is None and positions is None:
        raise SettingsError("positions: mandatory, because this model generates elements only")
    if model.positions is not None and positions is not None:
        raise SettingsError("positions: this model generates them; leave them out")
    box, periodic = _cell(model, data, cell, pbc, template)
    walls = confinement or data.confinement
    if walls is not None and (model.architecture.noisers[0] != "ConfinedCellPositions"):
        raise SettingsError(
            "confinement: this model was trained without; train with the noiser ConfinedCellPositions"
        )
    own = np.zeros((k, 3)) if positions is None else positions
    if template is not None:
        _check_template(template, data)
    first = (
        (np.zeros(0, np.int64), np.zeros((0, 3)))
        if template is None
        else (template.numbers, template.positions)
    )
    graph = AtomsGraph(
        x=np.concatenate([first[0], numbers]),
        pos=np.concatenate([first[1], own]),
        cell=box,
        pbc=periodic,
        mask=np.arange(len(first[0]) + k) < len(first[0]),
        confinement=walls,
    )
    check_confinement(graph, "new structures", placed=False)
    _check_reach(graph)
    if data.anchored != bool(graph.fixed.any()) and model.positions is not None:
        had, now = ("with", "without") if data.anchored else ("without", "with")
        raise SettingsError(
            f"template: the model was trained {had} fixed atoms and is asked for structures {now} them; "
            + ("give the template" if data.anchored else "leave the template out")
        )
    return graph, counts


def _check_reach(graph: AtomsGraph) -> None:
    """Raises SettingsError for walls beyond the cell and the fixed atoms."""
    top = abs(float(graph.cell[2, 2]))
    if graph.confinement is None or not top:
        return
    z = graph.pos[graph.fixed, 2]
    low, high = min(0.0, z.min(initial=0.0)), max(top, z.max(initial=top))
    if graph.confinement[0] >= high or graph.confinement[1] <= low:
        raise SettingsError(
            "confinement: {:g} … {:g} Å is outside the cell, which reaches from {:g} to {:g} Å in z".format(
                *graph.confinement, low, high
            )
        )


def _check_template(template: Frame, data: DataSummary) -> None:
    """Raises SettingsError for a template with atoms that are not fixed; warns of one that training never saw."""
    if template.fixed is not None and not template.fixed.all():
        free = np.flatnonzero(~template.fixed.all(axis=1))
        raise SettingsError(
            f"template: {len(free)} of its atoms (the first: {int(free[0]) + 1}) are not fixed; a template holds fixed "
            "atoms only: remove the others, or the constraint if all are to be fixed"
        )
    warn_of_other_cell("template: its cell", template.cell, template.pbc, data)
    if data.fixed_formulas and template.formula not in data.fixed_formulas:
        log.warning(
            "template: %s; the fixed atoms of the training structures are %s",
            template.formula, ", ".join(data.fixed_formulas[:3]),
        )  # fmt: skip


def warn_of_other_cell(what: str, cell: Array, pbc: Any, data: DataSummary) -> None:
    """Warn of a cell (rows, Å) that training never saw. what: begins the sentence."""
    along = np.asarray(pbc if pbc is not None else (True, True, True), bool)
    if data.cell is not None and not is_supercell(cell[along], np.array(data.cell)[along]):
        said = " × ".join(f"{x:.2f}" for x in np.linalg.norm(data.cell, axis=1))
        log.warning("%s is not that of the training structures (%s Å), nor a multiple of it", what, said)


def is_supercell(cell: Array, unit: Array) -> bool:
    """Whether each vector (row, Å) of `cell` has a whole multiple (to 0.05 Å) of the length of that of `unit`, with the
    same angles (cosines to 0.01); the cell may be turned."""
    lengths, single = np.linalg.norm(cell, axis=1), np.linalg.norm(unit, axis=1)
    if not (lengths.all() and single.all()):
        return bool(np.array_equal(lengths, single))
    times = np.maximum(1.0, np.round(lengths / single))
    cosines = [(v / n[:, None]) @ (v / n[:, None]).T for v, n in ((cell, lengths), (unit, single))]
    same_angles = np.abs(cosines[0] - cosines[1]).max(initial=0.0) < 0.01
    return bool(same_angles and np.abs(lengths - times * single).max(initial=0.0) < 0.05)


def check_generating(how: Generating) -> None:
    """Raises SettingsError for numbers that are impossible."""
    for name, fewest in (("steps", 2), ("batch_size", 1), ("relax", 0), ("retries", 0)):
        if getattr(how, name) < fewest:
            raise SettingsError(f"{name}: expected at least {fewest}, got {getattr(how, name)}")
    for name in ("guidance", "ff_guidance", "ff_zeta"):
        value = getattr(how, name)
        if not (np.isfinite(value) and value >= 0):
            raise SettingsError(f"{name}: expected a number ≥ 0, got {value:g}")
    if how.max_force is not None and not how.max_force > 0:
        raise SettingsError(f"max_force: expected a number > 0 (eV/Å), got {how.max_force:g}")


def value_to_steer_towards(
    architecture: Architecture, data: DataSummary, properties: Mapping[str, Any]
) -> float | None:
    """The value of the model's property. Raises SettingsError for a property or a value that it does not know."""
    name, classes = architecture.conditioning, architecture.classes
    for asked, value in properties.items():
        if asked != name:
            known = f"it was trained with {name}" if name else "it was trained without conditioning"
            raise SettingsError(f"property {asked}: not a property of this model; {known}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SettingsError(f"property {asked}: expected a finite number, got {value!r}")
        if classes > 1 and not (value == int(value) and 0 <= value < classes):
            raise SettingsError(f"property {asked}: {value:g}, expected a class from 0 to {classes - 1}")
        limits = data.property_range
        if limits is not None and not limits[0] <= value <= limits[1]:
            log.warning("property %s: %g is outside the training data (%g … %g)", name, value, *limits)
    return float(properties[name]) if properties else None


def generate(
    model: Denoiser,
    data: DataSummary,
    start: AtomsGraph,
    n: int,
    seed_words: Sequence[str | int],
    how: Generating,
    counts: dict[int, int] | None = None,
    types_given: bool = False,
    made: Generated | None = None,
) -> Generated:
    """n structures that pass the guard. counts: of generated elements. types_given: elements are those of `start`.

    made: empty; holds the structures that passed, also when this ends early. Raises GenerationFailed when too many are
    refused.
    """
    if n < 1:
        raise SettingsError(f"n: expected at least 1, got {n}")
    check_generating(how)
    if how.relax and how.potential is None:
        raise SettingsError("relax needs a potential")
    guard = StructureGuard(data, how.covalent)
    made, tries = Generated() if made is None else made, 0
    while len(made.graphs) < n:
        allowed = n * (1 + how.retries) - made.attempts
        if allowed <= 0:
            raise GenerationFailed(
                f"{made.words()}, {n} were asked for; train longer or on more structures, relax with a potential, or "
                "allow more retries",
                [g.to_frame() for g in made.graphs],
            )
        g = torch.Generator().manual_seed(seeds.seed_number("generate", *seed_words, tries))
        batch = sampled(
            model, [start] * min(n - len(made.graphs), allowed, how.batch_size), g, how, counts, types_given
        )
        for graph in _relaxed(batch, how) if how.relax else batch:
            if graph is None:
                made.refused[FAILED] += 1
                continue
            text = guard.refusal(graph)
            if text and (how.guarded or text.startswith("not finite")):
                made.refused[text.partition(":")[0]] += 1
                log.debug("refused: %s", text)
            elif text := _too_forceful(graph, how):
                made.refused[text] += 1
            else:
                made.graphs.append(graph)
        made.attempts += len(batch)
        tries += 1
    return made


def sampled(
    model: Denoiser,
    starts: Sequence[AtomsGraph],
    generator: torch.Generator,
    how: Generating,
    counts: dict[int, int] | None = None,
    types_given: bool = False,
) -> list[AtomsGraph]:
    """One structure for each start, whatever it is."""
    batch, pos, numbers = batch_graphs(starts)
    masked = model.types is not None and not types_given
    classes = torch.full_like(numbers, model.masked)
    if masked:
        classes[~batch.free] = model.classes_of(numbers[~batch.free])
    else:
        classes = model.classes_of(numbers)
    schedule = model.schedule if how.eps is None else replace(model.schedule, low=how.eps)
    left = None
    if not masked:
        left = torch.zeros((len(starts), model.masked), dtype=torch.long)
    elif counts is not None:
        row = [counts.get(z, 0) for z in model.architecture.vocabulary]
        left = torch.tensor([row] * len(starts))
    process = ReverseProcess(
        _steered(model, batch, how, left), model.positions, schedule, how.sampler, how.steps,
        masked=model.masked if masked else None, stop=how.stop,
    )  # fmt: skip
    with torch.no_grad():
        pos, classes = process.run(batch, pos, classes, generator, left)
    numbers = torch.where(batch.free, model.numbers_of(classes.clamp_max(model.masked - 1)), numbers)
    ends = np.cumsum(batch.sizes.numpy())[:-1]
    parts = zip(starts, np.split(pos.numpy(), ends), np.split(numbers.numpy(), ends), strict=True)
    # positions of fixed atoms are those given, bit for bit
    return [replace(s, pos=np.where(s.fixed[:, None], s.pos, p), x=x) for s, p, x in parts]


def _steered(model: Denoiser, batch: BatchedGraphs, how: Generating, left: Tensor | None) -> Denoises:
    """The model with its property and the forces of a potential. left: what `ReverseProcess.run` counts down."""
    condition = None
    if how.value is not None:
        values = torch.full((len(batch),), float(how.value))
        condition = model.standardised(values)

    def denoise(
        b: BatchedGraphs, pos: Tensor, classes: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        d, scores = model(b, pos, classes, sigma, condition, left=left)
        if condition is not None and how.guidance:
            d0, scores0 = model(b, pos, classes, sigma, None, left=left)
            d = d + how.guidance * (d - d0)
            if scores is not None and scores0 is not None:
                scores = scores + how.guidance * (scores - scores0)
        if how.ff_guidance and how.potential is not None and not bool((classes == model.masked).any()):
            d = d + _pushed(model, b, pos + d, classes, sigma, how)
        return d, scores

    return denoise


def _pushed(
    model: Denoiser, batch: BatchedGraphs, pos: Tensor, classes: Tensor, sigma: Tensor, how: Generating
) -> Tensor:
    """σ²·w·F (A, 3) Å at the denoised structure, capped."""
    assert how.potential is not None
    numbers = model.numbers_of(classes).numpy()
    ends = np.cumsum(batch.sizes.numpy())[:-1]
    frames = [
        Frame(z, x, cell, pbc, charge=how.charge, spin=how.spin)
        for z, x, cell, pbc in zip(
            np.split(numbers, ends),
            np.split(pos.numpy(), ends),
            batch.cell.numpy(),
            batch.pbc.numpy(),
            strict=True,
        )
    ]
    labels = labels_or_none(how.potential, frames)
    parts = [
        np.zeros((len(f), 3)) if one is None else one.forces for f, one in zip(frames, labels, strict=True)
    ]
    forces = torch.from_numpy(np.concatenate(parts))
    weight = how.ff_guidance * (1 - model.schedule.time(sigma)) ** how.ff_zeta * sigma**2
    push = torch.nan_to_num(forces) * weight[batch.graph, None]
    size = push.norm(dim=1, keepdim=True).clamp_min(1e-12)
    push = push * (PUSH / size).clamp_max(1.0)
    return push if model.positions is None else model.positions.projected(batch, push)


def _relaxed(graphs: Sequence[AtomsGraph], how: Generating) -> list[AtomsGraph | None]:
    """After a short relaxation; structures that are not finite stay as they are. None where the potential fails."""
    assert how.potential is not None
    whole = [k for k, g in enumerate(graphs) if np.isfinite(g.pos).all() and abs(g.pos).max(initial=0) < 1e4]
    frames = relax_a_little([_charged(graphs[k], how) for k in whole], how.potential, how.relax, how.stop)
    found: list[AtomsGraph | None] = list(graphs)
    for k, frame in zip(whole, frames, strict=True):
        if frame is None:
            found[k] = None
            continue
        pos: Array = np.where(graphs[k].fixed[:, None], graphs[k].pos, frame.positions)
        found[k] = replace(graphs[k], pos=pos)
    return found


def _charged(graph: AtomsGraph, how: Generating) -> Frame:
    """The structure as the potential needs it."""
    return replace(graph.to_frame(), charge=how.charge, spin=how.spin)


def _too_forceful(graph: AtomsGraph, how: Generating) -> str | None:
    if how.max_force is None or how.potential is None:
        return None
    (label,) = labels_or_none(how.potential, [_charged(graph, how)])
    if label is None:
        return FAILED
    force = label.forces[~graph.fixed]
    return None if np.linalg.norm(force, axis=1).max(initial=0.0) <= how.max_force else "forces"


def _elements(
    model: Denoiser,
    n_atoms: int | None,
    formula: str | None,
    atomic_numbers: Sequence[int] | None,
    positions: Any,
) -> tuple[Any, dict[int, int] | None]:
    """(numbers (k,) of the generated atoms, counts by element or None). Raises SettingsError."""
    if formula is not None and atomic_numbers is not None:
        raise SettingsError("formula and atomic_numbers: give one of them")
    numbers = None
    if formula is not None:
        numbers = numbers_of_formula(formula)
    elif atomic_numbers is not None:
        numbers = np.array(atomic_numbers, np.int64)
    if numbers is None:
        if model.types is None:
            raise SettingsError(
                "formula: mandatory, because this model does not generate elements (noiser Types)"
            )
        if n_atoms is None and positions is None:
            raise SettingsError("n_atoms: mandatory without a formula: how many atoms are to be generated?")
        k = n_atoms if n_atoms is not None else len(positions)
        if k < 1:
            raise SettingsError(f"n_atoms: expected at least 1, got {k}")
        return np.full(k, model.architecture.vocabulary[0]), None
    if n_atoms is not None and n_atoms != len(numbers):
        raise SettingsError(f"n_atoms: {n_atoms}, but the formula has {len(numbers)} atoms; give one of them")
    model.classes_of(torch.from_numpy(numbers))
    return numbers, dict(Counter(int(z) for z in numbers))


def numbers_of_formula(formula: str) -> Any:
    """(k,) atomic numbers of a formula such as Pd2O2. Raises SettingsError."""
    from ase.data import atomic_numbers
    from ase.formula import Formula

    try:
        if not re.fullmatch(r"[A-Za-z0-9()]+", formula):
            raise ValueError
        counts = {symbol: k for symbol, k in Formula(formula).count().items() if k}
    except Exception as error:  # ASE's parser raises several kinds
        raise SettingsError(f"formula: {formula!r} cannot be read; expected for example Pd2O2") from error
    if not counts or any(s not in atomic_numbers for s in counts):
        raise SettingsError(f"formula: {formula!r} cannot be read; expected for example Pd2O2")
    return np.concatenate([np.full(k, atomic_numbers[s], np.int64) for s, k in counts.items()])


def _cell(
    model: Denoiser, data: DataSummary, cell: Any, pbc: Sequence[bool] | None, template: Frame | None
) -> tuple[Array, Any]:
    """(cell, pbc): as given, else of the template, else of the model. Raises SettingsError."""
    if isinstance(model.positions, Positions):
        if cell is not None:
            raise SettingsError("cell: this model generates molecules or clusters, which have none")
        if template is not None and np.any(template.pbc):
            raise SettingsError("template: it is periodic, and this model generates molecules or clusters")
        return np.zeros((3, 3)), np.zeros(3, bool)
    if cell is not None and template is not None:
        raise SettingsError("cell: the template has one; give one of them")
    found: Any = None
    periodic: Any = pbc
    if cell is not None:
        try:
            found = np.asarray(cell, float).reshape(3, 3)
        except ValueError:
            raise SettingsError(
                "cell: expected nine numbers, the three vectors one after the other (Å)"
            ) from None
        if not np.isfinite(found).all():
            raise SettingsError("cell: expected finite numbers (Å)")
        if abs(np.linalg.det(found)) < 1e-6:
            raise SettingsError("cell: its vectors span no volume")
    elif template is not None:
        found, periodic = template.cell, template.pbc if pbc is None else pbc
    elif data.cell is not None:
        found = np.array(data.cell)
    elif model.positions is not None or any(data.pbc or ()):
        raise SettingsError(
            "cell: mandatory, because the training structures have different cells; or give a template"
        )
    else:
        return np.zeros((3, 3)), np.zeros(3, bool)
    periodic = data.pbc if periodic is None else periodic
    if cell is not None:
        if np.all(periodic) and np.linalg.det(found) < 0:
            raise SettingsError("cell: its vectors are left-handed (negative volume): swap two of them")
        warn_of_other_cell("cell: it", found, periodic, data)
    if data.pbc is not None and not np.array_equal(np.asarray(periodic, bool), data.pbc):
        had, now = (" ".join("T" if p else "F" for p in pbc) for pbc in (data.pbc, periodic))
        raise SettingsError(f"pbc: the model was trained on structures with pbc {had}, not {now}")
    return found, np.asarray(periodic, bool)
