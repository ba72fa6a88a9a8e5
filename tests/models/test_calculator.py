"""`aims_pax.calculator`: energies of MACECalculator by the run's inference, and the spread of the committee."""

import copy
import json
import pickle

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError
from ase.calculators.harmonic import SpringCalculator
from ase.constraints import FixBondLength
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet

from aims_pax import calculator
from aims_pax.core.uncertainty import atomic_sd
from aims_pax.errors import SettingsError
from aims_pax.models.base import MemberData
from aims_pax.models.calculator import ModelCalculator
from aims_pax.models.delta import DeltaPotential
from aims_pax.potential import CalculatorPotential, EvaluatedPotential, Evaluation
from aims_pax.record.delivered_models import content, file_digest
from tests.models.linear_model import KIND, LinearMember, LinearModel
from tests.models.mace import tiny

COPPER = bulk("Cu", cubic=True)
COPPER.positions += np.random.default_rng(1).normal(0, 0.1, (4, 3))
ETHANOL = molecule("CH3CH2OH")


def delivered(results, elements=(1, 8), **changes):
    """A folder results/ of two members, of which the first was delivered; returns its model files."""
    ensemble = tiny.ensemble(elements=elements, **changes)
    paths = [results / "tiny_1.model", results / "committee" / "tiny_2.model"]
    for m, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        ensemble.save(m, path)
    entries = {str(p.relative_to(results)): {"kind": "mace", "sha256": file_digest(p)} for p in paths}
    (results / "models.json").write_text(content(entries))
    return paths


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return delivered(tmp_path_factory.mktemp("run") / "results", tiny.ELEMENTS)


def by_mace(paths, atoms, dtype="float64"):
    from aims_pax.models.mace.mace_import import quiet

    with quiet():
        from mace.calculators import MACECalculator

        atoms = atoms.copy()
        atoms.calc = MACECalculator(model_paths=[str(p) for p in paths], device="cpu", default_dtype=dtype)
        atoms.get_potential_energy()
    return atoms.calc.results


@pytest.mark.parametrize("inference", ["auto", "torch"])
@pytest.mark.parametrize("atoms", [ETHANOL, COPPER], ids=["ethanol", "copper"])
def test_it_says_what_maces_calculator_says_of_a_committee(files, inference, atoms):
    calc = calculator(files, inference, dtype="float64")
    truth, atoms = by_mace(files, atoms), atoms.copy()
    atoms.calc = calc
    assert atoms.get_potential_energy() == pytest.approx(truth["energy"], abs=1e-6)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    for name in ("forces", "forces_comm", "energy_comm", "energy_var"):
        assert calc.results[name] == pytest.approx(truth[name], abs=2e-6), name
    assert atoms.get_potential_energies() == pytest.approx(truth["energies"], abs=1e-6)
    assert calc.results["energy"] == pytest.approx(truth["energies"].sum(), abs=1e-6)
    if atoms.pbc.all():
        assert atoms.get_stress() == pytest.approx(truth["stress"], abs=1e-7)
        assert calc.results["stress_var"] == pytest.approx(truth["stress_var"], abs=1e-8)


def test_the_members_of_a_run_give_the_spread_and_its_delivered_model_the_forces(files):
    run = files[0].parents[1]
    first, second, both = (calculator(p) for p in (files[0], files[1], files))
    for folder in (run, str(run / "results")):
        calc = calculator(folder)
        one, two, mean = (c.get_property("forces", ETHANOL) for c in (first, second, both))
        assert calc.get_property("forces", ETHANOL) == pytest.approx(one, abs=1e-6)
        assert np.abs(mean - one).max() > 1e-3
        assert calc.results["forces_spread"] == pytest.approx(atomic_sd(np.stack([one, two])), abs=1e-6)
        energies = [c.get_property("energy", ETHANOL) for c in (first, second)]
        assert calc.results["energy_spread"] == pytest.approx(np.std(energies), abs=1e-5)
    alone = calculator(run, spread=False)
    assert alone.get_property("forces", ETHANOL) == pytest.approx(one, abs=1e-6)
    assert "forces_spread" not in alone.results


