"""Augmentation: a file of structures grows into family trees of rattled ones, without a project around it.

Every structure is appended to the output the moment it is accepted, so the same command goes on after any end,
to the number asked for.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax.dataset import whole_structures
from aims_pax.errors import RestartError, SettingsError
from aims_pax.frames import Frame, LabelledFrame
from aims_pax.potential import Potential
from aims_pax.procedures.calculators import make_potential
from aims_pax.procedures.told import told
from aims_pax.procedures.watch import Watch, walltime
from aims_pax.record.lock import Lock
from aims_pax.record.log import to_console
from aims_pax.samplers.base import SamplingError
from aims_pax.samplers.rattle import Rattling
from aims_pax.samplers.rattle_tree import Node, Tree, grow
from aims_pax.samplers.similarity import MinimumImage
from aims_pax.settings.augment import ConfigSettings, read_augment

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console

log = logging.getLogger(__name__)

KCAL = 0.0019872041  # kcal/(mol·K): Boltzmann constant where the calculator's energies are kcal/mol
TOLD_EVERY = 30.0  # s
START = "starting-structure"  # keys of `info`, as augment-atoms writes them


def augment(config: Path, console: Console) -> None:
    """`aims-PAX augment`: grow a tree of every starting structure and append its members to the output.

    Raises SettingsError; SamplingError at the end when trees were given up; Stopped after a signal.
    """
    settings = read_augment(config)
    source, target = Path(settings.data.input), Path(settings.data.output)
    _check_target(source, target)
    starts = read_structures(source)
    lock = Lock(target.with_name(f".{target.name}.lock"))
    watch = Watch(walltime(None), lock.beat)
    with to_console(console, "INFO"), lock.held(), told(), watch.listening():
        for warning in settings.warnings:
            log.warning("%s", warning)
        trees = planted(starts, settings.config, target)
        n = settings.config.n_per_structure
        there, known = sum(len(t.nodes) for t in trees), sum(min(n, len(t.nodes)) for t in trees)
        total = n * len(trees)
        made = (
            f"{there} of {total} structures made"
            if there == known
            else (f"{there} structures are there, {total} were asked for")
        )
        log.info("%s: %d starting structures, %s", target, len(trees), made)
        if known == total:
            return
        potential = Counting(make_potential(settings.model.calculator, Path.cwd()))
        _grown(trees, n, potential, target, watch)


def _grown(trees: Sequence[Tree], n: int, potential: Counting, target: Path, watch: Watch) -> None:
    """Grow the trees to n each; every new structure goes to the target at once."""
    made, said = 0, time.monotonic()
    with open(target, "ab", buffering=0) as file:
        for tree, node in grow(trees, n, potential, watch.raise_if_stopped):
            if node is None:
                log.warning("%s", tree.given_up)
                continue
            file.write(
                as_text(tree.name, node).encode()
            )  # one write: a line is there whole, or torn at the end
            made += 1
            if time.monotonic() - said > TOLD_EVERY:
                said = time.monotonic()
                total = sum(len(t.nodes) for t in trees)
                log.info("%d of %d structures · %d evaluations", total, n * len(trees), potential.frames)
        os.fsync(file.fileno())
    rejected = sum((tree.rejected for tree in trees), Counter[str]())
    turned_down = ", ".join(f"{count} {reason}" for reason, count in rejected.most_common()) or "none"
    log.info("%d structures from %d evaluations; turned down: %s", made, potential.frames, turned_down)
    given_up = [tree.given_up for tree in trees if tree.given_up]
    if given_up:
        raise SamplingError(f"{len(given_up)} of {len(trees)} trees are not complete: {given_up[0]}")


class Counting:
    """A potential that counts the structures it was asked for."""

    def __init__(self, potential: Potential) -> None:
        self.potential, self.frames = potential, 0

    def labels(self, frames: Sequence[Frame]) -> list[Any]:
        self.frames += len(frames)
        return self.potential.labels(frames)

    def bind(self, frames: Sequence[Frame]) -> Any:
        return self.potential.bind(frames)


# ---------------------------------------------------------------- reading


def read_structures(path: Path) -> list[Frame]:
    """Every structure of an ASE-readable file. Raises SettingsError with file and index."""
    import ase.io

    if not path.is_file():
        raise SettingsError(f"data.input: {path}: no such file")
    try:
        found = ase.io.read(path, index=":")
    except Exception as error:  # ASE's readers raise whatever they trip over
        raise SettingsError(f"data.input: {path}: {type(error).__name__}: {error}") from error
    frames = []
    for index, atoms in enumerate(found):
        try:
            frames.append(Frame.from_atoms(atoms))
        except (SettingsError, ValueError) as error:
            raise SettingsError(f"data.input: {path}, structure {index} (from 0): {error}") from error
        if not len(atoms) or not np.isfinite(frames[-1].positions).all():
            raise SettingsError(f"data.input: {path}, structure {index} (from 0): no atoms, or not finite")
    if not frames:
        raise SettingsError(f"data.input: {path}: no structures in it")
    return frames


def planted(starts: Sequence[Frame], config: ConfigSettings, target: Path) -> list[Tree]:
    """A tree of each starting structure with what the output holds of it already.

    Raises RestartError when the output holds something else.
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
            raise RestartError(
                f"{where}: belongs to another starting structure; name another data.output, or remove this file"
            )
        nodes[tree].append(node)
    return [Tree(str(k), start, rattling, config.seed, nodes[k]) for k, start in enumerate(starts)]


def _written(target: Path) -> Iterator[Atoms]:
    """The structures of the output; what a crash left half-written at its end is cut off."""
    import ase.io

    if not target.exists():
        return
    content = target.read_bytes()
    whole = whole_structures(content.decode("latin-1"))
    if whole < len(content):
        log.warning("%s: the last structure was only half written; dropped, it will be made again", target)
        os.truncate(target, whole)
    if not whole:
        return
    try:
        yield from ase.io.iread(target, index=":", format="extxyz")
    except Exception as error:  # ASE's reader raises whatever it trips over
        raise RestartError(
            f"{target}: {type(error).__name__}: {error}; restore this file or remove it"
        ) from error


def _node(atoms: Atoms) -> tuple[int, Node]:
    read = LabelledFrame.from_atoms(atoms, "energy", "forces", "stress")
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


def _check_target(source: Path, target: Path) -> None:
    if target.suffix not in {".xyz", ".extxyz"}:
        raise SettingsError(f"data.output: {target}: expected a name that ends in .xyz or .extxyz")
    if target.is_dir() or not target.parent.is_dir():
        raise SettingsError(
            f"data.output: {target}: cannot be written there; give a file in an existing folder"
        )
    if target.exists() and source.exists() and target.samefile(source):
        raise SettingsError("data.output: is the input; give another file")


# ---------------------------------------------------------------- writing


def as_text(tree: str, node: Node) -> str:
    """Extended XYZ of one structure: energy, forces, stress if known, and where it came from."""
    import ase.io

    labelled = LabelledFrame(node.frame, node.label)
    atoms = node.frame.to_atoms()
    atoms.info.update({START: int(tree), **node.origin(), "energy": node.label.energy})
    atoms.arrays["forces"] = np.array(labelled.label.forces)
    if node.label.stress is not None:
        atoms.info["stress"] = np.ravel(node.label.stress)
    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz", write_results=False)
    return text.getvalue()
