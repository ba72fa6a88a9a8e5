"""Many trajectories as one set of tensors: constant data (`MDBatch`) and data that each step changes (`Motion`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from aims_pax.md.state import MDState


@dataclass(frozen=True)
class MDBatch:
    """F trajectories with A atoms in total, one after another: the data that no step changes.

    system: (A,) the trajectory an atom belongs to. masses: (A, 1) amu.
    free: (A, 3) one where the component may move, else zero. slices: rows of each trajectory.
    stream, step, atom: (A,) the keys of each atom's noise (step: at the start of the batch).
    """

    states: tuple[MDState, ...]
    slices: tuple[slice, ...]
    system: Tensor
    masses: Tensor
    free: Tensor
    stream: Tensor
    step: Tensor
    atom: Tensor
    device: str

    @classmethod
    def of(cls, states: Sequence[MDState], device: str) -> MDBatch:
        sizes = [len(s) for s in states]
        ends = np.cumsum(sizes)

        def tensor(parts: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(device)

        return cls(
            states=tuple(states),
            slices=tuple(slice(int(e) - n, int(e)) for e, n in zip(ends, sizes, strict=True)),
            system=tensor([np.full(n, f) for f, n in enumerate(sizes)]),
            masses=tensor([s.masses for s in states])[:, None],
            free=tensor([np.ones((len(s), 3)) if s.fixed is None else 1.0 - s.fixed for s in states]),
            stream=tensor([np.full(len(s), s.stream) for s in states]),
            step=tensor([np.full(len(s), s.step) for s in states]),
            atom=tensor([np.arange(n) for n in sizes]),
            device=device,
        )

    def per_system(self, values: Sequence[float]) -> Tensor:
        """(F,) float64: one value for each trajectory."""
        return torch.tensor(values, dtype=torch.float64, device=self.device)

    def per_atom(self, values: Sequence[float]) -> Tensor:
        """(A, 1) float64: the value of each atom's trajectory."""
        return self.spread(self.per_system(values))[:, None]

    def spread(self, values: Tensor) -> Tensor:
        """(F, …) → (A, …): the row of each atom's trajectory."""
        return values.index_select(0, self.system)

    def total(self, values: Tensor) -> Tensor:
        """(A, K) → (F, K): summed over the atoms of each trajectory, in their order."""
        k = values.shape[1]
        columns = torch.arange(k, device=values.device)
        index = (self.system[:, None] * k + columns).reshape(-1)
        sums = values.new_zeros(len(self.states) * k).index_add_(0, index, values.reshape(-1))
        return sums.reshape(-1, k)

    def motion(self, extras: Mapping[str, Tensor] | None = None) -> Motion:
        """The motion at the start of the batch; `extras`: variables of the integrator."""

        def tensor(parts: np.ndarray) -> Tensor:
            return torch.from_numpy(parts).to(self.device)

        return Motion(
            positions=tensor(np.concatenate([s.positions for s in self.states])),
            momenta=tensor(np.concatenate([s.momenta for s in self.states])),
            cells=tensor(np.stack([s.cell for s in self.states])),
            extras=dict(extras or {}),
        )

    def remembered(self, name: str, otherwise: Tensor) -> Tensor:
        """(F, …): the stored variable `name` of each trajectory, or its row of `otherwise` where there is none."""
        rows = []
        for f, state in enumerate(self.states):
            stored = state.extras.get(name)
            known = stored is not None and stored.shape == otherwise[f].shape
            rows.append(torch.tensor(stored).to(otherwise) if known else otherwise[f])
        return torch.stack(rows)

    def state(self, f: int, motion: Motion, steps: int, own_arrays: Sequence[str] = ()) -> MDState:
        """Trajectory f as a separate state, `steps` steps after the start; `own_arrays`: names of its extras."""
        state = self.states[f]
        return replace(
            state,
            positions=motion.positions[self.slices[f]].cpu().numpy(),
            momenta=motion.momenta[self.slices[f]].cpu().numpy(),
            cell=motion.cells[f].cpu().numpy(),
            step=state.step + steps,
            extras={name: motion.extras[name][f].cpu().numpy() for name in own_arrays},
        )


@dataclass(frozen=True)
class Motion:
    """The data that each step changes. Tensors are never modified: each step makes new ones.

    positions: (A, 3) Å. momenta: (A, 3) √(eV·amu). cells: (F, 3, 3) Å. extras: (F, …) by name.
    """

    positions: Tensor
    momenta: Tensor
    cells: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Forces:
    """Forces and stress at a `Motion`. forces: (A, 3) eV/Å. stress: (F, 3, 3) eV/Å³, positive in tension,
    or None where no cell moves. Both float64."""

    forces: Tensor
    stress: Tensor | None = None
