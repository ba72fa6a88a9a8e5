"""Labels of a surrogate never pass for those of a reference, whatever file they come in."""

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.given_data import read_given
from aims_pax.labelled_data import LabelKeys, to_extxyz
from aims_pax.surrogate_labels import is_surrogate_copy, refuse_surrogate_labels

PLAIN = LabelledFrame(Frame([1, 1], [[0, 0, 0], [0.74, 0, 0]]), Label(-1.0, np.zeros((2, 3))))
COPY = LabelledFrame(PLAIN.frame, PLAIN.label, {"provenance": "surrogate:abc"})


def test_copies_are_known_by_their_provenance():
    assert is_surrogate_copy(COPY)
    assert not is_surrogate_copy(PLAIN)
    refuse_surrogate_labels([PLAIN], "used for testing")
    with pytest.raises(SettingsError, match="1 of 2 structures have labels of a surrogate"):
        refuse_surrogate_labels([PLAIN, COPY], "used for testing")


@pytest.mark.parametrize("use", ["train", "valid", "test"])
def test_a_file_with_copies_is_no_data_of_a_run(tmp_path, use):
    path = tmp_path / "given.xyz"
    path.write_text(to_extxyz([PLAIN]))
    assert len(read_given(path, "given.xyz", use, LabelKeys(), ()).frames) == 1
    path.write_text(to_extxyz([PLAIN, COPY]))
    with pytest.raises(SettingsError, match=r"given\.xyz: 1 of 2 structures have labels of a surrogate"):
        read_given(path, "given.xyz", use, LabelKeys(), ())
