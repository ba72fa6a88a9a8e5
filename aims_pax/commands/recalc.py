"""Recalculation: labels an existing dataset again with the reference of this folder's settings, in the same order.

Each label is stored as soon as it is computed, so the same command continues after any stop. Structures that fail are
reported with their index, counted from 0 as in ASE, written to the quarantine, and left out of the result. What else
the file says of a structure is kept (tags, columns, entries of the header), except labels: of two energies of two
methods somebody would take the wrong one.

Isolated neutral atoms are the zero of energy: they are computed as `aims-PAX-atomic-energies` does it, in their ground
state and without the charge, spin and k-points that the reference has for molecules and crystals.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aims_pax import labelled_data
from aims_pax.atoms_info import ZERO_MOMENTS
from aims_pax.core.relabel import Failure
from aims_pax.engine.run_context import LabellingContext
from aims_pax.errors import SettingsError, SetupError, Unphysical, failure_name
from aims_pax.frames import Array, Frame, Label, LabelledFrame
from aims_pax.isolated_atoms import in_ground_state, is_isolated_atom, is_lone
from aims_pax.labelled_data import (
    LARGEST,
    LabelKeys,
    frame_of,
    has_label,
    labelled_frame,
    origin_of,
    structure_text,
)
from aims_pax.record.restart_compatibility import remember_settings
from aims_pax.report.tolerant_readers import structure_headers as structures_of
from aims_pax.settings import effective
from aims_pax.settings.geometries import electrons_of_misc, with_settings
from aims_pax.stages.label_list import LabelRequest, forget_list, label_all, open_reference
from aims_pax.systems import elements

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console

    from aims_pax.settings import LabellingSettings
    from aims_pax.settings.misc import MiscSettings

log = logging.getLogger(__name__)

# columns
OF_THE_FRAME = frozenset(
    ("numbers", "positions", "masses", "initial_magmoms", "initial_charges", "move_mask", ZERO_MOMENTS)
)
_of_a_label = re.compile(
    r"ref_.*|.*(energ|force(?!_?field)|stress|virial|dipole|polari[sz]a(tion|bility)|magmom|hessian|gradient).*"
    r"|e|f|u0?|e_?(tot|dft|scf|ref)|toten"
)


@dataclass(frozen=True)
class ListedStructure:
    """One structure of the input, with its further entries in the file and its old label, if any.

    sound: all numbers are finite. Otherwise the frame has no id. atom: an isolated neutral atom. columns, entries: what
    else is written again, of each atom and of the header. left_out: names of labels under other names, which are not.
    """

    index: int
    frame: Frame
    origin: Mapping[str, str | int | float]
    old: Label | None
    sound: bool
    atom: bool = False
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    entries: Mapping[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"structure {self.index}"

    @property
    def system(self) -> str | None:
        """The geometry it was made from, as aims-PAX writes it to datasets."""
        return str(self.origin["system"]) if "system" in self.origin else None


def run_recalculate(
    settings: LabellingSettings, console: Console, source: Path, target: Path, keep_failed: bool
) -> None:
    """`aims-PAX-recalc`: label every structure of `source` and write them to `target`.

    keep_failed: also write failed structures, without labels and with `failure` and `reason`.
    """
    _check_target(source, target)
    listed, electrons = read_listed_structures(source, settings.misc), electrons_of_misc(settings)
    structures = [_as_requested(s, settings, electrons, source) for s in listed]
    sound = [s for s in structures if s.sound]
    others = [s.frame for s in sound if not s.atom]
    with open_reference(settings, console, "recalculate.log", others) as context:
        log.info("recalculation: %d structures of %s", len(structures), source)
        _tell_atoms(structures)
        _tell_left_out(structures, source)
        wanted = [LabelRequest(s.frame, s.name, s.system, s.atom) for s in sound]
        name = _identity(context, wanted, source)
        _check_existing(context, target, wanted)
        context.labeller.check_elements(elements(s.frame for s in sound))
        by_frame = {f.frame: f for f in label_all(context, wanted, name)}
        failed = {s.index: by_frame[s.frame.id] for s in sound if s.frame.id in by_frame}
        failed |= {s.index: _unsound(s) for s in structures if not s.sound}
        if len(failed) == len(structures):
            forget_list(context, name)
            raise SetupError(
                f"none of the {len(structures)} structures could be labelled; the reasons are above and in "
                f"{context.labeller.quarantine.lines}"
            )
        labels = {s.index: _label(context, s) for s in structures if s.index not in failed}
        made_under = remember_settings(context.folder, effective(settings))
        origins = {s.index: _origin(context, s, source, made_under) for s in structures if s.index in labels}
        context.folder.write_text(target, "".join(_texts(structures, labels, origins, failed, keep_failed)))
        forget_list(context, name)
        _tell(context, structures, labels, failed)
        log.info("done: %d structures in %s", len(structures if keep_failed else labels), target)


# ---------------------------------------------------------------- reading


def read_listed_structures(path: Path, misc: MiscSettings) -> list[ListedStructure]:
    """Every structure of an extended XYZ file, labelled or not. Raises SettingsError with file and structure."""
    found: list[ListedStructure] = []
    for number, atoms in labelled_data.read_structures(path):
        try:
            found.append(_structure(number - 1, atoms, LabelKeys.of(misc)))
        except SettingsError as error:
            raise SettingsError(f"{path}, structure {number - 1} (from 0): {error}") from error
    if not found:
        raise SettingsError(f"{path}: no structures in it")
    return found


def _structure(index: int, atoms: Atoms, keys: LabelKeys) -> ListedStructure:
    sound = bool((abs(atoms.positions) < LARGEST).all() and (abs(atoms.cell.array) < LARGEST).all())
    if not sound:
        atoms.info.pop("frame_id", None)  # a hash of NaN is meaningless
    if sound and has_label(atoms, keys):
        read = labelled_frame(atoms, keys)
        structure = ListedStructure(index, read.frame, read.origin, read.label, sound)
    else:
        with np.errstate(invalid="ignore"):
            frame = frame_of(atoms)
        structure = ListedStructure(index, frame, origin_of(atoms, frame, keys), None, sound)
    return _with_further(structure, atoms, keys)


def _with_further(structure: ListedStructure, atoms: Atoms, keys: LabelKeys) -> ListedStructure:
    """With the columns and entries of the file that belong to the structure, and without those of other labels."""
    replaced = {keys.energy, keys.forces, keys.stress, keys.virials}
    columns = {n: a for n, a in atoms.arrays.items() if n not in OF_THE_FRAME | replaced}
    entries = {
        n: v for n, v in atoms.info.items() if isinstance(v, np.ndarray | dict | list) and n not in replaced
    }
    results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
    labels = set(filter(is_label_name, {*columns, *entries, *structure.origin})) | (results.keys() - replaced)

    def others(named: Mapping[str, Any]) -> dict[str, Any]:
        return {n: value for n, value in named.items() if n not in labels}

    return replace(
        structure,
        origin=others(structure.origin),
        columns=others(columns),
        entries=others(entries),
        left_out=frozenset(labels),
    )


def is_label_name(name: str) -> bool:
    """Whether a column or an entry of a header is called as a label of some method would be.

    >>> [is_label_name(n) for n in ("DFT_energy", "Forces", "forcefield", "config_energy_weight", "E_tot")]
    [True, True, False, False, True]
    """
    return "weight" not in name.lower() and _of_a_label.fullmatch(name.lower()) is not None


def _as_requested(
    structure: ListedStructure, settings: LabellingSettings, electrons: Mapping[str, Any], source: Path
) -> ListedStructure:
    """With MISC.charge and MISC.spin if the structure has none; isolated atoms in their ground state.

    Raises SettingsError for contradictions and unknown ground states.
    """
    frame = structure.frame
    try:
        if not structure.sound:
            return structure
        if is_isolated_atom(structure):
            if frame.pbc.any() and settings.reference.type == "aims":  # needs no cell for an isolated atom
                frame = replace(frame, cell=np.zeros((3, 3)), pbc=np.zeros(3, bool))
            return replace(structure, frame=in_ground_state(frame), atom=True)
        if is_lone(structure):
            return structure
        return replace(structure, frame=with_settings(frame, structure.system, electrons))
    except SettingsError as error:
        raise SettingsError(f"{source}, {structure.name} (from 0): {error}") from error


def _check_target(source: Path, target: Path) -> None:
    if target.is_dir() or not target.parent.is_dir():
        raise SettingsError(f"{target}: cannot be written there; give a file in an existing folder with -o")
    if target.suffix in (".gz", ".bz2", ".xz"):
        raise SettingsError(f"{target}: the output is not compressed; write -o {target.with_suffix('').name}")
    if target.exists() and source.exists() and target.samefile(source):
        raise SettingsError(
            f"{target} is the input; give another file with -o: old labels are never overwritten"
        )


def _check_existing(context: LabellingContext, target: Path, wanted: Sequence[LabelRequest]) -> None:
    """Raise SettingsError for an existing output, unless an earlier run of this command has written it."""
    if not target.exists() or not target.stat().st_size:
        return
    methods = {context.labeller.method_of(w.system, w.atom) for w in wanted}
    made = [s.info for s in structures_of(target) if s.info.get("source", "").startswith("recalc:")]
    if not made or any(info.get("method") not in methods for info in made):
        what = "labels of another method" if made else "something that aims-PAX-recalc did not write"
        raise SettingsError(
            f"{target} exists and contains {what}; name another file with -o, or remove it: no label is overwritten"
        )


def _identity(context: LabellingContext, wanted: Sequence[LabelRequest], source: Path) -> str:
    """The name of this recalculation, from its structures and methods.

    Raises SettingsError when each geometry has its own control file and a structure names no geometry.
    """
    methods: dict[tuple[str | None, bool], str] = {}
    of_frame: dict[str, str] = {}
    digest = hashlib.sha256()
    for one in wanted:
        kind = one.system, one.atom
        if kind not in methods:
            try:
                methods[kind] = context.labeller.method_of(*kind)
            except SetupError as error:
                raise SettingsError(
                    f"{source}, {one.name} (from 0): {error}; set system=NAME in its header, or use one control.in"
                ) from error
        if of_frame.setdefault(one.frame.id, methods[kind]) != methods[kind]:
            raise SettingsError(
                f"{source}, {one.name} (from 0): a duplicate of a structure with another control.in; remove one of them"
            )
        digest.update(f"{one.frame.id} {methods[kind]}\n".encode())
    return f"recalculate-{digest.hexdigest()[:12]}"


# ---------------------------------------------------------------- writing


def _label(context: LabellingContext, structure: ListedStructure) -> Label:
    label = context.labeller.known(structure.frame, structure.system, structure.atom)
    if label is None:
        raise SetupError(
            f"the label of {structure.name} was removed from {context.folder.data / 'labels'}; run again to compute it"
        )
    return label


def _origin(
    context: LabellingContext, structure: ListedStructure, source: Path, made_under: str
) -> dict[str, str]:
    """Origin of the new label; it replaces the origin of the old one."""
    method = context.labeller.method_of(structure.system, structure.atom)
    return {"source": f"recalc:{source.name}#{structure.index + 1}", "method": method, "settings": made_under}


def _unsound(structure: ListedStructure) -> Failure:
    reason = "not calculated: the structure contains NaN, infinity or impossibly large numbers"
    log.warning("%s · %s: %s", structure.name, failure_name(Unphysical), reason)
    return Failure("", failure_name(Unphysical), reason)


def _texts(
    structures: Sequence[ListedStructure],
    labels: Mapping[int, Label],
    origins: Mapping[int, Mapping[str, str]],
    failed: Mapping[int, Failure],
    keep_failed: bool,
) -> Iterable[str]:
    """Extended XYZ of each structure of the result, in the order of the input."""
    for s in structures:
        if s.index in labels:
            labelled = LabelledFrame(s.frame, labels[s.index], {**s.origin, **origins[s.index]})
            yield structure_text(_with_columns(labelled.to_atoms(), s))
        elif keep_failed:
            yield _without_label(s, failed[s.index])


def _without_label(structure: ListedStructure, failure: Failure) -> str:
    with np.errstate(invalid="ignore"):  # the structure may contain NaN
        atoms = structure.frame.to_atoms()
    if not structure.sound:
        del atoms.info["frame_id"]
    atoms.info.update(structure.origin, failure=failure.kind, reason=failure.reason.replace("\n", " "))
    return structure_text(_with_columns(atoms, structure))


def _with_columns(atoms: Atoms, structure: ListedStructure) -> Atoms:
    atoms.info = {**structure.entries, **atoms.info}
    for name, values in structure.columns.items():
        atoms.set_array(name, values)
    return atoms


# ---------------------------------------------------------------- reporting


def _tell_left_out(structures: Sequence[ListedStructure], source: Path) -> None:
    counts = Counter(name for s in structures for name in s.left_out)
    if counts:
        log.warning(
            "not written with the new labels, because they may be those of another method: %s; they stay in %s",
            ", ".join(f"{name} ({n} structures)" for name, n in sorted(counts.items())), source,
        )  # fmt: skip


def _tell_atoms(structures: Sequence[ListedStructure]) -> None:
    atoms = {s.frame.formula: s.frame.spin for s in structures if s.atom}
    if atoms:
        text = ", ".join(f"{symbol} {spin}" for symbol, spin in atoms.items())
        log.info("isolated atoms are computed in their ground state or stated spin, multiplicity: %s", text)


def _tell(
    context: LabellingContext,
    structures: Sequence[ListedStructure],
    labels: Mapping[int, Label],
    failed: Mapping[int, Failure],
) -> None:
    calls = context.labeller.calls
    log.info(
        "reference calculations in this run: %d; labels from the store: %d", calls.finished, calls.reused
    )
    if failed:
        kinds = ", ".join(f"{n} {k}" for k, n in Counter(f.kind for f in failed.values()).most_common())
        log.warning(
            "%d of %d structures failed (%s): indices from 0: %s; see %s; run the same command to try them again",
            len(failed), len(structures), kinds, ranges(sorted(failed)), context.labeller.quarantine.frames,
        )  # fmt: skip
    pairs = [(s.old, labels[s.index]) for s in structures if s.old is not None and s.index in labels]
    if not pairs:
        misc = context.settings.misc
        log.info("no old labels to compare with (looked for %s and %s)", misc.energy_key, misc.forces_key)
    for line in label_differences(pairs):
        log.info("%s", line)


def label_differences(pairs: Sequence[tuple[Label, Label]]) -> list[str]:
    """Lines with errors of new − old labels for energy, forces and stress. pairs: (old, new)."""
    lines = []
    if pairs:
        energy = [np.array([(new.energy - old.energy) / len(new.forces)]) for old, new in pairs]
        forces = [new.forces - old.forces for old, new in pairs]
        mean = f", mean {1000 * np.mean(energy):+.3f}"
        lines.append(f"new − old, {len(pairs)} structures: energy {_errors(energy)} meV/atom{mean}")
        lines.append(f"new − old: forces {_errors(forces)} meV/Å")
    tensors = [
        new.stress - old.stress for old, new in pairs if new.stress is not None and old.stress is not None
    ]
    if tensors:
        lines.append(f"new − old, {len(tensors)} structures: stress {_errors(tensors)} meV/Å³")
    return lines


def _errors(parts: Sequence[Array]) -> str:
    """MAE and RMSE over all components, in thousandths of the unit."""
    values = np.concatenate([np.ravel(p) for p in parts])
    return f"MAE {1000 * np.abs(values).mean():.3f}, RMSE {1000 * np.sqrt(np.square(values).mean()):.3f}"


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as text, consecutive ones as a range.

    >>> ranges([0, 3, 4, 5, 9])
    '0, 3-5, 9'
    """
    runs: list[list[Any]] = []
    for n in numbers:
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
