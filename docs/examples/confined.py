"""A potential: another one, and a soft wall at `radius` Å around the centre, V = k/2 Σ (r − radius)² outside."""

import numpy as np

from aims_pax.frames import Label
from aims_pax.potential import LabelsBound


class Confined:
    def __init__(self, inner, radius, k=1.0):
        self.inner, self.radius, self.k = inner, radius, k

    def labels(self, frames):
        return [
            self._walled(frame, label) for frame, label in zip(frames, self.inner.labels(frames), strict=True)
        ]

    def bind(self, frames):
        return LabelsBound(self.labels, frames)

    def _walled(self, frame, label):
        d = frame.positions - frame.positions.mean(0)
        r = np.linalg.norm(d, axis=1, keepdims=True)
        outside = np.maximum(r - self.radius, 0)
        F = -self.k * outside * d / np.maximum(r, 1e-12)
        return Label(label.energy + 0.5 * self.k * float((outside**2).sum()), label.forces + F - F.mean(0))
