"""Augmentation: makes family trees of rattled structures from a file of structures, without a project.

Every structure is appended to the output as soon as it is accepted, so the same command continues after any stop,
until the requested number is reached.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax import labelled_data
from aims_pax.dataset import cut_torn_structure
from aims_pax.engine.interrupts import InterruptMonitor, remaining_walltime
from aims_pax.engine.outcome import log_outcome
from aims_pax.errors import RestartError, SettingsError
from aims_pax.frames import Frame, LabelledFrame
from aims_pax.labelled_data import LabelKeys, labelled_frame, structure_text
from aims_pax.potential import Potential
from aims_pax.potentials.factory import make_potential
from aims_pax.potentials.named import UserPotential, naming_errors
from aims_pax.record.files import append_text, sync, write_text
from aims_pax.record.lock import Lock
from aims_pax.record.log import to_console
from aims_pax.record.provenance import changes, flat_settings, provenance_refusal
from aims_pax.sampler import SamplingError
from aims_pax.samplers.family_trees import Node, Tree, grow
from aims_pax.samplers.rattle import CELL_CHANGE, Rattling
from aims_pax.samplers.similarity import MinimumImage
from aims_pax.settings.augment import AugmentSettings, ConfigSettings, called, read_augment
from aims_pax.settings.content_hashes import contents
from aims_pax.systems import System, of_aims_only, read_all

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console

log = logging.getLogger(__name__)

KCAL = 0.0019872041  # kcal/(mol·K): Boltzmann constant for calculators with energies in kcal/mol
LOG_EVERY = 30.0  # s
CALCULATOR = "model.calculator"
LOOSE = tuple(  # keys that may change between runs: the message for an incomplete tree advises it
    f"config.{k}"
    for k in (
        "sigma_range", "cell_sigma", "max_force", "min_separation", "max_relax_steps", "similarity_threshold",
        "max_attempts",
    )
)  # fmt: skip
OTHER_OUTPUT = "name another data.output, or remove this file"
START = "starting-structure"  # key of `info`, as in augment-atoms


def augment(config: Path, console: Console) -> None:
    """`aims-PAX augment`: grow a tree of every starting structure and append its members to the output.

    Raises SettingsError; SamplingError at the end when trees are incomplete; RunInterrupted after a signal.
    """
    settings = read_augment(config)
    source, target = Path(settings.data.input), Path(settings.data.output)
    check_augmented_output(source, target)
    systems = read_starting_structures(source, settings.config.cell_sigma is not None)
    starts = [system.frame for system in systems]
    lock = Lock(target.with_name(f".{target.name}.lock"))
    watch = InterruptMonitor(remaining_walltime(None), lock.heartbeat)
    with to_console(console, "INFO"), log_outcome(), watch.listening(), lock.held(watch.raise_if_signalled):
        for warning in (*settings.warnings, *notes_of(systems), *_unit_warning(settings)):
            log.warning("%s", warning)
        trees = restored_trees(starts, settings.config, target)
        made_with = _made_with(settings)
        if any(tree.nodes for tree in trees):
            _compare(target, made_with)
        n = settings.config.n_per_structure
        there, known = sum(len(t.nodes) for t in trees), sum(min(n, len(t.nodes)) for t in trees)
        total = n * len(trees)
        already = (
            f"{there} of {total} structures made"
            if there == known
            else (f"{there} structures exist, {total} were requested")
        )
        log.info("%s: %d starting structures, %s", target, len(trees), already)
        if known == total:
            return
        with naming_errors(CALCULATOR):
            made = make_potential(settings.model.calculator, Path.cwd())
        potential = Counting(UserPotential(made, CALCULATOR, patient=True))
        _remember(target, made_with)
        _grown(trees, n, potential, target, watch)


def _grown(trees: Sequence[Tree], n: int, potential: Counting, target: Path, watch: InterruptMonitor) -> None:
    """Grow each tree to n structures; every new structure is appended to the target at once."""
    made, said = 0, time.monotonic()
    for tree, node in grow(trees, n, potential, watch.raise_if_stopped):
        if node is None:
            log.warning("%s", tree.given_up)
            continue
        append_text(target, node_as_extxyz(tree.name, node))
        made += 1
        if time.monotonic() - said > LOG_EVERY:
            said = time.monotonic()
            total = sum(len(t.nodes) for t in trees)
            log.info("%d of %d structures · %d evaluations", total, n * len(trees), potential.frames)
    if made:
        sync(target)
    rejected = sum((tree.rejected for tree in trees), Counter[str]())
    turned_down = ", ".join(f"{count} {reason}" for reason, count in rejected.most_common()) or "none"
    log.info("%d structures from %d evaluations; rejected: %s", made, potential.frames, turned_down)
    given_up = [tree.given_up for tree in trees if tree.given_up]
    if given_up:
        raise SamplingError(f"{len(given_up)} of {len(trees)} trees are not complete: {given_up[0]}")


class Counting:
    """A potential that counts its evaluated structures."""

    def __init__(self, potential: Potential) -> None:
        self.potential, self.frames = potential, 0

    def labels(self, frames: Sequence[Frame]) -> list[Any]:
        self.frames += len(frames)
        return self.potential.labels(frames)

    def bind(self, frames: Sequence[Frame]) -> Any:
        return self.potential.bind(frames)


# ---------------------------------------------------------------- reading


def read_starting_structures(path: Path, cell_changes: bool = False) -> list[System]:
    """The structures of a file that ASE reads; `@` selects some. Raises SettingsError with file and reason."""
    try:
        systems = read_all(path)
        reasons = [of_aims_only(system.frame) for system in systems]
        if cell_changes:
            reasons += [system.refuses_cell_change(*CELL_CHANGE) for system in systems]
        for reason in filter(None, reasons):
            raise SettingsError(f"{path}: {reason}")
        return systems
    except SettingsError as error:
        raise SettingsError(f"data.input: {error}") from error


def notes_of(systems: Sequence[System]) -> list[str]:
    """Contents of the starting structures that have no effect, each once."""
    return [*dict.fromkeys(note for system in systems for note in system.notes)]


def _unit_warning(settings: AugmentSettings) -> list[str]:
    if settings.config.units == "eV":
        return []
    return [
        f"energies and forces in {settings.data.output} are in {settings.config.units}, as the calculator gives them; "
        "training reads eV and eV/Å: convert them first"
    ]


def restored_trees(starts: Sequence[Frame], config: ConfigSettings, target: Path) -> list[Tree]:
    """A tree of each starting structure, with its structures that are already in the output.

    Raises RestartError when the output contains anything else.
    """
    rattling = Rattling(temperature=config.T, **config.rattling())
    if config.units == "kcal/mol":
        rattling = replace(rattling, k=KCAL)
    nodes: list[list[Node]] = [[] for _ in starts]
    for number, atoms in enumerate(_written(target)):
        where = f"{target}, structure {number} (from 0)"
        try:
            tree, node = _node(atoms)
        except (KeyError, ValueError, TypeError, SettingsError) as error:
            raise RestartError(
                f"{where}: not written by this command ({type(error).__name__}: {error}); name another data.output"
            ) from error
        if not 0 <= tree < len(starts) or not (nodes[tree] or _same(node.frame, starts[tree])):
            raise RestartError(f"{where}: belongs to another starting structure; {OTHER_OUTPUT}")
        if "frame_id" in atoms.info and node.frame.constitution != starts[tree].constitution:
            raise RestartError(
                f"{where}: its starting structure now has another charge, spin, mass, constraint, or initial moment; "
                f"{OTHER_OUTPUT}"
            )
        nodes[tree].append(node)
    return [Tree(str(k), start, rattling, config.seed, nodes[k]) for k, start in enumerate(starts)]


def _written(target: Path) -> Iterator[Atoms]:
    """The structures of the output; an incomplete last one (after a crash) is removed and saved in a copy."""
    if not target.exists():
        return
    cut_torn_structure(target)
    try:
        for _, atoms in labelled_data.read_structures(target):
            yield atoms
    except SettingsError as error:
        raise RestartError(f"{error}; restore this file or remove it") from error


def _node(atoms: Atoms) -> tuple[int, Node]:
    read = labelled_frame(atoms, LabelKeys("energy", "forces", "stress"))
    info = atoms.info
    level = int(info["level"])
    return int(info[START]), Node(
        id=str(info["id"]),
        frame=read.frame,
        label=read.label,
        level=level,
        parent=str(info["parent"]) if level else None,
        relax_steps=int(info["relax_steps"]),
        sigma=float(info["sigma"]) if level else None,
        attempt=int(info.get("attempt", -1)),
    )


def _same(root: Frame, start: Frame) -> bool:
    if len(root) != len(start) or (root.numbers != start.numbers).any() or (root.pbc != start.pbc).any():
        return False
    if abs(root.cell - start.cell).max() > 1e-4:
        return False
    image = MinimumImage(start.cell, start.pbc)  # augment-atoms writes its roots wrapped
    return bool(image.lengths(root.positions - start.positions).max() < 1e-4)


def check_augmented_output(source: Path, target: Path) -> None:
    """Raises SettingsError for an output that cannot be written."""
    if target.suffix not in {".xyz", ".extxyz"}:
        raise SettingsError(f"data.output: {target}: expected a name that ends in .xyz or .extxyz")
    if target.is_dir() or not target.parent.is_dir():
        raise SettingsError(
            f"data.output: {target}: cannot be written there; give a file in an existing folder"
        )
    if target.exists() and source.exists() and target.samefile(source):
        raise SettingsError("data.output: the same file as the input; give another file")


# ---------------------------------------------------------------- settings of the output


def _made_with(settings: AugmentSettings) -> dict[str, str]:
    """The settings that determine the structures, key by key, with hashes of the files that make the potential."""
    config = {k: v for k, v in settings.config if k != "n_per_structure"}
    calculator = settings.model.calculator
    named = calculator if isinstance(calculator, str) else called(calculator)
    if isinstance(calculator, str) and (path := Path(calculator).expanduser()).is_file():
        named += f" (contents {hashlib.sha256(path.read_bytes()).hexdigest()[:8]})"
    own = {} if isinstance(calculator, str) else contents(calculator, Path.cwd())
    return flat_settings({"config": config, "model": {"calculator": named}, "contents": own})


def _compare(target: Path, now: Mapping[str, str]) -> None:
    """Log which settings changed since the existing structures were made. Raises RestartError when they determine the
    structures, so that old and new ones would not belong together."""
    path = _memory(target)
    if not path.exists():
        log.info("%s: its settings are not known; continuing with the present settings", target)
        return
    try:
        before = {
            str(k): str(v) for k, v in json.loads(path.read_text(encoding="utf-8"))["made_with"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RestartError(
            f"{path} cannot be read ({error}); remove it to continue with the present settings"
        ) from error
    both = before.keys() & now.keys()  # keys of only one version are not compared
    before, now = ({k: v for k, v in said.items() if k in both} for said in (before, now))
    firm = [{k: v for k, v in said.items() if k not in LOOSE} for said in (before, now)]
    if refused := changes(*firm):
        raise RestartError(
            provenance_refusal(str(target), refused, f"name another data.output, or remove {target.name}")
        )
    for line in changes(before, now):
        log.info("changed since the last run: %s", line)


def _remember(target: Path, now: Mapping[str, str]) -> None:
    path = _memory(target)
    write_text(path, json.dumps({"made_with": dict(now)}, indent=1) + "\n")


def _memory(target: Path) -> Path:
    return target.with_name(f".{target.name}.settings.json")


# ---------------------------------------------------------------- writing


def node_as_extxyz(tree: str, node: Node) -> str:
    """Extended XYZ of one structure: energy, forces, stress if known, and its origin."""
    labelled = LabelledFrame(node.frame, node.label)
    atoms = node.frame.to_atoms()
    atoms.info.update({START: int(tree), **node.origin(), "energy": node.label.energy})
    atoms.arrays["forces"] = np.array(labelled.label.forces)
    if node.label.stress is not None:
        atoms.info["stress"] = np.ravel(node.label.stress)
    return structure_text(atoms)
