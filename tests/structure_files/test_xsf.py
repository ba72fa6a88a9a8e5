"""XSF of ænet: both dialects, free white space, and errors with file and line."""

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.structure_files.xsf import read_xsf, xsf_text

MOLECULE = """# total energy =  -0.0970905812353288 eV

ATOMS
H    -0.91666666666667    0.00000000000000    0.00000000000000    0.32660398877491    0.0  0.0
H    0.91666666666667    0.00000000000000    0.00000000000000    -0.32660398877491    0.0 0.0
"""
CRYSTAL = """
# made by hand
#   Total Energy = -1.66D+2 eV
 CRYSTAL

PRIMVEC
 4.0 0.0 0.0
\t0.0 4.0 0.0
 0.0 0.0 8.0   # c
PRIMCOORD
 2 1

3   0.0 0.0 0.1   0.01 0.02 0.03
li  2.0 2.0 4.1  -0.01 -0.02 -0.03
"""
CELL = "# total energy = 1 eV\nCRYSTAL\nPRIMVEC\n1 0 0\n0 1 0\n{}\nPRIMCOORD\n1 1\nH 0 0 0 0 0 0\n"


@pytest.fixture
def read(tmp_path):
    def of(text):
        path = tmp_path / "a.xsf"
        path.write_text(text)
        return read_xsf(path)

    return of


def test_a_molecule(read):
    frame, label = read(MOLECULE)
    assert frame.formula == "H2"
    assert not frame.pbc.any()
    assert label.energy == -0.0970905812353288
    assert label.forces[0, 0] == 0.32660398877491


def test_a_crystal_with_free_white_space_and_numbers_for_elements(read):
    frame, label = read(CRYSTAL)
    assert frame.formula == "Li2"
    assert frame.periodic
    assert frame.cell[2, 2] == 8
    assert label.energy == -166
    assert label.forces[1] == pytest.approx([-0.01, -0.02, -0.03])


@pytest.mark.parametrize("pbc", [(0, 0, 0), (1, 1, 1), (1, 1, 0), (1, 0, 0)])
def test_what_is_written_is_read(read, pbc):
    rng = np.random.default_rng(0)
    cell = np.diag([5.0, 6, 7]) + rng.normal(0, 0.1, (3, 3)) if any(pbc) else np.zeros((3, 3))
    frame = Frame([1, 8, 79], rng.normal(size=(3, 3)), cell, np.array(pbc, bool))
    forces = rng.normal(size=(3, 3))
    again, label = read(xsf_text(frame, -1234.123456789012, forces, ["surrogate: abc"]))
    assert again.id == frame.id
    assert label.energy == pytest.approx(-1234.123456789012, abs=1e-10)
    assert label.forces == pytest.approx(forces, abs=1e-10)


@pytest.mark.parametrize("pbc", [(0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 1)])
def test_a_structure_that_would_be_read_with_other_periodic_directions_is_not_written(pbc):
    frame = Frame([1], [[0, 0, 0]], np.diag([5.0, 6, 7]), np.array(pbc, bool))
    with pytest.raises(SettingsError, match="vectors along which it repeats must come first"):
        xsf_text(frame, 0.0, np.zeros((1, 3)))


def test_a_slab_may_be_without_the_vector_along_which_it_does_not_repeat(read):
    frame, _ = read(CELL.format("0 0 0").replace("CRYSTAL", "SLAB"))
    assert frame.pbc.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ATOMS\nH 0 0 0 0 0 0\n", r"a.xsf:1: no line '# total energy"),
        ("# total energy = -0.5 Hartree\nATOMS\nH 0 0 0 0 0 0\n", r"a.xsf:1: total energy in Hartree"),
        ("# total energy = 1 eV\nATOMS\nH 0 0 0\n", r"a.xsf:3: an atom without forces"),
        ("# total energy = 1 eV\nATOMS\nH 0 0 0 0 0\n", r"a.xsf:3: 6 columns"),
        ("# total energy = 1 eV\nATOMS\nXy 0 0 0 0 0 0\n", r"a.xsf:3: 'Xy' is no chemical element"),
        ("# total energy = 1 eV\nATOMS\nH 0 0 zero 0 0 0\n", r"a.xsf:3: 'zero' is no number"),
        ("# total energy = 1 eV\nCRYSTAL\nPRIMCOORD\n1 1\nH 0 0 0 0 0 0\n", "without PRIMVEC"),
        ("# total energy = 1 eV\nPRIMVEC\n1 0 0\n0 1 0\n", r"a.xsf:4: the file ends here"),
        ("# total energy = 1 eV\nPRIMVEC\n1 0\n0 1 0\n0 0 1\n", r"a.xsf:3: 2 numbers"),
        (CELL.format("0 0 0"), r"a.xsf:3: a lattice vector along which the structure repeats is zero"),
        (CELL.format("2 0 0"), r"a.xsf:3: the lattice vectors lie in one plane"),
        (
            "# total energy = 1 eV\nPRIMVEC\n1 0 0\n0 1 0\n0 0 1\nPRIMCOORD\n2 1\nH 0 0 0 0 0 0\n",
            "as many atoms",
        ),
        (
            "# total energy = 1 eV\nPRIMVEC\n1 0 0\n0 1 0\n0 0 1\nPRIMCOORD\nx 1\n",
            "instead of the number of atoms",
        ),
        (
            "# total energy = 1 eV\nATOMS\nH 0 0 0 0 0 0\nATOMS\nH 0 0 0 0 0 0\n",
            r"a.xsf:4: ATOMS among the atoms of line 2; write one file for each structure",
        ),
        (2 * "# total energy = 1 eV\nATOMS\nH 0 0 0 0 0 0\n", r"a.xsf:4: a second total energy"),
        ("# total energy = 1 eV\nANIMSTEPS 2\n", "several structures"),
        ("# total energy = 1 eV\nATOMS\nH 0 0 0 1e999 0 0\n", r"a.xsf:3: '1e999' is no number"),
        ("# total energy = 1 eV\nCONVVEC\n", "CONVVEC is not read"),
        ("# total energy = 1 eV\nsomething else\n", "not part of an XSF file"),
        ("# total energy = 1 eV\n", "no atoms"),
    ],
)
def test_damage_is_named_with_file_and_line(read, text, said):
    with pytest.raises(SettingsError, match=said):
        read(text)


def test_a_file_that_is_missing_or_no_text(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        read_xsf(tmp_path / "none.xsf")
    (tmp_path / "b.xsf").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(SettingsError, match="not a text file"):
        read_xsf(tmp_path / "b.xsf")
