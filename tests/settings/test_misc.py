"""MISC of aimsPAX.yaml: what its keys take."""

import pytest
from pydantic import ValidationError

from aims_pax.settings.misc import MiscSettings


@pytest.mark.parametrize("files", ["a.xyz", ["a.xyz", "b.xyz"]])
def test_geometries_are_a_path_or_a_list(files):
    kept = MiscSettings(path_to_geometry=files).path_to_geometry
    assert kept == (files if isinstance(files, str) else tuple(files))
    with pytest.raises(ValidationError, match="expected at least one"):
        MiscSettings(path_to_geometry=[])
