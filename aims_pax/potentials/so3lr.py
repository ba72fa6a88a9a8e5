"""SO3LR as a `Potential`: all structures of a binding in one evaluation of its network.

    E = Σ_i E_i(environment within 4.5 Å)  +  E_ZBL  +  E_Coulomb(q_i)  +  E_dispersion(Hirshfeld ratios)

Partial charges and Hirshfeld ratios are outputs of the network (Kabylda et al., doi:10.1021/jacs.5c09558). The package
so3krates-torch has the weights and the modules; here are the neighbours, the batch and the derivatives. With
v_e = x_j − x_i + S·h the vector of an edge and g_e = ∂E/∂v_e,

    F_i = Σ_{e from i} g_e − Σ_{e to i} g_e        σ = 1/V · Σ_e v_e ⊗ g_e

Long range: the weights are stored without a cutoff, so a molecule has all its pairs. A periodic structure has pairs
within 12 Å with the smooth cutoff of the package's own calculator. That cutoff r also adds ½·v(r)·Σ q_i² to the energy
(v: the damped Coulomb law), because each atom's own charge is missing in the shift: with 12 Å the O–H bond of water is
0.005 Å longer than without cutoff, so molecules do without.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
import torch

from aims_pax.errors import SettingsError, SetupError
from aims_pax.frames import Frame, Label
from aims_pax.models import memory_budget
from aims_pax.models.batch_splitting import structures_that_fit
from aims_pax.models.neighbour_list import Edges, SkinNeighbours
from aims_pax.potential import Evaluation
from aims_pax.potentials.quiet_packages import quiet_package
from aims_pax.settings.bundled_models import BUNDLED

log = logging.getLogger(__name__)

KNOWN = BUNDLED["so3lr"]
CUTOFF, DAMPING = 12.0, 2.0  # Å, of the long range in periodic structures, as in the package's calculator
SKIN = 0.5  # Å
SPECIES = 118  # length of its one-hot vectors: atomic number Z is column Z − 1
NEAR, FAR = 28_000, 500  # bytes in float32 per edge of the network and of the long range: 1.5 × measured
DENSE = 0.15  # atoms/Å³: denser than steel


class So3lr:
    """The model on one device. device: None for the GPU if there is one. dtype: float32 or float64.

    long_range: cutoff (Å) of the long range in all structures, also in molecules; None: as described above.
    Raises SetupError with the extra to install if the package is missing.
    """

    members = 1

    def __init__(
        self, device: str | None = None, dtype: str = "float32", long_range: float | None = None
    ) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.network = _network(self.device, dtype)
        self.long_range = long_range
        self.elements = tuple(sorted(KNOWN.elements))

    def bind(self, frames: Sequence[Frame]) -> BoundSo3lr:
        """Fix the structures. Raises SettingsError for an element that the model does not know."""
        for frame in frames:
            if text := KNOWN.unsuitable(frame):
                raise SettingsError(f"{text} ({frame.formula}); choose another potential")
        return BoundSo3lr(self.network, frames, self.device, self.long_range)

    def pieces(self, frames: Sequence[Frame]) -> list[range]:
        """Ranges of structures that are evaluated at once within the memory limit, at least one structure each."""
        real = self.network.dtype.itemsize // 4
        sizes = [_bytes(frame, self.network.r_max, self._cutoff(frame), real) for frame in frames]
        limit, found, start = memory_budget.limit(self.device), [], 0
        while start < len(frames):
            end = structures_that_fit(sizes, start, limit)
            found.append(range(start, end))
            start = end
        return found

    def _cutoff(self, frame: Frame) -> float | None:
        return self.long_range or (CUTOFF if frame.pbc.any() else None)

    def evaluate(self, frames: Sequence[Frame]) -> Evaluation:
        """All frames at once: energies (1, F) eV, forces (1, A, 3) eV/Å, stress (1, F, 3, 3) eV/Å³."""
        positions = torch.from_numpy(np.concatenate([f.positions for f in frames])).to(self.device)
        cells = torch.from_numpy(np.stack([f.cell for f in frames])).to(self.device)
        return self.bind(frames)(positions, cells, stress=any(f.periodic for f in frames))

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        """One label per frame; with stress for frames periodic in three directions."""
        labels: list[Label] = []
        for piece in self.pieces(frames):
            chunk = [frames[k] for k in piece]
            said = self.evaluate(chunk)
            forces = np.split(said.forces[0].cpu().numpy(), np.cumsum([len(f) for f in chunk])[:-1])
            for k, frame in enumerate(chunk):
                stress = (
                    said.stress[0, k].cpu().numpy() if said.stress is not None and frame.periodic else None
                )
                labels.append(Label(float(said.energies[0, k]), forces[k], stress))
        return labels


class BoundSo3lr:
    """The model bound to F structures with A atoms in total; molecules and periodic structures are two batches."""

    members = 1

    def __init__(
        self, network: Network, frames: Sequence[Frame], device: str, long_range: float | None = None
    ) -> None:
        self.device, self.frames = device, list(frames)
        sizes = [len(frame) for frame in frames]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        self.n_atoms = int(starts[-1])
        self.parts: list[tuple[torch.Tensor, torch.Tensor, _Batch]] = []
        for periodic in (False, True):
            chosen = [k for k, frame in enumerate(frames) if bool(frame.pbc.any()) == periodic]
            if not chosen:
                continue
            cutoff = long_range or (CUTOFF if periodic else None)
            atoms = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in chosen])
            batch = _Batch(network, [frames[k] for k in chosen], torch.device(device), cutoff)
            self.parts.append((torch.tensor(chosen).to(device), torch.from_numpy(atoms).to(device), batch))

    def __call__(self, positions: torch.Tensor, cells: torch.Tensor, *, stress: bool = False) -> Evaluation:
        """positions: (A, 3), cells: (F, 3, 3), Å float64. Stress is NaN for structures that have none."""
        where = positions.device
        energies = torch.empty((1, len(self.frames)), dtype=torch.float64, device=where)
        forces = torch.empty((1, self.n_atoms, 3), dtype=torch.float64, device=where)
        shape = (1, len(self.frames), 3, 3)
        tensors = torch.full(shape, torch.nan, dtype=torch.float64, device=where) if stress else None
        for chosen, atoms, batch in self.parts:
            energy, force, strain = batch(positions[atoms].detach(), cells[chosen], stress)
            energies[0, chosen], forces[0, atoms] = energy, force
            if tensors is not None and strain is not None:
                volume = torch.linalg.det(cells[chosen]).abs()[:, None, None]
                tensors[0, chosen] = torch.where(batch.periodic[:, None, None], strain / volume, torch.nan)
        return Evaluation(energies, forces, tensors)


class _Batch:
    """Structures that are evaluated at once, with the same long-range cutoff (Å; None: all pairs)."""

    def __init__(
        self, network: Network, frames: Sequence[Frame], device: torch.device, cutoff: float | None
    ) -> None:
        self.network, self.cutoff = network, cutoff
        sizes = torch.tensor([len(frame) for frame in frames])
        numbers = torch.from_numpy(np.concatenate([frame.numbers for frame in frames]))
        self.n_frames, self.n_atoms = len(frames), len(numbers)
        self.frame_of = torch.repeat_interleave(torch.arange(self.n_frames), sizes).to(device)
        self.periodic = torch.tensor([frame.periodic for frame in frames]).to(device)
        self.neighbours: AllPairs | SkinNeighbours = (
            AllPairs(frames, device) if cutoff is None else SkinNeighbours(frames, cutoff, SKIN, device)
        )
        charges = [0.0 if frame.charge is None else frame.charge for frame in frames]
        spins = [0.0 if frame.spin is None else (frame.spin - 1) / 2 for frame in frames]  # S
        real: dict[str, Any] = {"dtype": network.dtype, "device": device}
        self.fixed = {
            "node_attrs": torch.nn.functional.one_hot(numbers - 1, SPECIES).to(**real),
            "atomic_numbers": numbers.to(device),
            "batch": self.frame_of,
            "ptr": torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]).to(device),
            "head": torch.zeros(self.n_frames, dtype=torch.int64, device=device),
            "total_charge": torch.tensor(charges, **real),
            "total_spin": torch.tensor(spins, **real),
            "cell": torch.zeros((3 * self.n_frames, 3), **real),
        }

    def __call__(
        self, positions: torch.Tensor, cells: torch.Tensor, strain: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Energies (F,) eV, forces (A, 3) eV/Å, ∂E/∂ε (F, 3, 3) eV or None; float64."""
        edges = self.neighbours(positions, cells)
        vectors = edges.vectors.detach().to(self.network.dtype).requires_grad_(True)
        energies, gradient = self.network(self.fixed, edges, vectors, self.cutoff)
        pull = gradient.double()
        forces = torch.zeros((self.n_atoms, 3), dtype=torch.float64, device=positions.device)
        forces.index_add_(0, edges.sender, pull).index_add_(0, edges.receiver, -pull)
        energy = forces.new_zeros(self.n_frames).index_add_(0, self.frame_of, energies.double())
        if isinstance(self.neighbours, SkinNeighbours) and self.neighbours.lost.any():
            lost = torch.from_numpy(self.neighbours.lost).to(energy.device)
            energy[lost], forces[lost[self.frame_of]] = torch.nan, torch.nan
        if not strain:
            return energy, forces, None
        products = edges.vectors[:, :, None] * pull[:, None, :]
        derivative = forces.new_zeros((self.n_frames, 3, 3))
        derivative.index_add_(0, self.frame_of[edges.sender], products)
        return energy, forces, (derivative + derivative.mT) / 2


