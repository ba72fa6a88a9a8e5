"""Compares the user's labels with the reference of the run, which labels a few structures of each file again.

Compared are forces, energy differences within one composition, stress, and the zero of energy, because the user's
and new labels go into one training set. Another functional, other units, a wrong sign or virials instead of stress
change all of them.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax.errors import LabelError, SettingsError, SetupError
from aims_pax.force_units import other_unit
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.given_data import GivenFile, read_given
from aims_pax.isolated_atoms import is_isolated_atom, is_lone
from aims_pax.labelled_data import LabelKeys
from aims_pax.settings.geometries import completing

if TYPE_CHECKING:
    from aims_pax.engine.run_context import RunContext
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)

FILE = "given_check.json"  # in the data folder, for the model card
ENERGY, FORCE, STRESS = 2e-3, 1e-2, 2e-3  # eV/atom, eV/Å, eV/Å³: larger differences give a warning
OTHER = 10.0  # times that: the labels are from another method
RELATIVE = 0.1  # force and stress differences below this fraction of the values count as one method


@dataclass(frozen=True)
class Difference:
    """User's minus reference label over `structures`: RMS of forces and stress, deviation of energies.

    energy: largest deviation from the mean of its composition; shift: mean of the energies (eV/atom).
    scale, stress_scale: RMS of the reference values.
    """

    file: str
    structures: int
    force: float
    scale: float
    energy: float
    shift: float
    stress: float = 0.0
    stress_scale: float = 0.0
    sign: str = ""  # factor by which the tensors differ from the stress: "−V ×", "V ×", "−1 ×"
    unit: str = ""  # of the forces, if it is recognised and not eV/Å

    @property
    def other_method(self) -> bool:
        """Whether the differences are too large for labels of one method."""
        return (
            self.force > max(OTHER / 2 * FORCE, RELATIVE * self.scale)
            or self.energy > OTHER * ENERGY
            or abs(self.shift) > OTHER * ENERGY
            or self.stress > max(OTHER / 2 * STRESS, RELATIVE * self.stress_scale)
        )

    @property
    def notable(self) -> bool:
        limits = (self.force, FORCE), (self.energy, ENERGY), (abs(self.shift), ENERGY), (self.stress, STRESS)
        return any(value > limit for value, limit in limits)

    @property
    def text(self) -> str:
        parts = [
            f"forces differ by {1000 * self.force:.3g} meV/Å (RMS, of {1000 * self.scale:.4g})",
            f"energy differences by {1000 * self.energy:.3g} meV/atom",
            f"the zero of energy by {self.shift:+.4g} eV/atom",
        ]
        if self.stress_scale:
            tensors = f"stress by {1000 * self.stress:.3g} meV/Å³ (RMS, of {1000 * self.stress_scale:.4g})"
            parts.append(tensors + (f": the file contains {self.sign} the stress" if self.sign else ""))
        n = "1 structure" if self.structures == 1 else f"{self.structures} structures"
        return f"{self.file}, {n} labelled again by the reference: {', '.join(parts)}"


def choose_structures(file: GivenFile, n: int) -> list[LabelledFrame]:
    """n structures spread over a file, at least two of them of one composition if the file has such.

    Atoms and ions alone are never chosen: their labels need another input of the reference.
    """
    frames = [f for f in file.frames if not is_lone(f)]
    if len(frames) <= n:
        return frames
    picked = [frames[k] for k in sorted({round(k) for k in np.linspace(0, len(frames) - 1, n)})]
    counts = Counter(f.frame.formula for f in frames)
    formula, most = counts.most_common(1)[0]
    if most > 1 and n > 1 and len({f.frame.formula for f in picked}) == len(picked):
        several = [f for f in frames if f.frame.formula == formula]
        others = [f for f in picked if f.frame.formula != formula]
        picked = [several[0], several[-1], *others[: n - 2]]
    return picked


def difference(name: str, pairs: Sequence[tuple[LabelledFrame, Label]]) -> Difference:
    """Difference between the labels in the user's file and those of the reference."""
    forces = np.concatenate([(given.label.forces - label.forces).ravel() for given, label in pairs])
    scale = np.concatenate([label.forces.ravel() for _, label in pairs])
    energies: dict[str, list[float]] = {}
    for given, label in pairs:
        per_atom = (given.label.energy - label.energy) / len(given.frame)
        energies.setdefault(given.frame.formula, []).append(per_atom)
    inner = [abs(e - np.mean(values)) for values in energies.values() for e in values]
    stressed = [
        (given, given.label.stress, label.stress)
        for given, label in pairs
        if given.label.stress is not None and label.stress is not None
    ]
    tensors: tuple[float, float, str] = (0.0, 0.0, "")
    if stressed:
        ours = np.concatenate([b.ravel() for _, _, b in stressed])
        theirs = np.concatenate([a.ravel() for _, a, _ in stressed])
        tensors = _rms(theirs - ours), _rms(ours), _instead(stressed)
    shift = float(np.mean([e for values in energies.values() for e in values]))
    unit = other_unit(forces + scale, scale) or ""
    return Difference(name, len(pairs), _rms(forces), _rms(scale), float(max(inner)), shift, *tensors, unit)


