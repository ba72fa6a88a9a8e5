"""What a run says about `target_error`: the mean largest force error with its standard error, and what to do.

The error of the delivered model is taken from frames that influenced no decision (test frames); with fewer than
FEWEST_TESTS of them from the learning curve of the errors that the labelled structures had before they were learnt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aims_pax.core.learning_curve import LearningCurve
from aims_pax.core.stop_rule import TOLERANCE, labels_to_target, mean_error_curve
from aims_pax.frames import Array
from aims_pax.report.accuracy import UNSEEN
from aims_pax.report.formatting import milli, milli_with_error, plural
from aims_pax.report.run_record import RunRecord

FEWEST_TESTS = 5
WIDTH = 1.2816  # standard errors from an estimate to its 90 % bound
MEASURES = (
    f"ACTIVE_LEARNING.n_test: {FEWEST_TESTS} or more test frames would measure the delivered model itself."
)
LARGER = (
    "a larger model (more channels, larger max_L or cutoff in mace.yaml) in a new folder; the labels of this one can "
    "be given as initial_train_dataset"
)


@dataclass(frozen=True)
class ErrorOfSystem:
    """The mean over structures of their largest force error, eV/Å, with its standard error.

    frames: structures that measured it. on: what they are. tested: whether they are test frames. training: the same
    mean over training structures; NaN: unknown, or the last training was cut off, so that it may still fall. curve: of
    the errors before learning, None with too few.
    """

    system: str
    error: float
    standard_error: float
    frames: int
    on: str
    tested: bool
    training: float
    curve: LearningCurve | None

    @property
    def margin(self) -> float:
        """Half the width of the 80 % interval, eV/Å."""
        return WIDTH * (self.standard_error if math.isfinite(self.standard_error) else self.error)

    def text(self) -> str:
        """`ethanol: largest force error 92 ± 5 meV/Å on average of 12 test frames`."""
        error = milli_with_error(self.error, self.standard_error)
        return f"{self.system}: largest force error {error} meV/Å on average of {self.on}"


@dataclass(frozen=True)
class TargetVerdict:
    """kind: reached | doubtful | missed | unreachable | unknown."""

    kind: str
    text: str


def target_of(run: RunRecord) -> float:
    """ACTIVE_LEARNING.target_error in eV/Å; 0 if not set."""
    try:
        return float(run.setting("ACTIVE_LEARNING.target_error", "0"))
    except ValueError:
        return 0.0


def training_cut_off(run: RunRecord) -> bool:
    """Whether the last training was ended by its number of epochs and not by patience."""
    return any(
        s.name == "converge" and (s.stopped or "").startswith("max_convergence_epochs") for s in run.stages
    )


def errors_of_systems(run: RunRecord) -> list[ErrorOfSystem]:
    """One entry per system whose error is known."""
    calibrations = dict(run.calibrations)
    found = []
    for system in dict.fromkeys([*calibrations, *(_systems(run))]):
        tests, training = _largest(run, system, UNSEEN), _largest(run, system, ("train",))
        floor = float(training.mean()) if len(training) and not training_cut_off(run) else math.nan
        curve = None
        if system in calibrations and run.n_train:
            curve = mean_error_curve(calibrations[system], run.n_train, 0.0 if math.isnan(floor) else floor)
        if len(tests) >= FEWEST_TESTS:
            error = float(tests.std(ddof=1)) / math.sqrt(len(tests))
            on = plural(len(tests), "test frame")
            found.append(
                ErrorOfSystem(system, float(tests.mean()), error, len(tests), on, True, floor, curve)
            )
        elif curve is not None:
            now = curve.at(curve.n)
            on = f"{plural(curve.used, 'structure')} before they were learnt"
            found.append(
                ErrorOfSystem(system, now.error, now.standard_error, curve.used, on, False, floor, curve)
            )
    return found


def target_verdict(run: RunRecord) -> TargetVerdict | None:
    """Whether the target was reached on every system, and else what to do; None without a target."""
    target = target_of(run)
    if not target:
        return None
    asked = f"target_error is {milli(target)} meV/Å"
    systems = errors_of_systems(run)
    missing = [s for s in dict(run.calibrations) if s not in {e.system for e in systems}]
    if not systems or missing:
        what = f"{', '.join(missing)}: " if missing else ""
        few = f"{what}too few labelled structures to measure the error"
        text = f"Unknown whether the target was reached: {few}; {asked}."
        return TargetVerdict("unknown", text)
    verdicts = [(_kind(e, target), e) for e in systems]
    kind = next((k for k in ("unreachable", "missed", "doubtful") if k in dict(verdicts)), "reached")
    of_kind = [e for k, e in verdicts if k == kind]
    # of doubtful ones more test frames are the next step
    said = kind == "doubtful" or all(e.tested for e in of_kind)
    return TargetVerdict(kind, _words(kind, of_kind, target, asked) + ("" if said else f" {MEASURES}"))


def what_labels_bring(run: RunRecord) -> list[str]:
    """`ethanol: 40 more labels would bring 151 → 127 ± 12 meV/Å`, of each system with a learning curve."""
    target = target_of(run)
    return [
        f"{e.system}: {labels_to_target(e.curve, target or 0.8 * e.curve.at(e.curve.n).error)} (largest force error)"
        for e in errors_of_systems(run)
        if e.curve is not None
    ]


def _kind(e: ErrorOfSystem, target: float) -> str:
    if e.error <= target:
        return "reached" if e.error + e.margin <= TOLERANCE * target else "doubtful"
    return "unreachable" if e.training > target else "missed"


def _words(kind: str, systems: list[ErrorOfSystem], target: float, asked: str) -> str:
    text = "; ".join(e.text() for e in systems)
    if kind == "reached":
        return f"Target reached: {text}; {asked}."
    if kind == "unreachable":
        text = "; ".join(
            f"{e.text()}, and {milli(e.training)} already on its training frames" for e in systems
        )
        return f"Target cannot be reached with this model size: {text}; {asked}. Next: {LARGER}."
    if kind == "doubtful":
        return (
            f"Target probably reached, but not measured well enough to be sure: {text}; {asked}. Next: more test "
            "frames (ACTIVE_LEARNING.n_test), then run the same command."
        )
    names = [f"{e.system}: " if len(systems) > 1 else "" for e in systems]
    steps = [n + _step(e, target) for n, e in zip(names, systems, strict=True) if e.curve is not None]
    brings = "; ".join(steps)
    near = all(e.error - e.margin <= target for e in systems)
    how = ", by less than the uncertainty of the measurement" if near else ""
    return f"Target not reached{how}: {text}; {asked}." + (f" Expected: {brings}." if brings else "")


def _step(e: ErrorOfSystem, target: float) -> str:
    assert e.curve is not None
    needed = e.curve.more_labels(target)
    far = "" if math.isfinite(needed) and needed < 10 * e.curve.n else " (the target is further away)"
    return f"{labels_to_target(e.curve, target)}{far}"


def _systems(run: RunRecord) -> list[str]:
    return sorted(set(run.predictions["system"].tolist())) if run.predictions else []


def _largest(run: RunRecord, system: str, splits: tuple[str, ...]) -> Array:
    """(F,) eV/Å: largest force error of the delivered model, on each frame of a system in these sets."""
    p = run.predictions
    if not p:
        return np.zeros(0)
    wrong = np.abs(p["forces"] - p["true_forces"]).max(axis=1)  # (A,)
    each = np.array([part.max() for part in np.split(wrong, np.cumsum(p["n_atoms"])[:-1])])
    wanted: Array = each[np.isin(p["split"], splits) & (p["system"] == system)]
    return wanted
