"""Force constants: phonopy's conventions against plain second derivatives, open systems, rests of force."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from aims_pax.errors import SetupError
from aims_pax.frames import Frame
from aims_pax.potential import CalculatorPotential
from aims_pax.sampler import SamplingError
from aims_pax.samplers import force_constants as module
from aims_pax.samplers.force_constants import force_constants
from aims_pax.samplers.supercell import repeated
from tests.md.potentials import LennardJones, cluster, crystal

SKEW = np.array([[1, 1, 0], [-1, 2, 1], [0, 1, 2]])  # not symmetric: its transpose is another supercell


def emt() -> CalculatorPotential:
    return CalculatorPotential(EMT)


def numerical(frame: Frame, potential, h: float = 0.01) -> np.ndarray:
    """(3N, 3N) eV/Å² by central differences of every atom."""
    rows = []
    for k in range(3 * len(frame)):
        step = np.zeros(3 * len(frame))
        step[k] = h
        up, down = (frame.moved(frame.positions + s * step.reshape(-1, 3)) for s in (1, -1))
        rows.append(
            -(potential.labels([up])[0].forces - potential.labels([down])[0].forces).ravel() / (2 * h)
        )
    return np.array(rows)


def dense(values: np.ndarray) -> np.ndarray:
    n, m = values.shape[:2]
    return values.transpose(0, 2, 1, 3).reshape(3 * n, 3 * m)


@pytest.mark.parametrize("frame", [cluster(5), crystal(1, 5.4)], ids=["molecule", "crystal"])
def test_they_are_the_second_derivatives(frame):
    potential = LennardJones(smooth=True)
    found = force_constants(frame, potential)
    Phi = dense(found.values)
    np.testing.assert_allclose(Phi, numerical(frame, potential), atol=3e-4 * abs(Phi).max())
    np.testing.assert_allclose(Phi, Phi.T, atol=1e-12)
    np.testing.assert_allclose(found.values.sum(1), 0, atol=1e-10)
    assert potential.labels([frame])[0].forces.any()


def test_a_supercell_of_any_shape_is_ases_not_its_transpose():
    primitive = Frame.from_atoms(bulk("Cu", a=3.6))
    found = force_constants(primitive, emt(), SKEW)
    np.testing.assert_allclose(found.supercell.cell, SKEW @ primitive.cell, atol=1e-7)
    np.testing.assert_allclose(dense(found.values), numerical(found.supercell, emt())[:3], atol=2e-3)
    grown, _ = repeated(primitive, SKEW)
    assert emt().labels([found.supercell])[0].energy == pytest.approx(emt().labels([grown])[0].energy)


def test_symmetry_saves_evaluations_and_moments_forbid_that():
    potential = LennardJones(smooth=True)
    force_constants(crystal(1, 5.4), potential)
    few = potential.evaluations
    assert few < 8
    potential = LennardJones(smooth=True)
    force_constants(crystal(1, 5.4, moments=[1, 0, 0, 0]), potential)
    assert potential.evaluations > 4 * 3


def test_atoms_of_several_kinds_keep_their_charges_in_the_supercell():
    frame = Frame.from_atoms(bulk("NaCl", "rocksalt", a=5.6))
    charged = Frame(frame.numbers, frame.positions, frame.cell, True, charges=[1.0, -1.0])
    grown = force_constants(charged, LennardJones(sigma=2.5, smooth=True), 2 * np.eye(3)).supercell
    assert (grown.charges == np.where(grown.numbers == 11, 1.0, -1.0)).all()


def test_open_systems_have_no_supercells():
    with pytest.raises(SamplingError, match="three directions"):
        force_constants(cluster(3), LennardJones(), 2 * np.eye(3))


def test_a_potential_that_gives_nonsense_is_told():
    with pytest.raises(SamplingError, match="not finite"):
        force_constants(crystal(1), LennardJones(epsilon=np.nan))


def test_without_phonopy_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "phonopy":
            raise ImportError("No module named 'phonopy'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SetupError, match=r"aims-pax\[crystals\]"):
        module.crystals("phonon sampling")


def test_isotopes_four_times_as_heavy_vibrate_half_as_fast():
    from dataclasses import replace

    from aims_pax.frames import Frame

    copper = Frame.from_atoms(bulk("Cu", a=3.61, cubic=True))
    heavy = replace(copper, masses=4 * copper.all_masses)
    q = np.array([0.3, 0.1, 0.0])
    found = [force_constants(f, CalculatorPotential(EMT)).dynamical(q) for f in (copper, heavy)]
    np.testing.assert_allclose(found[1], found[0] / 4, atol=1e-9)
