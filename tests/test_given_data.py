"""What is said of given files: duplicates, overlaps of sets, stress that is missing or improbable."""

from dataclasses import replace

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.given_data import GivenFile, read_given, remarks, undetermined_energies
from aims_pax.labelled_data import LabelKeys, to_extxyz

KEYS = LabelKeys()


def frame(k, energy=None, stress=None, numbers=(1, 9), pbc=False):
    positions = np.arange(3.0 * len(numbers)).reshape(-1, 3) + 0.01 * k
    cell = np.diag([9.0, 9.0, 9.0]) if pbc else np.zeros((3, 3))
    label = Label(-k if energy is None else energy, np.full((len(numbers), 3), 0.1), stress)
    return LabelledFrame(Frame(numbers, positions, cell, [pbc] * 3), label)


def said(*files, stress=False):
    return "\n".join(remarks(files, KEYS, stress))


def test_the_second_label_of_a_structure_is_said_with_both_places():
    text = said(GivenFile("train.xyz", "train", (frame(1), frame(2), frame(1, energy=4.0))))
    assert "train.xyz: 1 structure is duplicated with different labels" in text
    assert "structure 3 is the same as 1 (counted from 1), its energy differs by +5 eV" in text


def test_identical_structures_are_counted():
    text = said(GivenFile("train.xyz", "train", (frame(1), frame(1), frame(1), frame(2))))
    assert "2 structures are duplicated with the same label, such as 2 and 1" in text


@pytest.mark.parametrize(("use", "what"), [("valid", "training error"), ("test", "would be meaningless")])
def test_what_is_trained_on_and_tested_with_is_said(use, what):
    train = GivenFile("train.xyz", "train", (frame(1), frame(2), frame(3)))
    text = said(train, GivenFile("other.xyz", use, (frame(3, energy=7.0), frame(4))))
    assert "other.xyz: 1 of its 2 structures are the same as in train.xyz" in text
    assert what in text
    assert not said(train, GivenFile("other.xyz", use, (frame(4),)))


def test_a_test_on_structures_of_the_validation_set_is_said():
    train, valid = (
        GivenFile("train.xyz", "train", (frame(1),)),
        GivenFile("valid.xyz", "valid", (frame(2), frame(3))),
    )
    text = said(train, valid, GivenFile("mine.xyz", "test", (frame(3), frame(4))))
    assert "mine.xyz: 1 of its 2 structures are the same as in valid.xyz" in text
    assert "the test would repeat the validation" in text


def test_the_same_file_for_two_members_is_no_duplicate():
    train = GivenFile("train.xyz", "train", (frame(1), frame(2)))
    assert not said(train, train)


def lone(number, energy, place, **electrons):
    label = Label(energy, np.zeros((1, 3)))
    return LabelledFrame(Frame([number], [[0, 0, 0]], **electrons), label, {"source": f"given:t.xyz#{place}"})


def test_lone_ions_and_excited_atoms_are_said():
    atoms = (lone(6, -1000.0, 1, spin=3), lone(6, -998.0, 2, spin=1), lone(1, -0.4, 3, charge=1))
    text = said(GivenFile("t.xyz", "train", (*atoms, frame(1))))
    assert (
        "isolated C atoms have energies from -1000 (t.xyz#1, multiplicity 3) to -998 eV (t.xyz#2, multiplicity 1): the "
        "lowest is taken as the ground state" in text
    )
    assert "t.xyz: 1 single ion, such as structure 3 (counted from 1; H, charge +1)" in text
    assert not said(GivenFile("t.xyz", "train", (atoms[0], frame(1))))


def test_a_stress_that_is_wanted_and_nowhere_is_said():
    files = GivenFile("train.xyz", "train", (frame(1, pbc=True), frame(2, pbc=True), frame(3)))
    assert "none of its 2 periodic structures has a stress (looked for REF_stress and REF_virials)" in said(
        files, stress=True
    )
    assert not said(files)
    some = replace(files, frames=(*files.frames, frame(4, stress=np.eye(3) * 0.01, pbc=True)))
    assert "only 1 of its 3 periodic structures have a stress" in said(some, stress=True)


