"""Inference without torch: symmetrix (extra `fast`) evaluates the models it supports, torch all others.

`Backend` chooses once per run. New weights are detected by torch's version counters of the parameters, exported
(`native_export`), read by symmetrix and compared with MACE in float64 on parts of the current structures before
their forces are used. symmetrix gives derivatives for each edge; with v = x_receiver − x_sender + shift:

    p_e = −∂E/∂v_e      F_a = Σ_{e to a} p_e − Σ_{e from a} p_e      dE/dε = −sym Σ_e v_e ⊗ p_e
"""

from __future__ import annotations

import importlib
import io
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aims_pax.errors import SettingsError
from aims_pax.frames import Array
from aims_pax.models.mace.build import model_atomic_energies, share_energies
from aims_pax.models.mace.graphs import EdgeGraph
from aims_pax.models.mace.inference import Evaluator, EvaluatorMaker, TorchEvaluator, cut, torch_evaluator
from aims_pax.models.mace.mace_import import MaceModel, quiet
from aims_pax.models.mace.native_export import Topology
from aims_pax.models.mace.native_support import unsupported_reason
from aims_pax.models.mace.precision import dtype_of
from aims_pax.models.memory_budget import Need

log = logging.getLogger(__name__)

PACKAGE, WRITER = "symmetrix-xl", "orjson"
KNOWN = ("0.1.1",)  # versions with the file layout and evaluator used here
# tolerance of a force: eV/Å, and share of the largest; measured 6e-5, 2e-5
DOUBLE, SINGLE = (
    (1e-5, 1e-6),
    (1e-4, 1e-4),
)
FIRST_LOOK, LATER_LOOK = 96, 24  # atoms per structure used to compare forces: first weights, later weights
# numbers per edge and channel for max_L 0, 1, 2: 20 % more than measured
COPIES, STREAMED = (
    (30, 48, 82),
    (12, 16, 28),
)
WIDE = 96  # channels from which reading new weights takes as long as 40 steps of a committee save
FEW = 8  # up to this many elements of a model are all read, also if they do not occur
Int32 = NDArray[np.int32]


class NativeMismatch(Exception):
    """Native inference and MACE do not agree; the message says by how much."""


def absent() -> str | None:
    """Why symmetrix cannot be used in this environment, or None when it can."""
    try:
        version, _ = metadata.version(PACKAGE), metadata.version(WRITER)
    except metadata.PackageNotFoundError as error:
        return f"the extra 'fast' is not installed: {error.name} is missing (pip install 'aims-pax[fast]')"
    if version not in KNOWN:
        return f"{PACKAGE} {version} is installed, supported is {' or '.join(KNOWN)}"
    try:
        _symmetrix()
        importlib.import_module(WRITER)
    except Exception as error:  # for example a processor without AVX2, or a missing library
        return f"{PACKAGE} {version} cannot be loaded ({error})"
    return None