def _instead(stressed: Sequence[tuple[LabelledFrame, np.ndarray, np.ndarray]]) -> str:
    """The factor by which the tensors differ from the stress ("−V ×", ...); "" if none fits within 5 %."""
    for name, factor in (("−V ×", "virial"), ("V ×", "extensive"), ("−1 ×", "pressure")):
        good = True
        for given, theirs, ours in stressed:
            volume = abs(float(np.linalg.det(given.frame.cell)))
            times = {"virial": -volume, "extensive": volume, "pressure": -1.0}[factor]
            good &= bool(abs(theirs - times * ours).max() <= 0.05 * max(abs(times * ours).max(), 1e-12))
        if good:
            return name
    return ""


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def judged(found: Difference) -> str | None:
    """A warning, or None when the labels agree with the reference. Raises SettingsError for another method."""
    if found.unit:
        raise SettingsError(
            f"{found.text}. The forces look like {found.unit} instead of eV/Å: convert the labels to eV and eV/Å"
        )
    if found.other_method:
        raise SettingsError(
            f"{found.text}. These labels are from another method than the reference of this run; do not mix both in "
            f"one training set: label the file again (aims-PAX-recalc {found.file} -o NEW.xyz), set the reference to "
            "the method of the file, or use the file unchecked with MISC.check_given_data: 0"
        )
    if found.notable:
        return f"{found.text}; the two methods probably differ in basis, grids or k-points"
    return None


def check_learnable(accept: Callable[[Frame], Any], file: GivenFile, key: str) -> None:
    """Raise SettingsError for the first structure that the models cannot learn, because their baseline fails on it.

    accept: `Learner.check_frame`. key: the settings key that names the file. Isolated neutral atoms are not asked for.
    """
    for labelled in file.frames:
        if is_isolated_atom(labelled) and not labelled.frame.pbc.any():
            continue
        try:
            accept(labelled.frame)
        except LabelError as error:
            place = str(labelled.origin["source"]).removeprefix("given:")
            raise SettingsError(
                f"{key}: {place}: {error.reason}; remove this structure, or choose another baseline"
            ) from error


def compare_with_reference(run: RunContext, files: Sequence[GivenFile]) -> None:
    """Label a few structures of each file with the reference of this run, and log how far the user's labels differ.

    Raises SettingsError when they are from another method.
    """
    from aims_pax.stages.label_list import LabelRequest, label_all

    n = run.settings.misc.check_given_data
    by_name = {file.name: file for file in files}
    if not n or not by_name or run.settings.reference.type == "given":
        return
    asked: dict[str, list[tuple[LabelledFrame, str | None]]] = {}
    wanted = []
    for name, file in by_name.items():
        for given in choose_structures(file, n):
            system = str(given.origin["system"]) if "system" in given.origin else None
            try:
                run.labeller.method_of(system)
            except SetupError:
                continue  # each geometry has its own control file, and this structure's is unknown
            asked.setdefault(name, []).append((given, system))
            wanted.append(
                LabelRequest(given.frame, str(given.origin["source"]).removeprefix("given:"), system)
            )
    log.info("given data: the reference labels %d of the structures again, for comparison", len(wanted))
    label_all(run, wanted)
    results = []
    for name in by_name:
        pairs = [(g, label) for g, s in asked.get(name, ()) if (label := run.labeller.known(g.frame, s))]
        if not pairs:
            log.warning("%s: none of its structures could be compared with the reference", name)
            continue
        found = difference(name, pairs)
        results.append(asdict(found))
        warning = judged(found)
        log.log(logging.WARNING if warning else logging.INFO, "%s", warning or found.text)
    run.folder.write_text(run.folder.data / FILE, json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def try_given(settings: Settings, label: Callable[[Frame], Any]) -> list[str]:
    """The same for `aims-PAX check --try`; returns warnings. Raises SettingsError for a file of another method."""
    active, n = settings.active_learning, settings.misc.check_given_data
    if active is None or not n:
        return []
    warnings, completed = [], completing(settings)
    for named in (active.initial_train_dataset, active.initial_valid_dataset):
        for name in dict.fromkeys(named.values() if isinstance(named, dict) else [named] if named else []):
            file = read_given(
                settings.path(name), name, "train", LabelKeys.of(settings.misc), (), settled=completed
            )
            pairs = []
            for given in choose_structures(file, n):
                try:
                    pairs.append((given, label(given.frame)))
                except LabelError as error:
                    warnings.append(
                        f"{given.origin['source']}: the reference cannot label it: {error.reason}"
                    )
            if pairs and (warning := judged(difference(name, pairs))):
                warnings.append(warning)
    return warnings
