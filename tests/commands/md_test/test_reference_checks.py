"""Checks against the reference, on potentials whose frequencies and equations of state are known."""

import numpy as np
import pytest
from ase.build import bulk

from aims_pax.commands.md_test.reference_checks import (
    AlongTrajectory,
    EquationOfStateCheck,
    Frequencies,
    birch_murnaghan,
    model_minimum,
    named_checks,
    planned_checks,
    rigid_motions,
)
from aims_pax.commands.md_test.starts import choose_starts, systems_of_frames
from aims_pax.commands.md_test.trajectories import follow
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from tests.commands.md_test.springs import MD, WATER, Springs, frames


def reference(springs):
    return lambda frame: springs.labels([frame])[0]


def water():
    return systems_of_frames(frames(), lambda name: MD, None)[0]


def test_stiffer_springs_have_higher_frequencies_by_the_root_of_their_ratio():
    check = Frequencies.at_minimum(water(), Springs())
    assert len(check.frames()) == 1 + 6 * 3
    found = check.result(Springs(), reference(Springs(k=30 * 1.21)))
    assert len(found["model"]) == 3
    assert np.array(found["reference"]) == pytest.approx(1.1 * np.array(found["model"]), rel=1e-3)
    assert found["largest"] == pytest.approx(0.1 * max(found["model"]), rel=1e-2)
    assert found["residual_force"] < 0.05


def test_a_diatomic_vibrates_at_the_root_of_its_spring_constant_over_its_reduced_mass():
    """k = 30 eV/Å² and μ = m/2: ν̃ = √(k/μ) / 2πc."""
    pair = Frame([1, 1], [[0, 0, 0], [0.75, 0, 0]])
    check = Frequencies("H2", pair)

    def forces(frame):
        d = frame.positions[1] - frame.positions[0]
        r = np.linalg.norm(d)
        F = 30.0 * (r - 0.75) * d / r
        return np.array([F, -F])

    [nu] = check.wavenumbers([forces(f) for f in check.displaced()])
    angular = np.sqrt(30.0 * 1.602176634e-19 / 1e-20 / (0.504 * 1.66053907e-27))
    assert nu == pytest.approx(angular / (2 * np.pi * 2.99792458e10), rel=1e-3)


def test_rigid_motions_of_molecules_crystals_and_fixed_atoms():
    assert rigid_motions(WATER) == 6
    assert rigid_motions(Frame([1, 1], [[0, 0, 0], [0.7, 0, 0]])) == 5
    assert rigid_motions(Frame([1], [[0, 0, 0]])) == 3
    assert rigid_motions(Frame([29], [[0, 0, 0]], cell=3 * np.eye(3), pbc=[True] * 3)) == 3
    assert rigid_motions(Frame([8, 1, 1], WATER.positions, fixed=[True, False, False])) == 0


def test_atoms_that_are_fixed_are_not_displaced_and_do_not_relax():
    held = Frame(WATER.numbers, WATER.positions + np.diag([0.0, 0.1, 0.0]), fixed=[True, False, False])
    assert Frequencies("water", held).moving == [1, 2]
    moved = model_minimum(held, Springs())
    assert (moved.positions[0] == held.positions[0]).all()
    assert np.abs(Springs().labels([moved])[0].forces[1:]).max() < 0.01


def test_errors_along_the_trajectory_are_those_of_plain_arithmetic():
    thermal = follow(choose_starts([water()], 2, 4), Springs(), 200)
    checks = planned_checks(["errors"], Springs(), [water()], thermal)
    assert [(c.temperature, len(c.frames())) for c in checks] == [(300, 12), (450, 12)]
    wrong = Springs(k=33.0)
    found = checks[0].result(Springs(), reference(wrong))
    pairs = [
        (a, b)
        for f in checks[0].frames()
        for a, b in zip(Springs().labels([f]), wrong.labels([f]), strict=True)
    ]
    errors = np.concatenate([a.forces - b.forces for a, b in pairs])
    assert found["force_mae"] == pytest.approx(np.abs(errors).mean())
    assert found["force_max"] == pytest.approx(np.abs(errors).max())


def test_labels_that_failed_are_left_out_or_end_the_check():
    some = AlongTrajectory("water", 300.0, tuple(f.frame for f in frames(4)))
    answers = iter([None, *Springs().labels([f.frame for f in frames(4)])[1:]])
    assert some.result(Springs(), lambda frame: next(answers))["frames"] == 3
    assert some.result(Springs(), lambda frame: None) is None
    assert Frequencies("water", WATER).result(Springs(), lambda frame: None) is None


class EMT:
    """EMT as a potential with stress."""

    elements, members = (29,), 1

    def __init__(self, scale=1.0):
        from ase.calculators import emt

        from aims_pax.potential import CalculatorPotential

        self.inner, self.scale = CalculatorPotential(emt.EMT), scale

    def labels(self, frames):
        found = self.inner.labels(frames)
        return [Label(self.scale * x.energy, self.scale * x.forces, self.scale * x.stress) for x in found]

    def bind(self, frames):
        return self.inner.bind(frames)


def test_the_equation_of_state_finds_volume_and_bulk_modulus():
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    frame = Frame.from_atoms(atoms)
    data = [LabelledFrame(frame, EMT().labels([frame])[0], {"system": "copper"})]
    [copper] = systems_of_frames(data, lambda name: MD, None)
    check = EquationOfStateCheck.at_minimum(copper, EMT())
    assert len(check.frames()) == 7
    found = check.result(EMT(), reference(EMT(1.2)))
    assert found["V0_model"] == pytest.approx(3.59**3 / 4, rel=0.01)  # ASE's EMT has a = 3.59 Å
    assert found["V0_reference"] == pytest.approx(found["V0_model"], rel=1e-3)
    assert found["B_reference"] == pytest.approx(1.2 * found["B_model"], rel=1e-3)
    assert not [c for c in planned_checks(["eos"], Springs(), [water()], [])], "a molecule has no cell"


def test_a_curve_without_a_minimum_has_no_equation_of_state():
    V = np.linspace(10, 12, 7)
    assert birch_murnaghan(V, V) == (None, None)


def test_names_of_checks():
    assert named_checks("all") == ("errors", "frequencies", "eos")
    assert named_checks("eos, errors") == ("errors", "eos")
    with pytest.raises(
        SettingsError, match="'phonons' is no check; expected errors, frequencies, eos or all"
    ):
        named_checks("phonons")
    with pytest.raises(SettingsError, match="expected errors"):
        named_checks(" ")
