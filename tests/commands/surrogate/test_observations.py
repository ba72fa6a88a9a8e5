"""Folders of other searches and damaged files are refused; a failing reference ends the search with its reason."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule

from aims_pax.commands.surrogate.observations import SearchEnded, largest_force
from aims_pax.commands.surrogate.relax import relax_on_surrogate
from aims_pax.errors import RestartError
from aims_pax.frames import Frame


def test_a_folder_with_other_files_or_a_damaged_one_is_refused(search):
    ase.io.write("start.xyz", molecule("H2O"))
    Path("relax").mkdir()
    Path("relax/labelled.xyz").write_text("mine")
    with pytest.raises(RestartError, match="holds other files"):
        search(relax_on_surrogate, structure="start.xyz")
    Path("relax/restart.npy").write_bytes(b"torn")
    with pytest.raises(RestartError, match="to begin again"):
        search(relax_on_surrogate, structure="start.xyz")


def test_a_reference_that_fails_ends_the_search_with_its_reason(search):
    ase.io.write("start.xyz", molecule("H2O"))
    with pytest.raises(SearchEnded, match=r"the reference failed: Crashed: .*out of order"):
        search(relax_on_surrogate, structure="start.xyz", reference={"factory": "counted:broken"})


def test_fixed_components_do_not_count():
    frame = Frame([1, 1], [[0, 0, 0], [1.0, 0, 0]], fixed=np.array([[True, False, False], [False] * 3]))
    assert largest_force(frame, np.array([[9.0, 1, 0], [0, 0.5, 0]])) == 1
