"""The sampler of phonons: molecules, fixed atoms, potentials that fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed

from aims_pax.errors import NotConverged
from aims_pax.sampler import SamplingError
from aims_pax.samplers.kinds.phonons import PhononSampler
from aims_pax.systems import System
from tests.md.potentials import LennardJones, cluster, crystal


def test_a_molecule_vibrates_without_turning_and_fixed_atoms_stay():
    sampler = PhononSampler(LennardJones(smooth=True), 40, fmax=1e-6)
    drop = cluster(5)
    m = sampler._modes(System("drop", drop))
    assert len(m) == 3 * 5 - 6
    assert not m.imaginary
    assert len(sampler._modes(System("pair", cluster(2)))) == 1
    R = m.frame.positions - m.frame.positions.mean(0)
    for u in m.vectors:
        np.testing.assert_allclose(u.sum(0), 0, atol=1e-9)
        np.testing.assert_allclose(np.cross(R, u).sum(0), 0, atol=1e-9)
    fixed = crystal(1, 5.4, fixed=[[True, True, True], [True, False, False], [False] * 3, [False] * 3])
    m = sampler._modes(System("slab", fixed))
    assert len(m) == 12 - 4
    assert (m.vectors[:, fixed.fixed] == 0).all()


class Failing(LennardJones):
    """Labels so many structures, then fails in one way or another."""

    def __init__(self, good, how):
        super().__init__(smooth=True)
        self.good, self.how = good, how

    def labels(self, frames):
        self.good -= 1
        if self.good < 0 and isinstance(self.how, Exception):
            raise self.how
        found = super().labels(frames)
        return found if self.good >= 0 else [replace(label, forces=label.forces * np.nan) for label in found]


@pytest.mark.parametrize("good", [0, 1])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            CalculationFailed("SCF"),
            "pair: its vibrations cannot be calculated: CalculationFailed: SCF; relax",
        ),
        (NotConverged("SCF"), "pair: its vibrations cannot be calculated: NotConverged: SCF; relax"),
        (None, "the potential gave energies or forces that are not finite"),
    ],
)
def test_a_potential_that_fails_is_said_with_the_system(good, how, said):
    system = System("pair", cluster(3))
    with pytest.raises(SamplingError, match=said):
        list(PhononSampler(Failing(good, how), 40).sample([system], 1, np.random.default_rng(0)))


def test_the_sampler_stops_when_asked():
    from aims_pax.errors import Abandoned

    sampler = PhononSampler(LennardJones(), stop=lambda: True)
    with pytest.raises(Abandoned):
        next(sampler.sample([System("drop", cluster(3))], 1, np.random.default_rng(0)))


def test_no_structure_of_time_and_scan_is_made_twice():
    """Every batch began at the same time, or with the same step: `aims-PAX sample` wrote each structure many times."""
    system = System("drop", cluster(5))

    def sampler(amplitudes):
        return PhononSampler(LennardJones(smooth=True), 40, fmax=1e-4, amplitudes=amplitudes)

    def widths(samples):
        rest = made._modes(system).frame.positions
        return [float(np.vdot(s.frame.positions - rest, samples[0].frame.positions - rest)) for s in samples]

    for amplitudes in ("time", "scan"):
        made, again = sampler(amplitudes), sampler(amplitudes)
        samples = [s for n in (1, 3, 5) for s in made.sample([system], n, np.random.default_rng(n))]
        assert len({s.frame.id for s in samples}) == 9
        again.load_state_arrays(made.state_arrays())
        rng = np.random.default_rng
        assert next(again.sample([system], 1, rng(0))).frame == next(made.sample([system], 1, rng(0))).frame
        if amplitudes == "scan":  # nine in equal steps
            along = np.sort(widths(samples))
            np.testing.assert_allclose(along / along[-1], np.linspace(-1, 1, 9), atol=1e-5)


@pytest.mark.parametrize(
    ("frame", "keys", "said"),
    [
        (crystal(1, 5.4), {"freq_max_THz": 0.2}, r"its vibrations are at .* THz; widen freq_min_THz"),
        (crystal(1, 7.5), {"relaxed": False}, "all its vibrations are imaginary: it is not at a minimum"),
        (cluster(1), {}, "it has no vibrations: no atom can move, or it is one atom"),
    ],
)
def test_why_no_mode_is_selected_is_said(frame, keys, said):
    """Widening the window was advised also where no frequency is real, or there is none."""
    sampler = PhononSampler(LennardJones(smooth=True), 40, **keys)
    with pytest.raises(SamplingError, match=said):
        next(sampler.sample([System("one", frame)], 1, np.random.default_rng(0)))
