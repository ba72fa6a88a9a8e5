import numpy as np
import pytest

from aims_pax.report.distances import pairs
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
