"""SO3LR: the numbers of its own calculator, laws of physics, charge and spin; it leaves nothing in the process."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms

from aims_pax.errors import SettingsError, Unsupported
from aims_pax.frames import Frame
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.models import memory_budget
from aims_pax.potential import Potential, calculate
from aims_pax.potentials.factory import calculator_potential
from aims_pax.potentials.quiet_packages import quiet_package
from aims_pax.samplers.kinds.md import MDSampler
from aims_pax.settings.md import MDSettings
from aims_pax.systems import System
from tests.carbon_dioxide import solid
from tests.md.laws import rotation
from tests.potentials.packages import needs_package
from tests.worlds import ethanol, rattled, water

needs_package("so3lr")
from aims_pax.potentials.so3lr import CUTOFF, DAMPING, So3lr  # noqa: E402

THEIRS = "so3krates_torch.calculator.so3:SO3LRCalculator"
HYDRONIUM = Frame([8, 1, 1, 1], [[0, 0, 0.08], [0.93, 0, -0.2], [-0.47, 0.81, -0.2], [-0.47, -0.81, -0.2]])
ICE = rattled(solid(), 2, 0.08, seed=3)  # carbon dioxide
FAR = 100.0  # Å: the long-range cutoff with which the package's calculator includes all pairs of a molecule


@pytest.fixture(scope="module")
def exact():
    return So3lr("cpu", "float64")


@pytest.fixture(scope="module")
def single():
    return So3lr("cpu", "float32")


def reach(frames):
    return CUTOFF if frames[0].periodic else FAR


def theirs(frames, dtype="float64", cutoff=CUTOFF):
    """Labels of the package's own calculator."""
    with quiet_package():
        from so3krates_torch.calculator.so3 import SO3LRCalculator

        keys = {"r_max_lr": cutoff, "dispersion_energy_cutoff_lr_damping": DAMPING, "compute_stress": True}
        made = SO3LRCalculator(default_dtype=dtype, **keys)
        return [calculate(frame, made) for frame in frames]


def test_it_is_a_potential(exact):
    assert isinstance(exact, Potential)


def test_a_crystal_has_the_forces_and_the_stress_of_the_package_s_calculator(exact):
    for ours, known in zip(exact.labels(ICE), theirs(ICE), strict=True):
        np.testing.assert_allclose(ours.forces, known.forces, atol=1e-7)
        np.testing.assert_allclose(ours.stress, known.stress, atol=1e-7)
        assert ours.energy == pytest.approx(known.energy, abs=1e-6)


def test_molecules_have_the_forces_of_the_package_s_calculator_at_its_cutoff():
    frames = [*rattled(ethanol(), 2), *rattled(water(), 2), replace(HYDRONIUM, charge=1)]
    ours = So3lr("cpu", "float64", long_range=FAR).labels(frames)
    for one, known in zip(ours, theirs(frames, cutoff=FAR), strict=True):
        np.testing.assert_allclose(one.forces, known.forces, atol=1e-7)
        assert one.stress is None


@pytest.mark.parametrize("frames", [rattled(ethanol(), 3), ICE], ids=["molecule", "crystal"])
def test_single_precision_is_as_accurate_as_the_package_s_calculator(frames):
    """Atoms have energies of −160 eV: forces are rounded by some 1e-5 eV/Å."""
    exact = np.array([label.forces for label in So3lr("cpu", "float64", reach(frames)).labels(frames)])
    ours, known = (
        abs(np.array([label.forces for label in labels]) - exact).max()
        for labels in (
            So3lr("cpu", "float32", reach(frames)).labels(frames),
            theirs(frames, "float32", reach(frames)),
        )
    )
    assert ours < 2 * known < 2e-4


def test_without_a_cutoff_a_molecule_is_the_limit_of_long_cutoffs(exact):
    """The smooth cutoff of the package shifts the Coulomb energy by a constant ∝ 1/cutoff."""
    frames = rattled(ethanol(), 2)
    here = np.array([label.forces for label in exact.labels(frames)])
    off = [
        abs(np.array([label.forces for label in So3lr("cpu", "float64", reach).labels(frames)]) - here).max()
        for reach in (1e3, 1e4)
    ]
    assert 0 < off[1] < 0.11 * off[0] < 1e-3


def slope(energies, h):
    """dE/dx from the energies at x − 2h, x − h, x + h, x + 2h."""
    return (8 * (energies[2] - energies[1]) - (energies[3] - energies[0])) / (12 * h)


