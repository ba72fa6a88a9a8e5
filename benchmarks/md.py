"""Molecular dynamics of a committee against ASE with `MACECalculator`: milliseconds per trajectory and step.

    python benchmarks/md.py [--rounds 5] [--steps 10] [--channels 128] [--systems "21 atoms × 4" …]

4 members, --channels (32) ×0e + ×1o, correlation 3, r_max 5 Å, float32, random weights, one thread. Ours moves all
trajectories in one batch through `aims_pax.md.advance`; the peer moves one, as it would each of them. The
contestants take turns in every round and the median over the rounds counts. Where torch-sim is installed it moves all
trajectories in one batch too, with one model, as it knows no committees: the row to compare it with is `member`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import logging
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.md.langevin import Langevin

from aims_pax.frames import Frame
from aims_pax.md import advance
from aims_pax.md.state import MDState
from aims_pax.models.mace import Ensemble
from aims_pax.models.mace.native import absent
from aims_pax.models.mace.statistics import Statistics
from aims_pax.parallel.dynamics import EnsembleSource, MDPool
from aims_pax.settings.mace import (
    ArchitectureSettings,
    GeneralSettings,
    MaceMiscSettings,
    MaceSettings,
    TrainingSettings,
)
from aims_pax.settings.md import MDSettings

MEMBERS = (1, 2, 3, 4)
ELEMENTS = (1, 6, 8)
PROCESSES = 2
LANGEVIN = MDSettings(
    stat_ensemble="NVT", thermostat="Langevin", temperature=300.0, timestep=0.5, friction=0.01
)


def ensemble(inference: str, channels: int) -> Ensemble:
    settings = MaceSettings(
        general=GeneralSettings(name_exp="md"),
        architecture=ArchitectureSettings(num_channels=channels, max_L=1, correlation=3, r_max=5.0),
        training=TrainingSettings(),
        misc=MaceMiscSettings(inference=inference),
    )
    built = Ensemble.build(settings, MEMBERS, ELEMENTS)
    for member in built.members:
        member.freeze(Statistics(np.array([-13.6, -1030.0, -2042.0]), 12.0, 1.0, 0.0, "given", 3))
    return built


def in_double_precision(built: Ensemble) -> None:
    """Let symmetrix evaluate in double precision, as it did before."""
    built.potential()
    assert built._backend is not None
    built._backend.single = False
    for member in built._backend.members:
        member.single = False


def twenty_one_atoms() -> Frame:
    """Benzene, acetic acid and a hydrogen near each other: the atoms of aspirin."""
    acid, atom = molecule("CH3COOH"), molecule("H")
    acid.translate([4.6, 0.3, 0.5])
    atom.translate([-3.5, 0.2, 0.9])
    return Frame.from_atoms(molecule("C6H6") + acid + atom)


def cell() -> Frame:
    atoms = bulk("Si", cubic=True).repeat(2)
    atoms.numbers[:] = np.where(np.arange(64) % 2, 8, 6)
    atoms.set_cell(0.85 * atoms.cell, scale_atoms=True)
    return Frame.from_atoms(atoms)


def water(n: int) -> Frame:
    """A cubic cell of n water molecules at 1 g/cm³, roughly on a grid, turned at random."""
    rng = np.random.default_rng(5)
    side = (n * 18.0153 / 0.602214) ** (1 / 3)  # Å
    cells = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(cells)] * 3), axis=-1).reshape(-1, 3)[:n]
    atoms = Atoms(cell=[side] * 3, pbc=True)
    for place in grid:
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3))
        one.translate(place * side / cells)
        atoms += one
    return Frame.from_atoms(atoms)


def ethanol() -> Frame:
    return Frame.from_atoms(molecule("CH3CH2OH"))


SYSTEMS: dict[str, tuple[Callable[[], Frame], int]] = {
    "ethanol × 16": (ethanol, 16),
    "21 atoms × 8": (twenty_one_atoms, 8),
    "64-atom cell × 2": (cell, 2),
    "21 atoms × 4": (twenty_one_atoms, 4),
    "201 atoms of water × 2": (lambda: water(67), 2),
    "501 atoms of water × 2": (lambda: water(167), 2),
}


def started(frame: Frame, n: int) -> list[MDState]:
    rng = np.random.default_rng(0)
    frames = [frame.moved(frame.positions + rng.normal(0, 0.03, frame.positions.shape)) for _ in range(n)]
    return [MDState.start(f, 300.0, k) for k, f in enumerate(frames)]


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ours(built: Ensemble, states: list[MDState], steps: int, member: bool) -> Callable[[], float]:
    """Seconds per trajectory and step."""
    md = [LANGEVIN] * len(states)
    drivers = [k % len(MEMBERS) for k in range(len(states))] if member else None

    def run() -> float:
        potential = built.potential()
        seconds = timed(lambda: advance(states, potential, steps, md, guard=True, driving_members=drivers))
        return seconds / len(states) / steps

    run()
    return run


def shared_out(pool: MDPool, states: list[MDState], steps: int) -> Callable[[], float]:
    """Seconds per trajectory and step of wall time, with the trajectories in several processes."""
    md = [LANGEVIN] * len(states)

    def run() -> float:
        return timed(lambda: pool.advance(states, steps, md)) / len(states) / steps

    run()
    return run


def peer(built: Ensemble, state: MDState, steps: int) -> Callable[[], float]:
    from mace.calculators import MACECalculator

    models = [m.frozen_copy() for m in built.members]
    atoms = state.frame().to_atoms()
    atoms.calc = MACECalculator(models=models, device="cpu", default_dtype="float32")
    dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.01 / units.fs)
    dynamics.run(1)
    return lambda: timed(lambda: dynamics.run(steps)) / steps


def torch_sim_peer(built: Ensemble, states: list[MDState], steps: int) -> Callable[[], float]:
    """Seconds per trajectory and step of torch-sim's batched Langevin dynamics with one MACE model."""
    import torch_sim
    from torch_sim.integrators import nvt_langevin
    from torch_sim.models.mace import MaceModel

    frames = [s.frame().to_atoms() for s in states]
    for atoms in frames:
        if not atoms.pbc.any():
            # its neighbour list wants a cell; the model sees no image at 5 Å
            atoms.set_cell([20.0, 20.0, 20.0])
    cpu, dtype = torch.device("cpu"), torch.float32
    model = MaceModel(model=built.members[0].frozen_copy(), device=cpu, dtype=dtype, compute_stress=False)
    kT, dt = torch.tensor(300 * units.kB), torch.tensor(0.0005)  # eV and ps, its metal units
    start, update = nvt_langevin(model, dt=dt, kT=kT)
    now = update(start(torch_sim.io.atoms_to_state(frames, cpu, dtype), seed=1))

    def run() -> float:
        def move() -> None:
            state = now
            for _ in range(steps):
                state = update(state)

        return timed(move) / len(states) / steps

    return run


