"""Spectra: normalised, with the derivatives of the normalised spectra; the missing extra is named."""

import sys

import numpy as np
import pytest

from aims_pax.errors import SetupError
from aims_pax.models.gp.soap import SoapDescriptor, require_featomic
from tests.models.gp import systems


def test_without_featomic_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "featomic", None)
    with pytest.raises(SetupError, match=r"pip install 'aims-pax\[gpr\]'"):
        require_featomic()


def test_spectra_are_normalised_and_their_slopes_tangential():
    pytest.importorskip("featomic")
    descriptor = SoapDescriptor((29, 79), 5.0, 4, 3, 0.5)
    found = descriptor.of([x.frame for x in systems.alloy(2)])
    assert set(found) == {29, 79}
    copper = found[29]
    assert copper.values.shape == (6, descriptor.size)
    assert np.linalg.norm(copper.values, axis=1) == pytest.approx(1)
    along = np.einsum("gkd,gd->gk", copper.slopes, copper.values[copper.centre])
    assert np.abs(along).max() < 1e-12
    assert copper.strained is None
    bare = descriptor.of([systems.alloy(1)[0].frame], slopes=False)
    assert bare[79].slopes is None
