"""Step by step with ASE where the algorithm is the same; else the same limit of small time steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import units
from ase.md.bussi import Bussi
from ase.md.melchionna import MelchionnaNPT
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT
from ase.md.nptberendsen import NPTBerendsen

from aims_pax.md import MDState, advance, noise
from aims_pax.md.batch import MDBatch
from aims_pax.md.integrators import make_integrator
from aims_pax.md.state import MDState as State
from tests.md.laws import TRICLINIC, AsCalculator, Steps, at_rest, in_cell, rotation
from tests.md.potentials import LennardJones, cluster, crystal
from tests.md.settings import npt, rescaling

P = 1e-3  # eV/Å³
LJ = LennardJones(cutoff=6.5, smooth=True)


def tilted() -> MDState:
    """Argon in a triclinic cell with no vector along an axis."""
    return MDState.start(in_cell(crystal(2, 5.3), TRICLINIC @ rotation()), 40.0, stream=3)


def settled(state: MDState) -> MDState:
    """Its centre of mass at rest."""
    share = (state.masses / state.masses.sum())[:, None]
    return replace(state, momenta=state.momenta - share * state.momenta.sum(0))


def as_atoms(state: MDState):
    atoms = state.frame().to_atoms()
    atoms.calc = AsCalculator(LJ, state.frame())
    atoms.set_momenta(state.momenta)
    return atoms


def agree(atoms, motion, to: float = 1e-9) -> None:
    assert abs(atoms.positions - motion.positions.numpy()).max() < to
    assert abs(atoms.get_momenta() - motion.momenta.numpy()).max() < to
    assert abs(np.array(atoms.cell) - motion.cells[0].numpy()).max() < to


def test_berendsen_with_the_forces_of_the_unscaled_positions():
    """ASE counts the centre of mass although it is at rest."""
    state, md = settled(tilted()), npt("Berendsen", 60.0, 4.0, taut=80.0, taup=150.0, pressure=P)
    atoms = as_atoms(state)
    theirs = NPTBerendsen(
        atoms,
        4 * units.fs,
        temperature_K=60,
        taut=80 * units.fs,
        taup=150 * units.fs,
        pressure_au=P,
        compressibility_au=4.57e-5 / (1e5 * units.Pascal),
    )
    full = torch.tensor([3.0 * len(state)], dtype=torch.float64)
    ours = Steps(state, replace(make_integrator(MDBatch.of([state], "cpu"), [md]), degrees=full), LJ, 60.0)
    forces = atoms.get_forces()
    for _ in range(25):
        forces = theirs.step(forces)
        ours.step()
        agree(atoms, ours.motion)
    assert atoms.get_volume() / abs(np.linalg.det(state.cell)) > 1.01


@pytest.mark.parametrize("coupling", [1.0, 0.1])
def test_berendsen_asked_twice_a_step_as_ase_does_differs_little(coupling):
    state = settled(tilted())
    md = npt("Berendsen", 60.0, 4.0, taut=80.0, taup=3000.0 / coupling, pressure=P)
    atoms, n = as_atoms(state), len(state)
    theirs = NPTBerendsen(
        atoms,
        4 * units.fs,
        temperature_K=60 * (n - 1) / n,  # it counts the centre of mass although it is at rest
        taut=80 * units.fs,
        taup=3000 / coupling * units.fs,
        pressure_au=P,
        compressibility_au=4.57e-5 / (1e5 * units.Pascal),
    )
    theirs.run(25)
    end = advance([state], LJ, 25, [md])[0].state
    assert abs(atoms.positions - end.positions).max() < 0.01 * coupling
    change = abs(np.linalg.det(end.cell) / np.linalg.det(state.cell) - 1)
    assert abs(atoms.get_volume() / abs(np.linalg.det(end.cell)) - 1) < 0.01 * change


class Numbers:
    """The random numbers of our stream, as ASE asks for them."""

    def __init__(self, deviates: np.ndarray) -> None:
        self.rows = iter(deviates.reshape(len(deviates), -1))

    def standard_normal(self) -> float:
        self.row = next(self.rows)
        return self.row[0]

    def standard_gamma(self, shape: float) -> float:
        assert shape == (len(self.row) - 1) / 2
        return (self.row[1:] ** 2).sum() / 2


@pytest.mark.parametrize("quiet", [True, False])
def test_velocity_rescaling_with_the_same_random_numbers(quiet):
    state = MDState.start(cluster(7), 40.0, stream=3, step=5)
    batch = MDBatch.of([state], "cpu")
    deviates = noise.normals(batch.stream, batch.step, batch.atom, 60)
    if quiet:
        deviates = deviates * 0
    atoms = as_atoms(state)
    theirs = Bussi(atoms, 4 * units.fs, 90.0, 100 * units.fs, Numbers(deviates.numpy()))
    ours = Steps(state, make_integrator(batch, [rescaling(90.0, 100.0, 4.0)]), LJ, 90.0)
    for k in range(60):
        theirs.step()
        ours.step(deviates[k])
        agree(atoms, ours.motion)
    given = float(ours.motion.extras["svr/work"][0])
    assert given == pytest.approx(theirs.transferred_energy, rel=1e-9)
    assert abs(given) > 1e-3
    if not quiet:
        end = advance([state], LJ, 60, [rescaling(90.0, 100.0, 4.0)])[0].state
        assert abs(atoms.positions - end.positions).max() < 1e-9


@pytest.mark.parametrize("barostat", ["isotropic-MTK", "MTK"])
def test_mtk_with_the_degrees_of_freedom_and_masses_of_ase(barostat):
    """ASE counts the centre of mass, nine degrees of freedom of the cell, and other first masses."""
    state, md = at_rest(tilted()), npt(barostat, 60.0, 4.0, taut=80.0, taup=300.0, pressure=P)
    n, theirs = len(state), IsotropicMTKNPT if barostat == "isotropic-MTK" else MTKNPT
    mine = make_integrator(MDBatch.of([state], "cpu"), [md])
    full = [float(3 * n)]
    cell = 1.0 if barostat == "isotropic-MTK" else 9.0
    mine = replace(
        mine,
        degrees=torch.tensor(full, dtype=torch.float64),
        share=mine.share * 0,
        n=torch.tensor([[3.0 * n, cell]], dtype=torch.float64),
        first=torch.tensor([[3.0 * n, 9.0]], dtype=torch.float64),
        inertia=(n + 1) * mine.tau2[:, 1],
    )
    ours = Steps(state, mine, LJ, 60.0)
    atoms = as_atoms(state)
    run = theirs(
        atoms, 4 * units.fs, temperature_K=60, pressure_au=P, tdamp=80 * units.fs, pdamp=300 * units.fs
    )
    shift = run.get_conserved_energy() - ours.conserved
    assert abs(shift) < 1e-9
    for _ in range(25):
        run.step()
        ours.step()
        agree(atoms, ours.motion)
    assert ours.conserved == pytest.approx(run.get_conserved_energy(), abs=1e-9)
    assert abs(atoms.get_volume() / abs(np.linalg.det(state.cell)) - 1) > 0.002


def breathing(start: State) -> State:
    """Momenta with a mirror plane across each axis: no shear, so that ASE's triangular η is diagonal too."""
    turns = 2 * np.pi * start.positions / np.diag(start.cell)
    momenta = np.sin(turns * [1, 1, 2]) * [3.0, 2.0, 2.5]
    return replace(start, momenta=momenta - momenta.mean(0))


def test_parrinello_rahman_becomes_the_npt_of_ase_as_the_step_becomes_small():
    state = breathing(MDState.start(in_cell(crystal(2, 5.3), np.diag([10.3, 10.6, 10.9])), 0.0, 1))
    assert state.temperature > 20

    def apart(h: float) -> float:
        atoms = as_atoms(state)
        run = MelchionnaNPT(
            atoms, h * units.fs, temperature_K=60, externalstress=P, ttime=40 * units.fs, pfactor=20.0
        )
        run.run(int(120 / h))
        md = npt("npt", 60.0, h, ttime=40.0, pfactor=20.0, pressure=P)
        end = advance([state], LJ, int(120 / h), [md])[0].state
        assert np.abs(end.cell - state.cell).max() > 0.01
        return max(abs(atoms.positions - end.positions).max(), abs(np.array(atoms.cell) - end.cell).max())

    coarse, fine = apart(3.0), apart(1.0)
    assert fine < 2e-4
    assert coarse / fine == pytest.approx(9, rel=0.2)
