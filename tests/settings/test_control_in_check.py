"""What a control.in would lose, or would not fit, is said before anything is computed."""

import re

import numpy as np
import pytest

from aims_pax.frames import Frame
from aims_pax.settings.control_in import parse_control
from aims_pax.settings.control_in_check import (
    FINER,
    VACUUM,
    lost_hubbard,
    odd_keywords,
    odd_spin,
    shared_k_grid,
)
from aims_pax.systems import System

HUBBARD = "xc pbe\nspecies Fe\n nucleus 26\n plus_u   3 d  4.0\nspecies O\n plus_u 2 p 1.0\n"


def box(name, *lengths, n=1, pbc=True):
    return System(name, Frame([14] * n, np.zeros((n, 3)) + np.arange(n)[:, None], np.diag(lengths), pbc))


def test_hubbard_terms_that_the_species_defaults_lack_are_named_with_their_species(tmp_path):
    control = parse_control(HUBBARD)
    (tmp_path / "26_Fe_default").write_text("species Fe\n  plus_u 3 d 4.0   # eV\n")
    (tmp_path / "08_O_default").write_text("species O\n# plus_u 2 p 1.0\n")
    said = lost_hubbard(control, tmp_path)
    assert said.startswith("'plus_u 2 p 1.0' of O: species blocks are ignored in favour of species_dir")
    (tmp_path / "08_O_default").write_text("species O\nplus_u\t2 p 1.0\n")
    assert lost_hubbard(control, tmp_path) is None
    assert lost_hubbard(parse_control("xc pbe\n"), tmp_path / "none") is None
    (tmp_path / "26_Fe_default").write_text("plus_u 3 d 5.0\n")  # another value is no substitute
    assert "'plus_u 3 d 4.0' of Fe" in lost_hubbard(control, tmp_path)


def test_spacings_of_k_points_are_compared_along_the_coarsest_direction():
    """2π/(n·a): 0.524 Å⁻¹ for 6 Å and two points, 0.209 Å⁻¹ for 15 Å."""
    said = shared_k_grid(
        parse_control("k_grid 2 2 2"), [box("small", 6, 6, 6), box("large", 15, 15, 15, n=3)]
    )
    assert "0.52 Å⁻¹ apart in small (1 atoms) and 0.21 Å⁻¹ in large (3 atoms)" in said
    assert said.startswith("k_grid 2 2 2 is shared")


@pytest.mark.parametrize(
    ("grid", "systems"),
    [
        ("", [box("a", 3, 3, 3), box("b", 30, 30, 30)]),
        ("k_grid 2 2 2", [box("a", 3, 3, 3)]),
        ("k_grid 2 2 2", [box("a", 3, 3, 3), box("b", 30, 30, 30, pbc=False)]),
        ("k_grid 2,2,2", [box("a", 5, 5, 5), box("b", 5 * FINER, 5 * FINER, 5 * FINER)]),
        ("k_grid 4 4 1", [box("a", 3, 3, VACUUM), box("b", 3, 3, 40)]),  # slabs: vacuum is not sampled
    ],
    ids=["no grid", "one cell", "a molecule", "just fine enough", "vacuum"],
)
def test_cells_that_a_grid_fits_are_nobodys_business(grid, systems):
    assert shared_k_grid(parse_control(f"xc pbe\n{grid}\n"), systems) is None


MOLECULE = System("m", Frame([8, 8], [[0, 0, 0], [0, 0, 1.2]]))
MAGNET = System("fe", Frame([26], [[0, 0, 0]], moments=[4.0]))
TRIPLET = System("o2", Frame([8, 8], [[0, 0, 0], [0, 0, 1.2]], spin=3, moments=[1.0, 1.0]))
ATOM = System("o", Frame([8], [[0, 0, 0]]))


@pytest.mark.parametrize(
    ("text", "systems", "said"),
    [
        ("", [MOLECULE, TRIPLET], []),
        ("fixed_spin_moment 2", [MOLECULE], ["fixed_spin_moment is ignored"]),
        ("spin collinear\nfixed_spin_moment 2", [MOLECULE], []),
        ("spin none", [MAGNET], ["initial moments of the geometry are ignored"]),
        ("spin collinear", [MAGNET], []),
        ("spin collinear\ndefault_initial_moment hund", [ATOM], []),
        (
            "spin collinear\ndefault_initial_moment Hund",
            [ATOM, MOLECULE],
            ["more than one atom (m); give a number"],
        ),
    ],
)
def test_spin_that_fhi_aims_ignores_or_stops_at_is_said(text, systems, said):
    found = list(odd_spin(parse_control(f"xc pbe\n{text}\n"), systems))
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sc_acuracy_rho 1e-5", "sc_acuracy_rho is not known here, .*; nearest: sc_accuracy_rho"),
        (
            "output cube total_density",
            "output cube total_density: FHI-aims would compute and write this with every label",
        ),
        ("output band 0 0 0 0.5 0 0 20 G X", "with every label"),
        ("DFPT vibration", "with every label"),
        ("output hirshfeld", None),
        ("a_keyword_of_next_year 3", None),
        ("sc_accuracy_rho 1e-5", None),
    ],
)
def test_misspelled_keywords_and_expensive_outputs_are_said(line, said):
    found = list(odd_keywords(parse_control(f"xc pbe\n{line}\n")))
    assert not found if said is None else (len(found) == 1 and re.search(said, found[0]))