class AllPairs:
    """Every ordered pair of atoms of F molecules, in canonical order."""

    def __init__(self, frames: Sequence[Frame], device: torch.device) -> None:
        senders, receivers, start = [], [], 0
        for frame in frames:
            n = len(frame)
            i, j = np.nonzero(~np.eye(n, dtype=bool))
            senders.append(i + start)
            receivers.append(j + start)
            start += n
        self.sender = torch.from_numpy(np.concatenate(senders)).to(device)
        self.receiver = torch.from_numpy(np.concatenate(receivers)).to(device)

    def __call__(self, positions: torch.Tensor, cells: torch.Tensor) -> Edges:
        return Edges(self.sender, self.receiver, positions[self.receiver] - positions[self.sender])


# ---------------------------------------------------------------- the package


class Network:
    """The package's module. It stores intermediate results in itself, so one thread evaluates it at a time."""

    def __init__(self, module: Any) -> None:
        self.module = module.requires_grad_(False).eval()
        self.dtype = next(module.parameters()).dtype
        self.r_max = float(module.r_max)
        self._one = threading.Lock()

    def __call__(
        self, fixed: dict[str, torch.Tensor], edges: Edges, vectors: torch.Tensor, cutoff: float | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Energies of the atoms (A,) eV and ∂E/∂vectors (E, 3) eV/Å. cutoff: of the long range, Å.

        The module forms x_j − x_i + shift: with all x zero and the vectors as shifts, distances are as accurate as the
        vectors, however far atoms have moved.
        """
        pairs = torch.stack([edges.sender, edges.receiver])
        near = torch.nonzero(edges.vectors.square().sum(-1) <= self.r_max**2).squeeze(-1)
        with self._one, torch.enable_grad():
            self.module.r_max_lr = cutoff
            self.module.dispersion_energy_cutoff_lr_damping = None if cutoff is None else DAMPING
            data = {
                **fixed,
                "positions": vectors.new_zeros((len(fixed["batch"]), 3)),
                "edge_index": pairs[:, near],
                "shifts": vectors[near],
                "edge_index_lr": pairs,
                "shifts_lr": vectors,
            }
            out = self.module(data, compute_force=False)
            (gradient,) = torch.autograd.grad(out["energy"].sum(), vectors, allow_unused=True)
        energies = out["node_energy"].detach().reshape(-1)
        return energies, torch.zeros_like(vectors) if gradient is None else gradient


@lru_cache(maxsize=4)
def _network(device: str, dtype: str) -> Network:
    """The network, loaded once. Raises SetupError if the package or one that it needs is missing."""
    try:
        with quiet_package():
            import so3krates_torch.modules.models  # noqa: F401  # classes of the stored module

            path = resources.files("so3krates_torch").joinpath("pretrained/so3lr/so3lr.model")
            with resources.as_file(path) as file:
                module = torch.load(file, map_location=device, weights_only=False)
            module = module.to(device=device, dtype=getattr(torch, dtype))
    except ImportError as error:
        raise SetupError(f"{KNOWN.missing} ({error})") from error
    log.info("%s: weights of the package %s", KNOWN.title, KNOWN.distribution)
    return Network(module)


def _bytes(frame: Frame, r_max: float, cutoff: float | None, real: int) -> int:
    """Estimated memory of an evaluation, neighbour list included. real: 1 for float32, 2 for float64."""
    n = len(frame)
    volume = abs(float(np.linalg.det(frame.cell))) if frame.periodic else 0.0
    density = max(DENSE, n / volume if volume else 0.0)

    def pairs(reach: float) -> float:
        inside = 4.19 * reach**3 * density
        return n * (inside if frame.pbc.any() else min(n - 1, inside))

    far = n * (n - 1) if cutoff is None else pairs(cutoff)
    return int(real * (NEAR * pairs(r_max) + FAR * far) + memory_budget.GRAPH * far)
