"""Anything that computes energies and forces: calculators one by one and bound, members together."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.mixing import SumCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from aims_pax.errors import Crashed, NotConverged, SetupError, WrongShape
from aims_pax.frames import Frame
from aims_pax.potential import (
    CalculatorPotential,
    EvaluatedPotential,
    Evaluation,
    Potential,
    calculate,
    full_stress,
    parts_of,
)
from tests import worlds

COPPER, PAIR = Frame.from_atoms(bulk("Cu", cubic=True)), worlds.dimer("Cu", 2.4)
STRAINED = COPPER.moved(COPPER.positions * 1.02, COPPER.cell * 1.02)


def tensors(frames):
    positions = torch.from_numpy(np.concatenate([f.positions for f in frames]))
    return positions, torch.from_numpy(np.stack([f.cell for f in frames]))


class Quadratic(Calculator):
    """E = Σ x² and another free energy, a known stress; counts what it is asked."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, free=True):
        super().__init__()
        self.free, self.asked = free, []

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.asked.append(tuple(properties))
        energy = float((atoms.positions**2).sum())
        self.results = {"energy": energy, "forces": -2 * atoms.positions, "stress": np.arange(6.0)}
        if self.free:
            self.results["free_energy"] = energy - 0.5


# ---------------------------------------------------------------- one frame


def test_a_label_is_one_call_with_the_energy_that_the_forces_derive_from():
    calculator = Quadratic()
    label = calculate(COPPER, calculator)
    assert label.energy == pytest.approx((COPPER.positions**2).sum() - 0.5)
    assert calculate(COPPER, Quadratic(free=False)).energy == pytest.approx(label.energy + 0.5)
    np.testing.assert_array_equal(label.forces, -2 * COPPER.positions)
    assert calculator.asked == [("energy", "forces", "stress")]


def test_stress_is_asked_for_where_it_is_wanted_known_and_means_something():
    calculator = Quadratic()
    assert calculate(PAIR, calculator).stress is None
    assert calculate(COPPER, calculator, stress=False).stress is None
    assert calculator.asked == [("energy", "forces")] * 2
    calculator.implemented_properties = ("energy", "forces")
    assert calculate(COPPER, calculator).stress is None


def test_forces_on_fixed_atoms_are_raw():
    fixed = replace(PAIR, fixed=np.ones((2, 3), bool))
    forces = calculate(fixed, EMT()).forces
    np.testing.assert_array_equal(forces, calculate(PAIR, EMT()).forces)
    assert np.abs(forces).max() > 0.01


def test_a_calculator_sees_no_constraints_for_which_programs_would_print_zero_forces():
    class Seeing(EMT):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            self.seen = list(atoms.constraints)
            super().calculate(atoms, properties, system_changes)

    calculator = Seeing()
    calculate(replace(PAIR, fixed=np.ones((2, 3), bool)), calculator)
    assert calculator.seen == []


def test_a_calculator_that_only_notes_that_it_has_not_converged_gives_no_label():
    class Unconverged(EMT):
        converged = False  # as ase.calculators.vasp.Vasp does

    for calculator in (Unconverged(), SumCalculator([EMT(), Unconverged()])):
        with pytest.raises(NotConverged, match="Unconverged notes that its self-consistency cycle did not"):
            calculate(PAIR, calculator)


def test_a_calculator_that_moves_the_atoms_gives_no_label_but_may_wrap_them_into_the_cell():
    class Relaxing(EMT):
        by = 0.0

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            atoms.positions += self.by  # as ase.calculators.vasp.Vasp does with nsw > 0

    wrapping, relaxing = Relaxing(), Relaxing()
    wrapping.by, relaxing.by = COPPER.cell[0], 0.01
    assert calculate(COPPER, wrapping).energy == calculate(COPPER, EMT()).energy
    with pytest.raises(SetupError, match=r"Relaxing has moved atoms by 0\.0173 Å"):
        calculate(COPPER, relaxing)


