"""Calibrated uncertainty: which force error a spread of the committee predicts, learnt from every label of a run.

Each label gives a pair of the spread s before and the error e after, both of one structure in eV/Å. Their relation is a
power law with log-normal scatter,

    ln e = α + β ln(s/s₀) + γ z + σ_z ε,    β ≥ 0,

where z = 1 for structures that were selected (their spread was large), 0 for audit structures, drawn at random.
Selection by the spread alone would leave the relation as it is; selection by anything else (diversity, the moment of
crossing) may not, and γ takes up the difference. Bayesian linear regression with the priors β ~ N(1, 0.35²) (error
proportional to spread) and γ ~ N(0, 0.15²) gives sensible values from five pairs on; with many pairs the priors have
no influence. The scatter of selected structures is larger: often a single atom has made their spread large, and one
error scatters more than the largest of many. σ₁ is fitted; σ₀ has the prior NARROWER · σ₁, worth NARROWER_WEIGHT pairs.

Training changes both: models that have just learnt agree sooner than they are right. The validation structures, which
no model learns, show by how much: their spreads and errors are measured after each training, and the mean changes of
ln s and ln e of those that were there before and after add up to the `Drift` of the models. Every pair is brought to
the present by BELIEVED times the drift since its label. (Not by all of it: validation structures were selected too,
when their errors were large, and the epoch that remains is the best one for them.)

The bound at a confidence is conformal: the weighted quantile of the leave-one-out residuals of the pairs in units of
σ_z, times σ₀ (Vovk et al., Algorithmic Learning in a Random World, 2005; weights as in Barber et al., Ann. Stat. 51,
816, 2023, since pairs of earlier weights of the models are no longer exchangeable with the next). A pair counts with
(n_then/n_now)^AGEING, n the size of the training set. A t distribution of the fitted width, with the weight of PRIOR
pairs, stands where a conformal quantile of few pairs would be infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from aims_pax.frames import Array
from aims_pax.wire_names import in_files

MEMORY = 300  # pairs that a calibration holds
RECENT = 24  # spreads of the last uncertainty checks
FEWEST = 5  # pairs before there is a calibration
AGEING = 1.5
PRIOR = 2.0
NEXT = 0.6
SLOPE, SLOPE_SD = 1.0, 0.35  # β: mean and standard deviation of its prior
SELECTION_SD = 0.15  # γ: standard deviation of its prior
SCATTER, SCATTER_WEIGHT = 0.5, 3.0  # σ₁: its prior value, and the number of pairs which that is worth
# σ₀/σ₁: the same (in runs 0.7 for ethanol and glycol, 0.8 to 1 for copper)
NARROWER, NARROWER_WEIGHT = 0.8, 6.0
BELIEVED = 0.8  # share of the drift of the validation structures that is taken for that of all
SUSPECT = 4.0  # residuals are cut off at this many robust standard deviations in the regression, not in the quantile


@in_files("Drift")
@dataclass(frozen=True)
class Drift:
    """How the models have changed since their first training: ln of the factors of their spreads and their errors."""

    spread: float = 0.0
    error: float = 0.0

    def since(self, before: Drift) -> Drift:
        return Drift(self.spread - before.spread, self.error - before.error)


@in_files("ErrorPair")
@dataclass(frozen=True)
class ErrorPair:
    """One labelled structure. spread, error, mae: eV/Å; error: of its worst force component; mae: mean of all.

    n_train: size of the training set. selected: labelled because of its spread, not drawn at random. typical: mean
    spread (eV/Å) of the structures of fair trajectories that were checked last. drift: of the models at that time;
    None: unknown.
    """

    spread: float
    error: float
    mae: float
    n_train: int
    selected: bool
    typical: float
    bound: float = math.inf  # eV/Å, of its error, before its label was known; inf: there was no map yet
    drift: Drift | None = None


@in_files("ErrorMap")
@dataclass(frozen=True)
class ErrorMap:
    """The fitted relation for structures drawn at random: ln e = intercept + slope · ln s, in eV/Å.

    quantile: of the residual of ln e, at the confidence of the bound. mean_factor: mean of exp(residual). selection: γ.
    scatter: σ₁. narrower: σ₀/σ₁. weight: of all pairs, aged: the number of fresh pairs that they are worth. systematic:
    standard deviation of ln e at the typical spread because β and γ are uncertain.
    """

    intercept: float
    slope: float
    selection: float
    scatter: float
    quantile: float
    mean_factor: float
    weight: float
    systematic: float = 0.0
    narrower: float = 1.0

    def expected(self, spread: float) -> float:
        """Mean error in eV/Å of structures with this spread (eV/Å)."""
        return self.mean_factor * math.exp(self.intercept + self.slope * math.log(max(spread, 1e-9)))

    def bound(self, spread: float) -> float:
        """Upper bound in eV/Å of the error at this spread (eV/Å), at the confidence of the fit."""
        return math.exp(self.intercept + self.quantile + self.slope * math.log(max(spread, 1e-9)))

    def spread_at(self, error: float) -> float:
        """The spread in eV/Å whose bound is this error (eV/Å); 0 or infinity if the error does not depend on it."""
        rest = math.log(error) - self.intercept - self.quantile
        if self.slope < 1e-3:
            return math.inf if rest >= 0 else 0.0
        return math.exp(min(max(rest / self.slope, -50.0), 50.0))


@in_files("ErrorCalibration")
@dataclass(frozen=True)
class ErrorCalibration:
    """The pairs of one system and what follows from them.

    recent: spreads in eV/Å of the last uncertainty checks of fair trajectories. audits, covered: structures drawn at
    random whose error was compared with the bound that was valid before their label, and how many of them were below
    it. quiet: MD steps of all trajectories of the system since a structure in a new region. drift: of the models until
    now. validation: (frame, spread, error) of validation structures after the last training, eV/Å.
    """

    pairs: tuple[ErrorPair, ...] = ()
    recent: tuple[float, ...] = ()
    map: ErrorMap | None = None
    audits: int = 0
    covered: int = 0
    quiet: int = 0
    drift: Drift = Drift()
    validation: tuple[tuple[str, float, float], ...] = ()

    def seen(
        self, spread: float, steps: int = 0, new_above: float = math.inf, fair: bool = True
    ) -> ErrorCalibration:
        """After one more uncertainty check. spread: eV/Å, the largest of the structure. steps: of MD before it.

        new_above: expected error in eV/Å above which the structure lies in a new region. fair: of a trajectory whose
        structures measure the error: the spreads of hotter or biased ones say nothing about its mean.
        """
        new = self.map is not None and self.map.expected(spread) > new_above
        recent = (*self.recent, spread)[-RECENT:] if fair else self.recent
        return replace(self, recent=recent, quiet=0 if new else self.quiet + steps)

    def labelled(
        self, spread: float, error: float, mae: float, n_train: int, selected: bool, confidence: float
    ) -> ErrorCalibration:
        """After one more label. Values as in `ErrorPair`; pairs without a positive finite value are left out."""
        if not all(math.isfinite(v) and v > 0 for v in (spread, error, mae)):
            return self
        bound = math.inf if self.map is None else self.map.bound(spread)
        tested = not selected and self.map is not None
        typical = math.fsum(self.recent) / len(self.recent) if any(self.recent) else spread
        drift = self.drift if self.validation else None
        pair = ErrorPair(spread, error, mae, n_train, selected, typical, bound, drift)
        after = replace(
            self,
            pairs=(*self.pairs, pair)[-MEMORY:],
            audits=self.audits + tested,
            covered=self.covered + (tested and error <= bound),
        )
        return after.fitted(confidence)

    def trained(
        self, validation: tuple[tuple[str, float, float], ...], confidence: float
    ) -> ErrorCalibration:
        """After a training. validation: (frame, spread, error) of validation structures, eV/Å, finite and positive."""
        before = {frame: (spread, error) for frame, spread, error in self.validation}
        changes = [
            (math.log(spread / before[frame][0]), math.log(error / before[frame][1]))
            for frame, spread, error in validation
            if frame in before
        ]
        drift = self.drift
        if changes:
            spreads, errors = (math.fsum(column) / len(changes) for column in zip(*changes, strict=True))
            drift = Drift(drift.spread + spreads, drift.error + errors)
        return replace(self, drift=drift, validation=validation).fitted(confidence)

    def fitted(self, confidence: float) -> ErrorCalibration:
        """With the map that follows from the pairs, brought to the present."""
        return replace(self, map=fit_error_map(tuple(map(self.brought_to_present, self.pairs)), confidence))

    def brought_to_present(self, pair: ErrorPair) -> ErrorPair:
        """The pair as the present models would give it, as far as that is known."""
        change = self.change_since(pair)
        if change is None:
            return pair
        spread, error = math.exp(change.spread), math.exp(change.error)
        return replace(
            pair, spread=pair.spread * spread, typical=pair.typical * spread, error=pair.error * error
        )

    def change_since(self, pair: ErrorPair) -> Drift | None:
        """What the models have changed since this label, as far as it is believed; None: unknown."""
        if pair.drift is None or not self.validation:
            return None
        change = self.drift.since(pair.drift)
        return Drift(BELIEVED * change.spread, BELIEVED * change.error)

    @property
    def n_audits(self) -> int:
        """Number of pairs that were drawn at random."""
        return sum(not p.selected for p in self.pairs)


def fit_error_map(pairs: tuple[ErrorPair, ...], confidence: float) -> ErrorMap | None:
    """The map from these pairs, the last being the newest; None with fewer than FEWEST."""
    if len(pairs) < FEWEST:
        return None
    x, y = (np.log([getattr(p, k) for p in pairs]) for k in ("spread", "error"))
    chosen = np.array([float(p.selected) for p in pairs])
    weights = pair_weights(pairs)
    centre = float(np.average(x, weights=weights))
    design = np.stack([np.ones_like(x), x - centre, chosen], axis=1)  # (K, 3)
    values, covariance, (wide, narrow) = _regression(design, y, weights)
    values[1] = max(values[1], 0.0)
    scatter = np.where(chosen > 0, wide, narrow)
    influence = weights / scatter**2 * np.einsum("ki,ij,kj->k", design, covariance, design)
    residual = (y - design @ values) / scatter / np.maximum(1 - influence, 0.2)  # leave-one-out
    here = np.array([1.0, math.log(pairs[-1].typical) - centre, 0.0])
    systematic = max(float(here @ covariance @ here) - 1 / float((weights / scatter**2).sum()), 0.0)
    factor = weights @ np.exp(narrow * np.minimum(residual, 4.0)) + PRIOR * math.exp(narrow**2 / 2)
    return ErrorMap(
        intercept=float(values[0] - values[1] * centre),
        slope=float(values[1]),
        selection=float(values[2]),
        scatter=wide,
        quantile=narrow * _bound_quantile(residual, weights, confidence),
        mean_factor=float(factor / (weights.sum() + PRIOR)),
        weight=float(weights.sum()),
        systematic=math.sqrt(systematic),
        narrower=narrow / wide,
    )


def pair_weights(pairs: tuple[ErrorPair, ...]) -> Array:
    """(K,) weights of pairs, 1 for the newest: older ones belong to models that have learnt less."""
    n = np.array([max(p.n_train, 1) for p in pairs], float)
    aged: Array = np.minimum(n / n[-1], 1.0) ** AGEING
    return aged


def _regression(design: Array, y: Array, weights: Array) -> tuple[Array, Array, tuple[float, float]]:
    """(α, β, γ), their covariance (3, 3), and (σ₁, σ₀). Outliers are cut off."""
    precision = np.diag([1e-6, 1 / SLOPE_SD**2, 1 / SELECTION_SD**2])
    wanted = precision @ np.array([0.0, SLOPE, 0.0])
    chosen, total = design[:, 2] > 0, float(weights.sum())
    freedom = 1 - min(2.0, 0.3 * total) / total  # share that the fit of (α, β, γ) leaves
    wide, narrow, shown = SCATTER, NARROWER * SCATTER, y
    for _ in range(6):
        scatter = np.where(chosen, wide, narrow)
        precise = weights / scatter**2
        normal = design.T @ (precise[:, None] * design) + precision
        values: Array = np.linalg.solve(normal, design.T @ (precise * shown) + wanted)
        residual = (y - design @ values) / scatter
        width = 1.4826 * float(np.median(np.abs(residual))) + 0.1
        residual = np.clip(residual, -SUSPECT * width, SUSPECT * width) * scatter
        shown = design @ values + residual
        wide = _scatter(residual[chosen], weights[chosen], freedom, SCATTER, SCATTER_WEIGHT)
        narrow = _scatter(residual[~chosen], weights[~chosen], freedom, NARROWER * wide, NARROWER_WEIGHT)
    return values, np.asarray(np.linalg.inv(normal), np.float64), (wide, narrow)


def _scatter(residual: Array, weights: Array, freedom: float, prior: float, worth: float) -> float:
    """Standard deviation of weighted residuals, with a prior value that is worth some pairs."""
    squares = float(weights @ residual**2) + worth * prior**2
    return max(math.sqrt(squares / (freedom * float(weights.sum()) + worth)), 0.02)


def _bound_quantile(residual: Array, weights: Array, confidence: float) -> float:
    """The quantile of ln e − its prediction in units of its scatter, with the prior in the tail and one pair's weight
    for the next one."""
    p = (np.arange(200) + 0.5) / 200
    values = np.concatenate([residual, _t4(p)])
    mass = np.concatenate([weights, np.full(200, PRIOR / 200)])
    order = np.argsort(values)
    reached = (np.cumsum(mass[order]) - 0.5 * mass[order]) / mass.sum()
    level = confidence * (1 + NEXT / (mass.sum() + NEXT))  # the next pair may be anywhere
    return float(np.interp(level, reached, values[order]))


def _t4(p: Array) -> Array:
    """Quantiles of Student's t distribution with 4 degrees of freedom, in units of its standard deviation √2."""
    alpha = np.sqrt(4 * p * (1 - p))
    found: Array = np.sign(p - 0.5) * 2 * np.sqrt(np.cos(np.arccos(alpha) / 3) / alpha - 1) / math.sqrt(2)
    return found
