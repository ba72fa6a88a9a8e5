"""The one reader of labelled structures: all that a file holds, or its place; virials, limits, names, duplicates."""

import gzip

import numpy as np
import pytest

from aims_pax.dataset import read_extxyz, to_extxyz
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.labelled_data import LabelKeys, read_labelled, read_structures

CELL = np.diag([4.0, 4.0, 5.0])  # 80 Å³
VIRIAL = np.array([[1.6, 0.4, 0.0], [0.4, -0.8, 0.2], [0.0, 0.2, 0.1]])  # eV
STRESS = -VIRIAL / 80.0


def frames(n):
    return [
        LabelledFrame(Frame([1, 9], [[0, 0, 0.01 * k], [0.92, 0, 0]]), Label(-k, np.full((2, 3), 0.1 * k)))
        for k in range(1, n + 1)
    ]


def crystal(header, forces="1 0 0", pbc="T T T"):
    cell = " ".join(str(x) for x in CELL.ravel())
    return (
        f'1\nLattice="{cell}" pbc="{pbc}" REF_energy=-1.0 {header} Properties=species:S:1:pos:R:3:REF_forces:R:3\n'
        f"Cu 0 0 0 {forces}\n"
    )


def numbers(tensor):
    return " ".join(f"{x:.10g}" for x in np.ravel(tensor))


def read(tmp_path, text, *keys, name="x.xyz"):
    path = tmp_path / name
    path.write_text(text)
    return list(read_extxyz(path, *keys))


def refused(tmp_path, text, *keys):
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text, *keys)
    return str(caught.value).removeprefix(f"{tmp_path / 'x.xyz'}, ")


# ---------------------------------------------------------------- all of it, or its place


@pytest.mark.parametrize("gap", ["\n", "\n\n\n", "   \n", "\t\n \n", "\r\n"])
def test_empty_lines_between_structures_are_harmless(tmp_path, gap):
    texts = [to_extxyz([f]) for f in frames(12)]
    text = "".join(texts[:4]) + gap + "".join(texts[4:9]) + gap + "".join(texts[9:])
    assert [f.label.energy for f in read(tmp_path, text)] == [-k for k in range(1, 13)]
    assert len(read(tmp_path, gap + text + gap)) == 12


def test_a_byte_order_mark_and_foreign_line_ends_lose_nothing(tmp_path):
    text = to_extxyz(frames(3))
    assert len(read(tmp_path, "\ufeff" + text)) == 3
    (tmp_path / "y.xyz").write_bytes(text.replace("\n", "\r\n").encode())
    assert len(list(read_extxyz(tmp_path / "y.xyz"))) == 3
    (tmp_path / "z.xyz.gz").write_bytes(gzip.compress((text + "\n" + text).encode()))
    assert len(list(read_extxyz(tmp_path / "z.xyz.gz"))) == 6


def test_a_line_that_does_not_belong_is_named_and_not_the_end(tmp_path):
    texts = [to_extxyz([f]) for f in frames(4)]
    said = refused(tmp_path, "".join(texts[:2]) + "# end of part 1\n" + "".join(texts[2:]))
    assert said.startswith("structure 3 (counted from 1): '# end of part 1' instead of the number of atoms")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("2\n", "0\n", "0 atoms; expected at least one"),
        ("2\n", "-2\n", "-2 atoms; expected at least one"),
        (
            "REF_energy=-1.0",
            "REF_energy=-1.0 REF_energy=-2.0",
            "REF_energy appears twice, as '-1.0' and as '-2.0'",
        ),
        ("REF_energy=-1.0", 'REF_energy="-1.0 -2.0"', "expected one number"),
        ("REF_energy=-1.0", "REF_energy=low", "REF_energy is 'low'; expected one number (eV)"),
        ("REF_energy=-1.0", "REF_energy", "expected one number (eV)"),
        ("REF_energy=-1.0", "spin=two REF_energy=-1.0", "structure 1 (counted from 1)"),
        ("REF_energy=-1.0", 'charge="0 1" REF_energy=-1.0', "structure 1 (counted from 1)"),
        ("0.10000000\n", "0.10000000 7.0\n", "the line of atom 1 of 2 has 8 columns, expected 7"),
    ],
)
def test_what_cannot_be_a_labelled_structure_is_refused(tmp_path, old, new, said):
    text = to_extxyz(frames(1))
    assert old in text
    assert said in refused(tmp_path, text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("cell", "symbol", "said"),
    [
        ("", "Cu", "periodic (pbc), but a lattice vector along which the structure repeats is zero"),
        ('Lattice="5 0 0 5 0 0 0 0 5"', "Cu", "periodic (pbc), but the lattice vectors lie in one plane"),
        ('Lattice="5 0 0 0 5 0 0 0 5"', "X", "atom 1 is X, which is not an element"),
    ],
)
def test_a_structure_that_no_model_can_read_is_refused(tmp_path, cell, symbol, said):
    text = f'1\n{cell} pbc="T T T" REF_energy=-1 Properties=species:S:1:pos:R:3:REF_forces:R:3\n{symbol} 0 0 0 0 0 0\n'
    assert said in refused(tmp_path, text)


