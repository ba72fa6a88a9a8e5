"""The schedule to beat: one trajectory after another, one member after another, with ASE and MACE alone.

    cp -r benchmarks/ethanol /tmp/sequential && cp example/quickstart/evaluate.py /tmp/sequential
    cd /tmp/sequential
    python …/benchmarks/sequential.py            # reads the folder's YAML files, writes results/*.model
    python evaluate.py

It does what the published loop does with the same settings: sample with the initial calculator, label, train the
members in turn; then, trajectory by trajectory, MD with `MACECalculator(models=all)`, a label where the members
disagree, and epochs over all data for every new point; at the end the best member is converged. Nothing of
aims-PAX moves atoms or trains here; only its settings, its model builder and its statistics are used.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import copy
import json
import math
import time
import warnings
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from aims_pax import seeds
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.mace import Ensemble, MemberData
from aims_pax.models.mace.mace_import import quiet
from aims_pax.models.mace.statistics import measure
from aims_pax.settings import read_settings
from aims_pax.user_code import calculator_factory

with quiet():
    from mace import data
    from mace.calculators import MACECalculator
    from mace.modules import WeightedEnergyForcesLoss
    from mace.tools import AtomicNumberTable, torch_geometric
    from torch_ema import ExponentialMovingAverage

warnings.filterwarnings("ignore")  # e3nn and MACE speak of how they load their files


class Member:
    """One MACE model trained the way MACE's own script does it: loader, loss, Adam, moving average."""

    def __init__(self, model: Any, settings: Any, seed: int) -> None:
        t = settings.training
        self.model, self.t, self.seed = model, t, seed
        self.numbers = AtomicNumberTable([int(z) for z in model.atomic_numbers])
        self.cutoff = float(model.r_max)
        self.loss = WeightedEnergyForcesLoss(t.energy_weight, t.forces_weight)
        self.train: list[Any] = []
        self.valid: list[Any] = []
        self.epochs = 0
        self.fresh()

    def fresh(self) -> None:
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=self.t.lr, amsgrad=self.t.amsgrad)
        self.average = ExponentialMovingAverage(self.model.parameters(), decay=self.t.ema_decay)
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimiser, factor=self.t.lr_factor, patience=self.t.scheduler_patience
        )

    def graph(self, labelled: LabelledFrame) -> Any:
        atoms = labelled.frame.to_atoms()
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = labelled.label.energy, labelled.label.forces
        keys = data.KeySpecification(info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "REF_forces"})
        configuration = data.config_from_atoms(atoms, key_specification=keys)
        return data.AtomicData.from_config(configuration, z_table=self.numbers, cutoff=self.cutoff)

    def epoch(self) -> None:
        torch.manual_seed(self.seed + self.epochs)
        loader = torch_geometric.dataloader.DataLoader(self.train, batch_size=self.t.batch_size, shuffle=True)
        for batch in loader:
            self.optimiser.zero_grad(set_to_none=True)
            out = self.model(batch.to_dict(), training=True, compute_force=True)
            self.loss(pred=out, ref=batch).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.t.clip_grad or math.inf)
            self.optimiser.step()
            self.average.update()
        self.epochs += 1

    def validate(self) -> float:
        loader = torch_geometric.dataloader.DataLoader(self.valid, batch_size=self.t.valid_batch_size)
        total = 0.0
        with self.average.average_parameters():
            for batch in loader:
                out = self.model(batch.to_dict(), training=False, compute_force=True)
                total += float(self.loss(pred=out, ref=batch).detach()) * batch.num_graphs
        self.schedule.step(total / len(self.valid))
        return total / len(self.valid)


class Clock:
    """Seconds spent by kind of work."""

    def __init__(self) -> None:
        self.seconds = {"md": 0.0, "training": 0.0, "labels": 0.0, "sampling": 0.0}

    @contextmanager
    def __call__(self, what: str):
        began = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - began


def dynamics(atoms: Any, md: Any, rng: np.random.Generator) -> Langevin:
    return Langevin(
        atoms, md.timestep * units.fs, temperature_K=md.temperature, friction=md.friction / units.fs,
        rng=rng, fixcm=False,
    )  # fmt: skip