def difference(potential, frame, h=1e-3):
    """−∂E/∂x of one atom, and ∂E/∂ε/V, by differences; positions are rounded to 1e-8 Å, so h is not small."""
    steps = h * np.array([-2, -1, 1, 2])

    def derivative(moved):
        return slope([label.energy for label in potential.labels([moved(step) for step in steps])], h)

    def shifted(axis, step):
        positions = frame.positions.copy()
        positions[1, axis] += step
        return frame.moved(positions)

    def strained(a, b, step):
        strain = np.eye(3)
        strain[a, b] += step / 2
        strain[b, a] += step / 2
        return frame.moved(frame.positions @ strain, frame.cell @ strain)

    forces = [-derivative(lambda s, a=axis: shifted(a, s)) for axis in range(3)]
    if not frame.periodic:
        return np.array(forces), None
    volume = abs(np.linalg.det(frame.cell))
    stress = [
        [derivative(lambda s, a=a, b=b: strained(a, b, s)) / volume for b in range(3)] for a in range(3)
    ]
    return np.array(forces), np.array(stress)


@pytest.mark.parametrize("frame", [rattled(ethanol(), 1)[0], ICE[0]], ids=["molecule", "crystal"])
def test_forces_and_stress_are_derivatives_of_the_energy(exact, frame):
    (label,) = exact.labels([frame])
    forces, stress = difference(exact, frame)
    np.testing.assert_allclose(label.forces[1], forces, atol=2e-5)
    if stress is not None:
        np.testing.assert_allclose(label.stress, stress, atol=1e-6)


def test_a_batch_gives_each_structure_what_it_has_alone(single, exact):
    frames = [ethanol(), ICE[0], replace(HYDRONIUM, charge=1), water(), ICE[1], replace(water(), spin=3)]
    for potential, to in ((exact, 1e-9), (single, 2e-5)):
        for together, frame in zip(potential.labels(frames), frames, strict=True):
            (alone,) = potential.labels([frame])
            np.testing.assert_allclose(together.forces, alone.forces, atol=to)
            assert together.energy == pytest.approx(alone.energy, abs=10 * to)
            assert (together.stress is None) == (alone.stress is None)


def test_bound_it_follows_positions_and_cells_and_gives_stress_where_there_is_one(exact):
    frames = [ethanol(), ICE[0]]
    bound = exact.bind(frames)
    moved = [f.moved(1.01 * f.positions, 1.01 * f.cell) for f in frames]
    for now in (frames, moved):
        positions = torch.from_numpy(np.concatenate([f.positions for f in now]))
        said = bound(positions, torch.from_numpy(np.stack([f.cell for f in now])), stress=True)
        known = exact.labels(now)
        np.testing.assert_allclose(said.forces[0], np.concatenate([k.forces for k in known]), atol=1e-9)
        assert said.stress[0, 0].isnan().all()
        np.testing.assert_allclose(said.stress[0, 1], known[1].stress, atol=1e-9)
    assert bound(positions, torch.zeros((2, 3, 3), dtype=torch.float64)).stress is None


def test_energies_do_not_depend_on_place_orientation_or_numbering(single):
    frame = rattled(ethanol(), 1)[0]
    order = np.random.default_rng(0).permutation(len(frame))
    turned = Frame(frame.numbers[order], (frame.positions @ rotation())[order] + 5e3)
    here, there = single.labels([frame, turned])
    assert there.energy == pytest.approx(here.energy, abs=2e-4)
    np.testing.assert_allclose(there.forces, (here.forces @ rotation())[order], atol=5e-5)


def test_charge_and_multiplicity_reach_the_model(exact):
    charged = replace(HYDRONIUM, charge=1, spin=1)
    radical = Frame([8, 1], [[0, 0, 0], [0, 0, 0.97]], charge=0, spin=2)
    closed = replace(radical, spin=None)
    said = exact.labels([HYDRONIUM, charged, closed, radical])
    assert abs(said[1].forces - said[0].forces).max() > 0.1
    assert abs(said[3].energy - said[2].energy) > 0.1
    as_theirs = Atoms("OH", radical.positions, info={"charge": 0.0, "total_spin": 0.5})  # S
    with quiet_package():
        from so3krates_torch.calculator.so3 import SO3LRCalculator

        as_theirs.calc = SO3LRCalculator(default_dtype="float64", r_max_lr=FAR)
        known = as_theirs.get_forces()
    ours = So3lr("cpu", "float64", FAR).labels([radical])[0]
    np.testing.assert_allclose(ours.forces, known, atol=1e-8)


def test_as_a_reference_it_is_given_charge_and_spin_and_gives_stress(exact):
    reference = CalculatorReference("aims_pax.potentials.bundled:so3lr", {"dtype": "float64"})
    frames = [replace(HYDRONIUM, charge=1, spin=1), ICE[0]]
    for known, frame in zip(exact.labels(frames), frames, strict=True):
        label = reference.label(frame)
        np.testing.assert_allclose(label.forces, known.forces, atol=1e-8)
        assert label.energy == pytest.approx(known.energy, abs=1e-8)
        assert (label.stress is None) == (known.stress is None)


