"""Gaussian processes: errors, seconds, memory and coverage on data that this file makes, and calls of a band.

    python benchmarks/gpr.py [published] [copper] [dimer] [scale] [neb] [calculator]
    python benchmarks/gpr.py chooser [--seeds 3]
    python benchmarks/gpr.py augmentation [--steps 400] [--converged] [--seeds 5] [--cases ethanol-20 …] [--out FILE]

published: the data of ænet-gpr in the folder AIMS_PAX_GPR_DATA, skipped where it is not set.
copper: Cu13 of EMT at 300 K, 25 frames to train on and 50 to test, then rattled by 0.06, 0.12, 0.25 Å. dimer: two
molecules of ethylene carbonate rattled by 0.03 Å, GFN1-xTB, 40/20. Each against the Cartesian process. scale: 250
frames of the dimer. neb: Au on Al(100), EMT, five moving images. calculator: energy and forces of 20 atoms. CPU
seconds, one thread.
chooser: Cu13, labels that `kind: gpr` chooses among 20 candidates against random ones, rattled and from dynamics with
EMT at 300 K (as many steps for both); errors at 300 K.
augmentation: does `AUGMENTATION` help a force-trained MACE? Ethanol (GFN1-xTB, 500 K), dimer and the published frames
of EC–EC (where they are stored) with 20 and 40 labels, Cu13 (EMT, 300 K) with 10; ten validation frames. With and
without copies at equal numbers of optimiser steps, or with --converged until the validation loss of both has not
improved by 0.5 % over 600 steps (the best weights, at most 6000 steps). Other frames and weights for each seed;
existing lines of the output are not computed again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.frames import Frame, LabelledFrame
from aims_pax.models.gp.coordinate_process import CoordinateOptions, CoordinateProcess
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.potential import calculate
from aims_pax.structure_files.xsf import read_xsf

NORMAL_90 = 1.645


def labelled(atoms: Any, make: Callable[[], Any]) -> LabelledFrame:
    frame = Frame.from_atoms(atoms)
    return LabelledFrame(frame, calculate(frame, make()))


def rattled(atoms: Any, make: Callable[[], Any], count: int, sigma: float, seed: int) -> list[LabelledFrame]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        moved = atoms.copy()
        moved.positions += rng.normal(0, sigma, moved.positions.shape)
        out.append(labelled(moved, make))
    return out


def report(name: str, process: Any, seconds: float, test: Sequence[LabelledFrame]) -> float:
    said = process.predict([x.frame for x in test], spread=True)
    error = np.abs(said.forces - np.concatenate([x.label.forces for x in test]))
    energy = np.abs(said.energies - [x.label.energy for x in test]).mean()
    covered = np.mean(error < NORMAL_90 * said.force_sd)
    print(
        f"{name}: E {1000 * energy:.3f} meV, F {1000 * error.mean():.2f} meV/Å, leave-one-out F "
        f"{1000 * process.errors.force_mae:.2f}, in 90 % intervals {covered:.3f}, train {seconds:.2f} s",
        flush=True,
    )
    return float(error.mean())


def fitted(make: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    process = make()
    return process, time.process_time() - began


def both(name: str, train: Sequence[LabelledFrame], test: Sequence[LabelledFrame]) -> GaussianProcess:
    process, seconds = fitted(lambda: GaussianProcess.fit(train))
    ours = report(name, process, seconds, test)
    theirs, seconds = fitted(lambda: CoordinateProcess.fit(train, CoordinateOptions()))
    cart = report(f"{name}, Cartesian", theirs, seconds, test)
    print(f"{name}: forces {cart / ours:.0f} times better than Cartesian")
    return process


def published() -> None:
    if not (where := os.environ.get("AIMS_PAX_GPR_DATA")):
        print("published data: skipped, AIMS_PAX_GPR_DATA is not set")
        return
    for name in ("2_EC-EC", "3_Li-EC", "1_H2"):
        sets = []
        for kind in ("train", "test"):
            (folder,) = (p for p in (Path(where) / name).glob(f"{kind}_set*") if p.is_dir())
            sets.append([LabelledFrame(*read_xsf(path)) for path in sorted(folder.glob("*.xsf"))])
        GaussianProcess.fit(sets[0][:5])  # imports are no training
        process, seconds = fitted(lambda train=sets[0]: GaussianProcess.fit(train))  # type: ignore[misc]
        report(f"{name} {len(sets[0])}/{len(sets[1])}", process, seconds, sets[1])


def copper() -> None:
    from ase import units
    from ase.calculators.emt import EMT
    from ase.cluster import Icosahedron
    from ase.md.langevin import Langevin
    from ase.optimize import BFGS

    atoms, rng = Icosahedron("Cu", 2), np.random.default_rng(0)
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=0.01)
    dynamics = Langevin(atoms, 5 * units.fs, temperature_K=300, friction=0.02 / units.fs, rng=rng)
    dynamics.run(300)
    frames = []
    for _ in range(75):
        dynamics.run(20)
        frames.append(labelled(atoms, EMT))
    frames = [frames[k] for k in rng.permutation(75)]
    process = both("Cu13 25/50", frames[:25], frames[25:])
    for sigma in (0.06, 0.12, 0.25):
        moved = [rattled(x.frame.to_atoms(), EMT, 1, sigma, k)[0] for k, x in enumerate(frames[:20])]
        report(f"Cu13 rattled by {sigma} Å", process, 0.0, moved)


def dimer_frames(count: int, seed: int) -> list[LabelledFrame]:
    from ase import Atoms
    from tblite.ase import TBLite

    ring = Atoms(
        "OC3O2H4",
        [[0, 0, 2.33], [0, 0, 1.13], [-0.75, 0.1, -0.98], [0.75, -0.1, -0.98], [-1.11, 0.05, 0.37],
         [1.11, -0.05, 0.37], [-1.16, 1.05, -1.33], [-1.16, -0.7, -1.55], [1.16, 0.7, -1.55], [1.16, -1.05, -1.33]],
    )  # fmt: skip
    other = ring.copy()
    other.rotate(180, "x")
    other.translate([0.6, 3.4, 0.4])
    return rattled(ring + other, lambda: TBLite(method="GFN1-xTB", verbosity=0), count, 0.03, seed)


def dimer() -> None:
    both("dimer GFN1 40/20", dimer_frames(40, 0), dimer_frames(20, 1))


def scale() -> None:
    train, test = dimer_frames(250, 2), dimer_frames(20, 3)
    process, seconds = fitted(lambda: GaussianProcess.fit(train))
    report("dimer GFN1 250/20", process, seconds, test)
    print(
        f"largest memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"
    )


def calculator() -> None:
    from aims_pax.models.gp.gp_calculator import GPRCalculator

    process = GaussianProcess.fit(dimer_frames(40, 0))
    atoms = dimer_frames(1, 9)[0].frame.to_atoms()
    atoms.calc = GPRCalculator(process)
    atoms.get_forces()
    began = time.process_time()
    for _ in range(20):
        atoms.positions += 1e-3
        atoms.get_forces()
    print(f"GPRCalculator, 20 atoms: {50 * (time.process_time() - began):.1f} ms for energy and forces")


def neb() -> None:
    import ase.io
    from ase.build import add_adsorbate, fcc100
    from ase.calculators.emt import EMT
    from ase.constraints import FixAtoms
    from ase.optimize import BFGS
    from rich.console import Console

    from aims_pax.commands.surrogate.neb import neb as search

    slab = fcc100("Al", size=(2, 2, 3))
    add_adsorbate(slab, "Au", 1.7, "hollow")
    slab.center(axis=2, vacuum=4.0)
    slab.set_constraint(FixAtoms(mask=[a.tag > 1 for a in slab]))
    slab.pbc = True
    slab.info.clear()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, shift in (("first.xyz", 0.0), ("last.xyz", 0.5)):
            end = slab.copy()
            end[-1].x += shift * end.cell[0, 0]
            end.calc = EMT()
            BFGS(end, logfile=None).run(fmax=0.02)
            end.calc = None
            ase.io.write(name, end)
        reference = '{factory: "ase.calculators.emt:EMT"}'
        keys = f"initial: first.xyz\nfinal: last.xyz\nimages: 5\nfmax: 0.05\nreference: {reference}\n"
        Path("neb.yaml").write_text(keys)
        search(Path("neb.yaml"), Console(quiet=True))
        found = json.loads(Path("neb/result.json").read_text())
        os.chdir("/")
    print(
        f"NEB Au/Al(100): {found['reference_calls']} calls, barrier {found['barrier_eV']:.4f} eV (plain: 0.3744)"
    )


# ---------------------------------------------------------------- the most uncertain of several candidates


def chosen_labels(seed: int, candidates: int, moves: str, pool: Sequence[LabelledFrame]) -> dict[int, float]:
    """{labels: force MAE in meV/Å on frames at 300 K} of a process whose labels `kind: gpr` has asked for."""
    from ase.calculators.emt import EMT
    from ase.cluster import Icosahedron

    from aims_pax.potential import CalculatorPotential
    from aims_pax.samplers.kinds.gpr import MostUncertainSampler
    from aims_pax.samplers.kinds.md import MDSampler
    from aims_pax.samplers.surrogate import SurrogatePotential
    from aims_pax.settings.md import MDSettings
    from aims_pax.systems import System

    surrogate, inner = SurrogatePotential(), None
    if moves == "md":
        settings = MDSettings(stat_ensemble="NVT", temperature=300.0, timestep=5.0)
        inner = MDSampler(CalculatorPotential(EMT), lambda _: settings, 100 // candidates, continues=True)
    sampler = MostUncertainSampler(surrogate, candidates, 0.1, 1.0, inner)
    relaxed = Icosahedron("Cu", 2)
    relaxed.positions *= 0.95
    start, rng, found = System("cu13", Frame.from_atoms(relaxed)), np.random.default_rng(seed), {}
    forces = np.concatenate([x.label.forces for x in pool])
    for labels in range(5, 41, 5):
        made = list(sampler.sample([start], 5, rng))
        sampler.new_labels([s.labelled(calculate(s.frame, EMT())) for s in made])
        if labels in (10, 20, 40):
            said = surrogate.process.predict([x.frame for x in pool])
            found[labels] = 1000 * float(np.abs(said.forces - forces).mean())
    return found


def chooser(asked: argparse.Namespace) -> None:
    """Labels chosen among 20 candidates against random ones from the same candidates."""
    pool = pool_of("cu13", 50)
    for seed in range(asked.seeds):
        for moves, candidates in ((m, c) for m in asked.moves for c in asked.candidates):
            found = chosen_labels(seed, candidates, moves, pool)
            text = ", ".join(f"{n} labels {mae:.2f} meV/Å" for n, mae in found.items())
            print(f"seed {seed}, {moves}, {candidates} candidates: {text}", flush=True)


# ---------------------------------------------------------------- augmentation

CASES = {
    "ethanol-20": 20, "ethanol-40": 40, "dimer-20": 20, "dimer-40": 40, "ec-20": 20, "ec-40": 40, "cu13-10": 10,
}  # fmt: skip
PUBLISHED = Path(os.environ.get("AIMS_PAX_GPR_DATA", "../shared/data/gpr")) / "2_EC-EC"
CONVERGED = 0  # optimiser steps that mean: until the validation loss stays
PATIENCE, LEAST_GAIN, MOST_STEPS = 600, 0.005, 6000
VALID, TEST = 10, 50
MODEL = {"num_channels": 16, "max_L": 0, "max_ell": 3, "correlation": 2, "r_max": 4.5, "radial_MLP": [32, 32]}


def trajectory(
    atoms: Any, calculator: Any, temperature: float, timestep: float, count: int
) -> list[LabelledFrame]:
    """Frames of Langevin dynamics, 20 steps apart, after 300 steps."""
    from ase import units
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    rng = np.random.default_rng(0)
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    dynamics = Langevin(
        atoms, timestep * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng
    )
    dynamics.run(300)
    found = []
    for _ in range(count):
        dynamics.run(20)
        found.append(labelled(atoms, lambda: calculator))
    return found


def pool_of(system: str, count: int) -> list[LabelledFrame]:
    """Labelled frames of ethanol, dimer, ec or cu13."""
    from ase.build import molecule
    from ase.calculators.emt import EMT
    from ase.cluster import Icosahedron

    if system == "ec":
        paths = sorted(PUBLISHED.glob("*_set_tutorial/*.xsf"))
        if not paths:
            raise SystemExit(f"no frames in {PUBLISHED}; set AIMS_PAX_GPR_DATA, or leave ec-20 and ec-40 out")
        return [LabelledFrame(*read_xsf(path)) for path in paths]
    if system == "dimer":
        return dimer_frames(count, 0)
    if system == "cu13":
        return trajectory(Icosahedron("Cu", 2), EMT(), 300, 5.0, count)
    from tblite.ase import TBLite

    return trajectory(molecule("CH3CH2OH"), TBLite(method="GFN1-xTB", verbosity=0), 500, 0.5, count)


def settings_in(folder: Path) -> Any:
    """Those of a run with a small model; everything else has the defaults."""
    from aims_pax.settings import read_settings

    (folder / "geometry.in").write_text("atom 0 0 0 H\n")
    (folder / "aimsPAX.yaml").write_text(
        "INITIAL_DATASET_GENERATION: {desired_acc: 0.1, n_points_per_sampling_step_idg: 5}\nMD: {stat_ensemble: NVT}\n"
        'REFERENCE: {type: calculator, factory: "ase.calculators.emt:EMT"}\nAUGMENTATION: {kind: gpr}\n'
    )
    (folder / "mace.yaml").write_text(f"GENERAL: {{name_exp: bench}}\nARCHITECTURE: {json.dumps(MODEL)}\n")
    return read_settings(folder)


def trained(case: str, pool: Sequence[LabelledFrame], copied: bool, seed: int, steps: int) -> dict[str, Any]:
    """One training; errors on test frames that neither training nor the gate has seen."""
    import torch

    from aims_pax.models.base import MemberData
    from aims_pax.models.evaluate import evaluate_potential
    from aims_pax.models.gp.training_copies import TrainingCopies
    from aims_pax.models.mace.ensemble import Ensemble

    torch.set_num_threads(1)
    n, order = CASES[case], np.random.default_rng(seed).permutation(len(pool))
    chosen = [pool[k] for k in order]
    data = MemberData(chosen[:n], chosen[n : n + VALID])
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_in(Path(folder))
        elements = sorted({int(z) for z in pool[0].frame.numbers})
        ensemble = Ensemble.build(settings.mace, [seed], elements)
        copies = TrainingCopies(settings.augmentation, Path(folder))
        size = settings.mace.training.batch_size
        began, done, visits, opened = time.process_time(), 0, 0, 0
        best, best_at, weights = np.inf, 0, ensemble.member_arrays(0)
        while done < steps if steps != CONVERGED else done - best_at < PATIENCE and done < MOST_STEPS:
            now = copies.added(ensemble, 0, data, data, grows=False) if copied and ensemble.trained else data
            (seen,) = ensemble.train({0: now}, 1, words=("bench", visits))
            opened, visits = opened + bool(now.copies), visits + 1
            done += -(-(n + len(now.copies)) // size)
            if steps == CONVERGED and seen.valid_loss < best * (1 - LEAST_GAIN):
                best, best_at, weights = seen.valid_loss, done, ensemble.member_arrays(0)
        if steps == CONVERGED:
            ensemble.load_member(0, weights)
        ensemble.finish_convergence({0: data})
        found = evaluate_potential(ensemble.potential(), chosen[n + VALID :][:TEST])
        used = [
            json.loads(x)
            for x in Path(folder).glob("augmentation/used.jsonl")
            for x in x.read_text().splitlines()
        ]
    return {
        "case": case, "copies": copied, "seed": seed, "steps": best_at or done, "force_mae": found.force_mae,
        "energy_per_atom_mae": found.energy_per_atom_mae, "visits": visits, "visits_with_copies": opened,
        "loo_force_mae": used[-1]["loo_force_mae"] if used else None, "seconds": time.process_time() - began,
    }  # fmt: skip


def augmentation(asked: argparse.Namespace) -> None:
    out, steps = Path(asked.out), CONVERGED if asked.converged else asked.steps
    known = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    pools: dict[str, list[LabelledFrame]] = {}
    for seed in range(asked.seeds):
        for case in asked.cases or CASES:
            system = case.split("-")[0]
            for copied in (False, True):
                key = {"case": case, "copies": copied, "seed": seed, "wanted": steps}
                if any(key.items() <= line.items() for line in known):
                    continue
                pools.setdefault(system, []) or pools[system].extend(pool_of(system, 40 + VALID + TEST))
                line = trained(case, pools[system], copied, seed, steps) | key
                known.append(line)
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
    for case in asked.cases or CASES:
        table_row(case, [line for line in known if line["case"] == case and line["wanted"] == steps])


def table_row(case: str, lines: Sequence[dict[str, Any]]) -> None:
    """Mean and standard error of both, and of the ratios at equal seeds."""
    found = {c: {x["seed"]: x for x in lines if x["copies"] == c} for c in (False, True)}
    seeds = sorted(found[False].keys() & found[True].keys())
    if not seeds:
        return
    text = f"| {case} | {len(seeds)} |"
    for name in ("force_mae", "energy_per_atom_mae"):
        off, on = (np.array([found[c][s][name] for s in seeds]) * 1000 for c in (False, True))
        change = 100 * (on / off - 1)
        for values, digits in ((off, 1), (on, 1), (change, 0)):
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
            text += f" {values.mean():.{digits}f} ± {error:.{digits}f} |"
    used = np.mean([found[True][s]["visits_with_copies"] / found[True][s]["visits"] for s in seeds])
    loo = [1000 * found[True][s]["loo_force_mae"] for s in seeds if found[True][s]["loo_force_mae"]]
    lengths = " / ".join(f"{np.mean([found[c][s]['steps'] for s in seeds]):.0f}" for c in (False, True))
    print(f"{text} {np.mean(loo) if loo else np.nan:.1f} | {100 * used:.0f} % | {lengths} |", flush=True)


LONG = {"augmentation": augmentation, "chooser": chooser}
PARTS = {
    "published": published,
    "copper": copper,
    "dimer": dimer,
    "calculator": calculator,
    "scale": scale,
    "neb": neb,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS, *LONG])
    parser.add_argument("--steps", type=int, default=400, help="optimiser steps of a training")
    parser.add_argument("--converged", action="store_true", help="train until the validation loss stays")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", nargs="*", choices=[[], *CASES])
    parser.add_argument("--moves", nargs="*", default=["rattle", "md"], help="of chooser")
    parser.add_argument("--candidates", nargs="*", type=int, default=[1, 20], help="of chooser")
    parser.add_argument("--out", default="augmentation.jsonl", help="one line for each training")
    given = parser.parse_args()
    for part in given.parts or PARTS:
        if part in LONG:
            LONG[part](given)
        else:
            PARTS[part]()
