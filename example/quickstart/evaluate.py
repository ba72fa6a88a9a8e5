"""How good is the model? Compare it with GFN1-xTB along GFN1-xTB's own dynamics at 500 K, on frames it never saw."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import io
import json
import sys
import warnings
from pathlib import Path

import ase.io
import numpy as np
from ase import units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from tblite.ase import TBLite

warnings.filterwarnings("ignore", category=UserWarning)  # e3nn and MACE comment on how they load files
warnings.filterwarnings("ignore", category=FutureWarning)  # ASE announces a plug-in for geometry.in
warnings.filterwarnings("ignore", category=DeprecationWarning)

N_FRAMES, EVERY, EQUILIBRATION, TIMESTEP = 60, 40, 400, 0.5  # frames, steps (20 fs), steps (200 fs), fs


def reference() -> TBLite:
    return TBLite(method="GFN1-xTB", accuracy=0.01, verbosity=0)


def frames_of_the_reference(seed: int):
    """Frames 20 fs apart from the reference's own dynamics, after 200 fs of equilibration."""
    atoms = ase.io.read("geometry.in", format="aims")
    atoms.calc = reference()
    rng = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=500, rng=rng)
    dynamics = Langevin(
        atoms, TIMESTEP * units.fs, temperature_K=500, friction=0.01 / units.fs, rng=rng, fixcm=False
    )
    dynamics.run(EQUILIBRATION)
    for _ in range(N_FRAMES):
        dynamics.run(EVERY)
        yield atoms.copy()


def main() -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # MACE prints which optional libraries are missing
        from mace.calculators import MACECalculator

    (model,) = Path("results").glob("*.model")
    calculator = MACECalculator(model_paths=str(model), device="cpu", default_dtype="float32")
    errors, forces = [], []
    for atoms in frames_of_the_reference(seed=2024):
        atoms.calc = reference()
        forces.append(atoms.get_forces())
        atoms.calc = calculator
        errors.append(atoms.get_forces() - forces[-1])
    mae, zero = (1000 * float(np.abs(values).mean()) for values in (errors, forces))
    calls = len(list(Path("data/labels").glob("*/*.json"))) - len(
        list(Path("data/labels").glob("*/method.json"))
    )
    print(f"{len(errors)} frames of GFN1-xTB dynamics at 500 K that no model has seen:")
    print(f"  force MAE of {model.name}   {mae:7.1f} meV/Å")
    print(f"  force MAE of predicting zero   {zero:7.1f} meV/Å")
    print(f"  reference calculations (initial + active learning + validation): {calls}")
    Path("results/evaluation.json").write_text(
        json.dumps({"force_mae_meV_A": mae, "zero_force_mae_meV_A": zero, "reference_calculations": calls})
        + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