def test_voigts_order_becomes_a_symmetric_tensor_and_a_tensor_stays():
    tensor = full_stress([1, 2, 3, 4, 5, 6])
    assert tensor.tolist() == [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
    np.testing.assert_array_equal(full_3x3_to_voigt_6_stress(tensor), [1, 2, 3, 4, 5, 6])
    assert full_stress(tensor).tolist() == full_stress(tensor.ravel()).tolist() == tensor.tolist()


class Odd(Calculator):
    """Quadratic wells whose results and atoms are changed by a function."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, change=lambda results, atoms: None):
        super().__init__()
        self.change = change

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results |= {"energy": 1.5, "forces": np.ones((len(atoms), 3)), "stress": np.arange(6.0)}
        self.change(self.results, atoms)


@pytest.mark.parametrize("energy", [{"energy": np.array([1.5])}, {"energy": [[1.5]]}, {"free_energy": None}])
def test_an_energy_in_an_array_is_a_number_and_none_is_no_free_energy(energy):
    assert calculate(PAIR, Odd(lambda results, atoms: results.update(energy))).energy == 1.5


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ({"energy": None}, r"Odd gives no energy \(it gives: forces, stress\)"),
        ({"forces": None}, "Odd gives no forces"),
        ({"energy": np.ones(2)}, r"energy of shape \(2,\); expected one number"),
        ({"energy": 1.5 + 0j}, "energy of Odd cannot be read as numbers: complex"),
        ({"forces": "zero"}, "forces of Odd cannot be read as numbers"),
        ({"stress": np.ones((2, 3))}, r"stress of shape \(2, 3\)"),
    ],
)
def test_results_that_are_no_label_are_said(results, said):
    with pytest.raises(WrongShape, match=said):
        calculate(COPPER, Odd(lambda found, atoms: found.update(results)))


def test_masked_forces_are_no_numbers():
    masked = np.ma.masked_greater(np.array([[0.0, 0, 0], [0, 0, 2]]), 1)
    assert not calculate(PAIR, Odd(lambda results, atoms: results.update(forces=masked))).finite


def _swap(results, atoms):
    atoms.numbers[:] = atoms.numbers[::-1]


def _not_periodic(results, atoms):
    atoms.pbc = False


@pytest.mark.parametrize(("change", "frame"), [(_swap, worlds.water()), (_not_periodic, COPPER)])
def test_a_calculator_that_changes_elements_or_periodicity_gives_no_label(change, frame):
    with pytest.raises(SetupError, match=r"Odd has changed the structure.*order of its atoms.*copy"):
        calculate(frame, Odd(change))


def test_nothing_of_an_earlier_structure_is_a_result():
    calls = iter([lambda results, atoms: results.update(free_energy=9.0), lambda results, atoms: None])
    shared = Odd(lambda results, atoms: next(calls)(results, atoms))
    assert [calculate(PAIR, shared).energy, calculate(PAIR, shared).energy] == [9.0, 1.5]


class ReadOnly(Odd):
    """Results are a property, which nobody can set."""

    @property
    def results(self):
        return {"energy": 1.5, "forces": np.ones((2, 3))}

    @results.setter
    def results(self, value):
        if hasattr(self, "change"):  # not while it is made
            raise AttributeError("read-only")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        pass


def test_results_may_be_a_property():
    assert calculate(PAIR, ReadOnly()).energy == 1.5


def test_a_calculator_that_ends_the_program_fails_for_this_structure_only():
    with pytest.raises(Crashed, match=r"Odd has ended the program: sys.exit\(3\)"):
        calculate(PAIR, Odd(lambda results, atoms: sys.exit(3)))


class OnlyEnergy(Odd):
    implemented_properties = ("energy",)


@pytest.mark.parametrize(
    ("calculator", "said"),
    [(None, "no ASE calculator but NoneType"), (OnlyEnergy(), "computes energy .*forces")],
)
def test_what_is_no_calculator_of_forces_is_refused_at_once(calculator, said):
    with pytest.raises(SetupError, match=said):
        calculate(PAIR, calculator)


# ---------------------------------------------------------------- many frames


def test_a_calculator_labels_and_moves_many_structures_as_it_does_each():
    frames, potential = [COPPER, PAIR, STRAINED], CalculatorPotential(EMT)
    assert isinstance(potential, Potential)
    labels, bound = potential.labels(frames), potential.bind(frames)
    said = bound(*tensors(frames), stress=True)
    assert (bound.members, bound.device) == (1, "cpu")
    assert said.energies[0].tolist() == [label.energy for label in labels]
    np.testing.assert_array_equal(said.forces[0], np.concatenate([label.forces for label in labels]))
    assert torch.isnan(said.stress[0, 1]).all()
    for f in (0, 2):
        np.testing.assert_array_equal(said.stress[0, f], labels[f].stress)
    assert bound(*tensors(frames)).stress is None
    moved = [frame.moved(frame.positions * 1.01, frame.cell * 1.01) for frame in frames]
    again = bound(*tensors(moved))
    assert again.energies[0].tolist() == [calculate(f, EMT()).energy for f in moved]


def test_each_structure_of_a_binding_has_a_calculator_of_its_own():
    made = []
    potential = CalculatorPotential(lambda: made.append(Quadratic()) or made[-1])
    frames = [COPPER, PAIR]
    bound = potential.bind(frames)
    for _ in range(3):
        bound(*tensors(frames))
    assert [len(calculator.asked) for calculator in made] == [3, 3]
    potential.labels(frames)
    potential.labels(frames)
    assert len(made) == 3  # one more, shared by all labels


def test_a_calculator_of_one_charge_is_not_used_for_another():
    class Electrons:
        def __init__(self):
            self.made = []

        def maker(self, frame):
            self.made.append(frame.charge)
            return Quadratic

        def dressed(self, frame):
            return replace(frame, charges=np.ones(len(frame)))

    electrons = Electrons()
    potential = CalculatorPotential(EMT, electrons)
    ion = replace(PAIR, charge=1.0)
    potential.labels([PAIR, ion, PAIR, ion])
    assert electrons.made == [None, 1.0]
    assert {tuple(c.atoms.get_initial_charges()) for c in potential._shared.values()} == {(1.0, 1.0)}


def test_members_that_are_evaluated_together_are_averaged_frame_by_frame():
    def evaluate(frames):
        energies = np.array([[1.0 + len(f) for f in frames], [3.0 + len(f) for f in frames]])
        forces = np.stack([np.concatenate([k * f.positions for f in frames]) for k in (1.0, 2.0)])
        stress = np.stack([np.stack([k * np.eye(3)] * len(frames)) for k in (1.0, 2.0)])
        return Evaluation(energies, forces, stress, np.arange(float(forces.shape[1])))

    potential = EvaluatedPotential(evaluate, [29], members=2, has_spread=True)
    first, second = potential.labels([COPPER, PAIR])
    assert (first.energy, second.energy) == (2.0 + 4, 2.0 + 2)
    np.testing.assert_allclose(second.forces, 1.5 * PAIR.positions)
    np.testing.assert_allclose(first.stress, 1.5 * np.eye(3))
    assert second.stress is None
    bound = potential.bind([COPPER, PAIR])
    said = bound(*tensors([COPPER, PAIR]))
    assert (bound.members, potential.elements, said.stress) == (2, (29,), None)
    assert (said.forces.shape, said.spread.tolist()) == ((2, 6, 3), [0, 1, 2, 3, 4, 5])
    assert bound(*tensors([STRAINED, PAIR]), stress=True).stress.shape == (2, 2, 3, 3)


# ---------------------------------------------------------------- calculators inside others


def test_calculators_inside_each_other_are_found_once():
    inner, other = EMT(), EMT()
    both = SumCalculator([inner, other])
    inner.whole = both  # a calculator may refer to the one that holds it
    assert list(parts_of(both)) == [both, inner, other]


class Telling(EMT):
    """Writes down what it is said to have changed; fails once when asked to."""

    def __init__(self):
        super().__init__()
        self.said, self.resets, self.fails = [], 0, False

    def reset(self):
        self.resets += 1
        super().reset()

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        self.said.append(list(system_changes))
        if self.fails:
            self.fails = False
            raise CalculationFailed("no convergence")
        super().calculate(atoms, properties, system_changes)


def stepped(bound, frames, cell=1.0):
    """One more step of these frames."""
    positions = torch.tensor(np.concatenate([f.positions + 0.01 for f in frames]))
    return bound(positions, torch.tensor(np.stack([cell * f.cell for f in frames])))


def test_a_calculator_that_moves_a_structure_is_given_what_has_changed_since_its_last_step():
    calculator, gold = Telling(), Frame.from_atoms(bulk("Au", cubic=True))
    potential = CalculatorPotential(lambda: calculator)
    bound = potential.bind([gold])
    for cell in (1.0, 1.0, 1.01, 1.01):
        stepped(bound, [gold], cell)
    steps = [["positions"], ["positions", "cell"], ["positions"]]
    assert calculator.said == [list(all_changes), *steps]
    assert calculator.resets == 3  # as ASE does before each step
    stepped(potential.bind([gold]), [gold])
    potential.labels([gold])
    assert calculator.said[-2:] == [list(all_changes)] * 2  # a new binding, and a label, begin anew


def test_after_a_failure_and_for_another_structure_everything_has_changed():
    calculator, gold = Telling(), Frame.from_atoms(bulk("Au", cubic=True))
    potential = CalculatorPotential(lambda: calculator)
    bound = potential.bind([gold])
    stepped(bound, [gold])
    calculator.fails = True
    with pytest.raises(CalculationFailed):
        stepped(bound, [gold])
    stepped(bound, [gold])
    assert calculator.said == [list(all_changes), ["positions"], list(all_changes)]
    two = [gold, Frame.from_atoms(bulk("Cu", cubic=True))]
    shared = potential.bind(two)
    for _ in range(2):
        stepped(shared, two)
    assert calculator.said[3:] == [list(all_changes)] * 4  # one calculator for two structures in turn
    same = potential.bind([gold, gold.moved(gold.positions + 0.1)])
    stepped(same, [gold, gold])
    assert calculator.said[-2:] == [list(all_changes), ["positions"]]
