"""CHGNet as a `Potential` for crystals: the structures of a call in batches, in the package's own graphs.

The package chgnet has the weights (Deng et al., doi:10.1038/s42256-023-00716-3). They are in single precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from ase.units import GPa

from aims_pax.errors import Crashed, SettingsError, SetupError
from aims_pax.frames import Frame, Label
from aims_pax.potential import Bound, LabelsBound
from aims_pax.potentials.quiet_packages import quiet_package
from aims_pax.settings.bundled_models import BUNDLED

KNOWN = BUNDLED["chgnet"]
VERSION = "0.3.0"  # of the weights
BATCH = 16  # structures at once


class Chgnet:
    """The model on one device. device: None for the GPU if there is one. dtype: not used, it has only float32.

    Raises SetupError with the extra to install if the package is missing.
    """

    members = 1

    def __init__(self, device: str | None = None, dtype: str = "float32") -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.structure_of = _loaded(self.device)
        self.elements = tuple(sorted(KNOWN.elements))

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        """One label per frame, with stress. Raises SettingsError for a frame that is not a crystal of its elements,
        Crashed for one whose graph cannot be made."""
        if not frames:
            return []
        graphs = [self._graph(frame) for frame in frames]
        with quiet_package():
            said = self.model.predict_graph(graphs, task="efs", batch_size=BATCH)
        answers = [said] if len(frames) == 1 else said
        return [self._label(frame, one) for frame, one in zip(frames, answers, strict=True)]

    def bind(self, frames: Sequence[Frame]) -> Bound:
        """Fix the structures. Raises SettingsError as `labels`."""
        for frame in frames:
            self._check(frame)
        return LabelsBound(self.labels, frames)

    def _check(self, frame: Frame) -> None:
        if text := KNOWN.unsuitable(frame):
            raise SettingsError(f"{text} ({frame.formula}); choose another potential")

    def _graph(self, frame: Frame) -> Any:
        self._check(frame)
        try:
            with quiet_package():
                structure = self.structure_of(
                    frame.cell, frame.numbers.tolist(), frame.positions, coords_are_cartesian=True
                )
                return self.model.graph_converter(structure)
        # an atom without neighbours, positions that are not finite
        except (
            ValueError,
            RuntimeError,
        ) as error:
            raise Crashed(f"{KNOWN.name}: {frame.formula}: {error}") from error

    def _label(self, frame: Frame, said: dict[str, Any]) -> Label:
        """In eV, eV/Å and eV/Å³; the package gives eV/atom and GPa."""
        atoms = len(frame) if self.model.is_intensive else 1
        return Label(atoms * float(said["e"]), np.array(said["f"], float), np.array(said["s"], float) * GPa)


@lru_cache(maxsize=4)
def _loaded(device: str) -> tuple[Any, Any]:
    """The model, and the class of the structures that it takes. Raises SetupError if a package is missing."""
    try:
        with quiet_package():
            from chgnet.model import CHGNet
            from pymatgen.core import Structure

            model = CHGNet.load(model_name=VERSION, use_device=device, verbose=False)
    except ImportError as error:
        raise SetupError(f"{KNOWN.missing} ({error})") from error
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.graph_converter.set_isolated_atom_response("error")
    return model, Structure