def test_the_package_s_calculator_does_not_take_a_multiplicity_for_s():
    """It reads S from atoms.info["total_spin"], where frames write 2S+1."""
    kwargs = {"default_dtype": "float64", "r_max_lr": FAR}
    reference = CalculatorReference(THEIRS, kwargs)
    with quiet_package():
        plain = reference.label(water())
        singlet = reference.label(replace(water(), charge=0, spin=1))
        assert singlet.energy == pytest.approx(plain.energy, abs=1e-9)
        with pytest.raises(Unsupported, match="reads the spin S, not 2S"):
            reference.label(replace(water(), charge=0, spin=3))


def test_the_factory_of_the_short_name_moves_atoms_with_the_batched_potential(tmp_path):
    potential = calculator_potential("aims_pax.potentials.bundled:so3lr", {}, tmp_path, "initial_calculator")
    assert isinstance(potential, So3lr)


def test_atoms_without_neighbours_have_energies_and_no_forces(exact):
    alone, pair = Frame([8], [[0, 0, 0]]), Frame([8, 8], [[0, 0, 0], [0, 0, 60.0]])
    said = exact.labels([alone, pair])
    assert said[1].energy == pytest.approx(2 * said[0].energy, abs=1e-4)
    assert abs(said[0].forces).max() == 0
    assert abs(said[1].forces).max() < 1e-4
    in_a_box = replace(alone, cell=40 * np.eye(3), pbc=np.ones(3, bool))
    assert exact.labels([in_a_box])[0].finite


def test_an_exploded_structure_spoils_no_other(exact):
    frames = [ICE[0], ethanol(), ICE[1]]
    bound = exact.bind(frames)
    positions = torch.from_numpy(np.concatenate([f.positions for f in frames]))
    cells = torch.from_numpy(np.stack([f.cell for f in frames]))
    well = bound(positions, cells)
    positions[0] = torch.nan
    said = bound(positions, cells)
    assert said.energies[0].isnan().tolist() == [True, False, False]
    n = len(ICE[0])
    assert said.forces[0, :n].isnan().all()
    torch.testing.assert_close(said.forces[0, n:], well.forces[0, n:], rtol=0, atol=1e-9)


def test_an_unknown_element_is_refused_with_those_that_are_known(exact):
    with pytest.raises(SettingsError, match=r"does not know Si, only H, C, N, O, F, P, S, Cl \(OSi\)"):
        exact.bind([Frame([14, 8], [[0, 0, 0], [0, 0, 1.5]])])


def test_structures_that_exceed_the_memory_limit_are_evaluated_in_pieces(single):
    frames = rattled(ethanol(), 6)
    whole = single.labels(frames)
    try:
        memory_budget.allow(5e6)
        pieces = single.pieces(frames)
        assert 1 < len(pieces) <= 6
        assert [k for piece in pieces for k in piece] == [*range(6)]
        for one, other in zip(whole, single.labels(frames), strict=True):
            np.testing.assert_allclose(one.forces, other.forces, atol=2e-5)
    finally:
        memory_budget.forget_measurement()


MD = {
    "NVT": MDSettings(stat_ensemble="NVT", temperature=400.0, timestep=0.5, friction=0.01),
    "NPT": MDSettings(stat_ensemble="NPT", temperature=200.0, timestep=0.5, barostat="MTK"),
}


def test_trajectories_are_the_same_every_time_and_the_pressure_moves_the_cell(single):
    systems = [System("a", ethanol()), System("crystal", solid()), System("b", ethanol())]

    def drawn():
        sampler = MDSampler(single, lambda s: MD["NPT" if s.frame.periodic else "NVT"], 3)
        return [s.frame for s in sampler.sample(systems, 3, np.random.default_rng(1))]

    first = drawn()
    assert [f.id for f in first] == [f.id for f in drawn()]
    assert len({f.id for f in first}) == 9
    assert abs(first[-2].cell - systems[1].frame.cell).max() > 1e-6


def test_nothing_stays_in_the_process():
    """torch's default dtype, standard output and warnings, in a fresh interpreter where warnings are errors."""
    code = """
import json, warnings, torch
from aims_pax.frames import Frame
from aims_pax.potentials.bundled import bundled_potential
warnings.simplefilter("error")
types = [str(torch.get_default_dtype())]
for dtype in ("float64", "float32"):
    bundled_potential("so3lr", "cpu", dtype).labels([Frame([8], [[0, 0, 0]])])
    types.append(str(torch.get_default_dtype()))
print(json.dumps(types))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == 3 * ["torch.float32"]