class Backend:
    """Makes the evaluators of a run, chosen by MISC.inference, the device and the model.

    fallback: makes torch evaluators, used where symmetrix cannot be. what: prefix of the log lines. key: what the user
    wrote to get `native`, for errors. renewed: the weights change again and again, as in a run. Models in single
    precision are then evaluated in it, 1.2 to 1.4 times faster, and `auto` leaves models of many channels to our torch
    forward (measured: benchmarks/md.py --channels 128). Models that stay are evaluated in double precision.
    Raises SettingsError when `native` is set and not possible. With `auto`, torch is used after a comparison has
    failed.
    """

    def __init__(
        self,
        mode: str,
        device: str,
        model: MaceModel,
        fallback: EvaluatorMaker = torch_evaluator,
        what: str = "inference",
        key: str = "MISC.inference: native in mace.yaml",
        renewed: bool = False,
    ) -> None:
        self.mode, self._torch, self.what, self.key = mode, fallback, what, key
        self.refusal = None if mode == "torch" else _refusal(device, model)
        if mode == "auto" and renewed and self.refusal is None:
            self.refusal = _too_slow_to_read(model)
        self._said = mode == "torch"
        self._members: dict[int, NativeMember] = {}
        self.economical = False  # whether evaluations use less memory
        self.single = renewed
        if mode == "native" and self.refusal:
            raise SettingsError(f"{self.key} is not possible: {self.refusal}; or use auto")

    def evaluator(self, models: Sequence[MaceModel], head: int = 0) -> Evaluator:
        """An evaluator for models of one architecture; each model is exported only once."""
        if self.refusal:
            self._say(f"{self.what}: torch, because {self.refusal}")
        if self.mode == "torch" or self.refusal:
            return self._torch(models, head)
        for model in models:
            if id(model) not in self._members:
                self._members[id(model)] = NativeMember(model, self.single)
                if self.economical:
                    self._members[id(model)].stream()
        return NativeEvaluator(self, [self._members[id(m)] for m in models], self._torch(models, head))

    @property
    def members(self) -> list[NativeMember]:
        """All members that symmetrix has read."""
        return list(self._members.values())

    def ready(self, members: Sequence[NativeMember], graph: EdgeGraph) -> bool:
        """Update members, and compare those that have changed; False: torch must be used.

        Raises SettingsError when `native` is set and the comparison fails.
        """
        stale = [m for m in members if m.stale(graph)] if self.refusal is None else []
        try:
            for member in stale:
                difference = self._renew(member, graph)
                version, precision = metadata.version(PACKAGE), "single" if member.single else "double"
                chosen = f"native ({PACKAGE} {version}, {precision} precision)"
                self._say(f"{self.what}: {chosen}, within {difference:.0e} eV/Å of torch")
        except (NativeMismatch, ArithmeticError) as error:
            if self.mode == "native":
                raise SettingsError(f"{self.key}: {error}; use auto or torch") from error
            self.refusal, self._said = str(error), True
            self._members.clear()
            log.warning("%s: torch from now on, because %s", self.what, error)
        return self.refusal is None

    def _renew(self, member: NativeMember, graph: EdgeGraph) -> float:
        """Read the weights of a member and compare it; what single precision cannot do, double precision does."""
        known = member.stamp is not None
        read = member.update()
        atoms = LATER_LOOK if known else FIRST_LOOK
        try:
            difference = member.compare(graph, atoms, by_modules=not known)
        except NativeMismatch as error:
            if not member.single:
                raise
            log.info("%s: native in double precision, because in single precision %s", self.what, error)
            self.single = member.single = False
            read = member.update()
            difference = member.compare(graph, atoms, by_modules=not known)
        member.stamp = read  # only now: if the comparison fails, e.g. by lack of memory, it stays stale
        return difference

    def _say(self, line: str) -> None:
        if not self._said:
            log.info(line)
        self._said = True


@dataclass(frozen=True, eq=False)
class Arrays:
    """A graph as input of symmetrix: edges sorted by sender, `counts` edges for each atom."""

    species: Int32
    counts: Int32
    sender: NDArray[np.int64]
    receiver: NDArray[np.int64]
    receiver32: Int32
    receiver_species: Int32
    vectors: Array
    lengths: Array
    frame_of: NDArray[np.int64]
    ptr: NDArray[np.int64]

    @classmethod
    def of(cls, graph: EdgeGraph) -> Arrays:
        sender, receiver, vectors = graph.sender.numpy(), graph.receiver.numpy(), graph.vectors.numpy()
        species = graph.species.numpy().astype(np.int32)
        receiver32 = receiver.astype(np.int32)
        return cls(
            species=species,
            counts=np.bincount(sender, minlength=len(species)).astype(np.int32),
            sender=sender,
            receiver=receiver,
            receiver32=receiver32,
            receiver_species=species[receiver32],
            vectors=np.ascontiguousarray(vectors),
            lengths=np.sqrt(np.einsum("ec,ec->e", vectors, vectors)),
            frame_of=graph.frame_of.numpy(),
            ptr=graph.ptr.numpy(),
        )


