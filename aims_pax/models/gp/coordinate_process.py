"""The published process of ænet-gpr: a dense one on Cartesian coordinates, or on spectra at fixed points.

One process for each group of structures with the same atoms in the same order. Scale, weight, noise and constant are
those of train.in; with `fit_scale` the best of {l/2, l, 2l} by evidence and a log-normal prior of l at 0.4 (σ = 0.5),
with `fit_weight` the weight that the evidence determines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.gp.dense_process import CARTESIAN, DenseProcess, DenseShape, fit_dense, with_errors
from aims_pax.models.gp.leave_one_out import LeaveOneOutErrors
from aims_pax.models.gp.process import join_predictions, joined_errors
from aims_pax.models.gp.soap_points import SoapPoints
from aims_pax.models.gp.sparse_process import ProcessPrediction

PRIOR_SCALE, PRIOR_WIDTH = 0.4, 0.5  # of the log-normal prior of l


@dataclass(frozen=True)
class CoordinateOptions:
    """The keys of train.in with these names; points: spectra at fixed points instead of Cartesian coordinates."""

    scale: float = 0.4
    weight: float = 1.0
    fit_scale: bool = True
    fit_weight: bool = True
    prior_update: bool = True
    noise: float = 1e-6
    noisefactor: float = 0.5
    standardization: bool = False
    points: SoapPoints | None = None


@dataclass(frozen=True)
class CoordinateProcess:
    """Fitted processes by the atomic numbers of a structure in its own order. errors: leave-one-out."""

    groups: Mapping[tuple[int, ...], DenseProcess]
    units: Mapping[tuple[int, ...], float]  # eV: labels were divided by it
    errors: LeaveOneOutErrors
    frames: int

    @classmethod
    def fit(
        cls,
        labelled: Sequence[LabelledFrame],
        options: CoordinateOptions,
        check: Callable[[], Any] = lambda: None,
    ) -> CoordinateProcess:
        """Raises SettingsError for more observations than a dense process can have."""
        members: dict[tuple[int, ...], list[int]] = {}
        for k, one in enumerate(labelled):
            members.setdefault(_atoms(one.frame), []).append(k)
        groups, units, parts = {}, {}, []
        for atoms, own in members.items():
            check()
            frames, labels = [labelled[k].frame for k in own], [labelled[k].label for k in own]
            unit = (
                float(np.std([x.energy for x in labels])) if options.standardization and len(own) > 1 else 1.0
            )
            unit = unit or 1.0
            scaled = [Label(x.energy / unit, x.forces / unit) for x in labels]
            fit = with_errors(_fitted(frames, scaled, options), scaled)
            groups[atoms], units[atoms] = fit.process, unit
            parts.append((own, _times(fit.errors, unit)))
        return cls(groups, units, joined_errors(parts, len(labelled)), len(labelled))

    def predict(
        self, frames: Sequence[Frame], spread: bool = False, stress: bool = False
    ) -> ProcessPrediction:
        """Raises SettingsError for structures of other atoms, or in another order; there is no stress."""
        members: dict[tuple[int, ...], list[int]] = {}
        for k, frame in enumerate(frames):
            members.setdefault(_atoms(frame), []).append(k)
        parts = []
        for atoms, own in members.items():
            if atoms not in self.groups:
                raise SettingsError(_not_in_this_order(frames[own[0]]))
            said, unit = self.groups[atoms].predict([frames[k] for k in own], spread), self.units[atoms]
            scaled = ProcessPrediction(said.energies * unit, said.forces * unit)
            if said.energy_sd is not None and said.force_sd is not None:
                scaled = replace(scaled, energy_sd=said.energy_sd * unit, force_sd=said.force_sd * unit)
            parts.append((own, scaled))
        return join_predictions(frames, parts, spread, stress)

    def hyperparameters(self, asked: float | None = None) -> list[str]:
        """One line for each group. asked: the scale that the user wrote."""

        def fitted(scale: float) -> str:
            changed = asked is not None and abs(scale - asked) > 1e-6 * asked
            return f" (fitted: the best of {asked:g} and its half and double)" if changed else ""

        return [
            f"scale {p.shape.scale:.6g}{fitted(p.shape.scale)}, weight {p.amplitude * self.units[atoms]:.6g} eV, "
            f"prior mean {p.mean * self.units[atoms]:.6f} eV"
            for atoms, p in self.groups.items()
        ]


def refuse_other_atoms(train: Sequence[Frame], frames: Sequence[Frame]) -> None:
    """Raises SettingsError for structures of which a process of these training structures could not predict."""
    learnt = {_atoms(f) for f in train}
    for frame in frames:
        if _atoms(frame) not in learnt:
            raise SettingsError(_not_in_this_order(frame))


def _not_in_this_order(frame: Frame) -> str:
    return (
        f"{frame.formula}: no training structure has these atoms in this order, which Cartesian coordinates need; "
        "Descriptor auto does not"
    )


def _fitted(frames: Sequence[Frame], labels: Sequence[Label], options: CoordinateOptions) -> DenseProcess:
    mean: Literal["likely"] | None = "likely" if options.prior_update else None
    noise = options.noise / options.weight
    start = DenseShape(CARTESIAN, options.scale, noise, noise * options.noisefactor, False, options.points)
    amplitude = None if options.fit_weight else options.weight
    factors = (0.5, 1.0, 2.0) if options.fit_scale else (1.0,)
    found: list[DenseProcess] = []
    for factor in factors:
        try:
            own = fit_dense(frames, labels, replace(start, scale=factor * options.scale), mean, amplitude)
        except np.linalg.LinAlgError:  # rows that depend on each other at this scale
            continue
        found.append(own)
    if not found:
        raise SettingsError(
            f"scale: {options.scale:g} with noise {options.noise:g} gives a singular covariance; choose a smaller "
            "scale or a larger noise, or Descriptor auto"
        )

    def prior(process: DenseProcess) -> float:
        log = np.log(process.shape.scale)
        return float(-0.5 * ((log - np.log(PRIOR_SCALE)) / PRIOR_WIDTH) ** 2 - log)

    return max(found, key=lambda p: p.evidence + prior(p))


def _atoms(frame: Frame) -> tuple[int, ...]:
    return tuple(int(z) for z in frame.numbers)


def _times(errors: LeaveOneOutErrors, unit: float) -> LeaveOneOutErrors:
    return LeaveOneOutErrors(
        errors.energies * unit, errors.forces * unit, errors.energy_variances * unit**2,
        errors.force_variances * unit**2,
    )  # fmt: skip
