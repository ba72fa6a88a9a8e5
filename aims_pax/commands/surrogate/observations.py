"""Labels of a search: asked from the reference, stored, and found again after any stop.

Before a structure is labelled it is written to `<output>/restart.npy` together with the state of the search, so that
the next run asks for the very same structure, whose label the store may have. `<output>/labelled.xyz` holds all labels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.engine.run_context import LabellingContext
from aims_pax.errors import AimsPaxError, LabelError, RestartError, SettingsError, failure_name
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.labelled_data import to_extxyz
from aims_pax.labelling.reference_potential import ReferencePotential
from aims_pax.models.gp.process import GaussianProcess, needs_featomic
from aims_pax.models.gp.soap import require_featomic
from aims_pax.potentials.baseline import Baseline
from aims_pax.potentials.named import naming_errors
from aims_pax.record.arrays import Torn, pack_arrays, unpack_arrays
from aims_pax.record.files import write_bytes, write_text
from aims_pax.stages.label_list import open_reference

log = logging.getLogger(__name__)

RESTART, LABELLED = "restart.npy", "labelled.xyz"
Arrays = dict[str, NDArray[Any]]


class SearchEnded(AimsPaxError):
    """A search ended without reaching its aim; says why and what was written."""


@dataclass
class Observations:
    """All labels of a search so far. calls: requests of labels, those found in the store included.

    made_with: what the labels and the state depend on; a folder of another search is refused. baseline: the prior mean.
    """

    context: LabellingContext
    folder: Path
    template: Frame
    made_with: Mapping[str, Any]
    max_calls: int
    data: list[LabelledFrame] = field(default_factory=list)
    state: Arrays = field(default_factory=dict)
    round: int = 0
    baseline: Baseline | None = None

    @classmethod
    def opened(
        cls,
        context: LabellingContext,
        folder: Path,
        template: Frame,
        made_with: Mapping[str, Any],
        max_calls: int,
        baseline: Baseline | None = None,
    ) -> Observations:
        """Those of an earlier run in this folder, or none. Raises RestartError for another search."""
        known = {} if baseline is None else {"baseline": baseline.identity}
        found = cls(context, folder, template, {**made_with, **known}, max_calls, baseline=baseline)
        path = folder / RESTART
        if not path.exists():
            if (folder / LABELLED).exists():
                raise RestartError(f"{folder}: holds other files; name another output, or remove it")
            return found
        try:
            arrays, meta = unpack_arrays(path.read_bytes())
        except Torn as error:
            raise RestartError(f"{path}: {error}; remove {folder} to begin again") from error
        if meta["made_with"] != found.made_with:
            names = dict.fromkeys([*meta["made_with"], *found.made_with])
            changed = [k for k in names if meta["made_with"].get(k) != found.made_with.get(k)]
            raise RestartError(
                f"{folder}: of another search ({', '.join(changed)}); name another output, or remove it"
            )
        found.round = int(meta["round"])
        found.state = {k.removeprefix("state/"): a for k, a in arrays.items() if k.startswith("state/")}
        for k, positions in enumerate(arrays["positions"]):
            stress = arrays["stresses"][k] if "stresses" in arrays else np.full((3, 3), np.nan)
            label = Label(
                float(arrays["energies"][k]), arrays["forces"][k], None if np.isnan(stress).any() else stress
            )
            origin = {"method": context.labeller.method}  # the same as then: it is in `made_with`
            found.data.append(LabelledFrame(template.moved(positions), label, origin))
        if "asked" in arrays:
            found._label(template.moved(arrays["asked"]))
        log.info("%s: continues with %d labels, round %d", folder.name, len(found.data), found.round)
        return found

    def label(self, frame: Frame, state: Mapping[str, NDArray[Any]], number: int) -> LabelledFrame:
        """The label of a structure. state, number: of the search, to continue from here.

        Raises SearchEnded when the calls are used up or the reference fails, RunInterrupted.
        """
        known = next((x for x in self.data if x.frame.id == frame.id), None)
        if known is not None:
            return known
        if len(self.data) >= self.max_calls:
            raise SearchEnded(f"not converged after {len(self.data)} reference calculations (max_calls)")
        self.state, self.round = dict(state), number
        self.write(frame)
        return self._label(frame)

    def write(self, asked: Frame | None = None) -> None:
        """Everything that the next run needs. asked: the structure that is labelled next."""
        n = len(self.template)
        arrays: Arrays = {
            "positions": np.array([x.frame.positions for x in self.data]).reshape(-1, n, 3),
            "energies": np.array([x.label.energy for x in self.data]),
            "forces": np.array([x.label.forces for x in self.data]).reshape(-1, n, 3),
            "stresses": np.array([_stress(x.label) for x in self.data]).reshape(-1, 3, 3),
            **{f"state/{k}": a for k, a in self.state.items()},
        }
        if asked is not None:
            arrays["asked"] = asked.positions
        meta = {"made_with": dict(self.made_with), "round": self.round}
        write_bytes(self.folder / RESTART, pack_arrays(arrays, meta))

    def process(self) -> GaussianProcess:
        """A process of all labels. Raises LabelError if the baseline fails."""
        name = "" if self.baseline is None else self.baseline.described
        return GaussianProcess.fit(
            self.data, baseline=self.baseline, baseline_name=name, check=self.context.watch.raise_if_stopped
        )

    def _label(self, frame: Frame) -> LabelledFrame:
        try:
            (label,) = ReferencePotential(self.context.labeller).labels([frame])
        except LabelError as error:
            raise SearchEnded(f"the reference failed: {failure_name(error)}: {error.reason}") from error
        found = LabelledFrame(frame, label, {"method": self.context.labeller.method})
        self.data.append(found)
        write_text(self.folder / LABELLED, to_extxyz(self.data))
        self.write()
        return found


def _stress(label: Label) -> NDArray[Any]:
    """(3, 3) eV/Å³; NaN where there is none."""
    return np.full((3, 3), np.nan) if label.stress is None else label.stress


@contextmanager
def opened_search(
    reference: Any, console: Any, command: str, frames: list[Frame]
) -> Iterator[LabellingContext]:
    """The reference of a search, whose structures are like these. Raises SetupError without the extra `gpr`."""
    if needs_featomic(frames):
        require_featomic()
    with open_reference(reference, console, f"{command}.log", frames) as context:
        yield context


def prior_mean(spelling: Any, frame: Frame) -> Baseline | None:
    """The potential of the key `baseline`, tried on a structure of the search. Raises SettingsError, SetupError."""
    if spelling is None:
        return None
    found = Baseline(spelling, Path.cwd(), key="baseline")
    with naming_errors("baseline"):
        found.potential  # noqa: B018 (loads it)
    try:
        found.label(frame)
    except LabelError as error:
        raise SettingsError(f"{error.reason}; choose another baseline") from error
    return found


def largest_force(frame: Frame, forces: NDArray[Any]) -> float:
    """The largest norm of a force on an atom, without fixed components, eV/Å."""
    free = forces if frame.fixed is None else np.where(frame.fixed, 0.0, forces)
    return float(np.sqrt((free**2).sum(1)).max())


def same_atoms(first: Frame, last: Frame) -> None:
    """Raises SettingsError unless two ends have the same atoms in the same order and cell."""
    if not np.array_equal(first.numbers, last.numbers):
        raise SettingsError(
            f"final: {last.formula} in another order or of other atoms than initial ({first.formula})"
        )
    if not np.allclose(first.cell, last.cell, atol=1e-4) or not np.array_equal(first.pbc, last.pbc):
        raise SettingsError("final: another cell than initial")
    if first.constitution != last.constitution:
        raise SettingsError(
            "final: another charge, spin, moments, masses, fixed atoms or statements of geometry.in than initial"
        )
