"""Reads the labelled files that the user provides, and warns about duplicates, overlapping sets and stress.

The origin of their labels is marked `source=given:FILE#7` (structures counted from 1).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax import comment_line, energy_and_forces
from aims_pax.charge_and_spin import check_electrons
from aims_pax.dataset import only_known
from aims_pax.errors import SettingsError
from aims_pax.frames import WEIGHT, Frame, Label, LabelledFrame
from aims_pax.isolated_atoms import is_isolated_atom, is_lone
from aims_pax.label_limits import constrained
from aims_pax.labelled_data import LabelKeys, read_labelled
from aims_pax.surrogate_labels import refuse_surrogate_labels
from aims_pax.xyz_blocks import nth, open_text, structure_blocks

HEAD = "head"  # entry of a header in MACE's files for several methods
GPA = 160.21766  # eV/Å³
SAME_ATOM = 1e-3  # eV: energies of an isolated atom that differ by less are the same
# of MACE
WEIGHTS_OF_LABELS = tuple(f"config_{name}_weight" for name in ("energy", "forces", "stress", "virials"))
HIGH_STRESS = 0.5  # eV/Å³ = 80 GPa
SAME_STRUCTURES = {  # (use of one file, of another one that shares structures with it): what is wrong
    ("train", "valid"): "validation error would be a training error",
    ("train", "test"): "test would be meaningless",
    ("valid", "test"): "test would repeat the validation, by which the delivered weights are chosen",
}


@dataclass(frozen=True)
class GivenFile:
    """A file of labelled structures, named as the user wrote it, and its use: train, valid or test.

    notes: warnings about entries of the file that are not read.
    """

    name: str
    use: str
    frames: tuple[LabelledFrame, ...]
    notes: tuple[str, ...] = ()


def read_given(
    path: Path,
    name: str,
    use: str,
    keys: LabelKeys,
    elements: Sequence[int],
    most: int | None = None,
    settled: Callable[[LabelledFrame], LabelledFrame] = lambda labelled: labelled,
) -> GivenFile:
    """Read a file of labels; the origin of every structure names its place in the file.

    name: as the user wrote it. elements: atomic numbers that the models support; empty: any.
    most: maximum number of structures to read. settled: adds charge and spin of the settings.
    Raises SettingsError with file and structure number.
    """
    frames: Iterable[LabelledFrame] = read_labelled(path, keys)
    frames = only_known(frames, elements, path) if elements else frames
    read = []
    for number, labelled in enumerate(islice(frames, most), 1):
        try:
            whole = settled(labelled)
            _check_electrons(whole.frame)
            _check_forces(whole)
            if use != "test":
                _check_weights(whole)
        except SettingsError as error:
            raise SettingsError(f"{path}, {nth(number)}: {error}") from error
        read.append(replace(whole, origin={**labelled.origin, "source": f"given:{name}#{number}"}))
    if (wrong := energy_and_forces.refusal(read)) is not None:
        raise SettingsError(f"{path}: {wrong}")
    try:
        refuse_surrogate_labels(read, "given as labels of the reference")
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    return GivenFile(name, use, tuple(read), tuple(_free_energies(path, name, keys, read)))


def _free_energies(path: Path, name: str, keys: LabelKeys, read: Sequence[LabelledFrame]) -> Iterator[str]:
    """A warning where another energy than that of which the forces are the derivative is read as label."""
    free = re.sub("energy$", "free_energy", keys.energy)
    if free == keys.energy or keys.energy.endswith("free_energy"):
        return
    with open_text(path) as file:
        comments = [block.comment for block in islice(structure_blocks(file), len(read))]
    apart = []
    for comment, labelled in zip(comments, read, strict=True):
        value = comment_line.parse_comment_line(comment).get(free) if free in comment else None
        if isinstance(value, int | float):
            apart.append((abs(value - labelled.label.energy), len(labelled.frame)))
    if apart and (largest := max(apart))[0] > SAME_ATOM:
        difference, atoms = largest
        yield (
            f"{name}: {keys.energy} and {free} differ by up to {difference:.3g} eV ({1000 * difference / atoms:.3g} "
            f"meV/atom): with an electronic temperature or smearing, forces are the derivative of the free energy; set "
            f"{keys.named('energy')}: {free} if both are of the same calculation"
        )


def _check_electrons(frame: Frame) -> None:
    """Raise SettingsError for a multiplicity that is impossible; a charge that is not written counts as 0."""
    try:
        check_electrons(frame)
    except SettingsError as error:
        unwritten = "" if frame.charge is not None else " (no charge=… is written, which counts as 0)"
        raise SettingsError(f"{error}{unwritten}") from error


def _check_forces(labelled: LabelledFrame) -> None:
    """Raise SettingsError for zeros that stand in place of the forces on fixed atoms: models would learn them."""
    frame, label = labelled.frame, labelled.label
    if frame.fixed is not None and label.forces[~frame.fixed].any() and constrained(frame, label):
        raise SettingsError(
            "all forces on its fixed atoms are exactly zero: a program or ASE has set them to zero because these atoms "
            "are fixed; label the structure again without constraints (aims-PAX-recalc), or give its raw forces"
        )


def _check_weights(labelled: LabelledFrame) -> None:
    """Raise SettingsError for weights of this structure that would not count, or are no weights."""
    weight = labelled.origin.get(WEIGHT, 1.0)
    if isinstance(weight, bool | str) or not 0 <= weight < np.inf:
        raise SettingsError(f"{WEIGHT}={weight}: expected a number of at least 0")
    for name in WEIGHTS_OF_LABELS:
        if labelled.origin.get(name, 1) != 1:
            raise SettingsError(
                f"{name}={labelled.origin[name]}: energy, forces and stress of one structure have one weight; write it "
                f"as {WEIGHT}=…, or remove {name} (the weights of all structures are in TRAINING of mace.yaml)"
            )


def remarks(files: Iterable[GivenFile], keys: LabelKeys, stress_wanted: bool) -> list[str]:
    """Warnings about given files: duplicates, overlapping sets, missing or improbable stress, lone atoms and ions."""
    found: list[str] = []
    files = list(files)
    for file in files:
        found += file.notes
        found += _duplicates(file)
        found += _zero_forces(file, keys)
        found += _stresses(file, keys, stress_wanted)
        found += _ions(file)
    for other in files:
        found += [line for file in files for line in overlap(file, other)]
    train = [labelled for file in files if file.use == "train" for labelled in file.frames]
    found += _excited_atoms(train)
    found += _heads(train)
    return list(dict.fromkeys(found))


def undetermined_energies(frames: Iterable[LabelledFrame], fine_tuned: bool = False) -> str | None:
    """A warning if a least-squares fit to these energies cannot determine those of isolated atoms; otherwise None.

    The fit needs as many independent compositions as elements. fine_tuned: it only corrects a foundation model.
    """
    kinds = {tuple(sorted(f.frame.numbers.tolist())) for f in frames if not is_lone(f) or is_isolated_atom(f)}
    elements = sorted({z for kind in kinds for z in kind})
    if not kinds:
        return None
    counts = np.array([[kind.count(z) for z in elements] for kind in kinds])
    rank = int(np.linalg.matrix_rank(counts))
    if rank >= len(elements):
        return None
    compositions = "one composition does" if rank == 1 else f"{rank} independent compositions do"
    if fine_tuned:
        return (
            f"the given data do not determine the energies of the isolated atoms: {compositions} not fix "
            f"{len(elements)} elements. They are those of the foundation model with the smallest change that fits; "
            "energies of atomisation, of reactions and of other compositions mix its method with yours; to avoid that, "
            "set ARCHITECTURE.atomic_energies in mace.yaml to reference or to your own values"
        )
    return (
        f"the energies of the isolated atoms are not determined by the given data: {compositions} not fix "
        f"{len(elements)} elements, and energies of atomisation, of reactions and of other compositions will be "
        "meaningless; to get them, set ARCHITECTURE.atomic_energies in mace.yaml to reference or to your own values"
    )


def _duplicates(file: GivenFile) -> Iterator[str]:
    first: dict[str, int] = {}
    same: list[tuple[int, int]] = []
    different: list[tuple[int, int]] = []
    for number, labelled in enumerate(file.frames, 1):
        known = first.setdefault(labelled.id, number)
        if known != number:
            label = file.frames[known - 1].label
            (same if _equal(label, labelled.label) else different).append((known, number))
    if different:
        old, new = different[0]
        a, b = (file.frames[k - 1].label for k in (old, new))
        force = float(np.abs(a.forces - b.forces).max())
        yield (
            f"{file.name}: {_structures(len(different))} duplicated with different labels: structure {new} is "
            f"the same as {old} (counted from 1), its energy differs by {b.energy - a.energy:+.6g} eV, its forces "
            f"by up to {force:.3g} eV/Å; only the first label is used: remove the wrong one"
        )
    if same:
        old, new = same[0]
        yield (
            f"{file.name}: {_structures(len(same))} duplicated with the same label, such as {new} and {old} (counted "
            "from 1); each is used once"
        )


def overlap(file: GivenFile, other: GivenFile) -> Iterator[str]:
    """A warning if structures of `other` have been used in the role of `file`, which they must be independent of."""
    what = SAME_STRUCTURES.get((file.use, other.use))
    ids = {labelled.id for labelled in other.frames}
    both = len({labelled.id for labelled in file.frames} & ids)
    if what and both:
        yield (
            f"{other.name}: {both} of its {len(ids)} structures are the same as in {file.name}: for these the {what}; "
            "remove them from one of the two"
        )


def _zero_forces(file: GivenFile, keys: LabelKeys) -> Iterator[str]:
    """A warning where all forces of structures are exactly zero, as programs write it for forces that they lack."""
    zero = [
        k
        for k, f in enumerate(file.frames, 1)
        if len(f.frame) > 1 and not f.label.forces.any() and not is_lone(f)
    ]
    if zero:
        yield (
            f"{file.name}: all forces ({keys.forces}) of {len(zero)} of its structures are exactly zero, the first is "
            f"structure {zero[0]} (counted from 1), and the models learn these zeros: remove these structures if their "
            "forces were not computed; in a perfect crystal they may be right"
        )


def _heads(frames: Sequence[LabelledFrame]) -> Iterator[str]:
    """A warning where training data are of several heads of a MACE model, which usually are several methods."""
    heads = Counter(str(f.origin[HEAD]) for f in frames if HEAD in f.origin)
    if len(heads) > 1:
        named = ", ".join(f"{n} of {head}" for head, n in heads.most_common())
        yield (
            f"the training structures are of several heads ({HEAD}=…: {named}), which in files of MACE are different "
            "methods; the models here have one head and learn all energies as those of one method: keep the structures "
            "of one head if the methods differ"
        )


def _stresses(file: GivenFile, keys: LabelKeys, wanted: bool) -> Iterator[str]:
    periodic = [f for f in file.frames if f.frame.periodic]
    stressed = [f for f in periodic if f.label.stress is not None]
    if wanted and periodic and not stressed:
        yield (
            f"{file.name}: none of its {len(periodic)} periodic structures has a stress (looked for {keys.stress} and "
            f"{keys.virials}), although GENERAL.compute_stress is True: name {keys.named('stress')} or "
            f"{keys.named('virials')}"
        )
    elif wanted and len(stressed) < len(periodic):
        yield f"{file.name}: only {len(stressed)} of its {len(periodic)} periodic structures have a stress"
    if wanted:
        yield from _useless_stresses(file)
    for number, labelled in enumerate(file.frames, 1):
        stress = labelled.label.stress
        if stress is not None and (largest := float(abs(stress).max())) > HIGH_STRESS:
            yield (
                f"{file.name}, {nth(number)}: a stress of {largest:.3g} eV/Å³ = {largest * GPA:.0f} GPa; expected "
                f"eV/Å³: are these virials (eV: {keys.named('virials')}), GPa or kbar?"
            )
            return


def _useless_stresses(file: GivenFile) -> Iterator[str]:
    """Stresses that are zeros in place of numbers, and those that are not learned."""
    given = [(k, f) for k, f in enumerate(file.frames, 1) if f.label.stress is not None]
    zero = [
        k for k, f in given if f.frame.periodic and f.label.stress is not None and not f.label.stress.any()
    ]
    if zero:
        yield (
            f"{file.name}: the stress of {len(zero)} of its structures is exactly zero, the first is structure "
            f"{zero[0]} (counted from 1), and the models learn these zeros: remove it from the header if it was not "
            "computed"
        )
    lost = [k for k, f in given if not f.frame.periodic]
    if lost:
        yield (
            f"{file.name}: the stress of {len(lost)} of its structures is not learned, the first is structure "
            f"{lost[0]} (counted from 1): they are not periodic in three directions"
        )


def _ions(file: GivenFile) -> Iterator[str]:
    places = [k for k, f in enumerate(file.frames, 1) if is_lone(f) and not is_isolated_atom(f)]
    if places and file.use != "test":
        first, ions = file.frames[places[0] - 1].frame, "ion" if len(places) == 1 else "ions"
        yield (
            f"{file.name}: {len(places)} single {ions}, such as structure {places[0]} (counted from 1; "
            f"{first.formula}, charge {first.charge:+g}): only neutral atoms are the zero of energy, and MACE models, "
            "which do not read the charge, learn nothing from ions alone"
        )


def _excited_atoms(frames: Iterable[LabelledFrame]) -> Iterator[str]:
    """One line for each element with isolated neutral atoms of different energies."""
    atoms: dict[str, list[LabelledFrame]] = {}
    for labelled in frames:
        if is_isolated_atom(labelled):
            atoms.setdefault(labelled.frame.formula, []).append(labelled)
    for symbol, found in atoms.items():
        low, high = (choose(found, key=lambda f: f.label.energy) for choose in (min, max))
        if high.label.energy - low.label.energy > SAME_ATOM:
            yield (
                f"isolated {symbol} atoms have energies from {low.label.energy:.6g} ({_place(low)}) to "
                f"{high.label.energy:.6g} eV ({_place(high)}): the lowest is taken as the ground state, the zero of "
                "energy; if that is wrong, remove the wrong ones"
            )


def _place(labelled: LabelledFrame) -> str:
    spin = "" if labelled.frame.spin is None else f", multiplicity {labelled.frame.spin}"
    return f"{str(labelled.origin.get('source', '')).removeprefix('given:')}{spin}"


def _equal(a: Label, b: Label) -> bool:
    def close(x: Any, y: Any) -> bool:
        return (x is None) == (y is None) and (x is None or bool(np.allclose(x, y, rtol=0, atol=1e-6)))

    return close(a.energy, b.energy) and close(a.forces, b.forces) and close(a.stress, b.stress)


def _structures(n: int) -> str:
    return "1 structure is" if n == 1 else f"{n} structures are"


def counted_by(origin: Mapping[str, Any]) -> str:
    """The source of a label: `reference`, or `given` for a label from a file."""
    source = str(origin.get("source", ""))
    return "given" if source.startswith("given") or origin.get("stage") == "given" else "reference"
