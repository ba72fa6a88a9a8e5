"""The stand-in is as strict as FHI-aims: what it does not know it refuses, and what was lost shows in its numbers."""

import subprocess
import sys

import pytest

from aims_pax.frames import Frame
from aims_pax.labelling.references.fhi_aims import read_label
from tests import worlds

GEOMETRY = "atom 0 0 0 Cu\natom 2.6 0 0 Al\n"
CONTROL = "xc pbe\ncompute_forces .true.\n"
SPIN = CONTROL + "spin collinear\n"
BLOCKS = "species Cu\n  nucleus 29\nspecies Al\n  nucleus 13\n"


@pytest.fixture
def run(tmp_path):
    def of(geometry=GEOMETRY, control=CONTROL):
        (tmp_path / "geometry.in").write_text(geometry)
        (tmp_path / "control.in").write_text(control + BLOCKS)
        words = [sys.executable, str(worlds.STAND_IN)]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)

    return of


def energy(done):
    assert done.returncode == 0, done.stdout
    return float(done.stdout.rpartition("| Electronic free energy")[2].split(":")[1].split()[0])


@pytest.mark.parametrize(
    ("geometry", "control", "words"),
    [
        (GEOMETRY, CONTROL + "some_keyword 1\n", "unknown keyword"),
        (GEOMETRY, CONTROL + "Charge 1\n", "unknown keyword"),
        (GEOMETRY + "homogenous_field 0 0 1\n", CONTROL, "unknown keyword"),
        ("ATOM 0 0 0 Cu\n", CONTROL, "unknown keyword"),
        (GEOMETRY.replace("Al", "Ni"), CONTROL, "Species Ni"),
        (GEOMETRY, CONTROL + "k_grid 2 2 2\n", "k_grid given for a cluster"),
        (GEOMETRY, SPIN, "no initial moment"),
        (GEOMETRY, SPIN + "default_initial_moment hund\n", "Hund's rules"),
        (GEOMETRY, CONTROL + "spin none\nspin collinear\n", "conflicting 'spin'"),
        (GEOMETRY, CONTROL + "charge one\n", "not a number"),
        ("lattice_vector 9 0 0\n" * 2 + GEOMETRY, CONTROL, "three lattice vectors"),
    ],
)
def test_it_stops_where_fhi_aims_stops(run, geometry, control, words):
    done = run(geometry, control)
    assert done.returncode != 0
    assert words in done.stdout
    assert "Have a nice day" not in done.stdout


@pytest.mark.parametrize(
    ("geometry", "control"),
    [
        (GEOMETRY, CONTROL + "charge 1d0\n"),
        (GEOMETRY, SPIN + "default_initial_moment 1\nfixed_spin_moment 2\n"),
        (GEOMETRY + "initial_moment 1\n", SPIN),
        (GEOMETRY + "homogeneous_field 0.1 0 0\n", CONTROL),
        (GEOMETRY + "multipole 9 0 0 0 1.0\n", CONTROL),
        (GEOMETRY + "set_vacuum_level 12.0\n", CONTROL),
    ],
)
def test_charge_spin_field_and_point_charges_change_the_energy(run, geometry, control):
    assert abs(energy(run(geometry, control)) - energy(run())) > 1e-3


def test_an_initial_moment_of_zero_is_not_the_same_as_none(run):
    default = SPIN + "default_initial_moment 2\n"
    assert abs(energy(run(GEOMETRY + "initial_moment 0\n", default)) - energy(run(GEOMETRY, default))) > 0.1


def test_forces_in_a_field_and_beside_a_charge_are_the_derivative_of_the_energy(run):
    def at(x):
        extra = "homogeneous_field 0.1 0 0\nmultipole 9 1 0 0 1.0\n"
        return run(f"atom 0 0 0 Cu\natom {x} 0 0 Al\n{extra}")

    done = at(2.6)
    frame = Frame([29, 13], [[0, 0, 0], [2.6, 0, 0]])
    force = read_label(done.stdout, frame, False).forces[1, 0]
    assert force == pytest.approx(-(energy(at(2.601)) - energy(at(2.599))) / 0.002, abs=1e-4)
    assert "derivative of free energy" in done.stdout


def test_constraints_give_zero_forces_below_their_own_title(run):
    done = run(GEOMETRY + "    constrain_relaxation .true.\n")
    rows = done.stdout.partition("then relaxation constraints were applied")[2].splitlines()
    assert [float(x) for x in rows[2].split()[2:]] == [0.0, 0.0, 0.0]
    assert abs(float(rows[1].split()[2])) > 0.01
