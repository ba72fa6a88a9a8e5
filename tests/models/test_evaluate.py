import numpy as np
import pytest

from aims_pax.frames import Label
from aims_pax.models.evaluate import evaluate_potential
from tests.models.mace.tiny import copper, water


class Off:
    """A potential that is wrong by known amounts."""

    def __init__(self, labelled, energy, force, stress):
        self.answers = {
            f.id: Label(
                f.label.energy + energy * (-1) ** k,
                f.label.forces + force,
                None if f.label.stress is None else f.label.stress + stress,
            )
            for k, f in enumerate(labelled)
        }

    def labels(self, frames):
        return [self.answers[f.id] for f in frames]


def test_errors_are_those_that_were_made():
    frames = [*water(2), *copper(1)]
    table = evaluate_potential(Off(frames, 0.3, -0.02, 0.005), frames)
    assert table.frames == 3
    assert table.energy_mae == table.energy_rmse == pytest.approx(0.3)
    assert table.energy_per_atom_mae == pytest.approx(np.mean([0.1, 0.1, 0.075]))
    assert table.energy_per_atom_rmse == pytest.approx(np.sqrt(np.mean(np.square([0.1, 0.1, 0.075]))))
    assert table.force_mae == table.force_rmse == pytest.approx(0.02)
    assert table.stress_mae == pytest.approx(0.005)
    assert table.zero_force_mae == pytest.approx(
        np.mean(np.abs(np.concatenate([f.label.forces for f in frames]))), rel=0.1
    )


def test_the_line_is_what_error_table_asks_for():
    table = evaluate_potential(Off(water(2), 0.3, -0.02, 0.0), water(2))
    assert table.line("PerAtomMAE") == "energy MAE 100.00 meV/atom · force MAE 20.0 meV/Å"
    assert table.line("TotalRMSE") == "energy RMSE 300.0 meV · force RMSE 20.0 meV/Å"
    stress = evaluate_potential(Off(copper(1), 0.4, 0.0, 0.005), copper(1))
    assert stress.line("PerAtomRMSEstressvirials").endswith("stress RMSE 5.000 meV/Å³")


def test_no_frames_is_an_error():
    with pytest.raises(ValueError, match="no frames"):
        evaluate_potential(Off([], 0, 0, 0), [])
