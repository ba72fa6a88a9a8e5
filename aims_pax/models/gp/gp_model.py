"""Gaussian processes as models of a run: fitted from scratch at each visit, each with its own uncertainty."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import Abandoned, RestartError
from aims_pax.frames import Frame
from aims_pax.models.base import (
    Arrays,
    ForceFieldModel,
    MemberData,
    MemberResult,
    ModelPotential,
    Words,
    after_training,
    never_stop_training,
)
from aims_pax.models.gp.process import DEFAULT, GaussianProcess, ProcessOptions
from aims_pax.models.gp.process_file import process_content, process_from_content, save_process
from aims_pax.potential import EvaluatedPotential, Evaluation

META = "meta"  # name of the plain values, as JSON in bytes, among the arrays of a member


class GPMember:
    """name, seed: as of every member. epochs: visits so far. process: None before the first visit."""

    def __init__(self, name: str, seed: int, process: GaussianProcess | None = None) -> None:
        self.name, self.seed, self.epochs, self.process = name, seed, 0, process


class GPModel(ForceFieldModel):
    """Members that are fitted to their own data; one is enough, because it predicts its own uncertainty."""

    fits_at_once = True
    has_spread = True

    def __init__(
        self, members: Sequence[GPMember], elements: Sequence[int], options: ProcessOptions = DEFAULT
    ) -> None:
        self.members: Sequence[GPMember] = list(members)
        self.elements, self.options = tuple(sorted(int(z) for z in elements)), options

    @property
    def trained(self) -> bool:
        return all(m.process is not None for m in self.members)

    def train(
        self,
        data: Mapping[int, MemberData],
        epochs: int,
        *,
        words: Words | None = None,
        stop: Callable[[], bool] = never_stop_training,
        valid_skip: int = 1,
        schedule: bool = True,
        margin: float = 0.0,
        patience: int | None = None,
    ) -> list[MemberResult]:
        """One fit of each member; the number of epochs changes nothing."""

        def check() -> None:
            if stop():
                raise Abandoned

        fitted = {m: GaussianProcess.fit(own.train, self.options, check=check) for m, own in data.items()}
        for m, process in fitted.items():
            member = self.members[m]
            member.process, member.epochs = process, member.epochs + epochs
        self.version, self.visits = self.version + 1, self.visits + 1
        looks = zip(data, self.validate(data), strict=True)
        return [after_training(look, epochs, self.members[m].epochs) for m, look in looks]

    def member_arrays(self, member: int) -> Arrays:
        m = self.members[member]
        arrays: Arrays = {"epochs": np.array(m.epochs)}
        if m.process is None:
            return arrays
        content, meta = process_content(m.process)
        plain = np.frombuffer(json.dumps(meta).encode(), np.uint8).copy()
        return {**arrays, META: plain, **{name: np.array(a) for name, a in content.items()}}

    def load_member(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        m = self.members[member]
        m.epochs, m.process = int(arrays["epochs"]), None
        if META not in arrays:
            return
        meta = json.loads(np.asarray(arrays[META]).tobytes())
        process = process_from_content(arrays, meta)
        if not set(process.elements) <= set(self.elements):
            raise RestartError(f"{m.name}: the saved process knows other elements than this run has")
        m.process = process

    def save(self, member: int, path: Path) -> None:
        save_process(self._process(member), path)

    def describe(self, member: int) -> dict[str, Any]:
        process = self.members[member].process
        if process is None:
            return {}
        found: dict[str, Any] = {"structures": process.frames, "loo_force_mae": process.errors.force_mae}
        if process.shared is not None:
            d = process.shared.basis.descriptor
            found |= {"cutoff": d.cutoff, "radial": d.n, "angular": d.l, "width": d.width,
                      "inducing": process.shared.basis.size, "zeta": process.shared.basis.zeta}  # fmt: skip
        return found

    def potential(self, members: Sequence[int] | None = None) -> ModelPotential:
        chosen = range(len(self.members)) if members is None else members
        return MemberPotential(lambda: [self._process(m) for m in chosen], self.elements, len(chosen))

    def _process(self, member: int) -> GaussianProcess:
        m = self.members[member]
        if m.process is None:
            raise RuntimeError(f"{m.name} has not been trained")
        return m.process


class MemberPotential(EvaluatedPotential):
    """processes: the current ones of the members; they are asked for at each evaluation."""

    def __init__(
        self, processes: Callable[[], list[GaussianProcess]], elements: Sequence[int], members: int
    ) -> None:
        def evaluate(frames: Sequence[Frame]) -> Evaluation:
            return joined_evaluations([p.evaluate(frames) for p in processes()])

        super().__init__(evaluate, elements, members, has_spread=True)


def joined_evaluations(parts: Sequence[Evaluation]) -> Evaluation:
    """Evaluations of one member each as one of all; the spread is the root mean square of theirs."""
    stress = None if parts[0].stress is None else np.concatenate([p.stress for p in parts])
    return Evaluation(
        np.concatenate([p.energies for p in parts]),
        np.concatenate([p.forces for p in parts]),
        stress,
        np.sqrt(np.mean([p.spread**2 for p in parts if p.spread is not None], axis=0)),
    )