def test_a_pattern_names_a_committee(files, tmp_path):
    for k, path in enumerate(files):
        (tmp_path / f"m{k}.model").write_bytes(path.read_bytes())
    assert calculator(str(tmp_path / "m*.model")).potential.members == 2


def test_molecular_dynamics_conserves_energy_and_uses_its_neighbours_again(files):
    atoms = COPPER.repeat((2, 2, 2))
    atoms.calc = calc = calculator(files[0], dtype="float64")
    dynamics, start = VelocityVerlet(atoms, 1.0 * units.fs), atoms.get_total_energy()
    dynamics.run(20)
    assert atoms.get_total_energy() == pytest.approx(start, abs=2e-3)
    assert np.abs(atoms.get_velocities()).max() > 1e-3
    assert calc._bound.neighbours.builds < 10
    fresh = calculator(files[0], dtype="float64")
    assert fresh.get_property("forces", atoms) == pytest.approx(atoms.get_forces(), abs=1e-9)


def test_a_stress_that_was_asked_for_once_comes_with_the_forces(files):
    calc, atoms = calculator(files[0]), COPPER.copy()
    atoms.calc = calc
    atoms.get_forces()
    assert "stress" not in calc.results
    FrechetCellFilter(atoms).get_forces()
    atoms.rattle(0.01)
    atoms.get_forces()
    assert "stress" in calc.results
    with pytest.raises(PropertyNotImplementedError, match="C2H6O is not periodic in three directions"):
        calc.get_property("stress", ETHANOL)


def test_other_atoms_are_bound_anew_and_constraints_do_not_matter(files):
    calc, water = calculator(files[0]), molecule("H2O")
    water.set_constraint(FixBondLength(0, 1))
    first = calc.get_property("energy", ETHANOL)
    assert calc.get_property("forces", water).shape == (3, 3)
    assert calc.get_property("energy", ETHANOL) == first
    swapped = ETHANOL.copy()
    swapped.numbers[[0, 2]] = swapped.numbers[[2, 0]]
    assert calc.get_property("energy", swapped) != first


def test_atoms_that_were_refused_once_are_not_computed_as_the_atoms_before(files):
    calc, flat = calculator(files[0]), COPPER.copy()
    calc.get_property("energy", COPPER)
    flat.pbc = False
    with pytest.raises(PropertyNotImplementedError, match="there is no stress"):
        calc.get_property("stress", flat)
    alone = calculator(files[0]).get_property("energy", flat)
    assert alone != pytest.approx(calculator(files[0]).get_property("energy", COPPER), abs=1e-4)
    assert calc.get_property("energy", flat) == pytest.approx(alone, abs=1e-9)
    gold = COPPER.copy()
    gold.numbers[0] = 79
    for _ in range(2):
        with pytest.raises(SettingsError, match="the model does not know Au"):
            calc.get_property("energy", gold)


def test_results_go_into_files_that_ase_reads(files, tmp_path):
    atoms = ETHANOL.copy()
    atoms.calc = calculator(files)
    atoms.get_forces()
    ase.io.write(tmp_path / "a.xyz", atoms)
    assert ase.io.read(tmp_path / "a.xyz").get_forces() == pytest.approx(atoms.get_forces(), abs=1e-6)


def test_what_it_cannot_compute_it_says_in_a_sentence(files, tmp_path):
    calc = calculator(files[0])
    with pytest.raises(SettingsError, match=r"the model does not know Au \(in Au2\); it knows H C O Cu"):
        calc.get_property("energy", ase.Atoms("Au2", [[0, 0, 0], [0, 0, 2.5]]))
    gone = ETHANOL.copy()
    gone.positions[0] = np.nan
    with pytest.raises(CalculationFailed, match="C2H6O are not finite"):
        calc.get_property("energy", gone)
    for pbc, cell in (([True, True, False], [3, 0, 0]), ([False, False, True], [3, 3, 0]), (True, [3, 3, 0])):
        with pytest.raises(CalculationFailed, match="no lattice vector along a periodic direction"):
            calc.get_property("energy", Atoms(ETHANOL.numbers, ETHANOL.positions, cell=cell, pbc=pbc))
    assert np.isfinite(calc.get_property("energy", ETHANOL))
    for path, words in (
        (tmp_path / "no.model", "no such file"),
        ([], "no model files"),
        (tmp_path, "no models of a run in it"),
        (str(tmp_path / "*.model"), "no model files"),
    ):
        with pytest.raises(SettingsError, match=words):
            calculator(path)
    with pytest.raises(SettingsError, match="inference: expected auto, native, torch, got 'fast'"):
        calculator(files[0], "fast")
    with pytest.raises(SettingsError, match="dtype: expected float32, float64 or None"):
        calculator(files[0], dtype="float16")