def main() -> None:
    began = time.perf_counter()
    settings = read_settings(Path.cwd(), "aimsPAX.yaml", "mace.yaml")
    initial, al, md, mace = (
        settings.initial_dataset, settings.active_learning, settings.md_of(""), settings.mace
    )  # fmt: skip
    start = ase.io.read(str(settings.misc.path_to_geometry), format="aims")
    reference = calculator_factory(settings.reference.factory, settings.reference.kwargs, Path.cwd())
    sampler = calculator_factory(initial.initial_calculator.factory, initial.initial_calculator.kwargs)
    clock, calls = Clock(), 0
    own = seeds.member_seeds(mace.general.seed, al.ensemble_size)
    ensemble = Ensemble.build(mace, own, sorted(set(start.numbers)))
    torch.set_default_dtype(torch.float32)

    def label(atoms: Any) -> LabelledFrame:
        nonlocal calls
        with clock("labels"):
            atoms = atoms.copy()
            atoms.calc = reference()
            calls += 1
            return LabelledFrame(
                Frame.from_atoms(atoms), Label(atoms.get_potential_energy(), atoms.get_forces()), {}
            )

    # ---------------------------------------------------------------- initial dataset
    atoms = start.copy()
    rng = seeds.rng("sequential", md.MD_seed)
    atoms.calc = sampler()
    MaxwellBoltzmannDistribution(atoms, temperature_K=md.temperature, rng=rng)
    walk, members, epochs = dynamics(atoms, md, rng), [], 0
    n = initial.n_points_per_sampling_step_idg
    n_valid = max(1, round(initial.valid_ratio * n))
    while epochs < initial.max_initial_epochs:
        for m in range(len(own)):
            frames = []
            for _ in range(n + n_valid):
                with clock("sampling"):
                    walk.run(initial.skip_step_initial)
                frames.append(label(atoms))
            with clock("training"):
                if len(members) <= m:
                    member = ensemble.members[m]
                    graphs = ensemble.graphs.of(MemberData(frames[n_valid:]).train)
                    scaling = mace.architecture.scaling
                    member.freeze(measure(graphs, ensemble.elements, scaling=scaling, dtype=member.dtype))
                    members.append(Member(member.model, mace, own[m]))
                members[m].valid += [members[m].graph(f) for f in frames[:n_valid]]
                members[m].train += [members[m].graph(f) for f in frames[n_valid:]]
                for _ in range(initial.intermediate_epochs_idg):
                    members[m].epoch()
                    members[m].validate()
        epochs += initial.intermediate_epochs_idg

    # ---------------------------------------------------------------- active learning, one trajectory at a time
    walks = []
    for _ in range(al.num_trajectories):
        copy_ = start.copy()
        MaxwellBoltzmannDistribution(copy_, temperature_K=md.temperature, rng=rng)
        walks.append(dynamics(copy_, md, rng))
    history: deque[float] = deque(maxlen=400)
    added = added_valid = steps = 0

    with quiet():  # it freezes the models it is given, so it gets copies
        copies = [copy.deepcopy(x.model) for x in members]
        committee = MACECalculator(models=copies, device="cpu", default_dtype="float32")

    def refresh() -> None:
        for x, model in zip(members, copies, strict=True):
            with x.average.average_parameters():
                model.load_state_dict(x.model.state_dict())

    refresh()
    while len(members[0].train) < al.max_train_set_size:
        for walk in walks:
            committee.reset()  # new weights, another trajectory
            walk.atoms.calc = committee
            with clock("md"):
                walk.run(al.skip_step_mlff)
                walk.atoms.get_forces()
            steps += al.skip_step_mlff
            forces = committee.results["forces_comm"]
            spread = float(np.sqrt(forces.var(0).mean(-1)).max())
            limit = (1 + al.c_x) * np.mean(history) if len(history) >= 10 else math.inf
            history.append(spread)
            if spread <= limit or len(members[0].train) >= al.max_train_set_size:
                continue
            point, is_valid = label(walk.atoms), added_valid < al.valid_ratio * added
            added, added_valid = added + 1, added_valid + is_valid
            for x in members:
                (x.valid if is_valid else x.train).append(x.graph(point))
            if not is_valid:
                with clock("training"):
                    for x in members:
                        for _ in range(al.epochs_per_worker):
                            x.epoch()
                            x.validate()
                    refresh()

    # ---------------------------------------------------------------- convergence of the best member
    with clock("training"):
        best = members[int(np.argmin([x.validate() for x in members]))]
        everything = (
            {id(g): g for x in members for g in x.train},
            {id(g): g for x in members for g in x.valid},
        )
        best.train, best.valid = (list(s.values()) for s in everything)
        best.average.copy_to()
        best.fresh()
        lowest, since, weights = math.inf, 0, None
        for _ in range(al.max_convergence_epochs):
            best.epoch()
            loss = best.validate()
            since += 1
            if lowest - loss > al.margin:
                with best.average.average_parameters():
                    lowest, since, weights = loss, 0, copy.deepcopy(best.model.state_dict())
            if since >= al.convergence_patience:
                break
        best.model.load_state_dict(weights)
    Path("results").mkdir(exist_ok=True)
    torch.save(best.model, "results/sequential.model")
    wall = time.perf_counter() - began
    shares = " · ".join(f"{k} {v:.1f} s" for k, v in clock.seconds.items())
    print(f"sequential: {wall:.1f} s · {shares} · {calls} labels · {steps} MD steps")
    Path("results/time.json").write_text(json.dumps({"wall": wall, "calls": calls, **clock.seconds}) + "\n")


if __name__ == "__main__":
    main()
