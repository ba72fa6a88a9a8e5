"""The code on the page `extending` runs and does what the page says."""

import os
import re
import subprocess
import sys

import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from aims_pax.dataset import read_extxyz
from aims_pax.errors import Crashed, SetupError, TimedOut
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.potential import CalculatorPotential, Potential, calculate
from aims_pax.samplers import Sampler, base, sampler
from aims_pax.samplers.foundation_md import MDSampler
from aims_pax.systems import System
from tests.md.potentials import cluster, crystal
from tests.md.settings import langevin
from tests.projects import command, write_project
from tests.test_docs import blocks, page
from tests.worlds import water


@pytest.fixture
def extensions(tmp_path, monkeypatch):
    """A folder with the modules of the page."""
    for name, code in re.findall(r"```python title=\"(\w+)\.py\"\n(.*?)```", page("extending"), re.DOTALL):
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_reference", "shaken", "confined", "inverse"):
        sys.modules.pop(name, None)


def test_the_code_of_the_page_about_samplers_runs():
    (code,) = blocks(page("samplers"), "python")
    ran: dict = {}
    exec(code, ran)
    assert len(ran["structures"]) == 3
    assert all(len(atoms) == 4 for atoms in ran["structures"])


PROGRAM = """
import io, json, sys
from ase.calculators.emt import EMT
from ase.io import read
atoms = read(io.StringIO(sys.stdin.read()), format="xyz")
if atoms.positions[:, 2].max() > 50:
    sys.exit(3)
atoms.calc = EMT()
print(json.dumps({"energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist()}))
"""


def test_its_reference_labels_and_fails_as_the_page_says(extensions, monkeypatch):
    def reference(**kwargs):
        return CalculatorReference("my_reference:MyProgram", kwargs, extensions)

    (extensions / "program.py").write_text(PROGRAM)
    good = reference(command=[sys.executable, "program.py"], timeout=60)
    good.check()
    frame = water().moved(water().positions + np.array([[0, 0, 0.03], [0, 0, 0], [0, 0.02, 0]]))
    monkeypatch.chdir(extensions)
    label, truth = good.label(frame), calculate(frame, EMT())
    with pytest.raises(Crashed):
        good.label(frame.moved(frame.positions + np.array([0, 0, 100])))
    with pytest.raises(TimedOut):
        reference(command=[sys.executable, "-c", "import time; time.sleep(9)"], timeout=0.2).label(frame)
    with pytest.raises(SetupError):
        reference(command=["no-such-program"], timeout=5).label(frame)
    assert label.energy == pytest.approx(truth.energy, abs=1e-9)
    assert np.abs(label.forces - truth.forces).max() < 1e-9
    assert np.abs(truth.forces).max() > 0.1


def test_its_sampler_keeps_the_promises_of_samplers(extensions):
    import shaken

    try:
        made = sampler("shaken", sigma=0.1)
    finally:
        base._KINDS.pop("shaken")
    assert isinstance(made, Sampler)
    assert isinstance(made, shaken.Shaken)
    slab = crystal(1, 5.4, fixed=[True, False, False, False], moments=[1, 0, 0, 0])
    systems = (System("drop", cluster(5, charge=1.0, spin=2)), System("slab", slab))

    def drawn(seed):
        return list(made.sample(systems, 3, np.random.default_rng(seed)))

    samples = drawn(1)
    assert [s.origin["system"] for s in samples] == ["drop", "slab"] * 3
    for sample in samples:
        began = dict(zip(("drop", "slab"), (s.frame for s in systems), strict=True))[sample.origin["system"]]
        assert sample.frame.moved(began.positions) == began
        fixed = np.zeros_like(began.positions, bool) if began.fixed is None else began.fixed
        assert ((sample.frame.positions != began.positions) == ~fixed).all()
    assert [s.frame.id for s in drawn(1)] == [s.frame.id for s in samples] != [s.frame.id for s in drawn(2)]


def test_what_its_sampler_makes_is_labelled_by_the_command_on_the_page(extensions):

    assert "python shake.py\naims-PAX-recalc shaken.xyz -o labelled.xyz\n" in blocks(
        page("extending"), "bash"
    )
    write_project(extensions)
    ase.io.write(extensions / "geometry.in", water().to_atoms(), format="aims")
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "shake.py"], cwd=extensions, env=quiet, check=True, timeout=120)
    done = command("shaken.xyz", "-o", "labelled.xyz", folder=extensions, name="aims-PAX-recalc", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len({labelled.id for labelled in read_extxyz(extensions / "labelled.xyz")}) == 20


def test_its_potential_has_the_forces_of_its_energy_and_moves_atoms(extensions):
    from confined import Confined

    inner = CalculatorPotential(lambda: LennardJones(epsilon=0.0104, sigma=3.4, rc=8.5, smooth=True))
    potential = Confined(inner, radius=2.0, k=3.0)
    assert isinstance(potential, Potential)
    frame = cluster(5)
    label, bare = potential.labels([frame])[0], inner.labels([frame])[0]
    assert label.energy > bare.energy + 0.1
    assert np.abs(label.forces.sum(0)).max() < 1e-9
    h = 1e-4
    for atom, k in ((0, 0), (3, 2)):
        shift = np.zeros(frame.positions.shape)
        shift[atom, k] = h
        up, down = potential.labels([frame.moved(frame.positions + s) for s in (shift, -shift)])
        assert label.forces[atom, k] == pytest.approx((down.energy - up.energy) / (2 * h), abs=1e-5)
    soft = Confined(inner, radius=2.0, k=0.01)
    dynamics = MDSampler(soft, lambda system: langevin(40), skip_steps=5, name="confined")
    samples = list(dynamics.sample((System("drop", frame),), 2, np.random.default_rng(1)))
    assert len({s.frame.id for s in samples} | {frame.id}) == 3


def test_its_model_goes_from_the_initial_dataset_to_a_tested_file(extensions):
    members = {"ensemble_size": 2}
    changes = {
        "MODEL": {"kind": "inverse:KIND"}, "INITIAL_DATASET_GENERATION": members,
        "ACTIVE_LEARNING": {**members, "max_MD_steps": 40, "n_test": 1},
    }  # fmt: skip
    folder = write_project(extensions / "run", changes, {"ARCHITECTURE": None, "TRAINING": None})
    (folder / "inverse.py").write_text((extensions / "inverse.py").read_text())
    for words in ((), ("check",), ("plan",)):
        done = command(*words, folder=folder)
        assert done.returncode == 0, done.stderr + done.stdout
    models = sorted((folder / "results").rglob("*.inverse"))
    assert len(models) == 2
    done = command("test", *map(str, models), "results/training.xyz", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "spread of the forces on an atom" in done.stdout
    refused = command("export", folder=folder)
    assert refused.returncode == 2
    assert "inverse-distance models cannot be exported" in " ".join(refused.stderr.split())