def test_plain_energy_and_forces_are_recognised_and_the_keys_named(tmp_path):
    text = to_extxyz(frames(2)).replace("REF_", "")
    assert [f.label.energy for f in read(tmp_path, text, "energy", "forces")] == [-1, -2]
    assert "write MISC.energy_key: energy, MISC.forces_key: forces" in refused(tmp_path, text)
    with pytest.raises(SettingsError, match="write --energy-key energy, --forces-key forces"):
        list(read_labelled(tmp_path / "x.xyz", LabelKeys(option="--{}-key")))


def test_a_file_whose_structures_use_different_keys_is_refused_with_the_structure(tmp_path):
    one, two = (to_extxyz([f]) for f in frames(2))
    assert refused(tmp_path, one + two.replace("REF_", "")).startswith(
        "structure 2 (counted from 1): no REF_energy"
    )


# ---------------------------------------------------------------- virials and stress


@pytest.mark.parametrize(
    "written",
    [
        numbers(VIRIAL),
        numbers([VIRIAL[0, 0], VIRIAL[1, 1], VIRIAL[2, 2], VIRIAL[1, 2], VIRIAL[0, 2], VIRIAL[0, 1]]),
        "_JSON " + str(VIRIAL.tolist()),
    ],
    ids=["nine", "Voigt", "3x3"],
)
def test_virials_become_stress_with_the_opposite_sign_over_the_volume(tmp_path, written):
    (found,) = read(tmp_path, crystal(f'REF_virials="{written}"'))
    np.testing.assert_allclose(found.label.stress, STRESS, atol=1e-9)
    assert found.label.stress[0, 0] == pytest.approx(-0.02)
    assert "REF_virials" not in found.origin


def test_a_stress_key_that_says_virials_is_read_as_virials(tmp_path):
    text = crystal(f'virials="{numbers(VIRIAL)}"')
    (found,) = read(tmp_path, text, "REF_energy", "REF_forces", "virials")
    np.testing.assert_allclose(found.label.stress, STRESS, atol=1e-9)
    (found,) = read(tmp_path, text, "REF_energy", "REF_forces", "REF_stress", "virials")
    np.testing.assert_allclose(found.label.stress, STRESS, atol=1e-9)


def test_stress_and_virials_of_one_structure_must_agree(tmp_path):
    virials = f'REF_virials="{numbers(VIRIAL)}"'
    (found,) = read(tmp_path, crystal(f'REF_stress="{numbers(STRESS)}" {virials}'))
    np.testing.assert_allclose(found.label.stress, STRESS, atol=1e-9)
    said = refused(tmp_path, crystal(f'REF_stress="{numbers(-STRESS)}" {virials}'))
    assert "REF_stress and REF_virials have opposite signs (expected stress = −virials/V" in said
    assert "differ (expected" in refused(tmp_path, crystal(f'REF_stress="{numbers(VIRIAL)}" {virials}'))


@pytest.mark.parametrize(
    ("header", "pbc", "said"),
    [
        ('REF_virials="1 2 3"', "T T T", "REF_virials has 3 numbers; expected 6 (xx yy zz yz xz xy) or 9"),
        ('REF_stress="1 2 3 4"', "T T T", "REF_stress has 4 numbers"),
        ("REF_stress=none", "T T T", "REF_stress is 'none'; expected 6 or 9 numbers"),
        ('REF_virials="1 1 1 0 0 0"', "T T F", "not periodic in three directions: it has no volume"),
        ('REF_virials="nan 1 1 0 0 0"', "T T T", "the stress is NaN"),
    ],
)
def test_tensors_that_are_none_are_refused(tmp_path, header, pbc, said):
    assert said in refused(tmp_path, crystal(header, pbc=pbc))


# ---------------------------------------------------------------- the limits of the reference


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (crystal("", forces="150000 0 0"), "force 1.5e+05 eV/Å on atom 0; limit 1000 eV/Å"),
        (crystal('REF_stress="-251 0 0 0 0 0"'), "stress 251 eV/Å³; limit 100 eV/Å³"),
        (crystal("").replace("=-1.0", "=-1e9"), "energy -1e+09 eV is outside"),
        (crystal("").replace("=-1.0", "=5000"), "energy 5000 eV is outside"),
    ],
)
def test_a_label_that_the_reference_could_not_give_is_refused_from_a_file_too(tmp_path, text, said):
    found = refused(tmp_path, crystal("") + text)
    assert found.startswith(f"structure 2 (counted from 1): {said}")
    assert found.endswith("; correct or remove this structure")


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name", ["001", "F", "1e3", "True", "nan", "a b", 'say "x"', "back\\slash", "1 2 3", "ü"]
)
def test_a_frame_keeps_its_name_whatever_it_looks_like(tmp_path, name):
    frame = LabelledFrame(
        frames(1)[0].frame, frames(1)[0].label, {"system": name, "sampler": name, "step": 3}
    )
    (found,) = read(tmp_path, to_extxyz([frame]))
    assert found.origin == {"system": name, "sampler": name, "step": 3}
    (again,) = read(tmp_path, to_extxyz([found]))
    assert again.origin == found.origin
    from aims_pax.report.tolerant_readers import structure_headers

    assert [s.system for s in structure_headers(tmp_path / "x.xyz")] == [name]