def test_a_stress_in_other_units_or_virials_are_suspected():
    files = GivenFile("train.xyz", "train", (frame(1, stress=np.eye(3) * 2.5, pbc=True),))
    assert (
        "structure 1 (counted from 1): a stress of 2.5 eV/Å³ = 401 GPa; expected eV/Å³: are these virials"
        in said(files)
    )


def test_every_given_structure_knows_its_file_and_place(tmp_path):
    path = tmp_path / "mine.xyz"
    path.write_text(to_extxyz([frame(1), frame(2)]))
    found = read_given(path, "data/mine.xyz", "train", KEYS, ())
    assert [f.origin["source"] for f in found.frames] == ["given:data/mine.xyz#1", "given:data/mine.xyz#2"]


@pytest.mark.parametrize(
    ("weight", "refusal"),
    [
        ({"config_weight": 0.25, "config_forces_weight": 1.0}, None),
        ({"config_weight": -1}, "config_weight=-1: expected a number of at least 0"),
        ({"config_weight": "much"}, "config_weight=much: expected a number"),
        *(
            (
                {f"config_{name}_weight": 0},
                f"config_{name}_weight=0: .* write it as config_weight=…, or remove",
            )
            for name in ("energy", "forces", "stress", "virials")
        ),
    ],
)
def test_the_weight_of_a_structure_is_kept_and_those_of_its_labels_are_refused(weight, refusal, tmp_path):
    path = tmp_path / "t.xyz"
    path.write_text(to_extxyz([frame(1), replace(frame(2), origin=weight)]))
    assert len(read_given(path, "t.xyz", "test", KEYS, ()).frames) == 2
    if refusal is not None:
        with pytest.raises(SettingsError, match=rf"t\.xyz, structure 2 \(counted from 1\): {refusal}"):
            read_given(path, "t.xyz", "train", KEYS, ())
        return
    assert read_given(path, "t.xyz", "train", KEYS, ()).frames[1].origin["config_weight"] == 0.25


def test_energies_of_atoms_that_follow_from_nothing_are_said():
    water = frame(1, numbers=(8, 1, 1))
    assert "one composition does not fix 2 elements" in undetermined_energies(
        [water, frame(2, numbers=(8, 1, 1))]
    )
    assert undetermined_energies([water, frame(1, numbers=(1, 1))]) is None
    multiples = [water, frame(1, numbers=(8, 8, 1, 1, 1, 1))]
    assert "one composition does not fix 2 elements" in undetermined_energies(multiples)
    assert "meaningless" in undetermined_energies(multiples)
    tuned = undetermined_energies(multiples, fine_tuned=True)
    assert "those of the foundation model with the smallest change that fits" in tuned
    assert "meaningless" not in tuned


def test_zeros_in_place_of_the_forces_on_fixed_atoms_are_refused(tmp_path):
    """ASE and FHI-aims print zero for fixed atoms; slabs would train on these zeros."""
    path = tmp_path / "slabs.xyz"
    fixed = replace(frame(1).frame, fixed=[True, False])

    def read(forces):
        path.write_text(to_extxyz([frame(2), LabelledFrame(fixed, Label(-1.0, np.array(forces)))]))
        return read_given(path, "slabs.xyz", "train", KEYS, ())

    with pytest.raises(
        SettingsError, match=r"structure 2 \(counted from 1\): all forces on its fixed atoms are .* zero"
    ):
        read([[0, 0, 0], [0, 0, 0.3]])
    assert len(read([[0, 0, -0.3], [0, 0, 0.3]]).frames) == 2
    assert len(read([[0, 0, 0], [0, 0, 0]]).frames) == 2  # at rest, by symmetry


def test_charges_and_multiplicities_that_cannot_be_are_refused_in_given_data(tmp_path):
    path = tmp_path / "ions.xyz"
    for spin, possible in ((1, False), (2, True)):
        cation = replace(frame(1, numbers=(1, 1)).frame, charge=1, spin=spin)
        path.write_text(to_extxyz([LabelledFrame(cation, Label(-1.0, np.zeros((2, 3))))]))
        if possible:
            assert read_given(path, "ions.xyz", "test", KEYS, ()).frames[0].frame.spin == 2
        else:
            with pytest.raises(
                SettingsError, match=r"structure 1 .* cannot have multiplicity 1: expected an even"
            ):
                read_given(path, "ions.xyz", "test", KEYS, ())


