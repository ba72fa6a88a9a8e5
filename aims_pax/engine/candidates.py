"""Candidates: frames that a stage has made and needs until their labels are in the dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aims_pax.frames import Array, Frame, Label


@dataclass(frozen=True)
class Candidate:
    """A frame whose label is not in the dataset yet.

    origin: the entries that the dataset stores with it: system, stage, step, …
    prediction: of the models, if the stage compares it with the label: `predicted_energies` (M,) eV,
        `predicted_forces` (M, N, 3) eV/Å, `atomic_sd` (N,) eV/Å. Frames of the initial dataset have none.
    label: from the reference, or None before it is computed.
    """

    frame: Frame
    origin: Mapping[str, Any] = field(default_factory=dict)
    prediction: Mapping[str, Array] | None = None
    label: Label | None = None

    @property
    def system(self) -> str | None:
        """Name of the system that it belongs to."""
        return self.origin.get("system")

    def with_label(self, label: Label) -> Candidate:
        return replace(self, label=label)

    def without_prediction(self) -> Candidate:
        return replace(self, prediction=None)

    def arrays(self) -> dict[str, dict[str, Array]]:
        """Its arrays by part and name, as a snapshot stores them: {"frame": …, "label": …, "prediction": …}."""
        parts = {"frame": self.frame.arrays()}
        if self.label is not None:
            parts["label"] = {"energy": np.asarray(self.label.energy), "forces": self.label.forces}
            if self.label.stress is not None:
                parts["label"]["stress"] = self.label.stress
        if self.prediction is not None:
            parts["prediction"] = dict(self.prediction)
        return parts


def candidate_arrays(candidates: Mapping[str, Candidate]) -> dict[str, Array]:
    """All arrays of candidates by the names they have in a snapshot: `part/frame id/name`."""
    return {
        f"{part}/{frame_id}/{name}": array
        for frame_id, candidate in candidates.items()
        for part, arrays in candidate.arrays().items()
        for name, array in arrays.items()
    }


def candidates_from_arrays(
    grouped: Mapping[str, Mapping[str, Mapping[str, Array]]], origins: Mapping[str, Mapping[str, Any]]
) -> dict[str, Candidate]:
    """The inverse of `candidate_arrays`. grouped: arrays by part, frame id and name; origins: by frame id."""
    labels, predictions = grouped.get("label", {}), grouped.get("prediction", {})
    return {
        frame_id: Candidate(
            Frame.from_arrays(arrays),
            dict(origins.get(frame_id, {})),
            predictions.get(frame_id),
            _label(labels[frame_id]) if frame_id in labels else None,
        )
        for frame_id, arrays in grouped.get("frame", {}).items()
    }


def _label(arrays: Mapping[str, Array]) -> Label:
    return Label(arrays["energy"].item(), arrays["forces"], arrays.get("stress"))