class NativeMember:
    """One model read by symmetrix, and a float64 copy that torch evaluates for comparison.

    stamp: identifies the weights that were last compared, None before. If a model has more than `FEW` elements, only
    those that have occurred are read. single: evaluate in single precision if the model is; forces then differ by some
    1e-5 of the largest.
    """

    def __init__(self, model: MaceModel, single: bool = False) -> None:
        self.model = model
        self.single = single and dtype_of(model) == "float32"
        self.stamp: tuple[Any, ...] | None = None
        self._weights = [*model.parameters()]
        if hasattr(model, "scale_shift"):
            self._weights += [*model.scale_shift.buffers()]
        self._reference: MaceModel | None = None
        self._topology: Topology | None = None
        self._evaluator: Any = None
        self._E0: tuple[list[float] | None, int, Array] | None = None
        self._streamed = False
        Z = len(model.atomic_numbers)
        self._active = np.arange(Z) if Z <= FEW else np.arange(0)
        self._place = _places(self._active, Z)

    def stale(self, graph: EdgeGraph) -> bool:
        """Whether the weights have changed since they were compared, or new elements occur in the graph."""
        if len(self._active) < len(self._place):
            seen = np.unique(graph.species.numpy())
            if (self._place[seen] < 0).any():
                self._active = np.union1d(self._active, seen)
                self._place = _places(self._active, len(self._place))
                self.stamp = None
        return self.stamp != self._now()

    def update(self) -> tuple[Any, ...]:
        """Read the current weights; returns their stamp. Raises ArithmeticError when they cannot be exported."""
        now = self._now()
        if self._reference is None:
            self._reference = _double(self.model)
            self._topology = Topology(self._reference)
        assert self._topology is not None
        self._reference.load_state_dict(self.model.state_dict())
        share_energies(self.model, self._reference)
        for own, torch_model in zip(self._reference.interactions, self.model.interactions, strict=True):
            own.avg_num_neighbors = torch_model.avg_num_neighbors
        self._evaluator = read_native(
            self._topology.export(self._reference, self._active.tolist()), self.single
        )
        if self._streamed:
            self._evaluator.set_streamed_edges("generic")
        return now

    def stream(self) -> None:
        """Process edges one after another: a third of the memory, up to 20 % more time."""
        self._streamed = True
        self.stamp = None  # read the model again, otherwise the memory is not freed

    def compare(self, graph: EdgeGraph, atoms: int, *, by_modules: bool = True) -> float:
        """The largest difference of forces from MACE's in float64, eV/Å, on a part of the graph: up to this many
        atoms of each structure with new elements. Raises NativeMismatch beyond the tolerance.

        by_modules: compare with MACE's own modules; else with our torch evaluation, in half the time.
        """
        part = excerpt(graph, atoms)
        torch_model = (TorchEvaluator if by_modules else torch_evaluator)([self._reference])
        energies, forces, strains = torch_model(part, strain=True)
        arrays = Arrays.of(part)
        own = self(arrays, strain=True)
        assert strains is not None
        assert own[2] is not None
        size = np.diff(arrays.ptr)[:, None, None]
        top = float(forces.abs().max())
        absolute, relative = SINGLE if self.single else DOUBLE
        allowed = absolute + relative * top
        differences = {
            "energy": (own[0] - energies[0].numpy()) / size[:, 0, 0],
            "force": own[1] - forces[0].numpy(),
            "stress": (own[2] - strains[0].numpy()) / size,
        }
        for name, difference in differences.items():
            if not np.abs(difference).max(initial=0.0) <= allowed:  # NaN counts as a difference
                raise NativeMismatch(
                    f"{name} differs from MACE's by {np.abs(difference).max():.1e} (allowed {allowed:.1e}; energy and "
                    "stress in eV/atom, forces in eV/Å)"
                )
        return float(np.abs(differences["force"]).max(initial=0.0))

    def __call__(self, graph: Arrays, *, strain: bool) -> tuple[Array, Array, Array | None]:
        """Energies (F,) eV, forces (A, 3) eV/Å, dE/dε (F, 3, 3) eV or None."""
        A, E, F = len(graph.species), len(graph.sender), len(graph.ptr) - 1
        self._evaluator.compute_node_energies_forces(
            A, self._place[graph.species], graph.counts, graph.receiver32, self._place[graph.receiver_species],
            graph.vectors.reshape(-1), graph.lengths,
        )  # fmt: skip
        nodes = np.array(self._evaluator.node_energies)[:A] + self._atomic_energies()[graph.species]
        pairs = np.array(self._evaluator.node_forces)[: 3 * E].reshape(E, 3)
        forces = np.empty((A, 3))
        for c in range(3):
            p = np.ascontiguousarray(pairs[:, c])
            forces[:, c] = np.bincount(graph.receiver, p, A) - np.bincount(graph.sender, p, A)
        energies: Array = np.bincount(graph.frame_of, nodes, F).astype(np.float64)
        if not strain:
            return energies, forces, None
        strains = np.empty((F, 3, 3))
        ends = np.searchsorted(graph.sender, graph.ptr)
        for f in range(F):
            edges = slice(ends[f], ends[f + 1])
            virial = graph.vectors[edges].T @ pairs[edges]
            strains[f] = -0.5 * (virial + virial.T)
        return energies, forces, strains

    def _atomic_energies(self) -> Array:
        """(Z,) eV. They may change between two evaluations, but seldom do."""
        offsets = self.model.atomic_energies_fn
        exact, version = getattr(offsets, "exact", None), offsets.atomic_energies._version
        if self._E0 is None or self._E0[0] is not exact or self._E0[1] != version:
            values: Array = model_atomic_energies(self.model).numpy()
            self._E0 = exact, version, values
        return self._E0[2]

    def _now(self) -> tuple[Any, ...]:
        neighbours = [float(i.avg_num_neighbors) for i in self.model.interactions]
        return sum(w._version for w in self._weights), *neighbours


