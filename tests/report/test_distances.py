import numpy as np
import pytest

from aims_pax.report import distances
from aims_pax.report.distances import pairs, shortest_by_pair
from aims_pax.report.tolerant_readers import StoredStructure


def test_shortest_distances_see_images_of_a_crystal():
    here = StoredStructure(
        ("H", "O"), np.array([[0.1, 0, 0], [2.9, 0, 0]]), np.eye(3) * 3.0, (True,) * 3, None
    )
    found = pairs(here)
    assert found[1, 8] == pytest.approx(0.2)
    assert found[1, 1] == pytest.approx(3.0)
    alone = StoredStructure(("H", "O"), here.positions, np.zeros((3, 3)), (False,) * 3, None)
    assert pairs(alone) == {(1, 8): pytest.approx(2.8)}


def test_a_lone_atom_has_no_distance_and_equal_elements_are_a_pair_only_of_two():
    alone = StoredStructure(("Cu",), np.zeros((1, 3)), np.zeros((3, 3)), (False,) * 3, None)
    assert pairs(alone) == {}
    far = StoredStructure(("Cu",), np.zeros((1, 3)), 20 * np.eye(3), (True,) * 3, None)
    assert pairs(far) == {}, "its images are beyond the reach"
    water = StoredStructure(
        ("O", "H", "H"), np.array([[0, 0, 0], [1.0, 0, 0], [0, 0.9, 0]]), np.zeros((3, 3)), (False,) * 3, None
    )
    assert pairs(water) == {(1, 8): pytest.approx(0.9), (1, 1): pytest.approx(np.sqrt(1.81))}


def test_each_frame_counts_once_and_of_many_some_are_taken(run, monkeypatch):
    found = shortest_by_pair(run.structures)
    water = [s for s in run.structures if s.system == "water"]
    assert len(found[1, 8]) == len(water)
    atoms = water[0].geometry()
    oxygen = atoms.numbers == 8
    d = np.linalg.norm(atoms.positions[oxygen] - atoms.positions[~oxygen], axis=1)
    assert found[1, 8][0] == pytest.approx(d.min())
    monkeypatch.setattr(distances, "MOST", 5)
    assert sum(map(len, shortest_by_pair(run.structures).values())) <= 3 * 5


def test_a_slab_without_a_third_lattice_vector_has_distances():
    slab = StoredStructure(("Cu",), np.zeros((1, 3)), np.diag([2.5, 2.6, 0.0]), (True, True, False), None)
    assert pairs(slab) == {(29, 29): pytest.approx(2.5)}
