"""When active learning is done: per system, from the errors of labelled structures, before they were learnt.

Every pair of a calibration measures the mean error of the structures that MD visits: an audit structure directly, a
selected one after its larger spread and its selection are divided out with the fitted map. The models have learnt more
since then, by labels and by epochs: the drift of the validation structures (`error_calibration`) brings each error to
the present (where it is unknown, the learning curve does). The mean, younger ones with more weight, is the present
error; the learning curve says what more labels would bring. Done means one of

    reached      the mean error is below the target and its upper bound below TOLERANCE times the target, the audit
                 structures alone do not contradict it, and MD has reached no new region for the length that is set
    no gain      half as many labels again would lower the error by less than LEAST_GAIN, or FAR times the labels would
                 not reach the target at the confidence asked for
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aims_pax.core.error_calibration import AGEING, ErrorCalibration, pair_weights
from aims_pax.core.learning_curve import LearningCurve, fit_learning_curve
from aims_pax.frames import Array
from aims_pax.wire_names import in_files

FEWEST_AUDITS = 5
FEWEST_PAIRS = 20  # of one window alone the error was once known too low by two fifths
CURVE_AGEING = 0.5
TOLERANCE = 1.2  # of the target, for the upper bound: an error is not known to better than this
PAIRS_OF_PLATEAU = 30
LEAST_GAIN = 0.05  # relative decrease of the error by half as many labels again
FAR = 30
OF_VALIDATION = 0.1  # relative standard error of the drift of validation errors, taken for that of all
NEW_REGION = 2.0  # a structure whose expected error is this many times the target lies in a new region

Verdict = Literal["open", "reached", "no gain"]


@in_files("StopDecision")
@dataclass(frozen=True)
class StopDecision:
    """The decision for one system and the reason as text.

    error, upper: eV/Å, the mean error and its upper bound; NaN: unknown.
    """

    verdict: Verdict
    reason: str
    error: float = math.nan
    upper: float = math.nan


def mean_errors(calibration: ErrorCalibration) -> tuple[Array, Array, Array]:
    """(size of the training set, mean error in eV/Å that each pair measures, its relative scatter), (K,) each."""
    pairs, fitted = calibration.pairs, calibration.map
    if fitted is None:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    x, y, typical = (np.log([getattr(p, k) for p in pairs]) for k in ("spread", "error", "typical"))
    chosen = np.array([p.selected for p in pairs])
    # the error at the mean spread of its time; for audit structures this only removes the part of their scatter that
    # their spread explains (a control variate)
    mean = np.exp(y - fitted.slope * (x - typical) - fitted.selection * chosen) * fitted.mean_factor
    scatter = fitted.scatter * np.where(chosen, 1.0, fitted.narrower)
    scatter = scatter / np.maximum(pair_weights(pairs), 1e-3) ** (CURVE_AGEING / AGEING / 2)
    return np.array([float(p.n_train) for p in pairs]), mean, scatter


def mean_error_curve(
    calibration: ErrorCalibration, n_now: int, training_error: float = 0.0
) -> LearningCurve | None:
    """The learning curve of the mean over structures of their largest force error, from all pairs.

    n_now: size of the training set. training_error: the same mean over training structures in eV/Å; 0: unknown.
    """
    if calibration.map is None:
        return None
    known = progress(calibration)
    common = math.hypot(calibration.map.systematic, OF_VALIDATION if np.isfinite(known).any() else 0.0)
    return fit_learning_curve(*mean_errors(calibration), n_now, training_error, common, known)


def progress(calibration: ErrorCalibration) -> Array:
    """(K,) ln of the errors of now over those at the time of each pair; NaN: unknown."""
    changes = map(calibration.change_since, calibration.pairs)
    return np.array([math.nan if change is None else change.error for change in changes])


def decide(
    calibration: ErrorCalibration,
    n_train: int,
    target: float,
    confidence: float,
) -> StopDecision:
    """The decision for one system, apart from the length of MD without a new region.

    n_train: size of the training set. target: eV/Å, > 0.
    """
    audits = calibration.n_audits
    curve = mean_error_curve(calibration, n_train)
    if curve is None or audits < FEWEST_AUDITS or len(calibration.pairs) < FEWEST_PAIRS:
        known = f"{audits} structures drawn at random, {len(calibration.pairs)} labelled in all"
        return StopDecision("open", f"too few labels to judge: {known}")
    now, upper = curve.at(n_train), curve.upper(n_train, confidence)
    value = f"largest force error {1000 * now.error:.0f} ± {1000 * now.standard_error:.0f} meV/Å on average"
    limit = f"{100 * confidence:.0f} % bound {1000 * upper:.0f}, target {1000 * target:.0f}"
    text = f"{value} ({limit}; {audits} structures drawn at random)"
    if now.error <= target and upper <= TOLERANCE * target and not contradicted(calibration, n_train, target):
        return StopDecision("reached", text, now.error, upper)
    missed = now.error > target and curve.below(n_train, target) < 1 - confidence
    if (
        missed
        and len(calibration.pairs) >= PAIRS_OF_PLATEAU
        and (stuck := _out_of_reach(curve, target, confidence))
    ):
        return StopDecision("no gain", f"{text}; {stuck}", now.error, upper)
    return StopDecision("open", f"{text}; {labels_to_target(curve, target)}", now.error, upper)


def _out_of_reach(curve: LearningCurve, target: float, confidence: float) -> str:
    """Why more labels do not help, or ""."""
    gain, unsure = curve.gain(1.5 * curve.n)
    if gain + 1.64 * unsure < LEAST_GAIN:
        return f"half as many labels again would lower it by {100 * gain:.0f} ± {100 * unsure:.0f} % only"
    if curve.below(FAR * curve.n, target) < 1 - confidence:
        return f"{FAR} times the labels would probably not reach the target"
    return ""


def contradicted(calibration: ErrorCalibration, n_train: int, target: float) -> bool:
    """Whether the audit structures of the last half of the labels alone have an error clearly above the target."""
    since = np.exp(np.nan_to_num(progress(calibration)))  # 1 where it is unknown
    pairs = zip(calibration.pairs, since, strict=True)
    errors = [p.error * r for p, r in pairs if not p.selected and 2 * p.n_train >= n_train]
    if len(errors) < 3:
        return False
    mean, n = float(np.mean(errors)), len(errors)
    return mean - float(np.std(errors, ddof=1)) / math.sqrt(n) > 1.1 * target


def labels_to_target(curve: LearningCurve, target: float) -> str:
    """What more labels would bring: `40 more labels would bring 31 → 27 ± 2 meV/Å`."""
    needed = curve.more_labels(target)
    more = round_label_count(curve.n / 2 if not 0 < needed < 10 * curve.n else needed)
    now, then = curve.at(curve.n), curve.at(curve.n + more)
    gain, unsure = curve.gain(curve.n + more)
    wide = now.error * math.hypot(unsure, (1 - gain) * now.standard_error / now.error)
    step = f"{1000 * now.error:.0f} → {1000 * then.error:.0f} ± {1000 * wide:.0f} meV/Å"
    return f"{more} more labels would bring {step}"


def round_label_count(n: float) -> int:
    """A number of labels with at most two digits that differ from 0, at least 1."""
    if n < 1:
        return 1
    unit = 10 ** max(int(math.log10(n)) - 1, 0)
    return int(math.ceil(n / unit) * unit)