class NativeEvaluator:
    """`Evaluator` of members with symmetrix, or with torch if a comparison has failed."""

    def __init__(self, backend: Backend, native: Sequence[NativeMember], torch_evaluator: Evaluator) -> None:
        self.backend, self.native, self.torch = backend, list(native), torch_evaluator
        self.models = [n.model for n in native]
        self.members = len(self.native)
        self.plain = torch_evaluator

    def need(self) -> Need | None:
        """The memory that symmetrix needs; every member keeps its work arrays. None if torch is used."""
        if self.backend.refusal is not None:
            return None
        model = self.models[0]
        C, L = int(model.node_embedding.linear.irreps_out.dim), len(model.products[0].linear.irreps_out) - 1
        streamed = self.backend.economical
        numbers = STREAMED[min(L, 2)] if streamed else COPIES[min(L, 2)]
        return Need(0.0, self.members * (8 * numbers * C + 600))

    def economical(self) -> bool:
        """Use less memory by processing edges one after another; False if that is already so or torch is used."""
        if self.backend.refusal is not None or self.backend.economical:
            return False
        self.backend.economical = True
        for member in self.backend.members:
            member.stream()
        return True

    def __call__(
        self, graph: EdgeGraph, *, strain: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        if not self.backend.ready(self.native, graph):
            return self.torch(graph, strain=strain)
        arrays = Arrays.of(graph)
        energies, forces, strains = zip(*(n(arrays, strain=strain) for n in self.native), strict=True)
        tensors = torch.from_numpy(np.stack(strains)) if strain else None
        return torch.from_numpy(np.stack(energies)), torch.from_numpy(np.stack(forces)), tensors


def _places(active: NDArray[np.int64], elements: int) -> Int32:
    """(Z,) index of each element among the active ones, −1 for the others."""
    places = np.full(elements, -1, np.int32)
    places[active] = np.arange(len(active))
    return places


def excerpt(graph: EdgeGraph, atoms: int) -> EdgeGraph:
    """The first atoms, with the edges among them, of the first structure and of each one with a new element."""
    chosen = torch.zeros(len(graph.species), dtype=torch.bool)
    seen: set[int] = set()
    for start, end in zip(graph.ptr[:-1].tolist(), graph.ptr[1:].tolist(), strict=True):
        here = set(graph.species[start : min(end, start + atoms)].tolist())
        if not here <= seen:
            seen |= here
            chosen[start : min(end, start + atoms)] = True
    return cut(graph, chosen)


def read_native(content: dict[str, Any], single: bool = False) -> Any:
    """symmetrix's serial evaluator of an exported model; it reads only files, so a temporary one is written."""
    orjson = importlib.import_module(WRITER)
    with tempfile.NamedTemporaryFile(suffix=".json", prefix="aims-pax-") as file:
        file.write(orjson.dumps(content))  # 20 times faster than json: a model is megabytes of numbers
        file.flush()
        evaluator = (_symmetrix().MACEFloat if single else _symmetrix().MACE)(file.name)
    evaluator.set_streamed_edges("materialized")  # on one core 1.1 to 1.2 times faster than "generic"
    evaluator.prepare_active_types(np.arange(content["num_elements"], dtype=np.int32))
    return evaluator


def _refusal(device: str, model: MaceModel) -> str | None:
    if device != "cpu":
        return f"MISC.device is {device}"
    reason = unsupported_reason(model)
    return absent() if reason is None else f"symmetrix does not know this architecture: {reason}"


def _too_slow_to_read(model: MaceModel) -> str | None:
    from aims_pax.models.mace.fast_forward import unsupported_part

    channels = int(model.node_embedding.linear.irreps_out.dim)
    if channels < WIDE or unsupported_part(model) is not None:
        return None
    return (
        f"symmetrix needs seconds to read new weights of {channels} channels, more than its faster steps save"
    )


def _symmetrix() -> Any:
    return importlib.import_module("symmetrix").load_backend("cpu")


def _double(model: MaceModel) -> MaceModel:
    """A float64 copy, through a file in memory: copy.deepcopy fails on MACE's empty parameters."""
    file = io.BytesIO()
    with quiet():
        torch.save(model, file)
        file.seek(0)
        copy = torch.load(file, weights_only=False)
    return copy.double().eval().requires_grad_(False)