def test_a_file_in_a_run_that_the_run_did_not_write_is_not_opened(tmp_path):
    delivered(tmp_path / "results")
    entries = json.loads((tmp_path / "results" / "models.json").read_text())["models"]
    (tmp_path / "results" / "tiny_1.model").write_bytes(b"import os")
    with pytest.raises(SettingsError, match="not the file that this run wrote"):
        calculator(tmp_path)
    (tmp_path / "results" / "committee" / "tiny_2.model").unlink()
    entries["tiny_1.model"]["sha256"] = file_digest(tmp_path / "results" / "tiny_1.model")
    (tmp_path / "results" / "models.json").write_text(content(entries))
    with pytest.raises(SettingsError, match=r"tiny_2\.model: no such file"):
        calculator(tmp_path)


def test_another_family_gives_its_own_spread(tmp_path):
    model = LinearModel([LinearMember("one", 1)], (1, 8))
    model.train({0: MemberData(tiny.water(8), tiny.water(2, seed=9))}, 1)
    model.save(0, tmp_path / "one.linear.npz")
    calc = ModelCalculator(
        KIND.load_fast([tmp_path / "one.linear.npz"], "cpu", None, "auto"), has_stress=False
    )
    water = tiny.water(1, seed=4)[0].frame.to_atoms()
    spread = calc.get_property("forces_spread", water)
    assert spread.shape == (3,)
    assert (spread > 0).all()
    assert "energy_spread" not in calc.results
    assert "stress" not in calc.implemented_properties


def test_a_stress_that_the_baseline_does_not_have_is_refused_and_not_given_as_nan():
    def evaluate(frames):
        shapes = ((2, len(frames)), (2, sum(map(len, frames)), 3), (2, len(frames), 3, 3))
        return Evaluation(*map(np.zeros, shapes))

    springs = CalculatorPotential(lambda: SpringCalculator(COPPER.positions, 1.0))
    calc = ModelCalculator(DeltaPotential(EvaluatedPotential(evaluate, (29,), 2), springs))
    with pytest.raises(PropertyNotImplementedError, match="stress not present in this calculation"):
        calc.get_property("stress", COPPER)
    assert calc.get_property("energy", COPPER) == pytest.approx(0.0)


def test_a_pickled_calculator_reads_its_files_again_and_a_copy_shares_the_models(files):
    calc = calculator(files[0].parent, "torch", dtype="float64")
    atoms = ETHANOL.copy()
    atoms.calc = calc
    expected = atoms.get_potential_energy()
    atoms.rattle(0.1)
    moved = atoms.get_potential_energy()
    for again in (pickle.loads(pickle.dumps(calc)), copy.deepcopy(calc)):
        assert (again.acting, again.potential.members) == (1, 2)
        assert again.get_potential_energy(ETHANOL) == expected
        assert calc.results["energy"] == moved  # each has results of its own
    assert copy.deepcopy(calc).potential is calc.potential
    both = copy.deepcopy(atoms)
    assert not both.calc.calculation_required(both, ["energy"])
    assert both.get_potential_energy() == moved


def test_a_calculator_that_was_not_read_from_files_cannot_be_pickled(files):
    with pytest.raises(TypeError, match="made from files"):
        pickle.dumps(ModelCalculator(calculator(files[0]).potential))


def test_no_atoms_have_no_energy(files):
    with pytest.raises(SettingsError, match="there are no atoms"):
        calculator(files[0]).get_potential_energy(Atoms())