def test_a_multiplicity_without_a_charge_must_be_possible_for_a_neutral_structure(tmp_path):
    path = tmp_path / "water.xyz"
    water = replace(frame(1, numbers=(8, 1, 1)).frame, spin=2)
    path.write_text(to_extxyz([LabelledFrame(water, Label(-1.0, np.zeros((3, 3))))]))
    with pytest.raises(
        SettingsError, match=r"cannot have multiplicity 2: .*no charge=… is written, which counts as 0"
    ):
        read_given(path, "water.xyz", "train", KEYS, ())
    path.write_text(to_extxyz([LabelledFrame(replace(water, charge=1), Label(-1.0, np.zeros((3, 3))))]))
    assert len(read_given(path, "water.xyz", "train", KEYS, ()).frames) == 1


def test_stresses_that_are_zeros_or_are_not_learned_are_said():
    slab = frame(2, stress=np.eye(3), pbc=True)
    slab = replace(slab, frame=replace(slab.frame, pbc=[True, True, False]))
    files = GivenFile(
        "t.xyz", "train", (frame(1, stress=np.zeros((3, 3)), pbc=True), slab, frame(3, pbc=True))
    )
    text = said(files, stress=True)
    assert "t.xyz: the stress of 1 of its structures is exactly zero, the first is structure 1" in text
    assert "t.xyz: the stress of 1 of its structures is not learned, the first is structure 2" in text
    assert "exactly zero" not in said(files)


@pytest.mark.parametrize(
    ("key", "other", "energies", "expected"),
    [
        (
            "energy",
            "free_energy",
            (-5.0, -5.3),
            "energy and free_energy differ by up to 0.3 eV (150 meV/atom)",
        ),
        ("energy", "free_energy", (-5.0, -5.0), None),
        ("free_energy", "energy", (-5.3, -5.0), None),
        (
            "dft_energy",
            "dft_free_energy",
            (-5.0, -5.3),
            "dft_energy and dft_free_energy differ by up to 0.3 eV",
        ),
        ("REF_energy", "free_energy", (-5.0, -7.0), None),  # of another method
    ],
)
def test_energies_that_the_forces_are_no_derivative_of_are_said(tmp_path, key, other, energies, expected):
    """ASE writes both; with VASP, `energy` is extrapolated to zero smearing."""
    path = tmp_path / "metal.xyz"
    columns = "Properties=species:S:1:pos:R:3:forces:R:3"
    energy, second = energies
    one = f'2\n{columns} {key}={energy} {other}={second} pbc="F F F"\nH 0 0 0 0 0 1\nF 0 0 1 0 0 -1\n'
    path.write_text(one + one.replace("F 0 0 1 ", "F 0 0 1.1 ").replace(f"={second}", f"={energy}"))
    keys = LabelKeys(key, "forces")
    text = "\n".join(remarks([read_given(path, "metal.xyz", "train", keys, ())], keys, False))
    if expected is None:
        assert "free" not in text
    else:
        assert text.count(expected) == 1
        assert f"set MISC.energy_key: {other}" in text


def test_forces_that_are_all_zero_are_said():
    zero = replace(frame(2), label=Label(-2.0, np.zeros((2, 3))))
    text = said(GivenFile("train.xyz", "train", (frame(1), zero)))
    assert "all forces (REF_forces) of 1 of its structures are exactly zero, the first is structure 2" in text
    atom = LabelledFrame(Frame([1], np.zeros((1, 3))), Label(-13.6, np.zeros((1, 3))))
    assert "exactly zero" not in said(GivenFile("train.xyz", "train", (frame(1), atom)))


def test_structures_of_several_heads_are_said():
    pbe, r2scan = (replace(frame(k), origin={"head": head}) for k, head in enumerate(("pbe", "r2scan"), 1))
    text = said(GivenFile("train.xyz", "train", (pbe, r2scan, frame(3))))
    assert "several heads (head=…: 1 of pbe, 1 of r2scan)" in text
    assert "heads" not in said(GivenFile("train.xyz", "train", (pbe, frame(3))))
