"""What training refuses, and what it takes from the data."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.labelled_data import structure_text
from aims_pax.models.diffusion.model_files import plain_values
from aims_pax.models.diffusion.training_data import (
    DataSummary,
    architecture_for,
    check_number,
    graphs_for,
    noisers_for,
    property_of,
    read_for_diffusion,
    split_held_out,
    summarise,
)
from tests.models.diffusion.structures import CONFINED, adsorbates, graphs, settings, trimers


@pytest.mark.parametrize(
    ("asked", "pbc", "walls", "expected"),
    [
        (["auto"], (0, 0, 0), None, ("Positions",)),
        (["auto", "Types"], (1, 1, 1), None, ("CellPositions", "Types")),
        (["auto"], (1, 1, 0), (0.0, 5.0), ("ConfinedCellPositions",)),
        (["Types"], (1, 1, 0), None, ("Types",)),
        (["auto"], (1, 1, 0), None, "confinement: mandatory"),
        (["Positions"], (1, 1, 1), None, "Positions is for molecules"),
        (["CellPositions"], (0, 0, 0), None, "periodic along 3 axes"),
        (["CellPositions"], (1, 1, 1), (0.0, 5.0), "belong together"),
    ],
)
def test_the_noiser_follows_from_periodicity_and_confinement(asked, pbc, walls, expected):
    if isinstance(expected, tuple):
        assert noisers_for(asked, pbc, walls) == expected
    else:
        with pytest.raises(SettingsError, match=expected):
            noisers_for(asked, pbc, walls)


def test_few_structures_are_refused_with_their_number_or_allowed_on_purpose():
    own = graphs(trimers(99))
    with pytest.raises(SettingsError, match=r"99 structures of Ar3; .*allow_small"):
        check_number(own, False, False)
    assert "99 structures" in check_number(own, False, True)
    assert check_number(graphs(trimers(100)), False, False) is None
    mixed = [*graphs(trimers(99)), *graphs([Frame([10, 10], [[0, 0, 0], [3, 0, 0]])])]
    assert check_number(mixed, True, False) is None, "with types all structures count together"
    with pytest.raises(SettingsError, match="1 structure of Ne2"):
        check_number(mixed, False, False)


def test_atoms_outside_the_walls_are_refused_with_their_structure():
    frames = adsorbates(3)
    with pytest.raises(
        SettingsError, match=r"structure 1 .*free atoms reach from .* outside the confinement 1 … 2"
    ):
        graphs(frames, confinement=(1.0, 2.0))
    tilted = Frame([29, 79], [[0, 0, 0], [1, 1, 2]], [[5, 0, 0.5], [0, 5, 0], [0, 0, 15]], True)
    with pytest.raises(SettingsError, match="in the xy plane"):
        graphs([tilted], confinement=(-1.0, 3.0))
    with pytest.raises(SettingsError, match="all atoms are fixed"):
        graphs([Frame([29], [[0, 0, 0]], fixed=[True])])


def test_a_property_is_read_under_its_name_and_missing_ones_are_named(tmp_path):
    atoms = [f.to_atoms() for f in trimers(3)]
    for k, a in enumerate(atoms):
        a.info["REF_energy"] = -0.1 * k
    (tmp_path / "a.xyz").write_text("".join(structure_text(a) for a in atoms))
    found = read_for_diffusion(tmp_path / "a.xyz", "energy")
    assert [p["energy"] for _, p in found] == pytest.approx([0, -0.1, -0.2])
    assert [f.formula for f, _ in found] == ["Ar3"] * 3
    with pytest.raises(SettingsError, match=r"a\.xyz, structure 1: has no gap; it has"):
        read_for_diffusion(tmp_path / "a.xyz", "gap")
    with pytest.raises(SettingsError, match="no such file"):
        read_for_diffusion(tmp_path / "b.xyz", None)


def test_the_architecture_has_the_elements_scales_and_property_of_the_data():
    frames = [(f, {"energy": float(k)}) for k, f in enumerate(adsorbates(10))]
    asked = settings(**CONFINED, conditioning="energy")
    made = architecture_for(graphs_for(frames, asked), asked)
    assert made.vocabulary == (29, 46, 79)
    assert (made.classes, made.centre) == (1, 4.5)
    assert made.sigma_max == pytest.approx(3.0), "the distance of the walls, more than half a cell vector"
    assert architecture_for(graphs(trimers(40)), settings()).sigma_centre == pytest.approx(
        0.3 * 3.8, rel=0.03
    ), "a part of the distance of nearest neighbours"
    integer = settings(**CONFINED, conditioning="energy", conditioning_type="integer")
    assert architecture_for(graphs_for(frames, integer), integer).classes == 10
    few = integer.model_copy(update={"n_classes": 4})
    with pytest.raises(SettingsError, match="class 9"):
        architecture_for(graphs_for(frames, few), few)
    halves = [(f, {"energy": p["energy"] / 2}) for f, p in frames]
    with pytest.raises(SettingsError, match="not a whole number"):
        architecture_for(graphs_for(halves, integer), integer)


def test_a_summary_survives_as_plain_values():
    for own in (graphs(trimers(5)), graphs(adsorbates(5), **CONFINED)):
        before = summarise(own)
        assert plain_values(DataSummary, before.plain(), "data") == before
    assert summarise(graphs(trimers(5))).nearest["Ar-Ar"] == pytest.approx(3.8, abs=0.3)


def test_the_held_out_part_depends_on_the_seed_alone():
    train, held = split_held_out(50, 0.1, 3)
    assert sorted(train + held) == list(range(50))
    assert len(held) == 5
    assert split_held_out(50, 0.1, 3) == (train, held)
    assert split_held_out(50, 0.1, 4) != (train, held)
    assert split_held_out(1, 0.9, 0) == ([0], [])


def changed(frame, **info):
    atoms = frame.to_atoms()
    atoms.info |= info
    return atoms


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda a: a.positions.__setitem__((1, 2), np.nan),
            "structure 2: the position of atom 2 is not a finite number",
        ),
        (lambda a: a.set_pbc(True), "structure 2: periodic, but its cell has no volume"),
        (lambda a: a.set_cell(np.full((3, 3), np.inf)), "structure 2: the cell is not finite"),
        (lambda a: (a.set_cell([[0, 5, 0], [5, 0, 0], [0, 0, 5]]), a.set_pbc(True)), "left-handed"),
        (lambda a: a.info.update(Charge=1), "write it as charge"),
        (lambda a: a.info.update(q=True), "q is True; write classes as 0 and 1"),
        (lambda a: a.info.update(REF_q=7.0), "q=1.0 and REF_q=7.0 differ"),
        (lambda a: a.info.update(q="low"), "expected one number"),
        (lambda a: a.info.pop("q"), "has no q"),
    ],
    ids=lambda value: "change" if callable(value) else str(value),
)
def test_a_structure_that_cannot_be_used_is_named(change, said, tmp_path):
    import ase.io

    images = [changed(f, q=1.0) for f in trimers(3)]
    change(images[1])
    ase.io.write(tmp_path / "data.traj", images)
    with pytest.raises(SettingsError, match=said):
        read_for_diffusion(tmp_path / "data.traj", "q")


def test_what_is_not_learnt_is_said(tmp_path, caplog):
    import ase.io

    images = [f.to_atoms() for f in trimers(3)]
    for atoms in images:
        atoms.set_masses([1.0, 2.0, 3.0])
        atoms.set_initial_magnetic_moments([1.0, 0.0, 0.0])
    ase.io.write(tmp_path / "data.traj", images)
    with caplog.at_level("WARNING"):
        read_for_diffusion(tmp_path / "data.traj", None)
    assert "masses, moments are not learnt" in caplog.text


def test_atoms_in_one_place_are_refused_and_far_ones_said(caplog):
    near, far = trimers(2)
    near = near.moved(np.array([[0, 0, 0], [0.1, 0, 0], [4, 0, 0]]))
    with pytest.raises(SettingsError, match=r"atoms 1 and 2 are 0.10 Å apart"):
        graphs_for([(near, {})], settings())
    far = far.moved(np.array([[0, 0, 0], [3.8, 0, 0], [500, 0, 0]]))
    with caplog.at_level("WARNING"):
        graphs_for([(far, {})], settings())
    assert "1 of 1 structures (the first: 1) have an atom more than 8 Å from all others" in caplog.text
    with pytest.raises(SettingsError, match="one atom alone"):
        graphs_for([(far.chosen(np.array([0]), far.positions[:1]), {})], settings())


def test_a_property_that_is_the_same_everywhere_and_one_element_alone_teach_nothing():
    data = [(f, {"q": 2.0}) for f in trimers(3)]
    asked = settings(conditioning="q")
    with pytest.raises(SettingsError, match="q is 2 in all structures"):
        architecture_for(graphs_for(data, asked), asked)
    asked = settings(noisers=("Types",))
    with pytest.raises(SettingsError, match="one element only"):
        architecture_for(graphs_for(data, asked), asked)


def test_copies_do_not_count():
    own = graphs(trimers(60))
    with pytest.raises(SettingsError, match="60 different structures of Ar3; from fewer than 100"):
        check_number(own + own, types=False, allow_small=False)
    many = graphs(trimers(110))
    assert check_number(many, types=False, allow_small=False) is None
    assert check_number(many + many[:5], types=False, allow_small=False) == (
        "5 of 115 structures are copies of others"
    )


def test_files_of_other_programs_are_read_or_refused_as_a_geometry_is(tmp_path, caplog):
    ion = "ion\n  made\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n{}M  CHG  1   1   1\nM  END\n$$$$\n"
    atom = "    0.0000    0.0000    {}.0000 Na  0  0  0  0  0  0\n"
    (tmp_path / "ions.sdf").write_text("".join(ion.format(atom.format(k)) for k in range(3)))
    frames = [f for f, _ in read_for_diffusion(tmp_path / "ions.sdf", None)]
    assert [f.charge for f in frames] == [1, 1, 1]
    assert [f.positions[0, 2] for f in frames] == [0, 1, 2]
    (tmp_path / "alloy.cif").write_text(
        "data_a\n_cell_length_a 3.7\n_cell_length_b 3.7\n_cell_length_c 3.7\n_cell_angle_alpha 90\n"
        "_cell_angle_beta 90\n_cell_angle_gamma 90\nloop_\n_atom_site_label\n_atom_site_type_symbol\n"
        "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n"
        "Cu1 Cu 0 0 0 0.5\nPd1 Pd 0 0 0 0.5\n"
    )
    with pytest.raises(SettingsError, match="partial occupancy"):
        read_for_diffusion(tmp_path / "alloy.cif", None)


@pytest.mark.parametrize("pbc", [True, False])
def test_one_atom_alone_has_nothing_to_learn(pbc):
    with pytest.raises(SettingsError, match="one atom alone has no structure"):
        graphs([Frame([13], [[0, 0, 0]], 4 * np.eye(3), [pbc] * 3)])


def test_a_left_handed_cell_is_not_turned_upside_down():
    frame = Frame([13, 13], [[0, 0, 0], [1, 1, 2]], [[0, 4, 0], [4, 0, 0], [0, 0, 12]], [True, True, False])
    with pytest.raises(SettingsError, match=r"structure 1 .*left-handed"):
        graphs([frame], canonical_cell=True, confinement=(-1, 4))


def test_a_property_is_also_what_a_method_of_the_structure_returns():
    atoms = bulk("Cu", a=3.6)
    assert property_of(atoms, "volume") == pytest.approx(3.6**3 / 4)
    atoms.info["volume"] = 7.0
    assert property_of(atoms, "volume") == 7.0, "what is written comes first"
    for name in ("potential_energy", "nothing"):  # no calculator, no such method
        with pytest.raises(SettingsError, match=f"has no {name}"):
            property_of(atoms, name)
    atoms.calc = SinglePointCalculator(atoms, energy=-3.5)
    assert property_of(atoms, "potential_energy") == -3.5
    with pytest.raises(SettingsError, match="expected one number"):
        property_of(atoms, "positions")