def test_a_name_that_a_user_wrote_without_quotes_stays_one(tmp_path):
    (found,) = read(
        tmp_path, to_extxyz(frames(1)).replace("REF_energy", "system=001 config_type=F REF_energy")
    )
    assert (found.origin["system"], found.origin["config_type"]) == ("001", "F")


@pytest.mark.parametrize(
    ("header", "column", "said"),
    [
        ("Charge=1", "", "Charge=1: write it as charge="),
        ("charge=1 mult=2", "", "mult=2: write it as spin="),
        ('cell="5 0 0 0 5 0 0 0 5"', "", "write the cell as Lattice="),
        ("", ":mass:R:1", "rename it to masses"),
    ],
)
def test_what_geometry_files_may_not_call_otherwise_labelled_files_may_not_either(
    tmp_path, header, column, said
):
    """Read as a neutral molecule, a cation would be labelled and trained on as one."""
    text = f"1\nREF_energy=-1 {header} Properties=species:S:1:pos:R:3:REF_forces:R:3{column}\nH 0 0 0 0 0 0"
    assert said in refused(tmp_path, f"{text} {2.014 if column else ''}\n")


def test_a_cell_beside_a_lattice_is_a_remark(tmp_path):
    (labelled,) = read(tmp_path, crystal('cell="5 0 0 0 5 0 0 0 5"'))
    assert labelled.frame.cell[0, 0] == 4.0


@pytest.mark.parametrize(("xy", "fits"), [(0.1, True), (-0.1, False), (0.0, False)])
def test_a_stress_that_is_not_symmetric_is_refused(tmp_path, xy, fits):
    path = tmp_path / "x.xyz"
    cell = 'Lattice="4 0 0 0 4 0 0 0 5" pbc="T T T"'
    stress = f'REF_stress="0.01 0.1 0 {xy} 0.02 0 0 0 0.03"'
    columns = "Properties=species:S:1:pos:R:3:REF_forces:R:3"
    path.write_text(f"1\n{cell} {columns} REF_energy=-1.0 {stress}\nCu 0 0 0 0 0 0\n")
    if not fits:
        with pytest.raises(SettingsError, match="not symmetric"):
            list(read_extxyz(path))
        return
    (one,) = read_extxyz(path)
    assert one.label.stress[0, 1] == one.label.stress[1, 0] == 0.1


def test_labels_that_state_another_unit_are_refused_and_comments_beside_cell_vectors_are_read(tmp_path):
    path = tmp_path / "data.xyz"
    columns = "Properties=species:S:1:pos:R:3:REF_forces:R:3"
    path.write_text(f"1\n{columns} REF_energy=-0.5 energy_unit=Hartree\nH 0 0 0 0 0 0\n")
    with pytest.raises(SettingsError, match=r"structure 1 .*: energy_unit=Hartree: labels are read in eV"):
        list(read_labelled(path))
    path.write_text("1\ncharge=1\nH 0 0 0\nVEC1 5 0 0\nVEC2 0 5 0\nVEC3 0 0 5\n")
    ((_, atoms),) = read_structures(path)
    assert atoms.info["charge"] == 1


def test_an_asymmetric_stress_under_ases_own_name_is_refused_too(tmp_path):
    file = tmp_path / "a.xyz"
    head = 'Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1 stress="{}"'
    file.write_text(f"1\n{head.format('1 2 3 4 5 6 7 8 9')}\nH 0 0 0 0 0 0\n")
    with pytest.raises(SettingsError, match=r"structure 1 .*stress is not symmetric"):
        list(read_labelled(file, LabelKeys("energy", "forces", "stress")))


@pytest.mark.parametrize("header", ["", 'Lattice="9 0 0 0 9 0 0 0 9" config_type=IsolatedAtom '])
def test_an_isolated_atom_needs_no_forces(tmp_path, header):
    file = tmp_path / "a.xyz"
    file.write_text(f"1\n{header}Properties=species:S:1:pos:R:3 REF_energy=-13.6\nH 0 0 0\n")
    (atom,) = read_labelled(file)
    assert atom.label.forces.tolist() == [[0.0, 0.0, 0.0]]


def test_an_atom_in_a_cell_without_that_mark_is_a_crystal_and_needs_forces(tmp_path):
    file = tmp_path / "a.xyz"
    file.write_text(
        '1\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3 REF_energy=-13.6\nH 0 0 0\n'
    )
    with pytest.raises(SettingsError, match="no REF_forces"):
        list(read_labelled(file))


def test_gradients_are_no_forces(tmp_path):
    file = tmp_path / "a.xyz"
    file.write_text("1\nProperties=species:S:1:pos:R:3:gradient:R:3 REF_energy=-13.6\nH 0 0 0 1 0 0\n")
    with pytest.raises(SettingsError, match=r"MISC\.forces_key names gradient: .*opposite sign"):
        list(read_labelled(file, LabelKeys(forces="gradient")))