def new_weights(built: Ensemble, states: list[MDState]) -> float:
    """Seconds from other weights of all members to the end of the first evaluation with them, less a usual one."""
    bound = built.potential().bind([s.frame() for s in states])
    positions = torch.from_numpy(np.concatenate([s.positions for s in states]))
    cells = torch.from_numpy(np.stack([s.cell for s in states]))
    bound(positions, cells)
    usual = timed(lambda: bound(positions, cells))
    for member in built.members:
        member.set_weights([1.0001 * w for w in member.average.shadow])
    built.version += 1

    def use() -> None:
        built.potential()
        bound(positions, cells)

    return timed(use) - usual


def main() -> None:
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--double", action="store_true", help="native in double precision too")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS)[:3])
    options = parser.parse_args()
    torch.set_num_threads(1)
    reason = absent()
    if reason:
        print(f"native: left out, {reason}")
    back_ends = {
        name: ensemble(name, options.channels) for name in ("torch", *(() if reason else ("native",)))
    }
    print(
        f"{platform.machine()}, torch {torch.__version__}, medians of {options.rounds} rounds of {options.steps} steps"
    )
    print(
        f"{'system':22}{'what':22}{'ms per trajectory-step':>24}{'ratio to ASE':>14}{'of single rounds':>20}"
    )
    best = list(back_ends)[-1]
    if options.double and not reason:
        back_ends["native, double"] = ensemble("native", options.channels)
        in_double_precision(back_ends["native, double"])
    pool = MDPool(EnsembleSource(back_ends[best]), PROCESSES)
    for name in options.systems:
        make, n = SYSTEMS[name]
        states = started(make(), n)
        runs = {"ASE + MACE": peer(back_ends["torch"], states[0], options.steps)}
        for back_end, built in back_ends.items():
            runs[f"{back_end}, mean"] = ours(built, states, options.steps, False)
            runs[f"{back_end}, member"] = ours(built, states, options.steps, True)
        runs[f"{best}, mean, {PROCESSES} proc."] = shared_out(pool, states, options.steps)
        if find_spec("torch_sim") is not None:
            runs["torch-sim, 1 model"] = torch_sim_peer(back_ends["torch"], states, options.steps)
        seconds: dict[str, list[float]] = {what: [] for what in runs}
        for _ in range(options.rounds):
            for what, run in runs.items():
                seconds[what].append(run())
        for what, times in seconds.items():
            ratios = [a / b for a, b in zip(seconds["ASE + MACE"], times, strict=True)]
            spread = f"{min(ratios):.1f} to {max(ratios):.1f}"
            print(
                f"{name:22}{what:22}{1000 * statistics.median(times):24.2f}"
                f"{statistics.median(ratios):14.1f}{spread:>20}",
                flush=True,
            )
    pool.close()
    for back_end, built in back_ends.items():
        some = started(ethanol(), 16)
        times = [new_weights(built, some) for _ in range(options.rounds)]
        print(f"new weights of 4 members in use, {back_end}: {statistics.median(times):.2f} s")
    if find_spec("torch_sim") is None:
        print("torch-sim: not installed, left out")


if __name__ == "__main__":
    main()
