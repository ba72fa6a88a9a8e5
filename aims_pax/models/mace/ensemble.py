"""The committee: members that are trained, evaluated, snapshotted and saved together."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame, LabelledFrame
from aims_pax.models.base import (
    EnergyZero,
    ForceFieldModel,
    Learner,
    MemberData,
    MemberResult,
    Precision,
    never_stop_training,
)
from aims_pax.models.evaluate import spreads_and_errors
from aims_pax.models.mace import cuequivariance
from aims_pax.models.mace.architecture import architecture
from aims_pax.models.mace.build import (
    DTYPES,
    build_model,
    doubled,
    elements_of,
    read_model,
    read_statistics,
)
from aims_pax.models.mace.compile_cache import CompileMode, say, taken_notes
from aims_pax.models.mace.energy_offsets import given_energies, refit, take_statistics
from aims_pax.models.mace.graphs import GraphCache, LabelledGraph
from aims_pax.models.mace.inference import Committee, torch_evaluator
from aims_pax.models.mace.losses import Loss
from aims_pax.models.mace.mace_import import MaceModel, quiet
from aims_pax.models.mace.member import UNSEEN, Member
from aims_pax.models.mace.native import Backend
from aims_pax.models.mace.optimiser import Arrays
from aims_pax.models.mace.precision import check_files, is_too_coarse
from aims_pax.models.mace.serialisation import PackedEnsemble, packed_member, unpacked
from aims_pax.models.mace.statistics import LEAST_SQUARES, as_stored
from aims_pax.models.mace.training import TrainingPlan, copy_graphs, training_round, validate
from aims_pax.models.mace.training_workers import TrainingPool, Visited, together
from aims_pax.record.files import write_bytes

if TYPE_CHECKING:
    from aims_pax.settings.mace import MaceSettings

log = logging.getLogger(__name__)


Data = Mapping[int, MemberData] | Sequence[MemberData]


class Ensemble(ForceFieldModel):
    """MACE models, each with an optimiser and an average of its weights.

    Validation, MD, offsets and files use the averaged weights.
    """

    members: Sequence[Member]

    def __init__(
        self, members: Sequence[Member], settings: MaceSettings, atomic_energies: Mapping[int, float] | None
    ) -> None:
        self.members = list(members)
        self.settings = settings
        self.atomic_energies = atomic_energies
        self.elements = self.members[0].elements
        self.graphs = GraphCache(
            self.elements,
            float(self.members[0].model.r_max),
            self.members[0].dtype,
            dict(settings.training.config_type_weights),
        )
        self.loss = Loss(settings)
        self._frozen: list[MaceModel] = []
        self._frozen_version = -1
        self._backend: Backend | None = None
        self.compiled: CompileMode = "wait" if settings.training.compile == "always" else "never"
        self.samples = 0  # structures × epochs that this process has begun to train on
        self.counted: Callable[[int], None] = lambda samples: None

    @classmethod
    def build(
        cls,
        settings: MaceSettings,
        seeds: Mapping[str, int] | Sequence[int],
        elements: Sequence[int],
        folder: Path | None = None,
    ) -> Ensemble:
        """Untrained members named `{name_exp}_{seed}`, in the order of the seeds ({tag: seed} or seeds).

        elements: atomic numbers of all systems. folder: a relative path in atomic_energies starts here.
        """
        numbers = list(seeds.values()) if isinstance(seeds, Mapping) else list(seeds)
        if len(set(numbers)) != len(numbers) or not numbers:
            raise SettingsError(f"every member needs a different seed, got {numbers}")
        zs = tuple(sorted(int(z) for z in elements))
        given = given_energies(settings, zs, folder)
        name = settings.general.name_exp
        members = [Member(f"{name}_{s}", s, build_model(settings, zs, s), settings) for s in numbers]
        ensemble = cls(members, settings, given)
        if ensemble.loss.name != settings.training.loss:
            log.info(
                "loss: weighted has no stress term; with compute_stress the loss is %s", ensemble.loss.name
            )
        return ensemble

    @classmethod
    def from_models(
        cls,
        paths: Sequence[Path],
        settings: MaceSettings,
        seeds: Mapping[str, int] | Sequence[int] | None = None,
    ) -> Ensemble:
        """Members that begin with existing .model files. seeds: for shuffles and names; None: 0, 1, 2 …

        Raises SettingsError when a file is not a MACE model or the models are not compatible.
        """
        numbers = (
            list(range(len(paths)))
            if seeds is None
            else list(seeds.values() if isinstance(seeds, Mapping) else seeds)
        )
        if not paths or len(numbers) != len(paths):
            raise SettingsError(f"initial_models: {len(paths)} files for {len(numbers)} members")
        dtype = DTYPES[settings.general.default_dtype]
        models = [read_model(Path(p), settings.misc.device, dtype) for p in paths]
        kinds = {(elements_of(m), float(m.r_max)) for m in models}
        if len(kinds) > 1:
            raise SettingsError(f"initial_models: the files differ in elements or r_max: {sorted(kinds)}")
        if any(len(getattr(m, "heads", ["Default"])) > 1 for m in models):
            raise SettingsError(
                "initial_models: models with several heads cannot be trained on; select one head first"
            )
        members = []
        for path, number, model in zip(paths, numbers, models, strict=True):
            name = Path(path).stem if seeds is None else f"{settings.general.name_exp}_{number}"
            member = Member(name, number, model.requires_grad_(True), settings)
            member.freeze(read_statistics(model))
            members.append(member)
        if len({m.name for m in members}) < len(members):
            raise SettingsError(f"initial_models: two files have the same name: {', '.join(map(str, paths))}")
        return cls(members, settings, None)

    @classmethod
    def unpacked(cls, data: PackedEnsemble) -> Ensemble:
        """The members in another process, for predictions only."""
        members = [unpacked(module, name, seed, data.settings) for name, seed, module in data.members]
        return cls(members, data.settings, None)

    def packed(self) -> PackedEnsemble:
        """All members, for `unpacked` with the same versions of the packages."""
        members = tuple((m.name, m.seed, packed_member(m.model)) for m in self.members)
        return PackedEnsemble(self.settings, members)

    @property
    def trained(self) -> bool:
        """Whether every member has statistics, so that predictions are meaningful."""
        return all(m.statistics is not None for m in self.members)

    def potential(self, members: Sequence[int] | None = None) -> Committee:
        """The averaged weights of all (or the selected) members as a potential.

        A call after training also updates potentials returned earlier and their bindings.
        """
        frozen = self._averaged()
        chosen = frozen if members is None else [frozen[k] for k in members]
        if self._backend is None:
            misc = self.settings.misc
            plain = partial(torch_evaluator, cuda_graphs=misc.cuda_graphs)
            fallback = cuequivariance.Cueq(misc.device, plain).evaluator if misc.enable_cueq else plain
            self._backend = Backend(misc.inference, misc.device, chosen[0], fallback, renewed=True)
        return Committee(chosen, self.settings.misc.device, evaluator=self._backend.evaluator)

    def spreads_and_errors(self, labelled: Sequence[LabelledFrame]) -> list[tuple[Array, Array]]:
        """By torch: for one evaluation of these weights no other back end is worth its preparation."""
        return spreads_and_errors(Committee(self._averaged(), self.settings.misc.device), labelled)

    def _averaged(self) -> list[MaceModel]:
        """Models with the averaged weights of the members, the same objects at each call."""
        if not self.trained:
            raise RuntimeError("the ensemble has not been trained yet: it has no energy scale")
        if not self._frozen:
            self._frozen = [m.frozen_copy() for m in self.members]
        elif self._frozen_version != self.version:
            for member, model in zip(self.members, self._frozen, strict=True):
                member.refresh(model)
        self._frozen_version = self.version
        return self._frozen

    def train(
        self,
        data: Data,
        epochs: int,
        *,
        words: tuple[str | int, ...] | None = None,
        stop: Callable[[], bool] = never_stop_training,
        valid_skip: int = 1,
        schedule: bool = True,
        margin: float = 0.0,
        patience: int | None = None,
    ) -> list[MemberResult]:
        """One training visit of each member in `data` ({member: its data}, or data of all members in order).

        Keywords as in `TrainingPlan`; `patience` is epochs_per_worker. `stop()` is called before every batch; when it
        returns True, Abandoned is raised and the ensemble is unchanged. The first visit measures the statistics and
        fixes them.
        """
        words = words if words is not None else ("train", self.visits)
        plan = TrainingPlan(epochs, words, valid_skip, schedule, margin, patience, self.compiled)
        chosen = self._chosen(data)
        self._count(chosen, epochs)
        before = [(member, member.arrays()) for member, _ in chosen]
        results = []
        try:
            for member, own in chosen:
                train, valid = self._graphs(own)
                take_statistics(member, self.graphs.of(own.train), train, self.atomic_energies)
                copies = copy_graphs(self.graphs.of(own.copies), own.copy_weight)
                results.append(training_round(member, train, valid, plan, self.loss, stop, copies))
                say(taken_notes())
        except BaseException:
            for member, arrays in before:
                member.load(arrays)
            raise
        self.visits += 1
        self.version += 1
        return results

    def train_elsewhere(
        self,
        pool: TrainingPool,
        data: Mapping[int, MemberData],
        epochs: int,
        *,
        words: tuple[str | int, ...],
        stop: Callable[[], bool] = never_stop_training,
        valid_skip: int = 1,
        schedule: bool = True,
        margin: float = 0.0,
        patience: int | None = None,
    ) -> Future[dict[int, Visited]]:
        """The same visit in the processes of `pool`; pass the result of the future to `take`.

        Until then only the statistics of members may change, when the data determine more of them. The future raises
        Abandoned, TrainingProcessLost, or the exception of a visit.
        """
        self._count(self._chosen(data), epochs)
        for member, own in self._chosen(data):
            known = member.statistics
            take_statistics(member, self.graphs.of(own.train), self._graphs(own)[0], self.atomic_energies)
            self.version += member.statistics is not known
        plan = TrainingPlan(epochs, words, valid_skip, schedule, margin, patience, self.compiled)
        sets = {self.members[m]: own for m, own in data.items()}
        return together(dict(zip(data, pool.train(sets, plan, stop), strict=True)))

    def take(self, visited: Mapping[int, Visited]) -> list[MemberResult]:
        """Load the results of `train_elsewhere` into the members."""
        for m, visit_ in visited.items():
            self.members[m].load(visit_.state)
        self.visits += 1
        self.version += 1
        return [visit_.result for visit_ in visited.values()]

    def validate(self, data: Data) -> list[MemberResult]:
        """Loss and errors of members on their validation sets, without training."""
        results = []
        for member, own in self._chosen(data):
            _, valid = self._graphs(own)
            v = validate(member, valid, self.loss) if valid else UNSEEN
            results.append(
                MemberResult(member.name, 0, np.nan, v.loss, v.energy_mae, v.force_mae, v.stress_mae)
            )
        return results

    def refit_offsets(self, data: Mapping[int, Sequence[LabelledFrame]] | Data) -> None:
        """Refit E0 (if they came from least squares) or the common shift on the whole training sets.

        Forces do not change. During training each visit refits on a sample; MD and validation use that result.
        """
        for member, own in self._chosen(data):
            train, _ = self._graphs(own)
            refit(member, train)
        self.version += 1

    def reset_optimiser_and_ema(self, members: Sequence[int] | None = None) -> None:
        """New optimiser, average and learning rate; training continues from the averaged weights."""
        for k in range(len(self.members)) if members is None else members:
            self.members[k].reset_optimiser_and_ema()
        self.version += 1

    def inference_arrays(self, member: int) -> Arrays:
        """The arrays that a member's predictions depend on (averaged weights, offsets), to be restored later."""
        return self.members[member].weights_arrays()

    def set_inference_arrays(self, member: int, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Restore from `inference_arrays`, bit for bit. Raises RestartError for another architecture."""
        self.members[member].set_weights_arrays(arrays)
        self.version += 1

    def apply_swa(self, data: Data) -> None:
        """With `swa`: replace the weights by the equal-weight mean of the epochs since the best validation of this
        phase, if its validation loss is lower. To be called after the best weights were restored.
        """
        for member, own in self._chosen(data):
            _, valid = self._graphs(own)
            mean_weights = member.swa.mean()
            if mean_weights is None or not valid:
                continue
            present = [s.clone() for s in member.average.shadow]
            loss = validate(member, valid, self.loss).loss
            member.set_weights(mean_weights)
            mean = validate(member, valid, self.loss).loss
            log.info(
                "%s: mean of %d epochs: loss %.4g, best %.4g", member.name, member.swa.epochs, mean, loss
            )
            if not mean < loss:
                member.set_weights(present)
        self.version += 1

    def begin_convergence(self, members: Sequence[int] | None = None) -> None:
        """Start a new phase of training from the averaged weights."""
        self.reset_optimiser_and_ema(members)

    def finish_convergence(self, data: Data) -> None:
        """Use the mean of the last epochs if it is better, then refit the offsets on the whole training sets."""
        self.apply_swa(data)
        self.refit_offsets(data)

    def member_arrays(self, member: int) -> Arrays:
        """Weights, optimiser, average and statistics of a member."""
        return self.members[member].arrays()

    def load_member(self, member: int, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Restore from `member_arrays`, bit for bit. Raises RestartError for another architecture."""
        self.members[member].load(dict(arrays))

    def restore(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Restore from `arrays`, bit for bit; the next call of `potential` updates existing potentials."""
        super().restore(arrays)
        self._frozen_version = -1

    def begin_from(self, other: Learner) -> None:
        """Take over the averaged weights, with a new optimiser; the zero of energy is fitted to the first labels."""
        super().begin_from(other)
        for member in self.members:
            assert member.statistics is not None
            s, given = member.statistics, self.atomic_energies
            if given is not None:
                E0 = as_stored(np.array([given[z] for z in self.elements]), member.dtype)
                s = replace(s, E0=E0, source="given")
            else:  # a measured energy of the other training says nothing here
                s = replace(s, source=LEAST_SQUARES)
            member.freeze(replace(s, rank=0))
        self.reset_optimiser_and_ema()

    def begin_again(self, beginning: Learner, members: Sequence[int], share: float = 0.0) -> None:
        """Take over weights and statistics of the beginning, or mix them with the present averaged weights.

        Members without statistics there measure them at their next training, so the force scale is that of all data.
        """
        for k in members:
            member = self.members[k]
            epochs, present = member.epochs, [w.clone() for w in member.average.shadow]
            self.load_member(k, beginning.member_arrays(k))
            if share:
                mixed = [share * w + (1 - share) * w0 for w, w0 in zip(present, member.weights, strict=True)]
                member.set_weights([w.detach() for w in mixed])
            member.epochs = epochs
        self.version += 1

    def describe(self, member: int) -> dict[str, Any]:
        """The architecture of a member, read from its model."""
        return architecture(self.members[member].model)

    def energy_zero(self) -> EnergyZero | None:
        """The atomic energies of the first member; None before it is trained."""
        s = self.members[0].statistics
        if s is None:
            return None
        return EnergyZero({z: float(e) for z, e in zip(self.elements, s.E0, strict=True)}, s.source, s.rank)

    def deliver(self, member: int, path: Path, energies: Sequence[float] = ()) -> None:
        """`save`, in double precision if single precision is too coarse for these energies (eV)."""
        self.save(member, path, double=is_too_coarse(energies))

    def check_delivered(self, files: Mapping[int, Path], frames: Sequence[Frame]) -> Precision | None:
        """Load files with MACECalculator and compare; a file with wrong energies is rewritten in double precision."""
        return check_files(self, files, frames)

    def save(self, member: int, path: Path, double: bool = False) -> None:
        """Write the averaged weights as a .model file that `mace.calculators.MACECalculator` loads.

        double: in double precision, for energies that single precision cannot resolve.
        """
        model = self.members[member].frozen_copy().to("cpu")
        model = (doubled(model) if double else model).requires_grad_(True)
        content = io.BytesIO()  # otherwise torch writes the name of the temporary file into it
        with quiet():
            torch.save(model, content)
        write_bytes(path, content.getvalue())

    def _count(self, chosen: Sequence[tuple[Member, MemberData]], epochs: int) -> None:
        self.samples += epochs * sum(len(own.train) + len(own.copies) for _, own in chosen)
        self.counted(self.samples)

    def _chosen(self, data: Any) -> list[tuple[Member, MemberData]]:
        """Members with their data, from {member: data} or data of all members in order; a list of frames is `train`."""
        pairs = (
            data.items() if isinstance(data, Mapping) else zip(range(len(self.members)), data, strict=True)
        )
        return [
            (self.members[k], own if isinstance(own, MemberData) else MemberData(own)) for k, own in pairs
        ]

    def _graphs(self, data: MemberData) -> tuple[list[LabelledGraph], list[LabelledGraph]]:
        """Training and validation graphs, without isolated atoms, which serve only as E0."""
        train = [g for g in self.graphs.of(data.train) if not g.isolated]
        valid = [g for g in self.graphs.of(data.valid) if not g.isolated]
        return train, valid
